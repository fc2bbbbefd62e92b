"""LIBERO in closed loop: official and drawn starts, the turn of pictures, the official state, the scripted expert."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from gemvlm.robot.rotations import to_matrix
from gemvlm.worlds.libero.robot import DEMONSTRATIONS, TESTS, LiberoRobot, libero_robot
from gemvlm.worlds.robot_world import RobotWorld

ASSETS = Path(__file__).parents[2] / "../shared/libero-assets"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libero") is None or not ASSETS.is_dir(),
    reason=f"needs LIBERO (make worlds-libero) and its assets at {ASSETS}",
)
SIZE = 24
EXPERT_TASKS = [(suite, index) for suite in ("libero_object", "libero_spatial") for index in range(10)]


@pytest.fixture(scope="module")
def soup() -> LiberoRobot:
    return libero_robot("libero_object", 0, ASSETS, SIZE, turn=True, drawing="plain")


def test_it_keeps_the_promise_and_says_what_it_is_drawn_with(soup):
    assert isinstance(soup, RobotWorld)
    seen = soup.reset(0)
    assert tuple(seen.images) == soup.contract.cameras == ("agentview", "robot0_eye_in_hand")
    assert soup.name == "libero/libero_object/0 with stand-in assets"
    assert soup.protocol["waiting steps"] == "10" and "stand-ins" in soup.protocol["assets"]
    assert soup.instruction == seen.instruction == "pick up the alphabet soup and place it in the basket"


def test_official_and_drawn_starts_are_numbered_repeatable_and_apart(soup):
    assert (TESTS, DEMONSTRATIONS.start) == (range(50), 1000)
    places = {}
    for start in (3, 1003, 1004, 3, 1003):
        soup.reset(start)
        place = soup.world.data.qpos.copy()
        np.testing.assert_array_equal(places.setdefault(start, place), place)
    assert len({place.tobytes() for place in places.values()}) == 3
    with pytest.raises(ValueError, match="no start 50; there are 0 to 49 and 1000 to"):
        soup.reset(50)


def test_the_mirror_is_stated_and_done_to_pictures_and_depth(soup):
    seen = soup.reset(0)
    assert soup.contract.image_turn == "half" and soup.protocol["pictures"] == "as published, mirrored"
    for name in soup.contract.cameras:
        view = soup.world.named_view(name, (SIZE, SIZE))
        upright, depth = soup.world.view.picture(soup.world.data, view)
        np.testing.assert_array_equal(seen.images[name], upright[:, ::-1])
        np.testing.assert_array_equal(soup.depths()[name].values, depth.values[:, ::-1])


def test_the_state_is_that_of_the_official_evaluation(soup):
    state = soup.reset(0).state
    hand = soup.world.data.body("robot0_right_hand")
    np.testing.assert_allclose(to_matrix(state[3:6], "axis_angle"), hand.xmat.reshape(3, 3), atol=1e-5)
    np.testing.assert_allclose(state[:3], soup.world.data.site("gripper0_grip_site").xpos, atol=1e-6)
    assert state[6] > 0.03 > -0.03 > state[7], "both fingers are open"


def test_a_closing_action_closes(soup):
    before = soup.reset(0).state[6]
    for _ in range(5):
        after, _ = soup.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    assert after.state[6] < before - 0.01 and after.time_s == pytest.approx(5 / 20)


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "index"), EXPERT_TASKS)
def test_the_expert_solves_its_tasks(suite, index):
    world = libero_robot(suite, index, ASSETS, 8, drawing="plain")
    solved = sum(_solves(world, start) for start in (0, 1, 1000))
    world.close()
    assert solved >= 2


@pytest.mark.slow
@pytest.mark.parametrize("index", range(10))
@pytest.mark.parametrize("suite", ["libero_spatial", "libero_object", "libero_goal", "libero_10"])
def test_every_task_loads_resets_and_steps(suite, index):
    world = libero_robot(suite, index, ASSETS, 16, drawing="plain")
    for start in (0, 49, 1000):
        world.reset(start)
        seen, done = world.step(np.zeros(7))
        assert not done and seen.step == 1 and np.isfinite(seen.state).all()
        assert all(image.std() > 0 for image in seen.images.values())
    assert (world.expert_action() is not None) == (suite in ("libero_spatial", "libero_object"))
    world.close()


def _solves(world: LiberoRobot, start: int) -> bool:
    """Whether the expert is done within the horizon; the pictures are not looked at."""
    world.reset(start)
    for _ in range(world.horizon):
        action = world.expert_action()
        assert action is not None
        if world.world.step(action):
            return True
    return False
