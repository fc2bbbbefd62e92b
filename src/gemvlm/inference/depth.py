"""Images → depth: pictures painted from the images' states, decoded by the checkpoint's encoding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from gemvlm.depth_map import DepthMap, Encoding, Space, decode, from_space, resample, space_values

Combine = Literal["median", "mean"]


@dataclass(frozen=True)
class Spread:
    """How far the paintings of an ensemble lie apart, per pixel.

    `deviation` is their standard deviation in `space`, in which the encoding is linear; in "log" it is about the
    relative error of depth. `low` and `high` are the least and the greatest depth painted. Were the truth one more
    painting, it would lie between them with probability `level` = (E - 1) / (E + 1) for E paintings, whatever their
    distribution.
    """

    deviation: Float32[np.ndarray, "H W"]
    low: DepthMap
    high: DepthMap
    level: float
    space: Space

    def resized(self, height: int, width: int) -> Spread:
        deviation, _ = resample(self.deviation, np.ones(self.deviation.shape, bool), width, height)
        low, high = (depth.resized(width, height) for depth in (self.low, self.high))
        return replace(self, deviation=deviation, low=low, high=high)

    def save(self, path: Path) -> None:
        """An `.npz` of deviation, low, high (float32), level and space; kind and unit are those of the depth."""
        np.savez_compressed(
            path,
            deviation=self.deviation,
            low=self.low.values,
            high=self.high.values,
            level=np.float64(self.level),
            space=np.array(self.space),
            kind=np.array(self.low.kind),
            unit=np.array(self.low.unit),
        )


@dataclass(frozen=True)
class DepthPrediction:
    """Generated depth; `confidence` is 1 where the colours are a depth's, else less.

    `depth` is metric if the model's encoding has a range in metres, affine otherwise (see `DepthMap.kind`). `picture`
    is what the generator painted, at its own size. `spread` says how sure an ensemble is, None if there is none.
    """

    depth: DepthMap
    confidence: Float32[np.ndarray, "H W"]
    picture: UInt8[np.ndarray, "h w 3"]
    spread: Spread | None = None

    def resized(self, height: int, width: int) -> DepthPrediction:
        """Depth, confidence and spread resampled to a size in pixels; the picture stays as it was painted."""
        everywhere = np.ones(self.confidence.shape, bool)
        confidence, _ = resample(self.confidence, everywhere, width, height)
        spread = None if self.spread is None else self.spread.resized(height, width)
        return replace(self, depth=self.depth.resized(width, height), confidence=confidence, spread=spread)


def decode_pictures(
    pictures: Float32[np.ndarray, "E 3 h w"], encoding: Encoding, source: str, combine: Combine = "median"
) -> DepthPrediction:
    """One prediction from the E pictures of an ensemble: their median or mean per pixel, in the encoding's space.

    Confidence is the mean of theirs.
    """
    decoded = [decode(picture, encoding, source=source) for picture in pictures]
    depths, first = [depth for depth, _ in decoded], decoded[0][0]
    middle = np.median if combine == "median" else np.mean
    painted = np.round((np.clip(middle(pictures, axis=0), -1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    confidence = np.stack([confidence for _, confidence in decoded]).mean(axis=0)
    if len(depths) == 1:
        return DepthPrediction(first, confidence, painted)
    scalars = np.stack([space_values(depth, encoding.space) for depth in depths]).astype(np.float64)
    scalar = middle(scalars, axis=0)
    values = from_space(scalar, encoding.space) if first.is_metric else scalar
    low, high = (replace(first, values=end([depth.values for depth in depths], axis=0)) for end in (np.min, np.max))
    deviation = scalars.std(axis=0, ddof=1).astype(np.float32)
    level = (len(depths) - 1) / (len(depths) + 1)
    spread = Spread(deviation, low, high, level, encoding.space)
    return DepthPrediction(replace(first, values=values.astype(np.float32)), confidence, painted, spread)
