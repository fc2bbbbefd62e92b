"""A benchmark's headline as weights of groups of items, so that it can be resampled fast and without the benchmark.

Every published headline is a mean of means: sum over groups of weight times the group's mean score. Groups and weights
are found by asking the benchmark's own `summary`, and checked against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int64

from gemvlm.evaluation.benchmark import Benchmark, Item, Score

OVERALL = "overall"
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Headline:
    """`groups` gives each item's group, `weights` each group's share of the headline."""

    groups: Int64[np.ndarray, " items"]
    weights: Float[np.ndarray, " groups"]

    def value(self, scores: Float[np.ndarray, " drawn"], items: Int64[np.ndarray, " drawn"]) -> float:
        """The headline of `scores` of the given items, some of which may come twice; groups of none are left out."""
        groups = self.groups[items]
        counts = np.bincount(groups, minlength=len(self.weights))
        sums = np.bincount(groups, scores, minlength=len(self.weights))
        present = counts > 0
        share = self.weights[present].sum() / self.weights.sum()
        return float(self.weights[present] @ (sums[present] / counts[present]) / share)


def find_headline(benchmark: Benchmark, items: Sequence[Item], shown: Sequence[Score]) -> Headline | None:
    """How `benchmark.summary` weighs these items, those that do not count included as if they did.

    None if its headline is no mean of means, which is found out by trying it on random scores. `shown` are scores that
    occurred: what the rule read may matter to a summary, so it is kept.
    """
    try:
        for groups in (_by_category(items), np.arange(len(items))):
            found = _weighed(benchmark, items, shown, groups)
            if found is not None:
                return found
    except (ValueError, LookupError, TypeError, ArithmeticError):
        return None
    return None


def _by_category(items: Sequence[Item]) -> Int64[np.ndarray, " items"]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(item.category, len(numbers)) for item in items], np.int64)


def _weighed(
    benchmark: Benchmark, items: Sequence[Item], shown: Sequence[Score], groups: Int64[np.ndarray, " items"]
) -> Headline | None:
    def overall(values: Float[np.ndarray, " items"]) -> float:
        scores = [replace(score, value=float(v), counted=True) for score, v in zip(shown, values, strict=True)]
        return float(benchmark.summary(items, scores)[OVERALL])

    floor = overall(np.zeros(len(items)))
    weights = np.array([overall((groups == group).astype(float)) - floor for group in range(int(groups.max()) + 1)])
    headline = Headline(groups, weights)
    tried = np.random.default_rng(0).random((3, len(items)))
    total = float(weights.sum())
    right = abs(floor) < TOLERANCE and abs(total - 1) < TOLERANCE
    right &= all(abs(overall(row) - headline.value(row, np.arange(len(items)))) < TOLERANCE for row in tried)
    return headline if right else None
