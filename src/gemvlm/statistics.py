"""How sure a number is: intervals, paired differences, and the smallest difference that an experiment can see.

Items of one scene resemble each other, so everything here can count by cluster (scene) instead of by item.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int64

LARGEST_BLOCK = 2**22
"""Numbers held at once while resampling."""
MOST_EXACT = 12
"""Clusters of which every pattern of signs is tried; of more, a sample."""
POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """A mean (or a median, where a function says so) between the ends of its confidence interval; `n` counts items."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences a - b with its interval, and the two-sided p-value of "no difference".

    `detectable` is the smallest true difference that this many items, as they scatter, would show four times of five.
    """

    interval: Interval
    p_value: float
    detectable: float = math.nan

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


def median_interval(
    scores: Sequence[float] | Float[np.ndarray, "N"],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The median with its percentile bootstrap interval, by cluster if there are any; scores may be infinite."""
    values = np.asarray(scores, np.float64)
    if not values.size or np.isnan(values).any():
        raise ValueError(f"{values.size} scores, {int(np.isnan(values).sum())} of them NaN, have no median")
    names = range(len(values)) if clusters is None else clusters
    numbers: dict[Hashable, int] = {}
    place = np.array([numbers.setdefault(name, len(numbers)) for name in names])
    order = np.argsort(values, kind="stable")
    medians = []
    for drawn in _drawings(len(numbers), resamples, seed):
        reached = drawn[:, place[order]].cumsum(axis=1)
        medians.append(values[order][(2 * reached >= reached[:, -1:]).argmax(axis=1)])
    low, high = np.quantile(np.concatenate(medians), ((1 - level) / 2, (1 + level) / 2), method="nearest")
    return Interval(float(np.median(values)), float(low), float(high), values.size)


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


def less_certain(interval: Interval, units: int) -> Interval:
    """A bootstrap of scores that are all 0, or all 1, is certain of them; Wilson's interval of so many units is not."""
    if interval.low < interval.high or interval.mean not in (0.0, 1.0):
        return interval
    return replace(proportion_interval(round(interval.mean * units), units), n=interval.n)


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
    was seen, the seen one included. Up to MOST_EXACT clusters every pattern of signs is tried.
    """
    if len(a) != len(b):
        raise ValueError(f"paired scores must be of the same items: {len(a)} against {len(b)}")
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    sums, counts = _by_cluster(differences, clusters)
    if len(sums) <= MOST_EXACT:
        flips = [np.array(signs) @ sums for signs in product((1.0, -1.0), repeat=len(sums))][1:]
    else:
        rng = np.random.default_rng(seed + 1)
        flips = [rng.choice((-1.0, 1.0), size=len(sums)) @ sums for _ in range(resamples)]
    means = _bootstrap_means(sums, counts, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    interval = Interval(float(sums.sum() / counts.sum()), float(low), float(high), int(counts.sum()))
    return Difference(interval, _share_as_extreme(flips, float(sums.sum())), _detectable(means, level))


def grouped_interval(
    scores: Sequence[float] | Float[np.ndarray, "N"],
    groups: Int64[np.ndarray, "N"],
    weights: Float[np.ndarray, "G"],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """`mean_interval` of a weighted mean of group means, as headlines are made: sum_g w_g mean_g / sum_g w_g.

    `groups` gives each item's group. Groups without an item in a resample are left out of it.
    """
    values = np.asarray(scores, np.float64)
    draws = _grouped_bootstrap(values, groups, weights, clusters, resamples, seed)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(contributions(values, groups, weights).mean()), float(low), float(high), len(values))


def grouped_difference(
    a: Sequence[float] | Float[np.ndarray, "N"],
    b: Sequence[float] | Float[np.ndarray, "N"],
    groups: Int64[np.ndarray, "N"],
    weights: Float[np.ndarray, "G"],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """`paired_difference` of two weighted means of group means over the same items."""
    if len(a) != len(b):
        raise ValueError(f"paired scores must be of the same items: {len(a)} against {len(b)}")
    apart = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    interval = grouped_interval(apart, groups, weights, clusters, level, resamples, seed)
    parts = contributions(apart, groups, weights)
    p_value = paired_difference(parts, np.zeros(len(parts)), clusters, level, resamples, seed).p_value
    draws = _grouped_bootstrap(apart, groups, weights, clusters, resamples, seed)
    return Difference(interval, p_value, _detectable(draws, level))


def contributions(
    scores: Float[np.ndarray, "N"], groups: Int64[np.ndarray, "N"], weights: Float[np.ndarray, "G"]
) -> Float[np.ndarray, "N"]:
    """Scores scaled so that their plain mean is the weighted mean of the group means."""
    share = weights / weights.sum() / np.maximum(np.bincount(groups, minlength=len(weights)), 1)
    return scores * share[groups] * len(scores)


def difference_over_seeds(
    a: Float[np.ndarray, "seeds_a N"],
    b: Float[np.ndarray, "seeds_b M"],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Difference:
    """Mean of a - b where each row is one training of several and each column an item, the same in both.

    Two things scatter. Scenes: the bootstrap of the differences of the rows' means. Trainings: the mean of S rows is
    off by s / sqrt(S) times a Student t of S - 1 degrees, s being the deviation of the rows' means; a bootstrap of two
    or three seeds would claim far too much. A side of one row borrows the other's deviation; two of one row each have
    none, and the interval is then about these two trainings only.
    """
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"paired scores must be of the same items: {a.shape[1]} against {b.shape[1]}")
    scatter = [float(np.std(rows.mean(axis=1), ddof=1)) for rows in (a, b) if len(rows) > 1]
    most = max(len(a), len(b))
    trainings = [
        (deviation, len(rows), (len(rows) if len(rows) > 1 else most) - 1)
        for rows, own in ((a, scatter[:1]), (b, scatter[-1:]))
        for deviation in own
    ]
    return _scattered(a.mean(axis=0) - b.mean(axis=0), clusters, trainings, level, resamples, seed)


def paired_over_seeds(
    a: Float[np.ndarray, "seeds N"],
    b: Float[np.ndarray, "seeds N"],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
    asked: int = 1,
) -> Difference:
    """As `difference_over_seeds`, where row s of both began alike (same weights, same order of samples).

    What scatters is then the difference within a seed. `detectable` is told for one of `asked` comparisons that are
    corrected together, as Holm's rule does in its first step. ValueError for a single seed, whose scatter nobody knows.
    """
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(f"needs the same items and seeds, two at least: {a.shape} against {b.shape} (seeds, items)")
    differences = a - b
    trainings = [(float(np.std(differences.mean(axis=1), ddof=1)), len(a), len(a) - 1)]
    return _scattered(differences.mean(axis=0), clusters, trainings, level, resamples, seed, asked)


def _scattered(
    differences: Float[np.ndarray, "N"],
    clusters: Sequence[Hashable] | None,
    trainings: Sequence[tuple[float, int, int]],
    level: float,
    resamples: int,
    seed: int,
    asked: int = 1,
) -> Difference:
    """The mean difference; `trainings` are (deviation, number of seeds, degrees of freedom) that scatter besides."""
    sums, counts = _by_cluster(differences, clusters)
    draws = _bootstrap_means(sums, counts, resamples, seed)
    rng = np.random.default_rng(seed + 1)
    for deviation, seeds, degrees in trainings:
        draws = draws + rng.standard_t(degrees, resamples) * deviation / math.sqrt(seeds)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    smaller = min(int(np.sum(draws <= 0)), int(np.sum(draws >= 0)))
    p_value = min(1.0, 2 * (smaller + 1) / (resamples + 1))
    interval = Interval(float(sums.sum() / counts.sum()), float(low), float(high), int(counts.sum()))
    sure = 1 - (1 - level) / asked
    lowest, highest = np.quantile(draws, [(1 - sure) / 2, (1 + sure) / 2])
    reach = (float(highest) - float(lowest)) / 2
    return Difference(interval, p_value, reach * (1 + NormalDist().inv_cdf(POWER) / _z(sure)))


def sign_test(
    a: Sequence[float] | Float[np.ndarray, "N"],
    b: Sequence[float] | Float[np.ndarray, "N"],
) -> float:
    """Exact two-sided p-value of "as often better as worse" over the items that differ; McNemar's test for 0 and 1.

    Twice the smaller tail of a binomial of one half; 1 if no item differs.
    """
    if len(a) != len(b):
        raise ValueError(f"paired scores must be of the same items: {len(a)} against {len(b)}")
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    wins, losses = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    trials, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(trials, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**trials) if trials else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) for asking many times: p-values that keep the level of them all, in order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def minimum_detectable_difference(deviation: float, n: int, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true mean that a two-sided test at `level` finds with probability `power`: (z_l + z_p) s / sqrt(n).

    `deviation` is the standard deviation s of one of the n units: of paired differences, or of cluster means if units
    are clusters. For two independent proportions p of n items each it is sqrt(2 p (1 - p)).
    """
    if n < 1 or deviation < 0:
        raise ValueError(f"needs at least one unit and a deviation that is not negative, got {n} and {deviation}")
    return float((_z(level) + NormalDist().inv_cdf(power)) * deviation / np.sqrt(n))


def _share_as_extreme(others: Sequence[float], seen: float) -> float:
    """The two-sided p-value of what was seen among what chance gives, the seen one included."""
    reached = np.abs(np.array(others)) >= abs(seen) - 1e-9 * max(abs(seen), 1.0)
    return float((np.sum(reached) + 1) / (len(others) + 1))


def _detectable(means: Float[np.ndarray, " R"], level: float) -> float:
    return minimum_detectable_difference(float(np.std(means)), 1, level, POWER)


def _grouped_bootstrap(
    scores: Float[np.ndarray, "N"],
    groups: Int64[np.ndarray, "N"],
    weights: Float[np.ndarray, "G"],
    clusters: Sequence[Hashable] | None,
    resamples: int,
    seed: int,
) -> Float[np.ndarray, " R"]:
    """Weighted means of group means, of items drawn by cluster."""
    names = list(range(len(scores))) if clusters is None else list(clusters)
    of_scores, _ = _by_cluster(scores, names)
    numbers: dict[Hashable, int] = {}
    place = np.array([numbers.setdefault(name, len(numbers)) for name in names]) * len(weights) + groups
    shape = (len(of_scores), len(weights))
    sums = np.bincount(place, scores, minlength=shape[0] * shape[1]).reshape(shape)
    counts = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
    draws = []
    for drawn in _drawings(len(of_scores), resamples, seed):
        there = drawn @ counts
        present = np.where(there > 0, weights, 0.0)
        means = (drawn @ sums) / np.maximum(there, 1)
        draws.append((present * means).sum(axis=1) / np.maximum(present.sum(axis=1), 1e-300))
    return np.concatenate(draws)


def _drawings(clusters: int, resamples: int, seed: int) -> Iterator[Int64[np.ndarray, "rows C"]]:
    """How often each cluster is drawn, a resample in each row; in bounded blocks."""
    rng = np.random.default_rng(seed)
    block = max(1, LARGEST_BLOCK // clusters)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        yield rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=rows)


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
    # How often each cluster is drawn says it all: a resample is a row, its mean two products.
    return np.concatenate([(drawn @ sums) / (drawn @ counts) for drawn in _drawings(len(sums), resamples, seed)])
