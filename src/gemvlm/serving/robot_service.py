"""What happens on one robot's connection: greeting, observation, answer, and whatever goes wrong between them.

Whatever a robot sends or omits, whenever it leaves and however a policy fails: that robot is told why, its connection
ends, and the others are served on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gemvlm.robot import ActionChunk, Policy
from gemvlm.robot.limits import Guard, Limits
from gemvlm.runtime import get_log, versions
from gemvlm.serving.queue import Busy, Closed
from gemvlm.serving.robot_latency import Latencies
from gemvlm.serving.robot_messages import MessageError, pack, unpack
from gemvlm.serving.robot_requests import RequestError, RequestReader, Reset
from gemvlm.serving.robot_session import Session, Turn
from gemvlm.serving.robot_worker import PolicyWorker

BAD_MESSAGE, BAD_REQUEST, POLICY_FAILED, TRY_LATER = 1007, 1008, 1011, 1013
"""Close codes: RFC 6455, section 7.4.1, and 1013 of the registry that it founded."""


@dataclass(frozen=True)
class ServerSettings:
    """How much a server takes, and how patient it is.

    `api_key` None lets everybody in. `pictures` are the (height, width) that the policy learned from, by camera:
    robots are told, and it is warmed up with them; with `picture_size` where nobody says. `about` is what else robots
    are told: units, how many actions to carry out. `cameras` renames what a robot calls its cameras. `prompt` is what a
    robot is to do that does not say it. `seed` is where the seeds of an episode come from if the robot names none.
    `ping_interval_s` None: no keep-alive. An answer that takes longer than `answer_timeout_s` is given up.
    """

    api_key: str | None = None
    picture_size: tuple[int, int] = (224, 224)
    pictures: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    cameras: Mapping[str, str] = field(default_factory=dict)
    prompt: str | None = None
    seed: int = 0
    max_connections: int = 16
    max_waiting: int = 32
    max_batch: int = 8
    max_message_bytes: int = 16 * 2**20
    ping_interval_s: float | None = 20.0
    ping_timeout_s: float | None = 20.0
    answer_timeout_s: float = 30.0
    send_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.startswith(("max_", "ping_", "answer_", "send_")) and value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; it must be above 0")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.strip() == self.api_key != ""):
            raise ValueError("api_key: must be plain ASCII text without spaces around it")


class _Refused(Exception):  # noqa: N818 - mostly not our error
    """What a robot is told before its connection is closed."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class _Left(Exception):  # noqa: N818 - robots may
    """The robot went away while its answer was being computed."""


class RobotService:
    """One policy and all who ask it."""

    def __init__(self, policy: Policy, limits: Limits, settings: ServerSettings) -> None:
        Guard(policy.contract, limits)  # limits that don't fit are told now, not to the first robot
        self.policy, self.limits, self.settings = policy, limits, settings
        cameras = policy.contract.cameras
        if strange := sorted(set(settings.pictures) - set(cameras)):
            raise ValueError(f"pictures: {', '.join(strange)} are none of the policy's cameras {', '.join(cameras)}")
        self.reader = RequestReader(policy.contract, settings.cameras, settings.prompt)
        self.worker = PolicyWorker(policy, settings.max_batch, settings.max_waiting, settings.answer_timeout_s)
        self.answering = Latencies()
        self.counts = dict.fromkeys(("connections", "answers", "stops", "refusals", "failures"), 0)
        self.connected = 0
        self.description: dict[str, Any] = {}

    async def warm_up(self) -> None:
        """Asks the policy before any robot does, and writes the description that robots and people may read."""
        cameras, settings = self.policy.contract.cameras, self.settings
        sizes = {camera: settings.pictures.get(camera, settings.picture_size) for camera in cameras}
        seconds = await asyncio.to_thread(self.worker.warm_up, sizes)
        get_log().info("the policy is warm: %s", ", ".join(f"{s:.3f} s" for s in seconds))
        contract = {n: list(v) if isinstance(v, tuple) else v for n, v in vars(self.policy.contract).items()}
        self.description = {
            "server": "gemvlm",
            "versions": versions(),
            "protocol": "openpi",
            "contract": contract,
            "cameras": {name: list(settings.pictures[name]) if name in settings.pictures else None for name in cameras},
            "robot_cameras": dict(settings.cameras),
            "prompt": settings.prompt,
            "horizon": self.policy.horizon,
            **settings.about,
            "modes": ["chunk", "real_time_chunking"],
            "limits": self.limits.to_dict(),
            "max_message_bytes": self.settings.max_message_bytes,
            "warm_up_ms": [round(1000 * s, 1) for s in seconds],
        }

    @property
    def full(self) -> bool:
        return self.connected >= self.settings.max_connections

    @property
    def stuck_s(self) -> float:
        """How long the policy has been at one answer, once that is longer than anybody waits; else 0."""
        working_s = self.worker.working_s
        return working_s if working_s > self.settings.answer_timeout_s else 0.0

    async def converse(self, websocket: Any) -> None:
        """One connection, from its greeting to its end."""
        from websockets.exceptions import ConnectionClosed

        log = get_log()
        if self.full:
            await websocket.close(TRY_LATER, "too many robots are connected")
            return
        session = Session(self.policy.contract, self.policy.horizon, self.limits, self.settings.seed)
        self.connected += 1
        self.counts["connections"] += 1
        try:
            await self._send(websocket, pack(self.description))
            last_s: float | None = None
            while True:
                data = await websocket.recv()
                received_s = time.monotonic()
                reply = await self._reply(session, websocket, data, received_s, last_s)
                await self._send(websocket, pack(reply))
                last_s = time.monotonic() - received_s
        except (ConnectionClosed, _Left):
            log.debug("robot %s left", websocket.remote_address)
        except _Refused as refused:
            log.warning("robot %s was refused: %s", websocket.remote_address, refused)
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                await self._send(websocket, str(refused))
                await websocket.close(refused.code)
        except TimeoutError:
            log.warning("robot %s does not read its answers", websocket.remote_address)
            websocket.transport.abort()
        finally:
            self.connected -= 1

    async def _reply(
        self, session: Session, websocket: Any, data: bytes | str, received_s: float, last_s: float | None
    ) -> dict[str, Any]:
        try:
            if isinstance(data, str):
                raise MessageError("text came where a msgpack message was expected")
            request = self.reader.read(unpack(data, self.settings.max_message_bytes))
            if isinstance(request, Reset):
                return {"reset": True, "seed": session.reset(request.seed)}
            turn = session.begin(request, received_s)
        except (MessageError, RequestError) as error:
            self.counts["refusals"] += 1
            raise _Refused(str(error), BAD_MESSAGE if isinstance(error, MessageError) else BAD_REQUEST) from None
        reason, infer_s = session.stale(turn), 0.0
        if reason is None:
            chunk, infer_s = await self._ask(turn, websocket)
            answer = session.answer(turn, chunk, time.monotonic())
        else:
            answer = session.stop(turn, reason)
        took_s = time.monotonic() - received_s
        self.answering.add(took_s)
        self.counts["stops" if answer["stop"] else "answers"] += 1
        timing = {"infer_ms": 1000 * infer_s, "wait_ms": 1000 * (took_s - infer_s), "age_ms": 1000 * turn.age_s}
        if last_s is not None:
            timing["prev_total_ms"] = 1000 * last_s
        return answer | {"server_timing": timing | self.answering.summary_ms()}

    async def _ask(self, turn: Turn, websocket: Any) -> tuple[ActionChunk, float]:
        """The policy's chunk and the seconds that it took; given up when the robot leaves, or after too long."""
        try:
            job = self.worker.submit(turn)
        except (Busy, Closed) as error:
            self.counts["refusals"] += 1
            raise _Refused(f"busy: {error}", TRY_LATER) from None
        answer = asyncio.ensure_future(asyncio.wrap_future(job.future))
        left = asyncio.ensure_future(websocket.wait_closed())
        timeout_s = self.settings.answer_timeout_s
        try:
            await asyncio.wait({answer, left}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                if left.done():
                    raise _Left
                self.counts["failures"] += 1
                raise _Refused(f"policy: no answer within {timeout_s:g} s", POLICY_FAILED)
            failure = answer.exception()
            if failure is None:
                return answer.result()
        finally:
            answer.cancel()
            left.cancel()
        if isinstance(failure, Closed):
            raise _Refused(f"busy: {failure}", TRY_LATER)
        self.counts["failures"] += 1
        get_log().error("the policy failed", exc_info=failure)
        raise _Refused(f"policy: {type(failure).__name__}: {failure}"[:2000], POLICY_FAILED)

    async def _send(self, websocket: Any, data: bytes | str) -> None:
        async with asyncio.timeout(self.settings.send_timeout_s):
            await websocket.send(data)
