"""Resizing and filling values that are known only in places."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32


def resample(
    values: Float[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"], width: int, height: int
) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Antialiased bilinear resampling by normalised convolution: sum(k v x) / sum(k v), valid where sum(k v) >= 1/2.

    k is a triangle as wide as the larger of the two pixel sizes, v is validity. Invalid outputs are 0.
    """
    if (height, width) == values.shape:
        return np.where(valid, values, 0).astype(np.float32), valid.copy()
    rows, columns = _triangle(values.shape[0], height), _triangle(values.shape[1], width)
    weight = rows @ valid.astype(np.float64) @ columns.T
    total = rows @ np.where(valid, values, 0).astype(np.float64) @ columns.T
    enough = weight >= 0.5 - 1e-9
    return np.where(enough, total / np.maximum(weight, 1e-9), 0).astype(np.float32), enough


def _triangle(size_in: int, size_out: int) -> Float[np.ndarray, "out in"]:
    """Rows of weights that sum to 1: output pixel i reads the input under a triangle around its own centre."""
    scale = size_in / size_out
    centres = (np.arange(size_out) + 0.5) * scale
    distance = np.abs(centres[:, None] - (np.arange(size_in) + 0.5)[None, :])
    weights = np.clip(1 - distance / max(scale, 1.0), 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def fill(values: Float32[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """Invalid pixels take the value of the nearest valid one, of which there must be one (jump flooding)."""
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
