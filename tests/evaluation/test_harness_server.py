"""The model server, driven by a client that speaks as vla-evaluation-harness does (see `harness_wire` for where).

Their own client and their LIBERO, of release 0.8.0, have driven it as well; what that found is tested here.
"""

from __future__ import annotations

import asyncio
import io
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from point_mass import CONTRACT, SIDE, PointMass, Seeing

from gemvlm.evaluation.harness_server import HARNESS, HarnessBenchmark, hello, listening, read_observation
from gemvlm.evaluation.harness_wire import TYPES, Message, pack, unpack
from gemvlm.robot import ActionChunk, Policy, RobotObservation
from gemvlm.robot.embodiments import EMBODIMENTS, mirrored
from gemvlm.robot.rotations import convert

msgpack = pytest.importorskip("msgpack", reason="the harness speaks msgpack")
websockets = pytest.importorskip("websockets", reason="the harness speaks websocket")

POINTS = HarnessBenchmark("points", {"top": "primary", "side": "wrist"}, {"rate_hz": 10.0}, {"send_state": True})

BRIDGE = EMBODIMENTS["bridge"].contract
ROLL_PITCH_YAW = (2.71873873, -0.50065471, -0.81764505)
AXIS_ANGLE = (0.67333695, -0.0478848, 1.25755694)


def as_they_encode(value: Any) -> Any:
    """The harness's default: pictures as PNG, other arrays raw."""
    if isinstance(value, np.ndarray) and value.ndim == 3 and value.dtype == np.uint8 and value.shape[2] in (1, 3, 4):
        buffer = io.BytesIO()
        Image.fromarray(value).save(buffer, format="PNG")
        return {"__image__": True, "format": "png", "data": buffer.getvalue(), "shape": list(value.shape)}
    if isinstance(value, np.ndarray):
        return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    raise TypeError(type(value))


def as_they_decode(value: dict[str, Any]) -> Any:
    if value.get("__ndarray__"):
        return np.frombuffer(value["data"], np.dtype(value["dtype"])).reshape(value["shape"]).copy()
    return value


class Client:
    """One connection of the harness: numbers its messages, waits for one answer to each observation."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.seq = socket, 0

    async def send(self, kind: str, payload: dict[str, Any]) -> int:
        self.seq += 1
        told = {"type": kind, "payload": payload, "seq": self.seq, "timestamp": time.time()}
        await self.socket.send(msgpack.packb(told, default=as_they_encode, use_bin_type=True))
        return self.seq

    async def recv(self) -> dict[str, Any]:
        data = await asyncio.wait_for(self.socket.recv(), 20)
        told = msgpack.unpackb(data, object_hook=as_they_decode, raw=False)
        assert set(told) == {"type", "payload", "seq", "timestamp"}
        return told

    async def act(self, payload: dict[str, Any]) -> dict[str, Any]:
        seq = await self.send("observation", payload)
        answer = await self.recv()
        assert answer["seq"] == seq
        return answer


def as_seen(picture: np.ndarray) -> np.ndarray:
    return picture


def mirrored_and_doubled(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(picture[:, ::-1].repeat(2, axis=0).repeat(2, axis=1))


def payload(seen: RobotObservation, shown: Callable[[np.ndarray], np.ndarray] = as_seen) -> dict[str, Any]:
    images = {"primary": shown(seen.images["top"]), "wrist": shown(seen.images["side"])}
    return {"images": images, "states": seen.state.astype(np.float64), "task_description": seen.instruction}


def connect(port: int) -> Any:
    return websockets.connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, ping_interval=None)


async def play(
    port: int, start: int, shown: Callable[[np.ndarray], np.ndarray] = as_seen
) -> tuple[bool, list[np.ndarray]]:
    """One episode as the harness's synchronous runner plays it."""
    world, actions, done = PointMass("a"), [], False
    async with connect(port) as socket:
        client = Client(socket)
        await client.send("hello", {"harness_version": "0.4.0", "protocol_version": 1})
        assert (await client.recv())["type"] == "hello"
        seen = world.reset(start)
        await client.send("episode_start", {"task": {"name": "a", "episode_idx": start}})
        for _ in range(20):
            answer = await client.act(payload(seen, shown))
            assert answer["type"] == "action"
            actions.append(answer["payload"]["actions"])
            seen, done = world.step(actions[-1])
            if done:
                break
        await client.send("episode_end", {"metrics": {"success": done}})
    return done, actions


def run(policy: Policy, story: Any, benchmark: HarnessBenchmark = POINTS, **options: Any) -> Any:
    async def whole() -> Any:
        async with listening(policy, benchmark, **options) as port:
            return await story(port)

    return asyncio.run(whole())


def test_an_episode_through_the_harness_succeeds() -> None:
    policy = Seeing()
    done, actions = run(policy, lambda port: play(port, 2), execute=4)
    assert done and all(action.shape == (2,) and action.dtype == np.float32 for action in actions)
    assert len(policy.batches) == -(-len(actions) // 4)  # asked once for every four actions


class Learned(Seeing):
    """Says what pictures it learned from, and must get no others."""

    picture_sizes: ClassVar = {"top": (SIDE, SIDE), "side": (SIDE, SIDE)}

    def act(self, observations: Any, seeds: Any, committed: Any = None) -> list[ActionChunk]:
        assert all(image.shape == (SIDE, SIDE, 3) for seen in observations for image in seen.images.values())
        return super().act(observations, seeds, committed)


def test_mirrored_pictures_of_another_size_come_as_the_policy_learned_them() -> None:
    """LIBERO of the harness sends mirror images of 256 x 256; a policy that saw them so would go the wrong way."""
    sent = replace(POINTS, mirrored=True)
    for start in range(4):
        assert run(Learned(), lambda port, start=start: play(port, start, mirrored_and_doubled), sent)[0]


@pytest.mark.parametrize("turn", ["none", "half"])
@pytest.mark.parametrize("benchmark", [POINTS, replace(POINTS, mirrored=True)], ids=["plain", "mirrored"])
def test_pictures_stand_as_in_the_worlds_here(benchmark: HarnessBenchmark, turn: Any) -> None:
    image = np.random.default_rng(1).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    camera = image[:, ::-1] if benchmark.mirrored else image
    told = {"images": {"primary": camera, "wrist": camera}, "states": np.zeros(2), "task_description": "go"}
    contract = replace(CONTRACT, image_turn=turn)
    wanted = mirrored(image) if turn == "half" else image
    for sizes in (None, {"top": (6, 8)}, {"top": (8, 8)}):  # of other proportions: the policy's to warn of
        seen = read_observation(told, contract, benchmark, 0, sizes)
        assert np.array_equal(seen.images["top"], wanted)
    smaller = read_observation(told, contract, benchmark, 0, {"top": (3, 4)}).images["top"]
    assert smaller.shape == (3, 4, 3) and smaller.dtype == np.uint8


def test_connections_that_ask_together_are_one_batch() -> None:
    async def story(port: int) -> Any:
        return await asyncio.gather(*(play(port, start) for start in range(6)))

    policy = Seeing()
    played = run(policy, story)
    assert all(done for done, _ in played) and max(policy.batches) > 1
    alone = run(Seeing(), lambda port: play(port, 3))
    assert all(np.array_equal(a, b) for a, b in zip(alone[1], played[3][1], strict=True))


def test_hello_says_what_the_server_wants_and_gives() -> None:
    async def story(port: int) -> Any:
        async with connect(port) as socket:
            client = Client(socket)
            await client.send("hello", {"harness_version": "0.4.0", "protocol_version": 1, "benchmark": "x:Y"})
            return await client.recv()

    told = run(Seeing(), story)["payload"]
    assert told["protocol_version"] == 1 and told["observation_params"] == {"send_state": True}
    assert set(told["observation_spec"]) == {"primary", "wrist", "language", "state"}
    assert told["action_spec"] == {"actions": {"name": "actions", "dims": 2, "format": "raw"}}
    libero = hello(EMBODIMENTS["libero_turned"].contract, HARNESS["libero"])
    assert libero["action_spec"] == {
        "position": {"name": "position", "dims": 3, "format": "delta_xyz"},
        "rotation": {"name": "rotation", "dims": 3, "format": "axis_angle"},
        "gripper": {"name": "gripper", "dims": 1, "format": "binary_close_positive"},
    }
    form = {"name": "state", "dims": 8, "format": "eef_pos3_axisangle3_gripper2"}  # "raw" they log as a mismatch
    assert libero["observation_spec"]["state"] == form and HARNESS["libero"].mirrored


def test_a_policy_that_does_not_fit_is_refused_with_every_difference() -> None:
    assert HARNESS["libero"].misfits(EMBODIMENTS["libero_turned"].contract) == []
    lines = HARNESS["simpler_widowx"].misfits(EMBODIMENTS["libero_turned"].contract)
    assert [line.split(":")[0] for line in lines] == ["state_names", "gripper", "rate_hz", "cameras"]
    assert HARNESS["simpler_widowx"].misfits(BRIDGE) == []
    (line,) = HARNESS["simpler_widowx"].misfits(replace(BRIDGE, rotation="none"))
    assert line == "rotation: 'none' in 7 numbers here, place, rotation and gripper in simpler_widowx"
    assert HARNESS["libero"].misfits(EMBODIMENTS["libero"].contract) == []  # its pictures are turned for it
    with pytest.raises(ValueError, match=r"execute: 9 of chunks of 8(.|\n)*") as caught:
        run(Seeing(contract=replace(CONTRACT, rate_hz=5.0)), None, execute=9)
    assert "rate_hz: 5.0 here, 10.0 in points" in str(caught.value)


@dataclass
class Widow:
    """A policy of Bridge's robot that keeps what it sees and always answers with the same chunk."""

    seen: list[RobotObservation] = field(default_factory=list)
    contract: ClassVar = BRIDGE
    horizon: ClassVar = 2
    picture_sizes: ClassVar = {"primary": (256, 256)}
    actions: ClassVar = np.array([[0.01, 0, -0.02, 0.5, -0.4, 1.2, 1], [0, 0, 0, 0, 0, 0, 0]], np.float32)

    def act(self, observations: Any, seeds: Any, committed: Any = None) -> list[ActionChunk]:
        self.seen += observations
        return [ActionChunk(self.actions, 5.0) for _ in observations]


def widowx(**changes: Any) -> dict[str, Any]:
    """What their SimplerEnv sends: 480 x 640, and position, quaternion (wxyz), opening."""
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, 320:] = 255
    state = np.array([0.3, -0.1, 0.2, 0.5, 0.5, -0.1, 0.7, 0.9], np.float32)
    return {"images": {"primary": image}, "states": state, "task_description": "stack"} | changes


def test_simpler_is_converted_as_published_servers_do() -> None:
    """Numbers by `model_servers/groot.py` of the harness, run (the state), and transforms3d's `euler2axangle`."""

    async def story(port: int) -> Any:
        async with connect(port) as socket:
            client = Client(socket)
            return [(await client.act(widowx()))["payload"]["actions"] for _ in range(2)]

    policy = Widow()
    first, second = run(policy, story, HARNESS["simpler_widowx"])
    np.testing.assert_allclose(first[3:6], AXIS_ANGLE, atol=1e-6)
    assert first.dtype == np.float32 and first[[0, 1, 2, 6]].tolist() == Widow.actions[0, [0, 1, 2, 6]].tolist()
    assert second.tolist() == [0] * 7
    (seen,) = policy.seen
    np.testing.assert_allclose(seen.state, [0.3, -0.1, 0.2, *ROLL_PITCH_YAW, 0, 0.9], atol=1e-6)
    assert seen.images["primary"].shape == (256, 256, 3)  # squashed, not cut: both halves are there
    assert seen.images["primary"][:, :120].max() == 0 and seen.images["primary"][:, 136:].min() == 255
    spec = hello(BRIDGE, HARNESS["simpler_widowx"])["action_spec"]
    assert spec["rotation"] == {"name": "rotation", "dims": 3, "format": "axis_angle"}


def test_bridges_angles_are_zero_where_the_gripper_points_down() -> None:
    down = np.array([0.0, 0, 1, 0, 1, 0, -1, 0, 0])
    sent = np.array([0.3, 0, 0.1, *convert(down, "matrix", "quaternion_wxyz"), 1])
    seen = read_observation(widowx(states=sent), BRIDGE, HARNESS["simpler_widowx"], 0)
    np.testing.assert_allclose(seen.state, [0.3, 0, 0.1, 0, 0, 0, 0, 1], atol=1e-6)


def test_a_state_that_is_none_of_simplers_is_told() -> None:
    for state, words in (
        (np.zeros(0), "states: position, quaternion .* are 8 numbers, got 0; .*'send_state': True"),
        (np.zeros(8), "states: rotation: a quaternion has the length 0"),
        (np.array([np.nan, 0, 0, 1, 0, 0, 0, 1]), "states: 8 finite numbers"),
    ):
        with pytest.raises(ValueError, match=words):
            read_observation(widowx(states=state), BRIDGE, HARNESS["simpler_widowx"], 0)


class Fragile(Seeing):
    """Fails for one instruction, for whole batches with it."""

    def act(self, observations: Any, seeds: Any, committed: Any = None) -> list[ActionChunk]:
        if any(seen.instruction == "break" for seen in observations):
            raise RuntimeError("no idea")
        return super().act(observations, seeds, committed)


def test_errors_are_answered_and_the_connection_lives_on() -> None:
    seen = PointMass("a").reset(1)
    good = payload(seen)
    bad: list[tuple[dict[str, Any], str]] = [
        ({**good, "task_description": "break"}, "RuntimeError: no idea"),
        ({**good, "images": {"primary": good["images"]["primary"]}}, "images.wrist: a uint8 picture"),
        ({**good, "images": {**good["images"], "wrist": np.zeros((4, 4, 3), np.float32)}}, "images.wrist"),
        ({**good, "images": "none"}, "images: a map from names to pictures is needed, got str"),
        ({**good, "states": np.zeros(3)}, "states: 2 finite numbers ('x', 'y') are needed, got 3"),
        ({**good, "states": np.full(2, np.nan)}, "states: 2 finite numbers"),
        ({key: value for key, value in good.items() if key != "task_description"}, "task_description"),
    ]

    async def story(port: int) -> None:
        async with connect(port) as socket:
            client = Client(socket)
            for asked, words in bad:
                answer = await client.act(asked)
                assert answer["type"] == "error" and words in answer["payload"]["error"], answer
            for raw in (b"", b"\x00\x01", b"\xc1", "text", msgpack.packb({"type": "action"}), msgpack.packb(7)):
                await socket.send(raw)
                assert "malformed message" in (await client.recv())["payload"]["error"]
            assert (await client.act(good))["type"] == "action"

    run(Fragile(), story)


def test_one_who_leaves_in_the_middle_disturbs_nobody() -> None:
    async def story(port: int) -> bool:
        for _ in range(10):
            async with connect(port) as socket:
                await Client(socket).send("observation", payload(PointMass("a").reset(1)))
        return (await play(port, 1))[0]

    assert run(Seeing(), story)


def test_health() -> None:
    async def story(port: int) -> bytes:
        def get() -> bytes:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as reply:
                return reply.read()

        return await asyncio.to_thread(get)

    assert run(Seeing(), story) == b'{"status": "ok"}\n'


def test_messages_survive_the_wire_and_theirs_are_read() -> None:
    message = Message("action", {"actions": np.arange(7, dtype=np.float32), "n": np.int64(3)}, 9)
    again = unpack(pack(message))
    assert again.seq == 9 and np.array_equal(again.payload["actions"], message.payload["actions"])
    assert again.payload["n"] == 3
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    told = {"type": "observation", "payload": {"images": {"a": picture}}, "seq": 1, "timestamp": 0.0}
    assert np.array_equal(unpack(msgpack.packb(told, default=as_they_encode)).payload["images"]["a"], picture)
    for array in ({"dtype": "|O", "shape": [1], "data": b"12345678"}, {"dtype": "<f8", "shape": [2], "data": b"1"},
                  {"dtype": "<f8", "shape": [-1], "data": b"12345678"}, {"dtype": "V8", "shape": [1], "data": b"1" * 8},
                  {"dtype": "<f8", "shape": [10**9, 10**9], "data": b""}):  # fmt: skip
        hostile = {"type": "observation", "payload": {"states": {"__ndarray__": True, **array}}, "seq": 1}
        with pytest.raises(ValueError, match="no message"):
            unpack(msgpack.packb({**hostile, "timestamp": 0.0}))


def test_no_bytes_raise_anything_but_value_error() -> None:
    rng = np.random.default_rng(3)
    whole = pack(Message("observation", payload(PointMass("a").reset(1)), 1))
    whole += msgpack.packb({"__image__": True, "format": "png", "data": b"\x89PNG\r\n\x1a\n", "shape": [1, 1, 3]})
    for _ in range(1000):
        data = bytearray(whole[: int(rng.integers(1, len(whole)))] if rng.random() < 0.5 else whole)
        for place in rng.integers(0, len(data), int(rng.integers(1, 8))):
            data[place] = int(rng.integers(0, 256))
        with suppress(ValueError):
            assert unpack(bytes(data)).type in TYPES
