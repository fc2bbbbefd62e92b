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
    """Invalid pixels take the value of the nearest valid one, by jump flooding (halving steps, 8 neighbours each)."""
    if valid.all():
        return values
    height, width = values.shape
    rows, columns = np.mgrid[:height, :width]
    row, column = np.where(valid, rows, -4 * height), np.where(valid, columns, -4 * width)
    step = 1 << (max(height, width) - 1).bit_length()
    while step:
        best = (rows - row) ** 2 + (columns - column) ** 2
        seeds = row.copy(), column.copy()
        for down, right in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
            at = np.clip(rows + down * step, 0, height - 1), np.clip(columns + right * step, 0, width - 1)
            distance = (rows - seeds[0][at]) ** 2 + (columns - seeds[1][at]) ** 2
            better = distance < best
            row, column = np.where(better, seeds[0][at], row), np.where(better, seeds[1][at], column)
            best = np.minimum(best, distance)
        step //= 2
    return values[row, column]
