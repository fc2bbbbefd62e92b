"""Images → depth: pictures painted from the images' states, decoded by the checkpoint's encoding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, UInt8

from gemvlm.depth_map import DepthMap, Encoding, decode, resample


@dataclass(frozen=True)
class DepthPrediction:
    """Generated depth; `confidence` is 1 where the colours are a depth's, else less.

    `depth` is metric if the model's encoding has a range in metres, affine otherwise (see `DepthMap.kind`). `picture`
    is what the generator painted, at its own size.
    """

    depth: DepthMap
    confidence: Float32[np.ndarray, "H W"]
    picture: UInt8[np.ndarray, "h w 3"]

    def resized(self, height: int, width: int) -> DepthPrediction:
        """Depth and confidence resampled to a size in pixels; the picture stays as it was painted."""
        everywhere = np.ones(self.confidence.shape, bool)
        confidence, _ = resample(self.confidence, everywhere, width, height)
        return replace(self, depth=self.depth.resized(width, height), confidence=confidence)


def decode_pictures(pictures: Float32[np.ndarray, "E 3 h w"], encoding: Encoding, source: str) -> DepthPrediction:
    """One prediction from the E pictures of an ensemble: the median depth and the mean confidence per pixel.

    The median needs no common space: it is the same pixel's depth in metres, logarithms or disparities.
    """
    decoded = [decode(picture, encoding, source=source) for picture in pictures]
    values = np.median([depth.values for depth, _ in decoded], axis=0).astype(np.float32)
    valid = np.all([depth.valid for depth, _ in decoded], axis=0)
    confidence = np.stack([confidence for _, confidence in decoded]).mean(axis=0)
    picture = np.median(pictures, axis=0)
    painted = np.round((np.clip(picture, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    return DepthPrediction(replace(decoded[0][0], values=values, valid=valid), confidence, painted)
