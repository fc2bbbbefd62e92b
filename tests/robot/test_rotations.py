"""Forms of a rotation, each to every other and back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gemvlm.robot.rotations import SIZES, Form, angle_between, axis_angle_of_quaternion, convert, from_matrix, to_matrix


def _axis_angles() -> np.ndarray:
    """Random ones, and around every place where a formula could divide by 0 or a sign could turn."""
    axes = np.random.default_rng(0).normal(size=(60, 3))
    axes = np.concatenate([axes / np.linalg.norm(axes, axis=1, keepdims=True), np.eye(3), -np.eye(3)])
    angles = [0, 1e-12, 1e-8, 1e-4, 0.3, np.pi / 2, np.pi - 1e-4, np.pi - 1e-8, np.pi - 1e-12, np.pi]
    return np.concatenate([axes * angle for angle in angles])


MATRICES = to_matrix(_axis_angles(), "axis_angle")


def test_matrices_are_rotations() -> None:
    np.testing.assert_allclose(
        MATRICES @ np.swapaxes(MATRICES, -1, -2), np.broadcast_to(np.eye(3), MATRICES.shape), atol=1e-14
    )
    np.testing.assert_allclose(np.linalg.det(MATRICES), 1)


@pytest.mark.parametrize(("source", "target"), itertools.product(SIZES, SIZES))
def test_every_form_and_back(source: Form, target: Form) -> None:
    values = from_matrix(MATRICES, source)
    again = to_matrix(convert(convert(values, source, target), target, source), source)
    assert angle_between(again, MATRICES).max() < 2e-7


def test_axis_angles_come_back_themselves() -> None:
    values = _axis_angles()
    below = np.linalg.norm(values, axis=1) < np.pi - 1e-6
    again = from_matrix(MATRICES, "axis_angle")
    np.testing.assert_allclose(again[below], values[below], atol=1e-9)
    lengths = np.linalg.norm(again, axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(values, axis=1), atol=1e-7)


def test_known_rotations() -> None:
    quarter_z = to_matrix(np.array([0.0, 0, np.pi / 2]), "axis_angle")
    np.testing.assert_allclose(quarter_z @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(from_matrix(quarter_z, "quaternion_xyzw"), [0, 0, half, half], atol=1e-15)
    np.testing.assert_allclose(from_matrix(quarter_z, "quaternion_wxyz"), [half, 0, 0, half], atol=1e-15)
    np.testing.assert_allclose(from_matrix(quarter_z, "rotation_6d"), [0, 1, 0, -1, 0, 0], atol=1e-15)
    about_fixed_axes = to_matrix(np.array([np.pi / 2, 0, np.pi / 2]), "euler_xyz")  # x first, then the fixed z
    np.testing.assert_allclose(about_fixed_axes @ [0, 1, 0], [0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(about_fixed_axes @ [1, 0, 0], [0, 1, 0], atol=1e-15)


def test_against_scipy() -> None:
    rotation = pytest.importorskip("scipy.spatial.transform", reason="scipy is not installed").Rotation
    theirs = rotation.from_rotvec(_axis_angles())
    np.testing.assert_allclose(MATRICES, theirs.as_matrix(), atol=1e-12)
    tame = np.abs(theirs.as_matrix()[:, 2, 0]) < 0.99999
    angles = from_matrix(MATRICES, "euler_xyz")[tame] - theirs[tame].as_euler("xyz")
    np.testing.assert_allclose(np.sin(angles / 2), 0, atol=1e-7)  # pi and -pi are one angle


def test_euler_angles_at_their_pole() -> None:
    for pitch in (np.pi / 2, -np.pi / 2):
        for roll, yaw in itertools.product((-2.0, 0.0, 1.0), (0.0, 0.7)):
            matrix = to_matrix(np.array([roll, pitch, yaw]), "euler_xyz")
            assert angle_between(to_matrix(from_matrix(matrix, "euler_xyz"), "euler_xyz"), matrix) < 1e-7


def test_the_sign_of_a_quaternion_is_one_form() -> None:
    values = np.random.default_rng(2).normal(size=(50, 4))
    for form in ("quaternion_xyzw", "quaternion_wxyz"):
        np.testing.assert_allclose(to_matrix(values, form), to_matrix(-values, form), atol=1e-14)
    assert (convert(values, "quaternion_xyzw", "quaternion_xyzw")[:, 3] >= 0).all()


def test_robosuites_vector_passes_half_turns_smoothly() -> None:
    """A gripper that points down swings through pi: the canonical vector jumps, this one must not."""
    angles = np.linspace(np.pi - 0.2, np.pi + 0.2, 41)
    quaternions = np.stack([np.sin(angles / 2), 0 * angles, 0 * angles, np.cos(angles / 2)], -1)
    smooth = axis_angle_of_quaternion(quaternions)
    np.testing.assert_allclose(smooth[:, 0], angles, atol=1e-9)
    assert np.abs(np.diff(convert(quaternions, "quaternion_xyzw", "axis_angle"), axis=0)).max() > 6
    np.testing.assert_allclose(to_matrix(smooth, "axis_angle"), to_matrix(quaternions, "quaternion_xyzw"), atol=1e-9)
    np.testing.assert_array_equal(axis_angle_of_quaternion(np.array([0.0, 0, 0, 1])), 0)


@pytest.mark.parametrize(
    ("values", "form", "says"),
    [
        (np.zeros(4), "quaternion_xyzw", "length 0"),
        (np.zeros(6), "rotation_6d", "0 or parallel"),
        (np.array([1.0, 0, 0, 2, 0, 0]), "rotation_6d", "0 or parallel"),
        (np.zeros(4), "axis_angle", "4 numbers are not a 'axis_angle'"),
    ],
)
def test_what_is_no_rotation_is_refused(values: np.ndarray, form: Form, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        to_matrix(values, form)
