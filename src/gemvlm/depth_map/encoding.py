"""Depth as a picture in [-1, 1], and back.

    spectral        1/z in the colours that the published weights paint (Spectral; near is dark red, far violet)
    log             log z on three equal channels, near -1, far +1
    sqrt_disparity  sqrt(1/z) on three equal channels, near -1, far +1

Every encoding is monotone in depth with near first. The scalar is clipped and resized, never the colours (a blend of
two colours is the colour of a third depth), and pixels without depth are filled from the nearest one that has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32

from gemvlm.depth_map.depth import AFFINE_KINDS, DepthMap, Space, from_space, space_values, to_space
from gemvlm.depth_map.resampling import fill, resample
from gemvlm.depth_map.spectral import paint_signed, robust_range, unpaint

CONFIDENCE_WIDTH = 0.05
"""Distance from the curve of true pictures, as a share of a channel's range, at which confidence falls to exp(-1/2)."""


@dataclass(frozen=True)
class Encoding:
    """How depth becomes a picture. The range is fixed and metric if `near_m` and `far_m` (metres) are given.

    Otherwise the range is each image's own: the 2nd to the 98th percentile of the scalar over valid pixels.
    """

    name: Literal["spectral", "log", "sqrt_disparity"]
    near_m: float | None = None
    far_m: float | None = None

    def __post_init__(self) -> None:
        if self.name not in ("spectral", "log", "sqrt_disparity"):
            raise ValueError(f"encoding {self.name!r} is unknown; choose spectral, log or sqrt_disparity")
        if (self.near_m is None) != (self.far_m is None):
            raise ValueError(f"encoding {self.name}: give both near_m and far_m, or neither for a range per image")
        if self.near_m is not None and self.far_m is not None and not 0 < self.near_m < self.far_m:
            raise ValueError(f"encoding {self.name}: needs 0 < near_m < far_m, got {self.near_m} and {self.far_m}")

    @property
    def space(self) -> Space:
        """The scalar that is linear in the picture; evaluation aligns in it."""
        return "disparity" if self.name == "spectral" else self.name

    @property
    def is_fixed(self) -> bool:
        return self.near_m is not None

    def range(self) -> tuple[float, float]:
        """The fixed (low, high) of the scalar, in the encoding's own space."""
        low, high = sorted(to_space(np.array([self.near_m, self.far_m]), self.space).tolist())
        return low, high


def encoded_space(depth_m: Float[np.ndarray, "*N"], encoding: Encoding) -> Float[np.ndarray, "*N"]:
    """z-depth to the scalar in which `encoding` is linear: log z, sqrt(1/z), or 1/z for spectral."""
    return to_space(depth_m, encoding.space)


@dataclass(frozen=True)
class EncodedDepth:
    """A picture in [-1, 1] with its mask; `low` and `high` are the scalar's range in the encoding's own space."""

    picture: Float32[np.ndarray, "3 h w"]
    valid: Bool[np.ndarray, "h w"]
    low: float
    high: float
    encoding: Encoding


def encode(depth: DepthMap, encoding: Encoding, height: int, width: int) -> EncodedDepth:
    """Depth to a picture of `height` x `width`: range, clip, resize the scalar, fill holes, then paint.

    Affine depths and disparities that are positive are taken as known up to scale. ValueError for distances along the
    ray (convert with `to_z` first), for other affine maps in another space, and for a fixed range without metric depth.
    """
    scalar = space_values(depth, encoding.space)
    if encoding.is_fixed:
        if not depth.is_metric:
            raise ValueError(f"depth from {depth.source!r} is {depth.kind}: a range in metres needs metric depth")
        low, high = (np.float32(end) for end in encoding.range())
    else:
        low, high = robust_range(scalar, depth.valid)
    position = scalar - low
    position /= high - low
    np.clip(position, 0, 1, out=position)
    if encoding.space != "log":
        np.subtract(1, position, out=position)
    position, valid = resample(position, depth.valid, width, height)
    position = fill(position, valid) if valid.any() else np.ones_like(position)
    painted = encoding.name == "spectral"
    picture = paint_signed(position) if painted else np.repeat(2 * position[None] - 1, 3, axis=0)
    return EncodedDepth(picture, valid, float(low), float(high), encoding)


def decode(
    picture: Float[np.ndarray, "3 h w"],
    encoding: Encoding,
    low: float | None = None,
    high: float | None = None,
    source: str = "decoded picture",
) -> tuple[DepthMap, Float32[np.ndarray, "h w"]]:
    """A picture back to depth, with a confidence in [0, 1] per pixel; undoes `encode`.

    With a known range (fixed, or `low` and `high` of the scalar) the depth is metric z. Otherwise it is affine in the
    encoding's space, in [0, 1]. Every pixel is valid: what to do with a low confidence is the reader's choice, so that
    no picture can escape its score by painting what is no depth.
    """
    picture = picture.astype(np.float32)
    if encoding.name == "spectral":
        position, distance = unpaint((picture + 1) / 2)
    else:
        mean = picture.mean(axis=0)
        position = np.clip((mean + 1) / 2, 0, 1)
        distance = np.abs(picture - (2 * position - 1)).max(axis=0) / 2
    confidence = np.exp(-(distance**2) / (2 * CONFIDENCE_WIDTH**2)).astype(np.float32)
    known = np.ones(position.shape, bool)
    unit_scalar = position if encoding.space == "log" else 1 - position
    if encoding.is_fixed:
        low, high = encoding.range()
    if low is None or high is None:
        return DepthMap(unit_scalar.astype(np.float32), known, AFFINE_KINDS[encoding.space], "", source), confidence
    z = from_space(low + unit_scalar.astype(np.float64) * (high - low), encoding.space)
    return DepthMap(z.astype(np.float32), known, "metric_z", "m", source), confidence


def target_size(height: int, width: int, long_side: int = 448, multiple: int = 32) -> tuple[int, int]:
    """(height, width) with the long side `long_side`, both floored to multiples (at least one), in whole numbers."""
    longest = max(height, width)
    cells = [max(1, side * long_side // longest // multiple) for side in (height, width)]
    return cells[0] * multiple, cells[1] * multiple
