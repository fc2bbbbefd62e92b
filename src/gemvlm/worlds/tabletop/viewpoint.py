"""Where a view is taken from: an orbit around the objects, on the side that no wall hides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from gemvlm.camera import Camera, View
from gemvlm.worlds.tabletop.layout import Layout, SceneConfig
from gemvlm.worlds.viewpoints import look_at

MAX_DRAWS = 40
IN_FRAME = 0.8
"""Share of the object centres that a good view holds."""
CLEARANCE_M = 0.28


def choose_view(
    rng: np.random.Generator,
    config: SceneConfig,
    layout: Layout,
    centres: Sequence[Float[np.ndarray, "3"]],
    size: tuple[int, int],
) -> View:
    """Draws poses until most object centres are inside the frame and none is too near; else the best of the draws."""
    height, width = size
    points = np.stack(list(centres))
    middle = 0.5 * (points.min(axis=0) + points.max(axis=0))
    radius = float(np.linalg.norm((points - middle)[:, :2], axis=1).max()) + 0.05
    best: tuple[float, View] | None = None
    for _ in range(MAX_DRAWS):
        fov = float(rng.choice(list(config.fov_y_deg)))
        fit = 0.62 * radius / np.tan(np.radians(fov) / 2)
        near = float(np.clip(fit, config.distance_m[0], 0.85 * config.distance_m[1]))
        far = float(np.clip(2.1 * near, near, config.distance_m[1]))
        distance = float(np.exp(rng.uniform(np.log(near), np.log(far))))
        elevation = np.radians(rng.uniform(*config.elevation_deg))
        azimuth = np.radians(_azimuth_deg(rng, layout))
        roll = np.radians(rng.uniform(*config.roll_deg))
        outward = np.array(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
        )
        target = middle + rng.uniform(-0.03, 0.03, size=3)
        view = View(Camera.from_fov(width, height, fov), look_at(middle + distance * outward, target, float(roll)))
        seen = view.to_camera(points)
        pixels = view.camera.project(np.where(seen[:, 2:] > 0.05, seen, [[1e6, 1e6, 1.0]]))
        inside = np.mean(np.all((pixels > 0) & (pixels < [width, height]), axis=1))
        score = float(inside) - float(np.linalg.norm(seen, axis=1).min() < CLEARANCE_M)
        if best is None or score > best[0]:
            best = (score, view)
        if score >= IN_FRAME:
            break
    assert best is not None
    return best[1]


def _azimuth_deg(rng: np.random.Generator, layout: Layout) -> float:
    """0 is +x, 90 is +y (the back)."""
    if "left" in layout.walls:
        return float(rng.uniform(-80, -10))
    if layout.walls or layout.shelf:
        return float(rng.uniform(-160, -20))
    return float(rng.uniform(-180, 180))
