"""Resizing and filling values that are known only in places."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from PIL import Image

NEIGHBOURS = np.arange(9)[:, None]
"""A pixel and its eight neighbours, row by row."""
FLOODED = 8192
"""Holes looked at together: their candidates stay in the processor's cache."""


def resample(
    values: Float[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"], width: int, height: int
) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Antialiased bilinear resampling by normalised convolution: sum(k v x) / sum(k v), valid where sum(k v) >= 1/2.

    k is a triangle as wide as the larger of the two pixel sizes, v is validity. Invalid outputs are 0.
    """
    if (height, width) == values.shape:
        return np.where(valid, values, 0).astype(np.float32), valid.copy()
    if valid.all():
        return _smoothed(values, width, height), np.ones((height, width), bool)
    total = _smoothed(np.where(valid, values, 0), width, height)
    weight = _smoothed(valid, width, height)
    enough = weight >= 0.5 - 1e-6
    return np.where(enough, total / np.maximum(weight, 1e-9), 0).astype(np.float32), enough


def _smoothed(
    values: Float[np.ndarray, "H W"] | Bool[np.ndarray, "H W"], width: int, height: int
) -> Float32[np.ndarray, "h w"]:
    """Pillow's filter is this triangle, with weights that sum to 1."""
    picture = Image.fromarray(values.astype(np.float32, copy=False))
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))


def fill(values: Float32[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """Invalid pixels take the value of the nearest valid one, of which there must be one (jump flooding)."""
    if valid.all():
        return values.copy()
    holes = np.flatnonzero(~valid)
    filled = values.copy()
    filled.flat[holes] = values.flat[_nearest_known(valid, holes)]
    return filled


def _nearest_known(valid: Bool[np.ndarray, "H W"], holes: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "N"]:
    """For each hole the valid pixel that it copies, both as flat indices.

    A pixel is known by one number: four times its row, above `half` bits of four times its column. So squared distances
    are multiples of 16, and a candidate's number among the nine fits below: the least sum is the nearest candidate, and
    of several the first.
    """
    height, width = valid.shape
    longest = max(height, width)
    number, half = (np.int32, 16) if longest < 2048 else (np.int64, 32)
    low = number((1 << half) - 1)
    pixel = ((4 * np.arange(height)[:, None] << half) + 4 * np.arange(width)).astype(number)
    nowhere = number(16 * longest << half)  # so far below the picture that every pixel of it is nearer
    source = np.where(valid, pixel, nowhere).ravel()  # the valid pixel that each one copies
    order = NEIGHBOURS.astype(number)
    here = pixel.ravel()[holes]
    rows, columns = np.divmod(holes, width)
    runs = np.diff(np.flatnonzero(np.diff(holes, prepend=-2) != 1), append=len(holes))  # holes side by side
    step = 1 << int(min(runs.max(), longest)).bit_length()  # no valid pixel is farther than a run
    found = np.empty_like(here)
    while step:
        for start in range(0, len(holes), FLOODED):
            part = slice(start, start + FLOODED)
            row, column, mine = rows[part], columns[part], here[part]
            down = np.stack([np.maximum(row - step, 0), row, np.minimum(row + step, height - 1)]) * width
            right = np.stack([np.maximum(column - step, 0), column, np.minimum(column + step, width - 1)])
            offered = source.take((down[:, None] + right).reshape(9, -1))
            nearness = (offered >> half) - (mine >> half)
            across = (offered & low) - (mine & low)
            nearness *= nearness
            across *= across
            nearness += across
            nearness += order
            chosen = nearness.min(axis=0).astype(np.intp) & 15
            found[part] = offered.ravel().take(chosen * len(mine) + np.arange(len(mine)))
        source[holes] = found
        step //= 2
    return (found >> half).astype(np.int64) // 4 * width + (found & low) // 4
