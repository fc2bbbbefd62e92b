"""MuJoCo's sites (goals and other marks that nothing can touch) by rays, for pictures that are drawn without OpenGL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64

from gemvlm.camera import View

DRAWN_SITE_GROUPS = (0, 1, 2)
"""Of MuJoCo's default options."""
OPAQUE = 0.5
NEAR_M = 0.01


def marks(
    model: Any, data: Any, view: View
) -> Iterator[tuple[tuple[slice, slice], Float32[np.ndarray, "h w"], Float64[np.ndarray, "3"]]]:
    """For each mark in view: its window (rows, columns), its z-depth there (infinite beside it), and its colour.

    Marks that are drawn less than half opaque, or that the camera is inside of, are left out.
    """
    import mujoco

    camera = view.camera
    origin, rotation = view.camera_to_world[:3, 3].copy(), view.camera_to_world[:3, :3]
    for site in range(model.nsite):
        if model.site_rgba[site, 3] < OPAQUE or int(model.site_group[site]) not in DRAWN_SITE_GROUPS:
            continue
        kind, size = int(model.site_type[site]), model.site_size[site]
        reach = _reach(kind, size)
        x, y, z = view.to_camera(data.site_xpos[site])
        if z <= reach + NEAR_M:
            continue
        half = camera.fy * reach / (z - reach) + 1
        column, row = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        rows = slice(max(int(row - half), 0), min(max(int(row + half) + 1, 0), camera.height))
        columns = slice(max(int(column - half), 0), min(max(int(column + half) + 1, 0), camera.width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        directions = camera.rays()[rows, columns] @ rotation.T
        away = np.full(directions.shape[:2], np.inf, np.float32)
        for index in np.ndindex(away.shape):
            distance = mujoco.mju_rayGeom(
                data.site_xpos[site], data.site_xmat[site], size, origin, directions[index], kind
            )
            if distance > 0:
                away[index] = distance  # of a ray with z = 1: this is its z-depth
        yield (rows, columns), away, model.site_rgba[site, :3].astype(np.float64)


def _reach(kind: int, size: Float[np.ndarray, "3"]) -> float:
    """A radius that holds the mark about its own middle."""
    import mujoco

    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return float(size[0])
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        return float(size[0] + size[1])
    return float(np.linalg.norm(size))
