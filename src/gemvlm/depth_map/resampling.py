"""Resizing and filling values that are known only in places."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32
from PIL import Image


def resample(
    values: Float[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"], width: int, height: int
) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Antialiased bilinear resampling by normalised convolution: sum(k v x) / sum(k v), valid where sum(k v) >= 1/2.

    k is a triangle as wide as the larger of the two pixel sizes, v is validity. Invalid outputs are 0.
    """
    if (height, width) == values.shape:
        return np.where(valid, values, 0).astype(np.float32), valid.copy()
    total = _smoothed(np.where(valid, values, 0), width, height)
    if valid.all():
        return total, np.ones((height, width), bool)
    weight = _smoothed(valid, width, height)
    enough = weight >= 0.5 - 1e-6
    return np.where(enough, total / np.maximum(weight, 1e-9), 0).astype(np.float32), enough


def _smoothed(
    values: Float[np.ndarray, "H W"] | Bool[np.ndarray, "H W"], width: int, height: int
) -> Float32[np.ndarray, "h w"]:
    """Pillow's filter is this triangle, with weights that sum to 1."""
    picture = Image.fromarray(values.astype(np.float32))
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))


def fill(values: Float32[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """Invalid pixels take the value of the nearest valid one, of which there must be one (jump flooding)."""
    if valid.all():
        return values.copy()
    height, width = values.shape
    rows, columns = (index.astype(np.int32) for index in np.nonzero(~valid))
    grid = np.mgrid[:height, :width].astype(np.int32)
    source = np.where(valid, grid, -4 * max(height, width)).reshape(2, -1)  # the valid pixel that each one copies
    here = rows * width + columns
    nearest, best = source[:, here], np.full(len(here), np.iinfo(np.int32).max)
    step = 1 << (max(height, width) - 1).bit_length()
    while step and len(here):
        for down, right in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
            row, column = np.clip(rows + down * step, 0, height - 1), np.clip(columns + right * step, 0, width - 1)
            offered = source[:, row * width + column]
            distance = (rows - offered[0]) ** 2 + (columns - offered[1]) ** 2
            better = distance < best
            nearest[:, better], best[better] = offered[:, better], distance[better]
        source[:, here] = nearest
        step //= 2
    filled = values.copy()
    filled[rows, columns] = values[nearest[0], nearest[1]]
    return filled
