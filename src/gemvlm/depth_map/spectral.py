"""The colours that the published weights paint depth in: inverse depth, per-image range, the colour map Spectral.

Brewer, ColorBrewer: 11-class Spectral; interpolated and rounded as matplotlib does.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

SPECTRAL = "9e0142d53e4ff46d43fdae61fee08bffffbfe6f598abdda466c2a53288bd5e4fa2"
BRACKET_STRIDE = 61
"""Every so-manieth pixel is looked at first; prime, so that no column is favoured."""
KNOTS = np.frombuffer(bytes.fromhex(SPECTRAL), np.uint8).reshape(11, 3) / 255
"""Eleven colours (r, g, b in [0, 1]), evenly spaced from near to far."""


def spectral_picture(depth: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "3 H W"]:
    """The authors' picture of a raw depth array (0 = invalid), to the bit; pixels without depth get the far colour.

    Made for parity with the published weights; `encode` paints the same colours but fills holes and keeps the mask.
    """
    disparity = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), 0).astype(np.float32)
    low, high = robust_range(disparity, depth > 0)
    return paint(1 - np.clip((disparity - low) / (high - low), 0, 1))


def paint(position: Float32[np.ndarray, "H W"]) -> UInt8[np.ndarray, "3 H W"]:
    """Positions in [0, 1] to 8-bit colours: entry floor(256 p) of a table of 256, channels floored."""
    return _looked_up(_spectral_levels(), position)


def paint_signed(position: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "3 H W"]:
    """The colours of `paint`, as an autoencoder takes them: in [-1, 1]."""
    return _looked_up(_signed_levels(), position)


def _looked_up(table: np.ndarray, position: Float32[np.ndarray, "H W"]) -> np.ndarray:
    entry = (position * 256).astype(np.intp)
    colours = np.empty((len(table), *position.shape), table.dtype)
    for channel, levels in zip(colours, table, strict=True):
        np.take(levels, entry, mode="clip", out=channel)  # 1 belongs to the last entry
    return colours


@cache
def _spectral_levels() -> UInt8[np.ndarray, "3 256"]:
    return np.floor(_spectral_table() * 255).astype(np.uint8).T.copy()


@cache
def _signed_levels() -> Float32[np.ndarray, "3 256"]:
    return (_spectral_levels() / np.float32(255) - np.float32(0.5)) / np.float32(0.5)


def _spectral_table() -> Float[np.ndarray, "256 3"]:
    """ColorBrewer's 11-class Spectral, interpolated linearly at i/255."""
    at = np.linspace(0, 1, 256)
    return np.stack([np.interp(at, np.linspace(0, 1, 11), channel) for channel in KNOTS.T], axis=1)


def robust_range(scalar: Float32[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]) -> tuple[np.float32, np.float32]:
    """2nd and 98th percentile; (0, 0) with ten valid pixels or fewer; 1e-6 wider each way if equal (as released)."""
    low = high = np.float32(0)
    known = scalar.ravel() if valid.all() else scalar[valid]
    if len(known) > 10:
        low, high = _percentiles(known)
    if low == high:
        low, high = low - np.float32(1e-6), high + np.float32(1e-6)
    return low, high


def _percentiles(values: Float32[np.ndarray, "N"]) -> tuple[np.float32, np.float32]:
    """`np.percentile` at 2 and 98, to the bit, in a third of its time: a sample says beyond which values they lie."""
    count = len(values)
    sample = np.sort(values[::BRACKET_STRIDE])
    slack = math.isqrt(len(sample)) + 1  # seven times the deviation that chance gives the sample's own percentile
    low_rank, high_rank = 2 / 100 * (count - 1), 98 / 100 * (count - 1)
    above = sample[min(int(low_rank) // BRACKET_STRIDE + slack, len(sample) - 1)]
    below = sample[max(int(high_rank) // BRACKET_STRIDE - slack, 0)]
    least = values[values <= above]
    if len(least) < low_rank + 2:
        least = values
    most = values[values >= below]
    if count - len(most) > int(high_rank):
        most = values
    return _at_rank(least, low_rank), _at_rank(most, high_rank - (count - len(most)))


def _at_rank(values: Float32[np.ndarray, "N"], rank: float) -> np.float32:
    """The value at a fractional rank, interpolated as numpy does: from the nearer end."""
    first = int(rank)
    second = min(first + 1, len(values) - 1)
    below, above = np.partition(values, [first, second])[[first, second]]
    share = np.float64(rank - first)
    return np.float32(below + (above - below) * share if share < 0.5 else above - (above - below) * (1 - share))


def unpaint(rgb: Float[np.ndarray, "3 h w"]) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Colours in [0, 1] to (position in [0, 1], distance from the colour curve): the nearest point of the polyline.

    The curve folds at its pale middle: 0.38 and 0.63 are close in colour. Where both halves are nearly as near, the one
    that agrees with the median of the sure ones among 5 x 5 neighbours wins.
    """
    knots = KNOTS.astype(np.float32)
    colours = rgb.transpose(1, 2, 0)[..., None, :] + np.float32(0.5 / 255)  # painting floors: half a level is missing
    start, along = knots[:-1], np.diff(knots, axis=0)
    foot = np.clip(((colours - start) * along).sum(-1) / (along**2).sum(-1), 0, 1)
    distances = np.linalg.norm(colours - start - foot[..., None] * along, axis=-1)
    entries = (np.arange(10) + foot) * 25.5
    positions = (entries + 0.5) / 256

    near, far = (_nearest(positions[..., half], distances[..., half]) for half in (slice(0, 5), slice(5, 10)))
    position = np.where(near[1] <= far[1], near[0], far[0])
    unsure = (np.abs(near[1] - far[1]) < 0.05) & (np.abs(near[0] - far[0]) > 0.05)
    if unsure.any() and not unsure.all():
        padded = np.pad(np.where(unsure, np.nan, position), 2, constant_values=np.nan)
        around = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))[unsure].reshape(-1, 25)
        around[np.isnan(around).all(axis=1)] = np.nanmedian(position[~unsure])
        median = np.nanmedian(around, axis=1)
        closer_near = np.abs(near[0][unsure] - median) <= np.abs(far[0][unsure] - median)
        position[unsure] = np.where(closer_near, near[0][unsure], far[0][unsure])
    return np.clip(position, 0, 1), np.minimum(near[1], far[1])


def _nearest(
    positions: Float[np.ndarray, "h w k"], distances: Float[np.ndarray, "h w k"]
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    best = distances.argmin(axis=-1)[..., None]
    return np.take_along_axis(positions, best, -1)[..., 0], np.take_along_axis(distances, best, -1)[..., 0]
