"""Scores of arms and seeds → gaps with intervals, corrected for asking often, and a verdict that may be "inconclusive".

Every arm of a seed starts from the same stage 0 and sees the same samples in the same order, so a gap is taken within
each seed. It scatters over seeds and over scenes; both go into its interval (`statistics.paired_over_seeds`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from gemvlm.experiments.experiment import Contrast, Experiment
from gemvlm.experiments.measure import ItemScore
from gemvlm.statistics import Difference, contributions, holm, paired_over_seeds

LEVEL = 0.95
CHANCE_MARGIN, CEILING_SHARE = 0.10, 0.90
"""The control must lie between chance + 10 points and 90 % of the ceiling, or the comparison can't show anything."""

Scores = Mapping[str, Mapping[int, Sequence[ItemScore]]]
"""Arm → seed → its items, the same items in the same order everywhere."""


@dataclass(frozen=True)
class Gap:
    """`difference` is arm - control, in shares of 1 (accuracy) or nats (surprise); `p_value` is corrected (Holm)."""

    contrast: Contrast
    metric: str
    difference: Difference
    p_value: float

    @property
    def decided(self) -> bool:
        return self.p_value < 1 - LEVEL


Selection = Callable[[ItemScore], bool]


def primary_items(experiment: Experiment) -> Selection:
    """Questions of the primary metric: its families, on the subset that no shortcut answers."""
    return lambda item: item.headline and item.family in experiment.primary


def group_items(families: Sequence[str]) -> Selection:
    return lambda item: item.family in families


def gaps(
    experiment: Experiment, scores: Scores, chosen: Selection, metric: str, value: Callable[[ItemScore], float]
) -> list[Gap]:
    """One gap for each contrast whose arms have two seeds in common; p-values are corrected for all contrasts."""
    found = []
    for contrast in experiment.contrasts:
        seeds = sorted(set(scores.get(contrast.arm, {})) & set(scores.get(contrast.control, {})))
        if len(seeds) < 2:
            continue
        arm, scenes = table(scores[contrast.arm], seeds, chosen, value)
        control, _ = table(scores[contrast.control], seeds, chosen, value)
        found.append((contrast, paired_over_seeds(arm, control, scenes, asked=len(experiment.contrasts))))
    unfinished = [1.0] * (len(experiment.contrasts) - len(found))
    corrected = holm([*(difference.p_value for _, difference in found), *unfinished])[: len(found)]
    return [Gap(c, metric, difference, p) for (c, difference), p in zip(found, corrected, strict=True)]


def table(
    by_seed: Mapping[int, Sequence[ItemScore]],
    seeds: Sequence[int],
    chosen: Selection,
    value: Callable[[ItemScore], float],
) -> tuple[Float64[np.ndarray, "seeds items"], list[str]]:
    """Values of the chosen items, one row for each seed, weighted so that every family counts alike; and their scenes.

    ValueError if seeds answered different items, or if none is chosen.
    """
    kept = [[item for item in by_seed[seed] if chosen(item)] for seed in seeds]
    ids = [[item.id for item in row] for row in kept]
    if not ids[0] or any(row != ids[0] for row in ids):
        raise ValueError(f"seeds {list(seeds)}: {[len(row) for row in ids]} items, which must be the same and not none")
    families, groups = np.unique([item.family for item in kept[0]], return_inverse=True)
    alike = np.ones(len(families))
    rows = [contributions(np.array([value(item) for item in row], np.float64), groups, alike) for row in kept]
    return np.stack(rows), [item.scene for item in kept[0]]


def mean_score(
    by_seed: Mapping[int, Sequence[ItemScore]], chosen: Selection, value: Callable[[ItemScore], float]
) -> Float64[np.ndarray, " seeds"]:
    """The mean over families of an arm, for each of its seeds in order."""
    return table(by_seed, sorted(by_seed), chosen, value)[0].mean(axis=1)


def can_show(control: float, chance: float, ceiling: float = 1.0) -> bool:
    return chance + CHANCE_MARGIN <= control <= CEILING_SHARE * ceiling


def verdict(found: Sequence[Gap], primary: Contrast, control: float, chance: float, ceiling: float = 1.0) -> str:
    """Two plain sentences: what the primary gap says, and what the others say of its cause."""
    first = next((gap for gap in found if gap.contrast == primary), None)
    if first is None:
        return "Nothing can be said yet: fewer than two seeds of the primary pair are done."
    others = [gap for gap in found if gap is not first]
    gap = first.difference.interval
    points = f"{100 * gap.mean:+.1f} points ({100 * gap.low:+.1f} to {100 * gap.high:+.1f}, p = {first.p_value:.3f})"
    names = f"{first.contrast.arm} against {first.contrast.control}"
    if not can_show(control, chance, ceiling):
        head = f"The control scores {100 * control:.1f} %, where no gap could show ({names}: {points})."
    elif not first.decided:
        detectable = 100 * first.difference.detectable
        head = (
            f"Inconclusive: {names} differ by {points}; a gap below {detectable:.1f} points could not have been seen."
        )
    else:
        head = f"{first.contrast.shows if gap.mean > 0 else 'The opposite of what was claimed'}: {names}, {points}."
    parts = [
        f"{g.contrast.arm} - {g.contrast.control} {100 * g.difference.interval.mean:+.1f}"
        f"{'' if g.decided else ' (undecided)'}"
        for g in others
    ]
    return head + (f" Of its cause: {', '.join(parts)}." if parts else "")


def reached_at(curve: Sequence[tuple[float, float]], threshold: float) -> float | None:
    """The first x at which a falling curve of (x, y) is at `threshold` or below, between points linearly; else None."""
    before: tuple[float, float] | None = None
    for x, y in curve:
        if y <= threshold:
            if before is None or before[1] == y:
                return x
            share = (before[1] - threshold) / (before[1] - y)
            return before[0] + share * (x - before[0])
        before = (x, y)
    return None
