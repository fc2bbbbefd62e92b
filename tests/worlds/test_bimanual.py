"""Two arms: numbered starts, the paper's fourteen numbers, limits of speed and reach, experts that need both hands."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs pip install 'gemvlm[worlds]'")

from gemvlm.worlds.bimanual import TASKS, BimanualWorld, bimanual_robot
from gemvlm.worlds.bimanual.world import REACH, SPEED_M_S
from gemvlm.worlds.robot_world import RobotWorld

SIZE = 16
LONGEST = 200
"""Actions; the expert needs 160 at most."""


@pytest.fixture(scope="module", params=TASKS)
def world(request) -> BimanualWorld:
    return bimanual_robot(request.param, SIZE)


def played(world: BimanualWorld, start: int, still: str = "") -> bool:
    """Whether the expert succeeds, with one hand held where it began if asked."""
    held = world.reset(start).state.reshape(2, 7).copy()
    for _ in range(LONGEST):
        action = world.expert_action().reshape(2, 7)
        if still:
            index = ("left", "right").index(still)
            action[index] = held[index]
        if world.step(action.ravel())[1]:
            return True
    return False


def test_it_keeps_the_promise(world):
    assert isinstance(world, RobotWorld)
    seen = world.reset(1000)
    assert tuple(seen.images) == tuple(world.depths()) == world.contract.cameras
    assert seen.state.shape == (14,) and len(world.contract.action_names) == 14
    assert seen.state[6] == pytest.approx(0.08, abs=0.005), "the left hand's width, open"
    assert not world.succeeded()


def test_starts_are_repeatable_and_differ(world):
    top = world.reset(1000).images["top"]
    place = world.data.qpos.copy()
    for _ in range(5):
        world.step(world.expert_action())
    world.reset(1001)
    other = world.data.qpos.copy()
    again = world.reset(1000)
    np.testing.assert_array_equal(world.data.qpos, place)
    np.testing.assert_array_equal(top, again.images["top"])
    assert not np.array_equal(other, place)


def test_the_expert_succeeds(world, monkeypatch):
    seen = world.reset(1000)
    monkeypatch.setattr(world, "_seen", lambda: seen)
    assert all(played(world, start) for start in (100, 1000))


def test_neither_hand_does_it_alone(world, monkeypatch):
    seen = world.reset(1000)
    monkeypatch.setattr(world, "_seen", lambda: seen)
    assert not played(world, 1000, still="left")
    assert not played(world, 1000, still="right")


def test_a_hand_goes_no_faster_and_no_farther_than_it_may():
    world = bimanual_robot("hand-over", SIZE)
    before = world.reset(1000).state
    action = before.astype(np.float64)
    action[:3] = [5.0, 5.0, 5.0]
    after, _ = world.step(action)
    assert np.linalg.norm(after.state[:3] - before[:3]) <= SPEED_M_S / 30 + 0.002
    for _ in range(60):
        after, _ = world.step(action)
    np.testing.assert_allclose(after.state[:3], REACH["left"][1], atol=0.01)
    np.testing.assert_allclose(after.state[7:10], before[7:10], atol=0.005)


def test_the_width_is_in_metres():
    world = bimanual_robot("lift-tray", SIZE)
    action = world.reset(1000).state.astype(np.float64)
    action[6], action[13] = 0.03, 0.06
    for _ in range(20):
        seen, _ = world.step(action)
    assert seen.state[6] == pytest.approx(0.03, abs=0.003) and seen.state[13] == pytest.approx(0.06, abs=0.003)


def test_unknown_tasks_are_named():
    with pytest.raises(ValueError, match="no bimanual task 'juggle'"):
        bimanual_robot("juggle")
