"""How sure a number is: intervals, paired differences, and the smallest difference that an experiment can see.

Items of one scene resemble each other, so everything here can count by cluster (scene) instead of by item.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int64

LARGEST_BLOCK = 2**22
"""Numbers held at once while resampling."""


@dataclass(frozen=True)
class Interval:
    """A mean between the ends of its confidence interval; `n` counts items."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences a - b with its interval, and the two-sided p-value of "no difference"."""

    interval: Interval
    p_value: float

    @property
    def is_significant(self) -> bool:
        """At the level of the interval: it leaves out 0."""
        return self.interval.low > 0 or self.interval.high < 0


def mean_interval(
    scores: Sequence[float] | Float[np.ndarray, "N"],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a mean (Efron, 1979); with `clusters`, whole clusters are drawn and their items pooled.

    ValueError for no scores, NaN among them, or a cluster list of another length.
    """
    sums, counts = _by_cluster(scores, clusters)
    low, high = np.quantile(_bootstrap_means(sums, counts, resamples, seed), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high), int(counts.sum()))


def proportion_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (1927): honest at 0 and 1 and for few trials, items independent.

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials is no proportion")
    z, p = _z(level), successes / trials
    middle = p + z**2 / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    low = (middle - half) / scale if successes else 0.0
    high = (middle + half) / scale if successes < trials else 1.0
    return Interval(p, low, high, trials)


def paired_difference(
    a: Sequence[float] | Float[np.ndarray, "N"],
    b: Sequence[float] | Float[np.ndarray, "N"],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """Mean of a - b on the same items: bootstrap interval, and a sign-flip permutation test (Fisher, 1935).

    Under "no difference" the sign of each cluster's sum is a coin; p is the share of flips at least as extreme as what
    was seen, the seen one included.
    """
    if len(a) != len(b):
        raise ValueError(f"paired scores must be of the same items: {len(a)} against {len(b)}")
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    sums, _ = _by_cluster(differences, clusters)
    rng = np.random.default_rng(seed + 1)
    flipped = np.abs(np.array([rng.choice((-1.0, 1.0), size=len(sums)) @ sums for _ in range(resamples)]))
    seen = abs(sums.sum())
    p_value = float((np.sum(flipped >= seen - 1e-9 * max(seen, 1.0)) + 1) / (resamples + 1))
    return Difference(mean_interval(differences, clusters, level, resamples, seed), p_value)


def minimum_detectable_difference(deviation: float, n: int, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true mean that a two-sided test at `level` finds with probability `power`: (z_l + z_p) s / sqrt(n).

    `deviation` is the standard deviation s of one of the n units: of paired differences, or of cluster means if units
    are clusters. For two independent proportions p of n items each it is sqrt(2 p (1 - p)).
    """
    if n < 1 or deviation < 0:
        raise ValueError(f"needs at least one unit and a deviation that is not negative, got {n} and {deviation}")
    return float((_z(level) + NormalDist().inv_cdf(power)) * deviation / np.sqrt(n))


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _by_cluster(
    scores: Sequence[float] | Float[np.ndarray, "N"], clusters: Sequence[Hashable] | None
) -> tuple[Float[np.ndarray, "C"], Int64[np.ndarray, "C"]]:
    """Sum and number of the scores of each cluster; every item is its own without clusters."""
    values = np.asarray(scores, np.float64)
    if not values.size or not np.isfinite(values).all():
        bad = int(np.sum(~np.isfinite(values)))
        raise ValueError(f"{values.size} scores, {bad} of them NaN or infinite, have no mean; count failures as 0")
    if clusters is None:
        return values, np.ones(len(values), np.int64)
    if len(clusters) != len(values):
        raise ValueError(f"{len(values)} scores but {len(clusters)} cluster names")
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(name, len(numbers)) for name in clusters])
    return np.bincount(index, values), np.bincount(index).astype(np.int64)


def _bootstrap_means(
    sums: Float[np.ndarray, "C"], counts: Int64[np.ndarray, "C"], resamples: int, seed: int
) -> Float[np.ndarray, "R"]:
    rng = np.random.default_rng(seed)
    # How often each cluster is drawn says it all: a resample is a row, its mean two products; in bounded blocks.
    block = max(1, LARGEST_BLOCK // len(sums))
    means = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=rows)
        means.append((drawn @ sums) / (drawn @ counts))
    return np.concatenate(means)
