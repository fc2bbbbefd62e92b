"""Depth measured by one camera brought into the picture of another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from gemvlm.camera import Camera
from gemvlm.depth_map import DepthMap

SAME_PLACE = 1e-4
"""Entries of a transform (metres, or of a rotation) that are nothing but rounding."""


def register(depth: DepthMap, source: Camera, target: Camera, target_from_source: Float[np.ndarray, "4 4"]) -> DepthMap:
    """z-depth of the camera `source` as z-depth of `target`, which stands elsewhere by a rigid transform in metres.

    Cameras that stand and look alike share their rays: each pixel of the target then takes the depth where its ray
    meets the source's image (`resampled`). Else every depth pixel is projected and, where several surfaces land, the
    nearest counts (`splatted`). No depth is interpolated between surfaces. ValueError if `source` is of another size.
    """
    if depth.values.shape != (source.height, source.width) or depth.kind != "metric_z":
        raise ValueError(
            f"depth from {depth.source!r} is {depth.kind} of {depth.values.shape} but its camera has "
            f"{(source.height, source.width)} (height, width) and needs metric z-depth"
        )
    if np.abs(target_from_source - np.eye(4)).max() < SAME_PLACE:
        return resampled(depth, source, target)
    return splatted(depth, source, target, target_from_source)


def resampled(depth: DepthMap, source: Camera, target: Camera) -> DepthMap:
    """The depth along each ray of `target`, from the nearest pixel of `source`; z does not change between the two."""
    pixels = np.floor(source.project(target.rays())).astype(np.int64)
    columns, rows = pixels[..., 0], pixels[..., 1]
    inside = (columns >= 0) & (columns < source.width) & (rows >= 0) & (rows < source.height)
    rows, columns = np.where(inside, rows, 0), np.where(inside, columns, 0)
    valid = inside & depth.valid[rows, columns]
    return replace(depth, values=np.where(valid, depth.values[rows, columns], 0).astype(np.float32), valid=valid)


def splatted(depth: DepthMap, source: Camera, target: Camera, target_from_source: Float[np.ndarray, "4 4"]) -> DepthMap:
    """Every depth pixel lands where its centre projects, the nearest winning.

    Pixels that stay empty take what the edges and corners of depth pixels reach, so that sampling leaves no holes;
    places that only the target camera sees stay invalid.
    """
    rows, columns = np.nonzero(depth.valid)
    centres = np.stack([columns, rows], axis=-1) + 0.5
    points = source.unproject(centres, depth.values[rows, columns].astype(np.float64))
    points = points @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    points = points[points[:, 2] > 0]
    landed, z = target.project(points), points[:, 2]

    reach = 0.5 * target.fx / source.fx
    steps = np.linspace(-1, 1, max(3, int(np.ceil(2 * reach)) + 1)) * reach
    grid = [landed + np.array((x, y)) for x in steps for y in steps]
    nearest = _splat(landed, z, target.width, target.height)
    around = _splat(np.concatenate(grid), np.tile(z, len(grid)), target.width, target.height)
    filled = np.where(np.isfinite(nearest), nearest, around)
    valid = np.isfinite(filled)
    return replace(depth, values=np.where(valid, filled, 0).astype(np.float32), valid=valid)


def _splat(
    pixels: Float[np.ndarray, "N 2"], z: Float[np.ndarray, "N"], width: int, height: int
) -> Float[np.ndarray, "H W"]:
    """The smallest z that falls into each pixel, infinity where none does."""
    columns, rows = np.floor(pixels).astype(np.int64).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, rows[inside] * width + columns[inside], z[inside])
    return nearest.reshape(height, width)
