"""Is A better than B? On the same items, with what scatters: scenes, and trainings where there are several.

Headlines are compared as the benchmark weighs them, parts as plain means. A gap stands beside the smallest one that
this many items could have shown, and its p-value is corrected for all that were asked at once (Holm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from gemvlm.evaluation.headline import OVERALL
from gemvlm.evaluation.results import Results
from gemvlm.statistics import (
    Difference,
    contributions,
    difference_over_seeds,
    grouped_difference,
    holm,
    paired_difference,
    sign_test,
)

LEVEL = 0.05


@dataclass(frozen=True)
class Gap:
    """A's score minus B's on one benchmark, or a part of it. `sign_p` is the exact sign test, of single runs only."""

    benchmark: str
    part: str
    a: float
    b: float
    difference: Difference
    sign_p: float | None
    p_of_all: float = 1.0

    @property
    def verdict(self) -> str:
        """In words; "seen" means below 0.05 after the correction."""
        if self.p_of_all < LEVEL:
            return "A is better" if self.difference.interval.mean > 0 else "B is better"
        return "no difference seen"


def compare_results(a: Sequence[Results], b: Sequence[Results], parts: bool = True) -> list[Gap]:
    """The headline of one benchmark, and each of its categories. Not corrected yet for how many were asked."""
    first = a[0]
    for other in (*a, *b):
        if other.run.get("questions") != first.run["questions"]:
            raise ValueError(
                f"{first.folder} and {other.folder}: {first.benchmark} was asked with other items or other prompts "
                "(another version of the benchmark, or another limit); evaluate both again alike"
            )
    gaps = [_overall(a, b)]
    categories = list(dict.fromkeys(str(line["category"]) for line in first.lines))
    for category in categories if parts and len(categories) > 1 else []:
        members = [i for i, line in enumerate(first.lines) if line["category"] == category]
        scenes = [first.scenes[i] for i in members]
        of_a, of_b = [found.values[members] for found in a], [found.values[members] for found in b]
        gaps.append(_gap(first.benchmark, category, of_a, of_b, scenes))
    return gaps


def corrected(gaps: Sequence[Gap]) -> list[Gap]:
    """The same gaps with p-values corrected for all of them."""
    p_values = holm([gap.difference.p_value for gap in gaps])
    return [replace(gap, p_of_all=p) for gap, p in zip(gaps, p_values, strict=True)]


def _overall(a: Sequence[Results], b: Sequence[Results]) -> Gap:
    first, headline = a[0], a[0].headline
    groups, weights = headline.groups, headline.weights
    one, other = ([contributions(found.values, groups, weights) for found in side] for side in (a, b))
    if len(a) > 1 or len(b) > 1:
        return _gap(first.benchmark, OVERALL, one, other, first.scenes)
    values_a, values_b = a[0].values, b[0].values
    found = grouped_difference(values_a, values_b, groups, weights, first.scenes)
    ends = float(one[0].mean()), float(other[0].mean())
    return Gap(first.benchmark, OVERALL, *ends, found, sign_test(values_a, values_b), found.p_value)


def _gap(
    benchmark: str,
    part: str,
    a: Sequence[Float[np.ndarray, " items"]],
    b: Sequence[Float[np.ndarray, " items"]],
    scenes: Sequence[str],
) -> Gap:
    ends = float(np.mean(a)), float(np.mean(b))
    if len(a) == len(b) == 1:
        found = paired_difference(a[0], b[0], scenes)
        return Gap(benchmark, part, *ends, found, sign_test(a[0], b[0]), found.p_value)
    found = difference_over_seeds(np.stack(a), np.stack(b), scenes)
    return Gap(benchmark, part, *ends, found, None, found.p_value)
