"""A policy as a model server of AllenAI's vla-evaluation-harness: its benchmarks (SimplerEnv, LIBERO, ...) run on it.

    serve_harness(policy, HARNESS["simpler_widowx"], execute=1)

and where the simulator is `vla-eval run --config FILE`, with `server: {url: "ws://HOST:8000"}` in its configuration
(`docs/robots.md` has one).

The harness sends each observation and waits for one action; of every chunk `execute` actions are given out before the
policy is asked again. Observations of several connections that come together are answered as one batch, off the event
loop. A malformed message, or an error of the policy, is answered with an `error` and ends nothing. The protocol, and
where it was read, is in `harness_wire`; what each benchmark sends and wants was read in `benchmarks/simpler/` and
`benchmarks/libero/`, `benchmark.py`, of release 0.8.0.

LIBERO: the release's own `vla-eval run`, unmodified, without a container, has driven `gemvlm vla serve` on
libero_object, and two of its orchestrators have at once; its specifications match. Scripted demonstrations of our
world, replayed through the server from two official states, succeed there. Its pictures are what our world draws, but
for shadows, with left and right exchanged (robosuite's rows run upwards, and turning by 180 degrees then leaves a
mirror image), and 256 pixels a side: policies get them as our worlds would show them, at the size that they learned
from.

SimplerEnv: never run; the release's benchmark has asked and stepped with a stand-in for the simulator. It declares
Euler angles and a gripper that closes at high values, but hands rotations on as rotation vectors and opens above 0.5:
what it does is what counts here, so the harness logs a mismatch of the two declarations. What is converted for it is
what the harness's own servers convert (`model_servers/groot.py` and `starvla.py`): its state becomes that of Bridge's
recordings, a policy's Euler angles a rotation vector (as SimplerEnv's own `octo_model.py` does), and its pictures of
480 x 640 are squashed to the policy's size.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal
from zlib import crc32

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from gemvlm.evaluation.harness_wire import EXTRA, LARGEST_MESSAGE, PROTOCOL_VERSION, Message, pack, unpack
from gemvlm.robot import ActionChunk, ActionContract, Policy, RobotObservation
from gemvlm.robot.embodiments import bridge, mirrored
from gemvlm.robot.rotations import SIZES, Form, convert
from gemvlm.runtime import get_log, versions

WAIT_S = 0.005
"""How long a batch waits for others."""
ROTATIONS: tuple[Form, ...] = ("axis_angle", "euler_xyz", "quaternion_xyzw")
"""The forms of a rotation that the harness calls as we do."""
GRIPPERS = {"high_closes": "binary_close_positive", "high_opens": "binary_close_negative"}


def as_sent(state: Float32[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
    return state


def bridge_state(sent: Float32[np.ndarray, "n"]) -> Float32[np.ndarray, "8"]:
    """SimplerEnv's position, quaternion (wxyz) and opening of the gripper, as Bridge's recordings have them.

    ValueError for another number of them, and for a quaternion of length 0.
    """
    if len(sent) != 8:
        raise ValueError(f"position, quaternion (wxyz) and the gripper's opening are 8 numbers, got {len(sent)}")
    return bridge.recorded_state(sent[:3], sent[3:7], float(sent[7]))


@dataclass(frozen=True)
class HarnessBenchmark:
    """How a benchmark of the harness speaks: which of its pictures is which camera, and what its actions mean.

    `means` are the fields that a policy's contract must have; `params` is what the harness is asked to send; `state` is
    the harness's name for the form of the state. `mirrored` pictures have left and right exchanged; `squashed` ones
    lose their proportions where the policy learned from others. `robot_state` makes the robot's state of the one that
    is sent (ValueError if it can't be one). `turns` is the form in which it takes rotations, for policies of any form
    whose actions are place, rotation, gripper; None: `means` says it, and actions go out as they are.
    """

    name: str
    cameras: Mapping[str, str]
    means: Mapping[str, object]
    params: Mapping[str, object] = field(default_factory=dict)
    state: str = "raw"
    mirrored: bool = False
    squashed: bool = False
    robot_state: Callable[[Float32[np.ndarray, "n"]], Float32[np.ndarray, "S"]] = as_sent
    turns: Literal["axis_angle"] | None = None

    def misfits(self, contract: ActionContract) -> list[str]:
        """Everything that keeps a policy of this contract from the benchmark, one line each."""
        lines = [
            f"{name}: {getattr(contract, name)!r} here, {wanted!r} in {self.name}"
            for name, wanted in self.means.items()
            if getattr(contract, name) != wanted
        ]
        if self.turns is not None and _rotation(contract) is None:
            lines.append(
                f"rotation: {contract.rotation!r} in {len(contract.action_names)} numbers here, place, rotation and "
                f"gripper in {self.name}"
            )
        if set(contract.cameras) != set(self.cameras):
            lines.append(f"cameras: {contract.cameras} here, {tuple(self.cameras)} in {self.name}")
        return lines

    def sent_actions(self, actions: Float32[np.ndarray, "T A"], contract: ActionContract) -> Float32[np.ndarray, "T a"]:
        """A policy's actions as the benchmark takes them."""
        own = _rotation(contract)
        if self.turns is None or own is None or own == self.turns:
            return actions
        turn = convert(actions[:, 3:-1], own, self.turns)
        return np.concatenate([actions[:, :3], turn, actions[:, -1:]], axis=1).astype(np.float32)


HARNESS: Mapping[str, HarnessBenchmark] = {
    known.name: known
    for known in (
        HarnessBenchmark(
            "libero",
            {"agentview": "agentview", "robot0_eye_in_hand": "wrist"},
            {"control": "delta", "rotation": "axis_angle", "gripper": "high_closes", "rate_hz": 20.0},
            {"send_wrist_image": True, "send_state": True, "quat_no_antipodal": True},
            state="eef_pos3_axisangle3_gripper2",
            mirrored=True,
        ),
        HarnessBenchmark(
            "simpler_widowx",
            {"primary": "primary"},
            {
                "state_names": bridge.CONTRACT.state_names,
                "control": "delta",
                "gripper": "high_opens",
                "rate_hz": 5.0,
            },
            {"send_state": True},
            squashed=True,
            robot_state=bridge_state,
            turns="axis_angle",
        ),
    )
}  # fmt: skip
"""By name. Another benchmark is another `HarnessBenchmark`."""


def serve_harness(
    policy: Policy,
    benchmark: HarnessBenchmark,
    *,
    execute: int | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
) -> None:
    """Serves until interrupted; `execute` None gives out whole chunks. ValueError if the policy does not fit."""

    async def forever() -> None:
        async with listening(policy, benchmark, execute=execute, host=host, port=port) as bound:
            get_log().info("harness server of %s on ws://%s:%d", benchmark.name, host, bound)
            await asyncio.Event().wait()

    asyncio.run(forever())


@asynccontextmanager
async def listening(
    policy: Policy,
    benchmark: HarnessBenchmark,
    *,
    execute: int | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    batch: int = 32,
) -> AsyncIterator[int]:
    """The server inside a loop that runs; gives its port. `GET /health` answers once it listens."""
    try:
        from websockets.asyncio.server import serve
        from websockets.exceptions import ConnectionClosed
    except ImportError as error:
        raise ImportError(f"{EXTRA} ({error})") from error
    count = getattr(policy, "executed", policy.horizon) if execute is None else execute
    lines = benchmark.misfits(policy.contract)
    if not 1 <= count <= policy.horizon:
        lines.append(f"execute: {count} of chunks of {policy.horizon} actions")
    if lines:
        raise ValueError(
            f"the policy can't be served to {benchmark.name}:\n" + "\n".join(f"- {line}" for line in lines)
        )
    questions = _Questions(policy, batch)

    async def connection(socket: Any) -> None:
        session = _Session(policy, benchmark, questions, count)
        try:
            async for data in socket:
                if (answer := await session.answer(data)) is not None:
                    await socket.send(pack(answer))
        except ConnectionClosed:
            get_log().info("harness client left in step %d", session.step)

    answering = asyncio.create_task(questions.answer_all())
    try:
        async with serve(connection, host, port, process_request=_http, compression=None, max_size=LARGEST_MESSAGE,
                         ping_interval=None) as server:  # fmt: skip
            yield next(iter(server.sockets)).getsockname()[1]
    finally:
        answering.cancel()
        questions.close()


class _Session:
    """One connection: the episode that it plays and the actions that are left of the last chunk."""

    def __init__(self, policy: Policy, benchmark: HarnessBenchmark, questions: _Questions, execute: int) -> None:
        self.contract, self.benchmark, self.questions, self.execute = policy.contract, benchmark, questions, execute
        self.sizes: Mapping[str, tuple[int, int]] = getattr(policy, "picture_sizes", {})
        self.left: list[Float32[np.ndarray, "A"]] = []
        self.step, self.episode = 0, ""

    async def answer(self, data: bytes | str) -> Message | None:
        """What is sent back, if anything; never raises for what a client sent or a policy did."""
        try:
            asked = await asyncio.to_thread(unpack, data)
        except ValueError as error:
            return Message("error", {"error": f"malformed message: {error}"})
        if asked.type == "hello":
            return Message("hello", hello(self.contract, self.benchmark), asked.seq)
        if asked.type in ("episode_start", "episode_end"):
            self.left, self.step = [], 0
            self.episode = json.dumps(asked.payload.get("task", ""), sort_keys=True, default=str)
            return None
        if asked.type != "observation":
            get_log().warning("harness client says: %s %.200r", asked.type, dict(asked.payload))
            return None
        try:
            action = await self._action(asked.payload)
        except Exception as error:  # the policy is anybody's code, and the connection outlives its errors
            told = f"observation_failed: {type(error).__name__}: {error}"
            get_log().warning("harness session, step %d: %s", self.step, told)
            return Message("error", {"error": told}, asked.seq)
        self.step += 1
        return Message("action", {"actions": action}, asked.seq)

    async def _action(self, payload: Mapping[str, Any]) -> Float32[np.ndarray, "A"]:
        if not self.left:
            seen = read_observation(payload, self.contract, self.benchmark, self.step, self.sizes)
            chunk = await self.questions.ask(seen, crc32(f"{self.episode} {self.step}".encode()))
            actions = np.asarray(chunk.actions, np.float32)
            if not np.isfinite(actions[: self.execute]).all():
                raise ValueError("the policy answered with NaN or infinite numbers")
            self.left = list(self.benchmark.sent_actions(actions[: self.execute], self.contract))
        return self.left.pop(0)


class _Questions:
    """Observations that wait for the policy, which answers as many at once as have come."""

    def __init__(self, policy: Policy, batch: int) -> None:
        self.policy, self.batch = policy, batch
        self.waiting: asyncio.Queue[tuple[RobotObservation, int, asyncio.Future[ActionChunk]]] = asyncio.Queue()
        self.thread = ThreadPoolExecutor(1, "policy")

    async def ask(self, seen: RobotObservation, seed: int) -> ActionChunk:
        future: asyncio.Future[ActionChunk] = asyncio.get_running_loop().create_future()
        await self.waiting.put((seen, seed, future))
        return await future

    async def answer_all(self) -> None:
        while True:
            asked = [await self.waiting.get()]
            await asyncio.sleep(WAIT_S)
            while len(asked) < self.batch and not self.waiting.empty():
                asked.append(self.waiting.get_nowait())
            loop = asyncio.get_running_loop()
            given = [(seen, seed) for seen, seed, _ in asked]
            answers = await loop.run_in_executor(self.thread, self._answers, given)
            for (_, _, future), answer in zip(asked, answers, strict=True):
                if future.cancelled():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def close(self) -> None:
        self.thread.shutdown(wait=False, cancel_futures=True)

    def _answers(self, asked: Sequence[tuple[RobotObservation, int]]) -> list[ActionChunk | Exception]:
        """Where a batch raises each is asked alone: one bad observation costs one client an error."""
        try:
            answers = list(self.policy.act([seen for seen, _ in asked], [seed for _, seed in asked]))
            if len(answers) != len(asked):
                raise ValueError(f"{len(answers)} chunks for {len(asked)} observations")
            return list(answers)
        except Exception as error:
            return [error] if len(asked) == 1 else [self._answers([one])[0] for one in asked]


def read_observation(
    payload: Mapping[str, Any],
    contract: ActionContract,
    benchmark: HarnessBenchmark,
    step: int,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> RobotObservation:
    """An observation of the harness as a robot's. ValueError naming the field, what came and what would help.

    `sizes` are the (height, width) of pictures that the policy learned from, by camera.
    """
    pictures = payload.get("images")
    if not isinstance(pictures, dict):
        raise ValueError(f"images: a map from names to pictures is needed, got {type(pictures).__name__}")
    images = {}
    for camera in contract.cameras:
        name = benchmark.cameras[camera]
        image = pictures.get(name)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"images.{name}: a uint8 picture (height, width, 3) is needed; there are {sorted(map(str, pictures))}; "
                f"parameters to send what is needed: {dict(benchmark.params)}"
            )
        images[camera] = _as_learned(image, contract, benchmark, (sizes or {}).get(camera))
    sent = np.asarray(payload.get("states", payload.get("state", ())), np.float32).reshape(-1)
    try:
        state = benchmark.robot_state(sent)
    except ValueError as error:
        raise ValueError(f"states: {error}; parameters to send what is needed: {dict(benchmark.params)}") from None
    if len(state) != len(contract.state_names) or not np.isfinite(state).all():
        raise ValueError(
            f"states: {len(contract.state_names)} finite numbers {contract.state_names} are needed, got {len(state)}; "
            f"parameters to send what is needed: {dict(benchmark.params)}"
        )
    instruction = payload.get("task_description")
    if not isinstance(instruction, str) or not instruction:
        raise ValueError("task_description: an instruction is needed")
    return RobotObservation(images, state, instruction, step, step / contract.rate_hz)


def _as_learned(
    image: UInt8[np.ndarray, "H W 3"],
    contract: ActionContract,
    benchmark: HarnessBenchmark,
    size: tuple[int, int] | None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of the benchmark as the worlds here would show it to the policy: mirrored or not as its contract
    says, and of `size`, unless that has other proportions and the benchmark's are not squashed: then the policy
    warns."""
    own = image if benchmark.mirrored == (contract.image_turn == "half") else mirrored(image)
    if size is None or size == own.shape[:2]:
        return own
    if not benchmark.squashed and size[0] * own.shape[1] != size[1] * own.shape[0]:
        return own
    return np.asarray(Image.fromarray(own).resize((size[1], size[0]), Image.Resampling.HAMMING))


def hello(contract: ActionContract, benchmark: HarnessBenchmark) -> dict[str, Any]:
    """What the server says about itself; the harness compares the specs with its benchmark's and logs mismatches."""
    seen = {name: _spec(name, 0, "rgb_hwc_uint8") for name in benchmark.cameras.values()}
    seen |= {
        "language": _spec("language", 0, "language"),
        "state": _spec("state", len(contract.state_names), benchmark.state),
    }
    return {
        "harness_version": f"gemvlm {versions().get('gemvlm', '')}".strip(),
        "protocol_version": PROTOCOL_VERSION,
        "model_server": "gemvlm",
        "capabilities": {},
        "observation_params": dict(benchmark.params),
        "action_spec": _action_spec(contract, benchmark),
        "observation_spec": seen,
    }


def _action_spec(contract: ActionContract, benchmark: HarnessBenchmark) -> dict[str, Any]:
    """Position, rotation and gripper as they are sent, where that is what an action is."""
    own = _rotation(contract)
    if own is None or contract.gripper not in GRIPPERS:
        return {"actions": _spec("actions", len(contract.action_names), "raw")}
    turn = benchmark.turns or own
    return {
        "position": _spec("position", 3, f"{contract.control}_xyz"),
        "rotation": _spec("rotation", SIZES[turn], turn),
        "gripper": _spec("gripper", 1, GRIPPERS[contract.gripper]),
    }


def _rotation(contract: ActionContract) -> Form | None:
    """The rotation's form in actions of three numbers of place, a rotation, and one of the gripper; None for others."""
    width = len(contract.action_names)
    return next((form for form in ROTATIONS if form == contract.rotation and width == 3 + SIZES[form] + 1), None)


def _spec(name: str, dims: int, form: str) -> dict[str, Any]:
    return {"name": name, "dims": dims, "format": form}


def _http(connection: Any, request: Any) -> Any:
    """`/health` and `/config` are plain HTTP; everything else goes on to the websocket."""
    path = request.path.partition("?")[0]
    if path == "/health":
        return connection.respond(HTTPStatus.OK, '{"status": "ok"}\n')
    if path == "/config":
        return connection.respond(HTTPStatus.OK, '{"applied": {}, "config": {}}\n')
    return None
