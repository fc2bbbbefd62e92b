"""Pinhole cameras and where they stand.

Axes are OpenCV's: x to the right, y down, z forward. Pixel coordinates are continuous: the centre of the pixel in
column i and row j lies at (i + 0.5, j + 0.5), so that dividing by the width and the height gives the fractions of
`sample.Point`. Depth is z-depth (along the optical axis), in metres, unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Camera:
    """Intrinsics in pixels. A calibration that puts pixel centres on integers needs 0.5 added to `cx` and `cy`."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def from_fov(cls, width: int, height: int, fov_y_deg: float) -> Camera:
        """A centred camera with square pixels and the given vertical field of view in degrees."""
        focal = 0.5 * height / np.tan(np.radians(fov_y_deg) / 2)
        return cls(width, height, float(focal), float(focal), width / 2, height / 2)

    def rays(self) -> Float[np.ndarray, "H W 3"]:
        """Through each pixel centre, the camera-frame direction with z = 1 (not normalised)."""
        x = (np.arange(self.width) + 0.5 - self.cx) / self.fx
        y = (np.arange(self.height) + 0.5 - self.cy) / self.fy
        return np.stack([*np.meshgrid(x, y), np.ones((self.height, self.width))], axis=-1)

    def project(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 2"]:
        """Camera-frame points (metres) to pixel coordinates; the caller checks that z > 0."""
        z = points[..., 2]
        return np.stack([self.fx * points[..., 0] / z + self.cx, self.fy * points[..., 1] / z + self.cy], axis=-1)

    def unproject(self, pixels: Float[np.ndarray, "*N 2"], z_m: Float[np.ndarray, "*N"]) -> Float[np.ndarray, "*N 3"]:
        """Pixel coordinates and z-depths (metres) to camera-frame points; undoes `project`."""
        x = (pixels[..., 0] - self.cx) / self.fx * z_m
        y = (pixels[..., 1] - self.cy) / self.fy * z_m
        return np.stack([x, y, z_m], axis=-1)

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same picture resampled to another size."""
        sx, sy = width / self.width, height / self.height
        return Camera(width, height, self.fx * sx, self.fy * sy, self.cx * sx, self.cy * sy)

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """The camera of a crop that starts at column `left` and row `top`."""
        return Camera(width, height, self.fx, self.fy, self.cx - left, self.cy - top)


RIGID = 1e-3
"""How far a rotation's rows may be from orthonormal: poses come with few digits."""


def checked_pose(matrix: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
    """The matrix if it is a rigid transform. ValueError for scales, mirrors, and matrices that were transposed."""
    rotation = matrix[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        orthonormal = np.allclose(rotation @ rotation.T, np.eye(3), atol=RIGID) and np.linalg.det(rotation) > 0
    if not orthonormal or not np.array_equal(matrix[3], [0, 0, 0, 1]):
        raise ValueError("not a rigid transform: give a rotation and a shift in metres, the last row 0 0 0 1")
    return matrix


@dataclass(frozen=True)
class View:
    """A camera and its pose: `camera_to_world` is a rigid 4×4 transform in metres."""

    camera: Camera
    camera_to_world: Float[np.ndarray, "4 4"]

    def to_world(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 3"]:
        return points @ self.camera_to_world[:3, :3].T + self.camera_to_world[:3, 3]

    def to_camera(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 3"]:
        """World points to the camera frame; undoes `to_world`."""
        return (points - self.camera_to_world[:3, 3]) @ self.camera_to_world[:3, :3]

    def level_plane(self, height_m: float) -> Float[np.ndarray, "H W"]:
        """z-depth (metres) at which each pixel's ray meets the level plane at world z = `height_m`; inf where never."""
        downwards = self.camera.rays() @ self.camera_to_world[2, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (height_m - self.camera_to_world[2, 3]) / downwards
        return np.where(z > 0, z, np.inf)
