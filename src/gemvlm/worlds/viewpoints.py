"""Where a world may be looked at from: a place and an aim, or a place on a sphere about the things that matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gemvlm.camera import Camera, View


def look_at(eye: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"], roll: float = 0.0) -> Float[np.ndarray, "4 4"]:
    """Camera-to-world transform (OpenCV axes) at `eye` looking at `target`, turned by `roll` radians about its axis."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    pose = np.eye(4)
    pose[:3, 0] = np.cos(roll) * right + np.sin(roll) * down
    pose[:3, 1] = np.cos(roll) * down - np.sin(roll) * right
    pose[:3, 2] = forward
    pose[:3, 3] = eye
    return pose


@dataclass(frozen=True)
class Orbit:
    """Ranges to draw a viewpoint from: degrees about the vertical (0 is +x, 90 is +y) and above the horizon, metres."""

    azimuth_deg: tuple[float, float]
    elevation_deg: tuple[float, float]
    distance_m: tuple[float, float]
    fov_y_deg: float = 45.0

    def draw(self, rng: np.random.Generator, target: Float[np.ndarray, "3"], size: tuple[int, int]) -> View:
        """A view towards `target` (within 4 cm), of `size` (height, width) pixels."""
        azimuth, elevation = np.radians(rng.uniform(*self.azimuth_deg)), np.radians(rng.uniform(*self.elevation_deg))
        outward = np.array(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
        )
        aim = target + rng.uniform(-0.04, 0.04, size=3)
        eye = target + rng.uniform(*self.distance_m) * outward
        return View(Camera.from_fov(size[1], size[0], self.fov_y_deg), look_at(eye, aim))
