"""Where a moving camera goes: a start and a steady motion from it (turn, step, orbit), clear of walls and things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gemvlm.camera import Camera, View
from gemvlm.worlds.tabletop.layout import Layout, SceneConfig
from gemvlm.worlds.tabletop.viewpoint import CLEARANCE_M, choose_view
from gemvlm.worlds.viewpoints import look_at

MAX_DRAWS = 60
LOWEST_M = 0.12
"""A camera stays this far above the table."""
CLOSE_DISTANCE_M = (0.42, 0.7)
CLOSE_ELEVATION_DEG = (30.0, 60.0)
"""Of views that show a part of the table at a time."""


@dataclass(frozen=True)
class Motion:
    """A rigid motion of a camera: a step along its own level axes (right, forward, up; metres), a turn of its gaze to
    the left, and an orbit about the vertical through a point (both radians, counter-clockwise seen from above).
    """

    step_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: float = 0.0
    orbit: float = 0.0

    def apply(self, view: View, share: float, about: Float[np.ndarray, "3"]) -> View:
        """The view after `share` of the motion; `about` is the point that an orbit goes round."""
        pose = view.camera_to_world.copy()
        right, forward = level_axes(pose)
        pose[:3, 3] += share * (self.step_m[0] * right + self.step_m[1] * forward + [0, 0, self.step_m[2]])
        pose[:3, :3] = _about_vertical(share * self.turn) @ pose[:3, :3]
        round_it = _about_vertical(share * self.orbit)
        pose[:3, 3] = about + round_it @ (pose[:3, 3] - about)
        pose[:3, :3] = round_it @ pose[:3, :3]
        return View(view.camera, pose)


def level_axes(pose: Float[np.ndarray, "4 4"]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Right and forward of a camera brought level: unit, horizontal, whatever its roll and pitch."""
    forward = np.array([pose[0, 2], pose[1, 2], 0.0])
    forward /= np.linalg.norm(forward)
    return np.array([forward[1], -forward[0], 0.0]), forward


def several_views(
    rng: np.random.Generator,
    config: SceneConfig,
    layout: Layout,
    centres: Float[np.ndarray, "N 3"],
    count: int,
    size: tuple[int, int],
) -> list[View]:
    """A good view, or one so close that it shows a part, and `count` - 1 others, each by its own motion from it.

    They come in random order: walls leave more room on one side, so the first view stands on the other more often.
    """
    if rng.random() < 0.5:
        first = choose_view(rng, config, layout, list(centres), size)
    else:
        first = _close_view(rng, config, layout, centres, size)
    others = [_moved(rng, first, layout, centres, _any_motion, (1.0,))[0] for _ in range(count - 1)]
    views = [first, *others]
    return [views[int(i)] for i in rng.permutation(count)]


def walk(
    rng: np.random.Generator,
    config: SceneConfig,
    layout: Layout,
    centres: Float[np.ndarray, "N 3"],
    frames: int,
    size: tuple[int, int],
) -> list[View]:
    """Views along one motion past the objects, close to them, in equal steps, forwards or backwards."""
    middle = _close_view(rng, config, layout, centres, size)
    views = _moved(rng, middle, layout, centres, _long_motion, tuple(np.linspace(-0.5, 0.5, frames)))
    return views if rng.random() < 0.5 else views[::-1]


def _close_view(
    rng: np.random.Generator,
    config: SceneConfig,
    layout: Layout,
    centres: Float[np.ndarray, "N 3"],
    size: tuple[int, int],
) -> View:
    """Towards the middle of the objects, from the first clear place among those drawn (the last, if none is)."""
    height, width = size
    middle = 0.5 * (centres.min(axis=0) + centres.max(axis=0))
    camera = Camera.from_fov(width, height, float(rng.choice(list(config.fov_y_deg))))
    view = None
    for _ in range(MAX_DRAWS):
        azimuth, elevation = np.radians(_outward_deg(rng, layout)), np.radians(rng.uniform(*CLOSE_ELEVATION_DEG))
        level = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
        outward = np.cos(elevation) * level + np.array([0.0, 0.0, np.sin(elevation)])
        view = View(camera, look_at(middle + rng.uniform(*CLOSE_DISTANCE_M) * outward, middle))
        if _is_clear(view, layout, centres):
            break
    assert view is not None
    return view


def _moved(
    rng: np.random.Generator,
    view: View,
    layout: Layout,
    centres: Float[np.ndarray, "N 3"],
    draw: Callable[[np.random.Generator], Motion],
    shares: tuple[float, ...],
) -> list[View]:
    """The views after `shares` of a motion; of the motions drawn, the first that is clear, at last a slight turn."""
    middle = 0.5 * (centres.min(axis=0) + centres.max(axis=0))
    for _ in range(MAX_DRAWS):
        motion = draw(rng)
        views = [motion.apply(view, share, middle) for share in shares]
        if all(_is_clear(v, layout, centres) for v in views):
            return views
    return [Motion(turn=0.2).apply(view, share, middle) for share in shares]


def _is_clear(view: View, layout: Layout, centres: Float[np.ndarray, "N 3"]) -> bool:
    """Before the walls, above the table, not too near to things and strings, with an object's centre in sight."""
    x, y, z = view.camera_to_world[:3, 3]
    half_x, half_y = layout.table_half
    if z < layout.table_height_m + LOWEST_M or ("back" in layout.walls and y > half_y - 0.1):
        return False
    if "left" in layout.walls and x < -half_x + 0.1:
        return False
    strings = [body.position[:2] for body in layout.structures if body.category == "string"]
    if any(np.hypot(x - sx, y - sy) < CLEARANCE_M for sx, sy in strings):
        return False
    seen = view.to_camera(centres)
    pixels = view.camera.project(np.where(seen[:, 2:] > 0.05, seen, [[1e6, 1e6, 1.0]]))
    inside = np.all((pixels > 0) & (pixels < [view.camera.width, view.camera.height]), axis=1)
    return bool(inside.any() and np.linalg.norm(seen, axis=1).min() > CLEARANCE_M)


def _any_motion(rng: np.random.Generator) -> Motion:
    """A turn, a step along one axis, an orbit, or a turn with a step."""
    sign = rng.choice([-1.0, 1.0])
    kind = rng.integers(6)
    if kind == 0:
        return Motion(turn=sign * np.radians(rng.uniform(6, 30)))
    if kind == 1:
        return Motion(step_m=(sign * float(rng.uniform(0.15, 0.5)), 0.0, float(rng.uniform(-0.08, 0.08))))
    if kind == 2:
        return Motion(step_m=(0.0, sign * float(rng.uniform(0.15, 0.5)), float(rng.uniform(-0.08, 0.08))))
    if kind == 3:
        return Motion(orbit=sign * np.radians(rng.uniform(15, 100)))
    if kind == 4:
        return Motion(step_m=(0.0, 0.0, sign * float(rng.uniform(0.15, 0.4))))
    step = (float(rng.uniform(-0.3, 0.3)), float(rng.uniform(-0.2, 0.2)), float(rng.uniform(-0.15, 0.3)))
    return Motion(step_m=step, turn=sign * np.radians(rng.uniform(5, 20)))


def _long_motion(rng: np.random.Generator) -> Motion:
    """Sideways past the table, a sweep of the gaze, or round it."""
    sign = rng.choice([-1.0, 1.0])
    kind = rng.integers(3)
    if kind == 0:
        return Motion(step_m=(sign * float(rng.uniform(0.5, 0.9)), 0.0, 0.0))
    if kind == 1:
        return Motion(turn=sign * np.radians(rng.uniform(50, 80)))
    return Motion(orbit=sign * np.radians(rng.uniform(60, 110)), step_m=(0.0, 0.0, float(rng.uniform(-0.1, 0.1))))


def _outward_deg(rng: np.random.Generator, layout: Layout) -> float:
    """Azimuth of the camera seen from the table (0 is +x, 90 the back), well away from the walls."""
    if "left" in layout.walls:
        return float(rng.uniform(-70, -20))
    return float(rng.uniform(-130, -50) if layout.walls or layout.shelf else rng.uniform(-180, 180))


def _about_vertical(angle: float) -> Float[np.ndarray, "3 3"]:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
