"""The published `openpi-client`, in an environment of its own, drives episodes through our server.

python -m venv openpi && openpi/bin/pip install openpi-client
GEMVLM_OPENPI_PYTHON=openpi/bin/python pytest tests/serving/robot/test_openpi_client.py
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servo_policy import PER_ACTION, SIZE, ServoPolicy, picture

from gemvlm.robot import ActionChunk, Committed, Policy, RobotObservation
from gemvlm.robot.limits import Limits
from gemvlm.serving.robot_server import ServerSettings, background_server

OPENPI = os.environ.get("GEMVLM_OPENPI_PYTHON", "")

pytestmark = pytest.mark.skipif(not OPENPI, reason="needs openpi-client in an environment: see this file's head")


class OpenpiClient:
    """The driver's other end: `infer` returns what the published client returned, and raises what it raised."""

    def __init__(self, url: str, open_loop: int = 0, key: str = "") -> None:
        words = [OPENPI, str(Path(__file__).parent / "openpi_driver.py"), url, str(open_loop), *filter(None, [key])]
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean)

    def __enter__(self) -> OpenpiClient:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(timeout=30) == 0

    def infer(self, observation: dict[str, Any]) -> np.ndarray:
        packed = io.BytesIO()
        np.savez(packed, **observation)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(struct.pack("!I", packed.tell()) + packed.getvalue())
        self.process.stdin.flush()
        size = struct.unpack("!I", self.process.stdout.read(4))[0]
        with np.load(io.BytesIO(self.process.stdout.read(size)), allow_pickle=False) as told:
            if "error" in told:
                raise RuntimeError(told["error"].item())
            return told["actions"]


def serving(policy: Policy, size: int = SIZE, key: str | None = None):
    settings = ServerSettings(picture_size=(size, size), api_key=key)
    return background_server(policy, limits=Limits(stale_after_s=60.0), settings=settings)


def test_chunks_and_brokered_actions_arrive_as_they_were_sent():
    observation = {"observation/front": picture((1, -1)), "observation/state": np.zeros(2), "prompt": np.array("go")}
    with serving(ServoPolicy(), key="s3cret") as server:
        with OpenpiClient(server.url, key="s3cret") as client:
            chunk = client.infer(observation)
        with OpenpiClient(server.url, open_loop=4, key="s3cret") as client:
            actions = [client.infer(observation) for _ in range(6)]
    assert chunk.shape == (16, 2) and chunk.dtype == np.float32
    assert np.allclose(chunk[:, 0], PER_ACTION * np.arange(1, 17), atol=1e-6)
    assert np.array_equal(actions[:4], chunk[:4]) and np.array_equal(actions[4:], chunk[:2])


def test_a_refusal_reaches_the_published_client_as_its_own_error():
    observation = {"observation/front": picture((1, -1)), "observation/state": np.zeros(3), "prompt": np.array("go")}
    with (
        serving(ServoPolicy()) as server,
        OpenpiClient(server.url) as client,
        pytest.raises(RuntimeError, match=r"Error in inference server:\nobservation/state: must be 2 numbers"),
    ):
        client.infer(observation)


class Expert:
    """A world's own expert behind a policy's interface; it looks into the simulator instead of at the pictures."""

    horizon = 1

    def __init__(self, world: Any) -> None:
        self.world, self.contract = world, world.contract

    def act(
        self,
        observations: Sequence[RobotObservation],
        seeds: Sequence[int],
        committed: Sequence[Committed | None] | None = None,
    ) -> list[ActionChunk]:
        return [ActionChunk(self.world.expert_action()[None], self.contract.rate_hz) for _ in observations]


@pytest.mark.parametrize("task", ["reach-v3", "drawer-open-v3"])
def test_an_episode_of_metaworld_succeeds_through_the_published_client(task: str):
    pytest.importorskip("metaworld", reason="needs gemvlm[worlds]")
    from gemvlm.worlds.metaworld import metaworld_robot

    world = metaworld_robot(task, size=48, drawing="plain")
    seen, steps = world.reset(world.test_starts[0]), 0
    with serving(Expert(world), 48) as server, OpenpiClient(server.url) as client:
        while not world.succeeded() and steps < world.horizon:
            fields = {f"observation/{name}": image for name, image in seen.images.items()}
            actions = client.infer(fields | {"observation/state": seen.state, "prompt": np.array(seen.instruction)})
            seen, _ = world.step(actions[0])
            steps += 1
        answers, timing = server.service.counts["answers"], server.service.answering.summary_ms()
    world.close()
    print(f"{task}: {steps} steps, {timing}")
    assert world.succeeded() and answers == steps
