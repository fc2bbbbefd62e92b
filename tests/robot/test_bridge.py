"""Bridge's WidowX: what the model sees of a state, and what the set records of a pose."""

from __future__ import annotations

import numpy as np
import pytest

from gemvlm.robot.embodiments import EMBODIMENTS
from gemvlm.robot.embodiments.bridge import DOWN, recorded_state
from gemvlm.robot.rotations import convert, from_matrix, to_matrix


def test_the_models_state_has_no_jump_at_half_turns_and_no_pad() -> None:
    state = np.array([0.3, 0.1, 0.2, np.pi - 0.001, 0.1, -0.2, 0, 0.7], np.float32)
    other = state.copy()
    other[3] -= 2 * np.pi - 0.002
    seen, beyond = (EMBODIMENTS["bridge"].to_model(own)[0] for own in (state, other))
    assert seen.shape == (10,) and np.abs(seen - beyond).max() < 0.003
    np.testing.assert_allclose(seen[[0, 1, 2, 9]], state[[0, 1, 2, 7]])


def test_angles_are_those_against_the_gripper_that_points_down() -> None:
    place, angles = np.array([0.3, 0.0, 0.1]), np.array([0.1, -0.2, 0.3])
    turned = from_matrix(to_matrix(angles, "euler_xyz") @ DOWN, "quaternion_wxyz")
    np.testing.assert_allclose(recorded_state(place, turned, 0.5), [*place, *angles, 0, 0.5], atol=1e-6)
    down = convert(DOWN.reshape(9), "matrix", "quaternion_wxyz")
    np.testing.assert_allclose(recorded_state(place, down, 1.0), [*place, 0, 0, 0, 0, 1], atol=1e-6)
    with pytest.raises(ValueError, match="length 0"):
        recorded_state(place, np.zeros(4), 1.0)
