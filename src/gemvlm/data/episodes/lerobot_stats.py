"""`meta/stats.json` of a LeRobot folder: what its policies normalise by. All exact, quantiles too.

Least, largest, mean, standard deviation, count and the quantiles of `QUANTILES`; of pictures for each channel, colours
in [0, 1], depth in metres where it is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def of_numbers(values: Float32[np.ndarray, "N D"]) -> dict[str, list[float]]:
    """Of states or actions, for each of their D parts."""
    exact = values.astype(np.float64)
    arrays = {"min": exact.min(0), "max": exact.max(0), "mean": exact.mean(0), "std": exact.std(0)}
    arrays |= dict(zip(QUANTILES, np.quantile(exact, list(QUANTILES.values()), axis=0), strict=True))
    return {name: array.tolist() for name, array in arrays.items()} | {"count": [len(values)]}


class Levels:
    """How often each level of each channel was seen in pictures."""

    def __init__(self, channels: int, levels: int) -> None:
        self.counts = np.zeros((channels, levels), np.int64)
        self.pictures = 0

    def add(self, picture: UInt8[np.ndarray, "H W C"] | UInt16[np.ndarray, "H W"]) -> None:
        planes = picture.reshape(-1, len(self.counts)).T
        for counts, plane in zip(self.counts, planes, strict=True):
            counts += np.bincount(plane, minlength=len(counts))
        self.pictures += 1

    def statistics(self, values: Float64[np.ndarray, "L"]) -> dict[str, Any] | None:
        """Of what each level stands for, in lists (C, 1, 1); levels that are NaN don't count. None if none do."""
        known = np.isfinite(values)
        counts, values = self.counts[:, known], values[known]
        total = counts.sum(1)
        if not total.all():
            return None
        mean = counts @ values / total
        shares = counts.cumsum(1) / total[:, None]
        arrays = {
            "min": values[(counts > 0).argmax(1)],
            "max": values[len(values) - 1 - (counts[:, ::-1] > 0).argmax(1)],
            "mean": mean,
            "std": np.sqrt((counts * (values - mean[:, None]) ** 2).sum(1) / total),
        }
        arrays |= {name: values[(shares >= share).argmax(1)] for name, share in QUANTILES.items()}
        return {name: array[:, None, None].tolist() for name, array in arrays.items()} | {"count": [self.pictures]}
