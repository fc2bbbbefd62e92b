"""A robot in its own process, with its own clock, delays, lost frames and joint ends, driven through `client/`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fake_robot
import pytest
from servo_policy import SIZE, ServoPolicy

from gemvlm.robot.limits import Limits
from gemvlm.serving.robot_server import ServerSettings, background_server

pytest.importorskip("websockets", reason="needs gemvlm[serve]")

HERE = Path(__file__).parent
LIMITS = Limits(workspace={"x": (-1.0, 1.0), "y": (-1.0, 1.0)}, speeds={"x": 2.0, "y": 2.0}, stale_after_s=10.0)


def start(url: str, mode: str, steps: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "fake_robot.py"), url, mode, str(steps)],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[2] / "client" / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> dict[str, Any]:
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(printed)


def serving(policy: ServoPolicy, port: int = 0, limits: Limits = LIMITS):
    return background_server(policy, port=port, limits=limits, settings=ServerSettings(picture_size=(SIZE, SIZE)))


def test_robots_are_driven_to_the_light_in_both_modes_without_torch():
    with serving(ServoPolicy(seconds=0.05)) as server:
        robots = {mode: start(server.url, mode, 80) for mode in ("chunk", "real_time")}
        told = {mode: outcome(robot) for mode, robot in robots.items()}
    for robot in told.values():
        assert robot["stopped"] is None and robot["stops"] == ["the run is over"] and not robot["errors"]
        assert robot["steps"] == 80 and robot["distance"] < 2.5 / SIZE
        assert robot["too_far"] == 0 and robot["too_fast"] == 0
        assert not robot["torch"]
    assert told["real_time"]["largest_jump"] <= 0.021, "chunks continue each other"
    assert told["real_time"]["waits"] < told["chunk"]["waits"], "it moves while the policy thinks"


def test_a_camera_that_stands_still_stops_the_robot():
    with serving(ServoPolicy(), limits=Limits(stale_after_s=0.4)) as server:
        robot = outcome(start(server.url, "frozen", 400))
    assert robot["steps"] < 400 and "old" in robot["stopped"]
    assert robot["stops"] == [robot["stopped"]]


def test_a_server_that_goes_away_and_comes_back_is_found_again():
    with serving(ServoPolicy()) as server:
        port = server.port
        robot = start(server.url, "real_time", 150)
        until = time.monotonic() + 30
        while server.service.counts["answers"] < 4 and time.monotonic() < until:
            time.sleep(0.01)
    with serving(ServoPolicy(), port=port) as server:
        told = outcome(robot)
        assert server.service.counts["answers"] > 0
    assert told["stopped"] is None and told["steps"] == 150 and told["distance"] < 2.5 / SIZE


def test_the_fake_robots_own_ends_are_real():
    """Otherwise the counts of too far and too fast above would say nothing."""
    robot = fake_robot.FakeRobot((0.0, 0.0))
    robot.act(fake_robot.np.array([1.5, 0.0], "f4"))
    assert (robot.too_far, robot.too_fast) == (1, 1) and robot.place[0] < 0.05
