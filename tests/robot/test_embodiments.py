"""Numbers of robots to a model's and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gemvlm.robot.embodiments import EMBODIMENTS, Embodiment, Plain, mirrored, open_embodiment
from gemvlm.robot.embodiments.bimanual import BimanualArms
from gemvlm.robot.embodiments.libero import official_state
from gemvlm.robot.embodiments.rdt2 import ACTION_NAMES
from gemvlm.robot.rotations import angle_between, from_matrix, to_matrix

RNG = np.random.default_rng(1)


def _episode(robot: Embodiment, length: int = 40, steps: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """States (T, S) and chunks (T, H, A), rotation vectors among them near 0 and near pi."""
    names, actions = robot.contract.state_names, robot.contract.action_names
    state = RNG.uniform(-0.5, 0.5, (length, len(names))).astype(np.float32)
    chunks = RNG.uniform(-0.5, 0.5, (length, steps, len(actions))).astype(np.float32)
    for first in (index for index, name in enumerate(names) if name.endswith("rx")):
        state[: length // 2, first] += np.pi
        if robot.contract.control == "absolute":
            chunks[: length // 2, :, first] += np.pi
    return state, chunks


def _same_pose(ours: np.ndarray, theirs: np.ndarray, names: tuple[str, ...]) -> None:
    """Equal numbers, but rotation vectors as rotations: those of one rotation may differ by a whole turn."""
    turns = [index for index, name in enumerate(names) if name.endswith("rx")]
    others = [i for i in range(len(names)) if not any(first <= i < first + 3 for first in turns)]
    np.testing.assert_allclose(ours[..., others], theirs[..., others], atol=2e-6)
    for first in turns:
        ours_turn, theirs_turn = (to_matrix(v[..., first : first + 3], "axis_angle") for v in (ours, theirs))
        assert angle_between(ours_turn, theirs_turn).max() < 5e-6


@pytest.mark.parametrize("name", EMBODIMENTS)
def test_actions_come_back(name: str) -> None:
    robot = EMBODIMENTS[name]
    state, chunks = _episode(robot)
    seen, actions = robot.to_model(state, chunks)
    assert actions is not None and seen.dtype == actions.dtype == np.float32
    assert (seen.shape[-1], actions.shape[-1]) == (robot.state_size, robot.action_size)
    absolute = robot.contract.control == "absolute"
    names = (
        robot.contract.action_names if absolute else tuple(n.replace("rx", "-") for n in robot.contract.action_names)
    )
    _same_pose(robot.to_robot(actions, state), chunks, names)


@pytest.mark.parametrize("name", EMBODIMENTS)
def test_an_episode_is_its_moments_and_none_is_none(name: str) -> None:
    robot = EMBODIMENTS[name]
    state, chunks = _episode(robot, length=5)
    seen, actions = robot.to_model(state, chunks)
    assert actions is not None
    for t in range(5):
        own_state, own_actions = robot.to_model(state[t], chunks[t])
        np.testing.assert_array_equal(own_state, seen[t])
        np.testing.assert_array_equal(np.asarray(own_actions), actions[t])
    assert robot.to_model(state)[1] is None


@pytest.mark.parametrize("name", EMBODIMENTS)
def test_relative_is_what_depends_on_the_state(name: str) -> None:
    robot = EMBODIMENTS[name]
    state, chunks = _episode(robot)
    other = state + np.float32(0.1)
    here, there = (np.asarray(robot.to_model(own, chunks)[1]) for own in (state, other))
    same = np.array_equal(here, there)
    assert same == (not robot.relative)


@pytest.mark.parametrize("name", EMBODIMENTS)
def test_another_robots_numbers_are_refused(name: str) -> None:
    robot = EMBODIMENTS[name]
    state, chunks = _episode(robot)
    with pytest.raises(ValueError, match="numbers of state"):
        robot.to_model(np.pad(state, ((0, 0), (0, 1))), chunks)
    with pytest.raises(ValueError, match="numbers of action"):
        robot.to_model(state, chunks[..., 1:])


@pytest.mark.parametrize(("name", "grip"), [("metaworld", 3), ("libero", 6), ("joint_arm", 7)])
def test_a_high_gripper_opens_for_the_model(name: str, grip: int) -> None:
    robot = EMBODIMENTS[name]
    assert robot.contract.gripper == "high_closes"
    closing = np.zeros((2, len(robot.contract.action_names)), np.float32)
    closing[1, grip] = 1
    _, seen = robot.to_model(np.zeros(len(robot.contract.state_names), np.float32), closing)
    assert seen is not None and seen[1, grip] < seen[0, grip]


def test_standing_still_is_zero_motion() -> None:
    state, _ = _episode(EMBODIMENTS["bimanual_relative"])
    _, actions = EMBODIMENTS["bimanual_relative"].to_model(state, state[:, None])
    still = np.array([0, 0, 0, 1, 0, 0, 0, 1, 0], np.float32)
    arms = np.asarray(actions).reshape(-1, 2, 10)
    np.testing.assert_allclose(arms[..., :9], np.broadcast_to(still, (*arms.shape[:2], 9)), atol=1e-6)
    np.testing.assert_allclose(arms[..., 9], state[:, [6, 13]], atol=1e-7)
    joints, _ = _episode(EMBODIMENTS["joint_arm"])
    _, moved = EMBODIMENTS["joint_arm"].to_model(joints, joints[:, None])
    np.testing.assert_allclose(np.asarray(moved)[..., :7], 0, atol=1e-7)


def test_relative_actions_do_not_depend_on_where_the_table_stands() -> None:
    robot = BimanualArms(relative=True)
    state, chunks = _episode(robot)
    shift = np.tile(np.array([1, -2, 0.5, 0, 0, 0, 0], np.float32), 2)
    here, there = robot.to_model(state, chunks)[1], robot.to_model(state + shift, chunks + shift)[1]
    np.testing.assert_allclose(np.asarray(there), np.asarray(here), atol=2e-6)


def test_the_models_state_of_libero_has_no_jump_at_half_turns() -> None:
    """A quaternion's sign costs 14 to 40 points (needs 1.1): whoever computed the vector, the model sees one thing."""
    angle = np.pi - 0.01
    one = np.array([0.1, 0.2, 0.3, angle, 0, 0, 0.04, -0.04], np.float32)
    other = one.copy()
    other[3] = angle - 2 * np.pi
    robot = EMBODIMENTS["libero"]
    np.testing.assert_allclose(robot.to_model(one)[0], robot.to_model(other)[0], atol=1e-6)


def test_the_official_state_keeps_the_simulators_sign() -> None:
    quaternion = np.array([0.9999, 0.01, 0.0, -0.005])
    quaternion /= np.linalg.norm(quaternion)
    state = official_state(np.zeros(3), quaternion, np.zeros(2))
    assert np.linalg.norm(state[3:6]) > np.pi and state[3] > 0


def test_opening_by_name_and_contract() -> None:
    libero = EMBODIMENTS["libero"].contract
    other_cameras = replace(libero, cameras=("front",), rate_hz=10.0)
    assert open_embodiment("libero", other_cameras).contract.cameras == ("front",)
    assert open_embodiment("libero").contract == libero
    assert open_embodiment("libero_turned").contract.image_turn == "half"
    assert open_embodiment("plain", libero) == Plain(libero)
    with pytest.raises(ValueError, match="gripper: 'high_closes' here, 'high_opens' there"):
        open_embodiment("libero", replace(libero, gripper="high_opens"))
    with pytest.raises(ValueError, match="'panda' is not one of"):
        open_embodiment("panda")
    with pytest.raises(ValueError, match="relative"):
        Plain(libero, relative=True)


def test_pictures_of_published_libero_data_are_mirror_images() -> None:
    """openpi turns robosuite's picture, whose rows run upwards, by 180 degrees."""
    picture = RNG.integers(0, 255, (4, 6, 3)).astype(np.uint8)
    robosuites = picture[::-1]
    np.testing.assert_array_equal(mirrored(picture), robosuites[::-1, ::-1])
    np.testing.assert_array_equal(mirrored(mirrored(picture)), picture)
    np.testing.assert_array_equal(mirrored(picture[..., 0]), mirrored(picture)[..., 0])


def test_rdt2s_rotation_is_two_columns() -> None:
    """thu-ml/RDT2, `data/umi/pose_util.py`: its 6 numbers are mat[:, 0] and mat[:, 1], and so our names say."""
    turns = to_matrix(RNG.uniform(-2, 2, (20, 3)), "axis_angle")
    for arm in ("right", "left"):
        first = ACTION_NAMES.index(f"{arm}_x") + 3
        places = [tuple(map(int, name[-2:])) for name in ACTION_NAMES[first : first + 6]]
        assert places == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
        for turn in turns:
            theirs = np.concatenate([turn[:, 0], turn[:, 1]])
            np.testing.assert_array_equal([turn[place] for place in places], theirs)
            np.testing.assert_array_equal(from_matrix(turn, EMBODIMENTS["rdt2"].contract.rotation), theirs)
    quarter_z = to_matrix(np.array([0, 0, np.pi / 2]), "axis_angle")
    np.testing.assert_allclose(from_matrix(quarter_z, "rotation_6d"), [0, 1, 0, -1, 0, 0], atol=1e-15)
