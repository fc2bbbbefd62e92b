"""Forms of a rotation and what turns one into another, by way of the matrix; any leading axes.

matrix            (3, 3), acts on columns: v' = R v
axis_angle        axis times angle in radians, angle in [0, pi] when made here; any length is read
euler_xyz         radians about the fixed x axis first, then the fixed y, then the fixed z: R = Rz Ry Rx (roll,
                  pitch, yaw); pitch in [-pi/2, pi/2]; at its ends the roll is 0
quaternion_xyzw   unit quaternion, real part last (robosuite, ROS, scipy); the real part is >= 0 when made here
quaternion_wxyz   the same, real part first (MuJoCo)
rotation_6d       the first two columns, one after the other (Zhou et al., CVPR 2019); so RDT2 (thu-ml/RDT2,
                  `data/umi/pose_util.py`, commit 29317900). PyTorch3D's is the first two rows: the inverse's form
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

Form = Literal["axis_angle", "euler_xyz", "quaternion_xyzw", "quaternion_wxyz", "rotation_6d", "matrix"]
SIZES: dict[Form, int] = {
    "axis_angle": 3,
    "euler_xyz": 3,
    "quaternion_xyzw": 4,
    "quaternion_wxyz": 4,
    "rotation_6d": 6,
    "matrix": 9,
}
"""How many numbers each form has; a matrix's are in row-major order."""
_NEAR_ZERO = 1e-12


def convert(values: Float[np.ndarray, "*batch n"], source: Form, target: Form) -> Float[np.ndarray, "*batch m"]:
    """The same rotations in another form, computed in float64. ValueError for a form whose numbers don't fit."""
    return from_matrix(to_matrix(values, source), target)


def to_matrix(values: Float[np.ndarray, "*batch n"], form: Form) -> Float[np.ndarray, "*batch 3 3"]:
    """ValueError for the wrong number of values, quaternions of length 0, and 6-D vectors that span no plane."""
    if form not in SIZES or values.shape[-1] != SIZES[form]:
        raise ValueError(f"rotation: {values.shape[-1]} numbers are not a {form!r}; sizes are {SIZES}")
    values = values.astype(np.float64)
    if form == "axis_angle":
        half = np.linalg.norm(values, axis=-1, keepdims=True) / 2
        # sin(a/2)/a by way of sinc, which is exact at 0
        return _of_quaternion(np.concatenate([values * np.sinc(half / np.pi) / 2, np.cos(half)], -1))
    if form == "euler_xyz":
        return _of_euler(values)
    if form == "quaternion_xyzw":
        return _of_quaternion(values)
    if form == "quaternion_wxyz":
        return _of_quaternion(np.roll(values, -1, axis=-1))
    if form == "matrix":
        return values.reshape(*values.shape[:-1], 3, 3)
    return _orthonormal(values[..., :3], values[..., 3:])


def from_matrix(matrix: Float[np.ndarray, "*batch 3 3"], form: Form) -> Float[np.ndarray, "*batch n"]:
    """Undoes `to_matrix`."""
    matrix = matrix.astype(np.float64)
    if form == "matrix":
        return matrix.reshape(*matrix.shape[:-2], 9)
    if form == "rotation_6d":
        return np.concatenate([matrix[..., :, 0], matrix[..., :, 1]], axis=-1)
    if form == "euler_xyz":
        return _to_euler(matrix)
    quaternion = _to_quaternion(matrix)
    if form == "quaternion_xyzw":
        return quaternion
    if form == "quaternion_wxyz":
        return np.roll(quaternion, 1, axis=-1)
    if form == "axis_angle":
        return _to_axis_angle(quaternion)
    raise ValueError(f"rotation: {form!r} is not one of {sorted(SIZES)}")


def axis_angle_of_quaternion(quaternion: Float[np.ndarray, "*batch 4"]) -> Float[np.ndarray, "*batch 3"]:
    """Axis times angle with the angle in [0, 2 pi], the quaternion (xyzw) taken with the sign that it has.

    This is robosuite's rule (ARISE-Initiative/robosuite, `robosuite/utils/transform_utils.py`, `quat2axisangle`): two
    signs of one rotation give different vectors, but where a rotation passes pi smoothly, so does the vector. `convert`
    jumps there to the opposite axis.
    """
    quaternion = quaternion.astype(np.float64)
    real = np.clip(quaternion[..., 3:], -1, 1)
    length = np.sqrt(1 - real**2)
    axis = quaternion[..., :3] / np.where(length > _NEAR_ZERO, length, 1)
    return np.where(length > _NEAR_ZERO, axis * 2 * np.arccos(real), 0.0)


def angle_between(
    first: Float[np.ndarray, "*batch 3 3"], second: Float[np.ndarray, "*batch 3 3"]
) -> Float[np.ndarray, "*batch"]:
    """How far one rotation is from another, in radians (0 to pi)."""
    between = np.swapaxes(first, -1, -2).astype(np.float64) @ second
    return np.asarray(np.linalg.norm(_to_axis_angle(_to_quaternion(between)), axis=-1))


def _of_quaternion(xyzw: Float[np.ndarray, "*batch 4"]) -> Float[np.ndarray, "*batch 3 3"]:
    length = np.linalg.norm(xyzw, axis=-1, keepdims=True)
    if not (length > _NEAR_ZERO).all():
        raise ValueError("rotation: a quaternion has the length 0; is this column a rotation?")
    x, y, z, w = np.moveaxis(xyzw / length, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _to_quaternion(matrix: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 4"]:
    """(x, y, z, w) with w >= 0: of four ways to compute it, the one that divides by the largest number (Shepperd)."""
    a, b, c = matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 2, 2]
    xw, yw, zw = (matrix[..., i, j] - matrix[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0)))
    xy, xz, yz = (matrix[..., i, j] + matrix[..., j, i] for i, j in ((0, 1), (0, 2), (1, 2)))
    ways = np.stack(
        [
            np.stack([1 + a - b - c, xy, xz, xw], -1),
            np.stack([xy, 1 - a + b - c, yz, yw], -1),
            np.stack([xz, yz, 1 - a - b + c, zw], -1),
            np.stack([xw, yw, zw, 1 + a + b + c], -1),
        ],
        -2,
    )  # row k is the quaternion times 4 of its number k
    largest = np.argmax(np.diagonal(ways, axis1=-2, axis2=-1), axis=-1)
    quaternion = np.take_along_axis(ways, largest[..., None, None], axis=-2)[..., 0, :]
    quaternion = quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)
    return np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def _to_axis_angle(quaternion: Float[np.ndarray, "*batch 4"]) -> Float[np.ndarray, "*batch 3"]:
    sine = np.linalg.norm(quaternion[..., :3], axis=-1, keepdims=True)
    half = np.arctan2(sine, quaternion[..., 3:])
    # near 0, angle / sine is 2 to within the square of the angle
    factor = np.where(sine > _NEAR_ZERO, 2 * half / np.where(sine > _NEAR_ZERO, sine, 1), 2.0)
    return quaternion[..., :3] * factor


def _of_euler(angles: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3 3"]:
    (a, b, c), (sa, sb, sc) = np.moveaxis(np.cos(angles), -1, 0), np.moveaxis(np.sin(angles), -1, 0)
    rows = [
        [b * c, sa * sb * c - a * sc, a * sb * c + sa * sc],
        [b * sc, sa * sb * sc + a * c, a * sb * sc - sa * c],
        [-sb, sa * b, a * b],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _to_euler(matrix: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 3"]:
    level = np.hypot(matrix[..., 0, 0], matrix[..., 1, 0])  # |cos(pitch)|
    locked = level < 1e-9
    roll = np.where(locked, 0.0, np.arctan2(matrix[..., 2, 1], matrix[..., 2, 2]))
    pitch = np.arctan2(-matrix[..., 2, 0], level)
    yaw = np.where(
        locked,
        np.arctan2(-matrix[..., 0, 1], matrix[..., 1, 1]),
        np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0]),
    )
    return np.stack([roll, pitch, yaw], -1)


def _orthonormal(
    first: Float[np.ndarray, "*batch 3"], second: Float[np.ndarray, "*batch 3"]
) -> Float[np.ndarray, "*batch 3 3"]:
    """Gram and Schmidt: a rotation whose first two columns span what these two span."""
    length = np.linalg.norm(first, axis=-1, keepdims=True)
    x = first / np.where(length > _NEAR_ZERO, length, 1)
    rest = second - (x * second).sum(-1, keepdims=True) * x
    height = np.linalg.norm(rest, axis=-1, keepdims=True)
    if not ((length > _NEAR_ZERO) & (height > _NEAR_ZERO)).all():
        raise ValueError("rotation: the two vectors of a 6-D form are 0 or parallel; is this column a rotation?")
    y = rest / height
    return np.stack([x, y, np.cross(x, y)], axis=-1)
