"""A policy behind a websocket, in openpi's protocol: `openpi-client`, `gemvlm-client` and anybody's robot can ask it.

    serve_policy(policy, "0.0.0.0", 8000)            # until SIGINT or SIGTERM
    with background_server(policy) as url: ...       # for tests, and where one process does both

The first message is the server's description; then each observation is answered with a chunk of actions, one at a time
on each connection. What can't be answered is told as text and the connection closed, as openpi does. `GET /healthz`,
`/metadata` (JSON) and `/metrics` (Prometheus) answer on the same port. Messages: `robot_messages`, `robot_requests`.

Protocol: Physical-Intelligence/openpi, src/openpi/serving/websocket_policy_server.py at c4973e71;
packages/openpi-client/src/openpi_client/websocket_client_policy.py (openpi-client 0.1.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import signal
import threading
from collections.abc import Iterator
from functools import partial

from gemvlm.robot import Policy
from gemvlm.robot.limits import Limits
from gemvlm.runtime import get_log
from gemvlm.serving.robot_pages import page
from gemvlm.serving.robot_service import RobotService, ServerSettings

_LOCAL = ("127.0.0.1", "localhost", "::1")


class RobotServer:
    """Serves one policy to several robots while it is entered: `async with RobotServer(policy) as server: ...`."""

    def __init__(
        self,
        policy: Policy,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        limits: Limits | None = None,
        settings: ServerSettings | None = None,
    ) -> None:
        self.policy, self.host, self._port = policy, host, port
        self.limits = Limits() if limits is None else limits
        self.settings = ServerSettings() if settings is None else settings

    async def __aenter__(self) -> RobotServer:
        try:
            from websockets.asyncio.server import serve
        except ImportError as error:
            raise ImportError("serving a robot needs websockets: pip install 'gemvlm[serve]'") from error
        self.service = RobotService(self.policy, self.limits, self.settings)
        try:
            await self.service.warm_up()
            self._server = await serve(
                self.service.converse,
                self.host,
                self._port,
                process_request=partial(page, self.service),
                compression=None,  # a small message that unpacks to a large one is the oldest of tricks
                max_size=self.settings.max_message_bytes,
                max_queue=2,
                open_timeout=5.0,
                close_timeout=2.0,
                ping_interval=self.settings.ping_interval_s,
                ping_timeout=self.settings.ping_timeout_s,
                origins=[None],  # browsers name an origin: no page may ask a robot's policy behind its reader's back
            )
        except BaseException:
            self.service.worker.close()
            raise
        get_log().info("serving robots at %s", self.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        await asyncio.to_thread(self.service.worker.close)

    @property
    def port(self) -> int:
        """The port that robots reach; port 0 lets the system choose one."""
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        """Where a robot on this machine finds it."""
        return f"ws://{'127.0.0.1' if self.host in ('0.0.0.0', '') else self.host}:{self.port}"


def serve_policy(
    policy: Policy,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    limits: Limits | None = None,
    settings: ServerSettings | None = None,
) -> None:
    """Serves `policy` until SIGINT or SIGTERM; robots that are connected are then told that the server goes away.

    `limits` None: no workspace and no speed is cut, only observations older than half a second are refused.
    ImportError names the extra to install; OSError where the port is taken; whatever the policy raises when warmed up.
    """

    async def run() -> None:
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        async with RobotServer(policy, host, port, limits=limits, settings=settings) as server:
            if server.settings.api_key is None and host not in _LOCAL:
                get_log().warning("whoever reaches port %d may ask this policy: set an API key", server.port)
            await ended.wait()

    asyncio.run(run())


@contextlib.contextmanager
def background_server(
    policy: Policy,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    limits: Limits | None = None,
    settings: ServerSettings | None = None,
) -> Iterator[RobotServer]:
    """Serves `policy` on a thread while the block lasts; yields the server (`.url`). Raises what the start raises."""
    started: queue.SimpleQueue[tuple[RobotServer, asyncio.AbstractEventLoop, asyncio.Event] | BaseException]
    started = queue.SimpleQueue()

    async def run() -> None:
        ended = asyncio.Event()
        try:
            async with RobotServer(policy, host, port, limits=limits, settings=settings) as server:
                started.put((server, asyncio.get_running_loop(), ended))
                await ended.wait()
        except BaseException as error:  # told to the thread that waits, which raises it
            started.put(error)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="gemvlm-robot-server", daemon=True)
    thread.start()
    outcome = started.get()
    if isinstance(outcome, BaseException):
        thread.join()
        raise outcome
    server, loop, ended = outcome
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
    if not started.empty() and isinstance(late := started.get(), BaseException):
        raise RuntimeError("the server did not end well") from late
