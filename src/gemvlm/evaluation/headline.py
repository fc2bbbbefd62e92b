"""A benchmark's headline as weights of groups of items, so that it can be resampled fast and without the benchmark.

Every published headline is a mean of means: sum over groups of weight times the group's mean score. Groups and weights
are found by asking the benchmark's own `summary`, and checked against it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from gemvlm.evaluation.benchmark import Benchmark, Item, Score
from gemvlm.statistics import contributions

OVERALL = "overall"
TOLERANCE = 1e-9
MOST_KINDS = 20


@dataclass(frozen=True, eq=False)
class Headline:
    """`groups` gives each item's group, `weights` each group's share: `statistics.grouped_interval` reads them so."""

    groups: Int64[np.ndarray, " items"]
    weights: Float[np.ndarray, " groups"]


def find_headline(benchmark: Benchmark, items: Sequence[Item], shown: Sequence[Score]) -> Headline | None:
    """How `benchmark.summary` weighs these items, those that do not count included as if they did.

    None if its headline is no mean of means, which is found out by trying it on random scores. `shown` are scores that
    occurred: what the rule read may matter to a summary, so it is kept.
    """
    try:
        for groups in (_by_category(items), _by_kind(items), np.arange(len(items))):
            found = _weighed(benchmark, items, shown, groups)
            if found is not None:
                return found
    except (ValueError, LookupError, TypeError, ArithmeticError):
        return None
    return None


def _by_category(items: Sequence[Item]) -> Int64[np.ndarray, " items"]:
    return _numbered([item.category for item in items])


def _by_kind(items: Sequence[Item]) -> Int64[np.ndarray, " items"]:
    """By category and by every property of which there are few, such as the source of a picture."""
    names = sorted({name for item in items for name, value in item.meta.items() if isinstance(value, str)})
    columns = [[str(item.meta.get(name)) for item in items] for name in names]
    few = [column for column in columns if len(set(column)) <= MOST_KINDS]
    return _numbered(list(zip([item.category for item in items], *few, strict=True)))


def _numbered(names: Sequence[Hashable]) -> Int64[np.ndarray, " items"]:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def _weighed(
    benchmark: Benchmark, items: Sequence[Item], shown: Sequence[Score], groups: Int64[np.ndarray, " items"]
) -> Headline | None:
    def overall(values: Float[np.ndarray, " items"]) -> float:
        scores = [Score(float(value), score.parsed) for score, value in zip(shown, values, strict=True)]
        return float(benchmark.summary(items, scores)[OVERALL])

    floor = overall(np.zeros(len(items)))
    weights = np.array([overall((groups == group).astype(float)) - floor for group in range(int(groups.max()) + 1)])
    tried = np.random.default_rng(0).random((3, len(items)))
    total = float(weights.sum())
    right = (
        abs(floor) < TOLERANCE
        and abs(total - 1) < TOLERANCE
        and all(abs(overall(row) - float(contributions(row, groups, weights).mean())) < TOLERANCE for row in tried)
    )
    return Headline(groups, weights) if right else None
