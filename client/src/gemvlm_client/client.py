"""Asks a policy server what to do, within a deadline, and comes back by itself when the connection breaks.

Works with every server of openpi's protocol; what is ours alone (deadlines that end in a stop, real-time chunking,
resets) is used only where the server's description says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from gemvlm_client.messages import pack, unpack


class ServerError(RuntimeError):
    """The server could not answer, and said why."""


class UnreachableError(ConnectionError):
    """No connection within the time allowed."""


class DeadlineError(TimeoutError):
    """No answer within the time allowed. The connection is given up: a late answer is never taken for the next."""


class ContractError(ValueError):
    """The server's policy is for another robot, or means other things by its numbers."""


@dataclass(frozen=True)
class Observation:
    """One moment: RGB pictures uint8 (height, width, 3) by camera, the robot's state, and what to do.

    `time_s` is when the pictures were taken, on the clock of the RobotClient; the server answers old ones with a stop.
    `step` counts the actions executed since the episode began.
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray
    prompt: str
    time_s: float
    step: int = 0


@dataclass(frozen=True)
class Chunk:
    """Actions (time, dimension) float32, `rate_hz` of them a second; the first belongs to the observation's `step`.

    With `stop` they keep the robot still, and `reason` says why. The first `committed` of them continue the chunk
    before. `limited` has a line for each number that the server's limits cut. `timing` is in milliseconds: `infer_ms`,
    `wait_ms`, `age_ms`, and the server's quantiles `p50_ms`, `p90_ms`, `p99_ms`.
    """

    actions: np.ndarray
    rate_hz: float
    step: int = 0
    committed: int = 0
    stop: bool = False
    reason: str = ""
    limited: tuple[str, ...] = ()
    timing: Mapping[str, float] = field(default_factory=dict)


class RobotClient:
    """A connection to a policy server. One thread at a time may ask.

    `contract` (see the server's `metadata["contract"]`) is what this robot means by its numbers: fields in which the
    server's policy differs raise ContractError. So do, at each question, cameras that the policy does not know or
    misses, and pictures of another size than it learned from (unless `any_size`), where the server says what it wants
    (`metadata["cameras"]`: [height, width] of each). `deadline_s` is how long an answer may take, reconnecting
    included; `connect_s` how long the first connection may. Between attempts it pauses from `backoff_s[0]` to
    `backoff_s[1]` seconds, twice as long each time. `clock` is the one that `Observation.time_s` is read from.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        contract: Mapping[str, Any] | None = None,
        any_size: bool = False,
        deadline_s: float = 1.0,
        connect_s: float = 30.0,
        backoff_s: tuple[float, float] = (0.05, 2.0),
        ping_interval_s: float | None = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url, self.deadline_s, self.connect_s, self.clock = url, deadline_s, connect_s, clock
        self._headers = None if api_key is None else {"Authorization": f"Api-Key {api_key}"}
        self._any_size = any_size
        self._contract, self._backoff_s, self._ping_interval_s = contract, backoff_s, ping_interval_s
        self._stack: ExitStack | None = None
        self._websocket: ClientConnection | None = None
        self._metadata: dict[str, Any] = {}
        self._answered = False
        self._seed: int | None = None
        self._lock = threading.Lock()
        self.connections = 0

    def __enter__(self) -> RobotClient:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> dict[str, Any]:
        """Connects if it is not connected; returns the server's description. UnreachableError after `connect_s`."""
        with self._lock:
            self._connected(time.monotonic() + self.connect_s)
        return self._metadata

    @property
    def metadata(self) -> dict[str, Any]:
        """The server's description: contract, horizon, limits, version. Connects if need be."""
        return self._metadata or self.connect()

    def close(self) -> None:
        """Ends the connection; the next question opens another."""
        with self._lock:
            self._drop()

    def reset(self, seed: int | None = None) -> None:
        """Tells the server that an episode begins; `seed` makes its answers repeatable, after a reconnection too."""
        self._seed = seed
        self.connect()
        if self._metadata.get("server") == "gemvlm":
            with self._lock:
                self._exchange(_reset(seed), time.monotonic() + self.deadline_s)
                self._answered = False

    def infer(
        self, observation: Observation, *, committed: int = 0, seed: int | None = None, deadline_s: float | None = None
    ) -> Chunk:
        """The chunk for an observation.

        `committed` is how many actions of the previous chunk, counted from that chunk's first, will have been executed
        when this answer is expected; the new chunk continues them. Left out after a reconnection, since the server
        then knows of no previous chunk. ContractError for an observation that is not what the policy learned from:
        nothing is sent. ServerError, DeadlineError or UnreachableError leave the client ready for the
        next question.
        """
        until_s = time.monotonic() + (self.deadline_s if deadline_s is None else deadline_s)
        message: dict[str, Any] = {f"observation/{camera}": image for camera, image in observation.images.items()}
        message["observation/state"] = np.asarray(observation.state, np.float32)
        message["prompt"] = observation.prompt
        with self._lock:
            self._connected(until_s)
            if self._metadata.get("server") == "gemvlm":
                check_observation(observation, self._metadata, self._any_size)
                message.update(step=observation.step, time_s=float(observation.time_s))
                if seed is not None:
                    message["seed"] = seed
            reply = self._exchange(message, until_s, committed)
            self._answered = True
        return _chunk(reply, observation, self._metadata)

    def _exchange(self, message: dict[str, Any], until_s: float, committed: int = 0) -> dict[str, Any]:
        """Sends a message and returns the reply, over another connection if this one breaks."""
        while True:
            websocket = self._connected(until_s)
            try:
                if self._metadata.get("server") == "gemvlm" and "reset" not in message:
                    message["sent_s"] = float(self.clock())
                    message["committed"] = committed if self._answered else 0
                websocket.send(pack(message))
                reply = websocket.recv(timeout=max(0.0, until_s - time.monotonic()))
            except TimeoutError:
                self._drop()
                raise DeadlineError(f"{self.url}: no answer within the deadline") from None
            except (OSError, WebSocketException) as error:
                self._drop()
                self._give_up_if_final(error, until_s - time.monotonic() - self._backoff_s[0])
                time.sleep(self._backoff_s[0])
                continue
            except BaseException:
                self._drop()
                raise
            if isinstance(reply, str):
                self._drop()
                raise ServerError(reply)
            return _mapping(reply)

    def _connected(self, until_s: float) -> ClientConnection:
        pause_s = self._backoff_s[0]
        while self._websocket is None:
            try:
                self._open(max(0.01, until_s - time.monotonic()))
            except (OSError, WebSocketException) as error:
                self._give_up_if_final(error, until_s - time.monotonic() - pause_s)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, self._backoff_s[1])
        assert self._websocket is not None
        return self._websocket

    def _give_up_if_final(self, error: Exception, left_s: float) -> None:
        if isinstance(error, InvalidStatus) and error.response.status_code in (401, 403):
            raise ServerError(f"{self.url}: the API key was not accepted") from error
        if left_s < 0:
            raise UnreachableError(f"{self.url}: {error or type(error).__name__}") from error

    def _open(self, timeout_s: float) -> None:
        stack = ExitStack()
        try:
            websocket = stack.enter_context(
                connect(
                    self.url,
                    additional_headers=self._headers,
                    compression=None,
                    max_size=64 * 2**20,
                    open_timeout=timeout_s,
                    close_timeout=0.2,  # a robot does not wait for farewells
                    ping_interval=self._ping_interval_s,
                    ping_timeout=self._ping_interval_s,
                )
            )
            metadata = _mapping(websocket.recv(timeout=timeout_s))
            self._check(metadata.get("contract"))
            if self._seed is not None and metadata.get("server") == "gemvlm":
                websocket.send(pack(_reset(self._seed)))
                _mapping(websocket.recv(timeout=timeout_s))
        except BaseException:
            stack.close()
            raise
        self._stack, self._websocket, self._metadata = stack, websocket, metadata
        self._answered = False
        self.connections += 1

    def _check(self, theirs: Any) -> None:
        if self._contract is None:
            return
        if not isinstance(theirs, dict):
            raise ContractError("the server does not say for which robot its policy is")
        ours = {name: list(value) if isinstance(value, tuple) else value for name, value in self._contract.items()}
        different = [
            f"{name}: {ours.get(name)!r} here, {theirs.get(name)!r} there"
            for name in sorted({*ours, *theirs})
            if ours.get(name) != theirs.get(name)
        ]
        if different:
            raise ContractError("the server's policy is not for this robot: " + "; ".join(different))

    def _drop(self) -> None:
        stack, self._stack, self._websocket, self._answered = self._stack, None, None, False
        if stack is not None:
            stack.close()


def check_observation(observation: Observation, metadata: Mapping[str, Any], any_size: bool = False) -> None:
    """ContractError, with every difference, for pictures that are not what a server's description asks for.

    What the description does not say is not checked; all else the server checks itself.
    """
    wanted, renamed = metadata.get("cameras") or {}, metadata.get("robot_cameras") or {}
    shown = {renamed.get(name, name): np.shape(image) for name, image in observation.images.items()}
    if not wanted:
        return
    faults = [f"camera {name}: the policy has none of that name" for name in sorted(set(shown) - set(wanted))]
    faults += [f"camera {name}: no picture of it" for name in sorted(set(wanted) - set(shown))]
    for name in sorted(set(wanted) & set(shown)):
        size = wanted[name]
        if size is not None and not any_size and list(shown[name][:2]) != list(size):
            faults.append(
                f"camera {name}: {_size(shown[name])} here, the policy learned from {_size(size)} (height x width): "
                "show the same field of view at that size, or say any_size=True"
            )
    if faults:
        cameras = ", ".join(sorted(wanted))
        raise ContractError(f"not what the policy learned from: {'; '.join(faults)}; its cameras are {cameras}")


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape[:2]))


def _reset(seed: int | None) -> dict[str, Any]:
    return {"reset": True} if seed is None else {"reset": True, "seed": seed}


def _mapping(reply: bytes | str) -> dict[str, Any]:
    if isinstance(reply, str):
        raise ServerError(reply)
    try:
        message = unpack(reply)
    except ValueError as error:
        raise ServerError(str(error)) from None
    if not isinstance(message, dict):
        raise ServerError(f"the server sent a {type(message).__name__} where a map was expected")
    return message


def _chunk(reply: dict[str, Any], observation: Observation, metadata: Mapping[str, Any]) -> Chunk:
    """The chunk in a reply, refused unless a robot could execute it."""
    actions = reply.get("actions")
    rate_hz = reply.get("rate_hz", metadata.get("contract", {}).get("rate_hz", 0.0))
    if not isinstance(actions, np.ndarray) or actions.ndim != 2 or len(actions) == 0:
        raise ServerError("the answer has no `actions` of shape (time, dimension)")
    if not np.isfinite(actions).all():
        raise ServerError("the answer's actions are not all finite")
    return Chunk(
        actions.astype(np.float32),
        float(rate_hz),
        observation.step,
        int(reply.get("committed", 0)),
        bool(reply.get("stop", False)),
        str(reply.get("reason", "")),
        tuple(reply.get("limited", ())),
        dict(reply.get("server_timing", {})),
    )
