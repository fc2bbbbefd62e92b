"""Meta-World in closed loop: numbered starts, what a policy may see, its contract, the expert, pictures by rays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="needs pip install 'gemvlm[worlds]'")

from gemvlm.worlds.metaworld import TASKS
from gemvlm.worlds.metaworld.robot import DEMONSTRATIONS, TESTS, MetaWorldRobot, metaworld_robot
from gemvlm.worlds.robot_world import RobotWorld

SIZE = 32


@pytest.fixture(scope="module")
def reach() -> MetaWorldRobot:
    return metaworld_robot("reach-v3", SIZE, "plain")


def test_it_keeps_the_promise(reach):
    assert isinstance(reach, RobotWorld)
    seen = reach.reset(1000)
    assert tuple(seen.images) == reach.contract.cameras
    assert all(image.shape == (SIZE, SIZE, 3) for image in seen.images.values())
    assert seen.state.shape == (len(reach.contract.state_names),) and seen.step == 0
    assert "mujoco" in reach.protocol["simulator"] and "plain" in reach.protocol["drawing"]


def looked_at(seen):
    """With every picture drawn, to be compared later."""
    return replace(seen, images=dict(seen.images))


def test_starts_are_numbered_repeatable_and_apart(reach):
    assert not set(TESTS) & set(range(DEMONSTRATIONS.start, DEMONSTRATIONS.start + len(TESTS)))
    first = looked_at(reach.reset(1000))
    for _ in range(4):
        reach.step(np.ones(4))
    other = looked_at(reach.reset(100))
    again = looked_at(reach.reset(1000))
    fresh = metaworld_robot("reach-v3", SIZE, "plain").reset(1000)
    for same in (again, fresh):
        np.testing.assert_array_equal(first.state, same.state)
        for camera in reach.contract.cameras:
            np.testing.assert_array_equal(first.images[camera], same.images[camera])
    assert any(not np.array_equal(first.images[name], other.images[name]) for name in first.images)
    with pytest.raises(ValueError, match="no start 7"):
        reach.reset(7)


def test_the_whole_state_is_the_hand_and_how_far_it_is_open(reach):
    before = reach.reset(1001)
    opening = before.state[3]
    for _ in range(8):
        after, _ = reach.step(np.array([1.0, 0.0, 0.0, 1.0]))
    moved = after.state[:3] - before.state[:3]
    assert moved[0] > 0.03 and np.abs(moved[1:]).max() < 0.02
    assert after.state[3] < opening - 0.2, "a high effort closes, as the contract says"
    assert after.step == 8 and after.time_s == pytest.approx(8 / reach.contract.rate_hz)


def test_the_expert_reaches_and_success_is_said(reach):
    reach.reset(1002)
    assert not reach.succeeded()
    for _ in range(100):
        _, done = reach.step(reach.expert_action())
        if done:
            break
    assert done and reach.succeeded()


def test_actions_that_mean_nothing_are_refused(reach):
    reach.reset(1000)
    for action in (np.zeros(3), np.array([0, 0, np.nan, 0])):
        with pytest.raises(ValueError, match="an action is 4 finite numbers"):
            reach.step(action)


def test_depth_is_that_of_each_picture_and_the_goal_is_in_it(reach):
    reach.reset(1000)
    depths = reach.depths()
    assert tuple(depths) == reach.contract.cameras
    assert all(depth.kind == "metric_z" and depth.values[depth.valid].min() > 0.2 for depth in depths.values())
    goal = reach.world.data.site("goal").xpos
    shown = []
    for name, view in reach.views.items():
        place = view.to_camera(goal)
        column, row = (int(value) for value in view.camera.project(place))
        assert 0 <= column < SIZE and 0 <= row < SIZE
        shown.append(abs(depths[name].values[row, column] - place[2]) < 0.04)
    assert any(shown)


def test_opengl_and_rays_agree():
    try:
        drawn = metaworld_robot("pick-place-v3", 64)
        seen = drawn.reset(1003)
    except ImportError as error:
        pytest.skip(str(error))
    cast = metaworld_robot("pick-place-v3", 64, "plain")
    np.testing.assert_array_equal(cast.reset(1003).state, seen.state)
    for name, depth in drawn.depths().items():
        other = cast.depths()[name]
        both = depth.valid & other.valid
        assert np.mean(depth.valid == other.valid) > 0.995
        assert np.mean(np.abs(depth.values - other.values)[both] < 0.002) > 0.99
    drawn.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_starts_the_same_whatever_was_done_before(task):
    world = metaworld_robot(task, 8, "plain")
    first = world.reset(100)
    hidden = world.world.state
    world.reset(101)
    other = world.world.state
    for _ in range(30):
        world.step(world.expert_action())
    again = world.reset(100)
    np.testing.assert_array_equal(first.state, again.state)
    np.testing.assert_array_equal(hidden, world.world.state)
    assert not np.array_equal(hidden, other)
