"""The client package alone: deadlines, reconnecting, contracts, and the runner's ticks on a clock of the test's own."""

from __future__ import annotations

import ast
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from servo_policy import CONTRACT, SIZE, ServoPolicy, picture

from gemvlm.robot.limits import Limits
from gemvlm.serving.robot_server import ServerSettings, background_server
from gemvlm_client import (
    Chunk,
    ChunkRunner,
    ContractError,
    DeadlineError,
    Observation,
    RobotClient,
    ServerError,
    UnreachableError,
)
from gemvlm_client.client import check_observation

CLIENT = Path(__file__).parents[3] / "client" / "src"

pytest.importorskip("websockets", reason="needs gemvlm[serve]")


def serving(policy: ServoPolicy | None = None, port: int = 0):
    settings, limits = ServerSettings(picture_size=(SIZE, SIZE)), Limits(stale_after_s=60.0)
    return background_server(policy or ServoPolicy(), port=port, limits=limits, settings=settings)


def observation(**fields: Any) -> Observation:
    return Observation({"front": picture((1, 1))}, np.zeros(2), "go", time.monotonic(), **fields)


def test_it_needs_nothing_but_numpy_msgpack_and_websockets_and_python_3_9():
    allowed = {"msgpack", "numpy", "websockets", "gemvlm_client", "__future__", "collections", "concurrent"}
    allowed |= {"contextlib", "dataclasses", "math", "threading", "time", "typing"}
    for path in CLIENT.rglob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, path.name


def test_a_late_answer_is_never_taken_for_the_next_one():
    gate = threading.Event()
    with serving(ServoPolicy(gate=gate)) as server, RobotClient(server.url) as client:
        with pytest.raises(DeadlineError, match="no answer within the deadline"):
            client.infer(observation(), deadline_s=0.2)
        gate.set()
        other = Observation({"front": picture((-1, -1))}, np.zeros(2), "go", time.monotonic())
        chunk = client.infer(other, deadline_s=20.0)
        assert chunk.actions[0, 0] < 0 and client.connections == 2


def test_a_deadline_holds_when_nobody_is_there():
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        RobotClient("ws://127.0.0.1:9").infer(observation(), deadline_s=0.3)
    assert time.monotonic() - began < 5


def test_after_a_reconnection_nothing_is_committed():
    policy = ServoPolicy()
    with serving(policy) as server:
        port = server.port
        client = RobotClient(server.url, deadline_s=20.0)
        client.infer(observation())
    with serving(policy, port):
        chunk = client.infer(observation(step=2), committed=6)
        assert chunk.committed == 0 and client.connections == 2
        assert client.infer(observation(step=4), committed=6).committed == 4
        client.close()


def test_an_episodes_seed_survives_a_reconnection():
    policy = ServoPolicy()
    with serving(policy) as server:
        port = server.port
        client = RobotClient(server.url, deadline_s=20.0)
        client.reset(seed=7)
        client.infer(observation(step=3))
        seed = policy.seeds[-1]
    with serving(policy, port):
        client.infer(observation(step=3))
        assert policy.seeds[-1] == seed and client.connections == 2
        client.reset()
        client.infer(observation(step=3))
        assert policy.seeds[-1] != seed
        client.close()


def test_each_run_is_an_episode():
    with serving() as server, RobotClient(server.url, deadline_s=20.0) as client:
        for _ in range(2):
            report = ChunkRunner(client, Recorder(), patience_s=20.0).run(3, seed=5)
            assert report.steps == 3 and not report.errors


def test_a_policy_for_another_robot_is_refused():
    contract = dict(vars(CONTRACT))
    with serving() as server:
        with RobotClient(server.url, deadline_s=20.0, contract=contract) as client:
            assert client.infer(observation()).rate_hz == 50.0
        contract |= {"control": "delta", "cameras": ("front", "wrist")}
        with pytest.raises(ContractError, match=r"cameras: \['front', 'wrist'\] here, \['front'\] there; control"):
            RobotClient(server.url, contract=contract).connect()


def test_an_observation_that_was_not_learned_from_is_never_sent():
    policy = ServoPolicy()
    settings = ServerSettings(pictures={"front": (SIZE, SIZE)}, cameras={"image": "front"})
    small = Observation({"front": np.zeros((8, 6, 3), np.uint8)}, np.zeros(2), "go", time.monotonic())
    with background_server(policy, settings=settings) as server, RobotClient(server.url, deadline_s=20.0) as client:
        asked = len(policy.seeds)
        with pytest.raises(ContractError, match=rf"front: 8 x 6 here, the policy learned from {SIZE} x {SIZE}"):
            client.infer(small)
        with pytest.raises(ContractError, match=r"camera wrist: the policy has none.*camera front: no picture"):
            client.infer(replace(small, images={"wrist": picture((1, 1))}))
        assert len(policy.seeds) == asked and client.connections == 1
        assert client.infer(replace(small, images={"image": picture((1, 1))})).actions.shape == (16, 2)


def test_sizes_may_be_let_through():
    metadata = {"cameras": {"front": [SIZE, SIZE], "wrist": None}}
    pictures = {"front": np.zeros((8, 6, 3), np.uint8), "wrist": np.zeros((9, 9, 3), np.uint8)}
    seen = Observation(pictures, np.zeros(2), "go", 0.0)
    with pytest.raises(ContractError, match="any_size=True"):
        check_observation(seen, metadata)
    check_observation(seen, metadata, any_size=True)
    check_observation(seen, {"server": "another"})


class Scripted:
    """Stands for a RobotClient: answers after `delay_s` on the test's clock, with chunks that count up."""

    metadata: ClassVar[dict[str, Any]] = {"contract": {"rate_hz": 10.0}}

    def __init__(self, length: int, answer: Callable[[Observation, int], Chunk] | None = None) -> None:
        self.length, self.answer = length, answer
        self.asked: list[tuple[int, int]] = []
        self.resets: list[int | None] = []

    def reset(self, seed: int | None = None) -> None:
        self.resets.append(seed)

    def infer(self, observation: Observation, *, committed: int = 0) -> Chunk:
        self.asked.append((observation.step, committed))
        if self.answer is not None:
            return self.answer(observation, committed)
        actions = np.arange(observation.step, observation.step + self.length, dtype=np.float32)[:, None]
        return Chunk(actions, 10.0, observation.step, committed)


class Recorder:
    """A robot that writes down what it was told."""

    def __init__(self) -> None:
        self.acted: list[float] = []
        self.stops: list[str] = []

    def observe(self) -> Observation:
        return observation()

    def act(self, action: np.ndarray) -> None:
        self.acted.append(float(action[0]))

    def stop(self, reason: str) -> None:
        self.stops.append(reason)


class Clock:
    """Time passes only when somebody sleeps; the other thread gets its turn meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        time.sleep(0.004)


def runner(client: Scripted, robot: Recorder, **settings: Any) -> ChunkRunner:
    clock = Clock()
    return ChunkRunner(client, robot, clock=clock, sleep=clock.sleep, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("real_time", [True, False])
def test_every_step_gets_its_own_action_once_and_in_order(real_time: bool):
    client, robot = Scripted(length=6), Recorder()
    report = runner(client, robot, real_time=real_time).run(40)
    assert robot.acted == list(range(40))
    assert report.steps == 40 and report.stopped is None and robot.stops == ["the run is over"]
    assert report.ticks == report.steps + report.waits


def test_chunks_are_used_up_where_they_do_not_continue_each_other():
    client = Scripted(length=6)
    runner(client, Recorder(), real_time=False).run(18)
    assert client.asked == [(0, 0), (6, 0), (12, 0)]
    client = Scripted(length=6)
    runner(client, Recorder(), real_time=False, replan_steps=4).run(12)
    assert client.asked == [(0, 0), (4, 0), (8, 0)]


def test_real_time_chunking_says_what_will_have_run():
    client = Scripted(length=8)
    report = runner(client, Recorder(), real_time=True, replan_steps=4).run(24)
    assert client.asked[0] == (0, 0)
    steps = [step for step, _ in client.asked]
    for (before, _), (step, committed) in pairwise(client.asked):
        assert 0 < step - before <= committed <= 8, "at least what has run, at most the chunk"
    assert report.waits <= 3 and steps == sorted(steps)


def test_a_stop_of_the_server_ends_the_run():
    def answer(observation: Observation, committed: int) -> Chunk:
        actions = np.zeros((4, 1), np.float32)
        return Chunk(actions, 10.0, observation.step, stop=observation.step > 0, reason="too old")

    robot = Recorder()
    report = runner(Scripted(4, answer), robot).run(40)
    assert report.stopped == "too old" and robot.stops == ["too old"] and report.steps < 10


def test_a_robot_without_actions_stops_when_its_patience_ends():
    def answer(observation: Observation, committed: int) -> Chunk:
        raise ServerError("policy: it broke")

    robot = Recorder()
    report = runner(Scripted(4, answer), robot, patience_s=1.0).run(40)
    assert report.stopped == "no action for 1 s; last: ServerError: policy: it broke" and robot.acted == []
    assert robot.stops == [report.stopped] and report.errors


def test_whatever_breaks_the_robot_is_stopped_first():
    class Broken(Recorder):
        def act(self, action: np.ndarray) -> None:
            raise RuntimeError("a motor burns")

    robot = Broken()
    with pytest.raises(RuntimeError, match="a motor burns"):
        runner(Scripted(4), robot).run(4)
    assert robot.stops == ["RuntimeError: a motor burns"]


def test_lost_time_is_not_made_up_for_by_hurrying():
    class Slow(Recorder):
        def act(self, action: np.ndarray) -> None:
            super().act(action)
            moments.append(clock.now)
            clock.now += 0.25 if len(self.acted) == 5 else 0.0

    clock, moments = Clock(), []
    robot = Slow()
    report = ChunkRunner(Scripted(40), robot, clock=clock, sleep=clock.sleep).run(20)  # type: ignore[arg-type]
    assert report.late == 1
    assert min(b - a for a, b in pairwise(moments)) > 0.099
