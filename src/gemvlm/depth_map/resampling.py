"""Resizing and filling values that are known only in places."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32
from PIL import Image

DOWN, RIGHT = np.mgrid[-1:2, -1:2].reshape(2, 9, 1).astype(np.int32)
"""A pixel and its eight neighbours."""


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
    height, width = values.shape
    here = np.flatnonzero(~valid)
    rows, columns = np.divmod(here.astype(np.int32), np.int32(width))
    source = np.arange(values.size, dtype=np.int32)  # the valid pixel that each one copies; -1 while unknown
    source[here] = -1
    runs = np.diff(np.flatnonzero(np.diff(here, prepend=-2) != 1), append=len(here))  # holes side by side
    step = 1 << int(min(runs.max(), max(height, width))).bit_length()  # no valid pixel is farther than a run
    while step:
        around = np.clip(rows + step * DOWN, 0, height - 1) * width + np.clip(columns + step * RIGHT, 0, width - 1)
        offered = source[around]
        distance = (rows - offered // width) ** 2 + (columns - offered % width) ** 2
        distance[offered < 0] = np.iinfo(np.int32).max
        source[here] = np.take_along_axis(offered, distance.argmin(0)[None], 0)[0]
        step //= 2
    filled = values.copy()
    filled.flat[here] = values.flat[source[here]]
    return filled
