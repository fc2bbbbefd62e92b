"""What a probe must read from an image's states: the geometry at each visual token, from the frame's true depth.

    depth    log z of the token's part of the image (z in metres)
    normals  the surface's unit normal in camera axes (x right, y down, z forward), facing the camera
    relief   how far the place stands out of the plane through the whole image: (1/z - plane) / mean(1/z)

The plane is fitted to 1/z, which is affine in pixel coordinates on any plane: a bare wall or table has no relief from
wherever it is seen, so relief is what the habit of a data set ("the lower, the nearer") does not give away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32

from gemvlm.camera import View
from gemvlm.depth_map import DepthMap, resample
from gemvlm.evaluation.depth_metrics import plane_disparity
from gemvlm.sample import Frame

Target = Literal["depth", "normals", "relief"]
TARGETS: tuple[Target, ...] = ("depth", "normals", "relief")

EDGE = 0.05
"""Neighbouring pixels whose depth differs by more than this share belong to two surfaces: no normal is taken there."""
LEAST_TOKENS = 3


@dataclass(frozen=True)
class TokenTargets:
    """Values (tokens, components) of each target, row by row of the grid, and which tokens have one.

    A frame without a camera has no `normals`.
    """

    values: dict[Target, Float32[np.ndarray, "n K"]]
    known: dict[Target, Bool[np.ndarray, "n"]]


def square(frame: Frame) -> Frame:
    """The central square of a frame: what every image processor keeps whole, however it resizes and crops."""
    height, width = frame.image.shape[:2]
    side = min(height, width)
    if height == width:
        return frame
    top, left = (height - side) // 2, (width - side) // 2
    part = np.s_[top : top + side, left : left + side]
    depth = frame.depth and replace(frame.depth, values=frame.depth.values[part], valid=frame.depth.valid[part])
    view = frame.view and View(frame.view.camera.cropped(left, top, side, side), frame.view.camera_to_world)
    return Frame(np.ascontiguousarray(frame.image[part]), depth, view)


def token_targets(frame: Frame, grid: tuple[int, int]) -> TokenTargets:
    """The truth at each token of a `grid` (rows, columns) laid over the frame.

    A token counts where at least half of its part of the image is known. ValueError if the frame has no metric depth.
    """
    depth = frame.depth
    if depth is not None and frame.view is not None:
        depth = depth.to_z(frame.view.camera)
    if depth is None or depth.kind != "metric_z":
        raise ValueError("probe: a frame has no metric depth; give frames with depth in metres")
    rows, columns = grid
    log_z, known = resample(np.log(np.where(depth.valid, depth.values, 1)), depth.valid, columns, rows)
    relief, has_relief = _relief(log_z, known)
    values: dict[Target, np.ndarray] = {"depth": log_z.reshape(-1, 1), "relief": relief.reshape(-1, 1)}
    where: dict[Target, np.ndarray] = {"depth": known.ravel(), "relief": has_relief.ravel()}
    if frame.view is not None:
        normals, seen = surface_normals(depth, frame.view)
        parts = [resample(normals[..., axis], seen, columns, rows)[0] for axis in range(3)]
        mean = np.stack(parts, axis=-1)
        length = np.linalg.norm(mean, axis=-1)
        enough = resample(normals[..., 0], seen, columns, rows)[1] & (length > 1e-6)
        values["normals"] = (mean / np.maximum(length, 1e-6)[..., None]).reshape(-1, 3).astype(np.float32)
        where["normals"] = enough.ravel()
    return TokenTargets(values, where)


def _relief(
    log_z: Float32[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"]
) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    if known.sum() < LEAST_TOKENS:
        return np.zeros(known.shape, np.float32), np.zeros(known.shape, bool)
    disparity = np.exp(-log_z.astype(np.float64))
    plane = plane_disparity(disparity, known)
    relief = (disparity - plane) / disparity[known].mean()
    return np.where(known, relief, 0).astype(np.float32), known


def surface_normals(depth: DepthMap, view: View) -> tuple[Float32[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]:
    """Unit normals by central differences of the points seen, facing the camera, and where they are known.

    Unknown at the border, beside pixels without depth, and across edges.
    """
    points = view.camera.rays() * np.where(depth.valid, depth.values, 1)[..., None].astype(np.float64)
    across, down = np.zeros_like(points), np.zeros_like(points)
    across[:, 1:-1], down[1:-1] = points[:, 2:] - points[:, :-2], points[2:] - points[:-2]
    normal = np.cross(down, across)
    length = np.linalg.norm(normal, axis=-1)
    known = np.zeros(depth.valid.shape, bool)
    middle = np.s_[1:-1, 1:-1]
    z = np.where(depth.valid, depth.values, np.nan)
    around = np.stack([z[1:-1, 2:], z[1:-1, :-2], z[2:, 1:-1], z[:-2, 1:-1]])
    # a NaN compares as False, so a missing neighbour leaves a pixel out
    known[middle] = (np.abs(around - z[middle]) < EDGE * z[middle]).all(axis=0) & (length[middle] > 0)
    normal = np.where(known[..., None], normal / np.maximum(length, 1e-12)[..., None], 0)
    away = (normal * points).sum(axis=-1, keepdims=True) > 0
    return np.where(away, -normal, normal).astype(np.float32), known
