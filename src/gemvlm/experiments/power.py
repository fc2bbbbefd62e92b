"""How many seeds show a gap of a wanted size, from how the first few seeds scatter.

A gap between two arms scatters over trainings (s, the deviation of the gap between seeds, divided by the square root of
their number S and spread as Student's t of S - 1 degrees) and over scenes (the deviation of the mean gap when scenes
are drawn anew, which no number of seeds lessens). `detectable` adds both up as `statistics.paired_over_seeds` does.

Only development questions are looked at, so that no test score decides how long an experiment lasts.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from gemvlm.statistics import POWER, mean_interval

LEVEL, MOST_SEEDS, DRAWS = 0.95, 64, 40_000
CAUTION = 0.8
"""Two or three seeds know their deviation badly: so sure is the upper bound that a cautious plan takes."""


@dataclass(frozen=True)
class Scatter:
    """Deviations, in the metric's unit: of the gap `between_seeds` of a pilot of `seeds`, and `over_scenes` of the mean
    gap."""

    seeds: int
    between_seeds: float
    over_scenes: float

    @property
    def cautious(self) -> Scatter:
        """With the upper bound of the deviation between seeds, `CAUTION` sure: s sqrt((S - 1) / chi2(S - 1))."""
        chi2 = np.random.default_rng(0).chisquare(self.seeds - 1, DRAWS)
        factor = math.sqrt((self.seeds - 1) / float(np.quantile(chi2, 1 - CAUTION)))
        return Scatter(self.seeds, self.between_seeds * factor, self.over_scenes)

    def of_scenes(self, times: float) -> Scatter:
        """For a test of so many times the scenes."""
        return Scatter(self.seeds, self.between_seeds, self.over_scenes / math.sqrt(times))


def scatter_of(
    arm: Float[np.ndarray, "seeds N"], control: Float[np.ndarray, "seeds N"], scenes: Sequence[Hashable]
) -> Scatter:
    """Of a pilot's paired scores, a row for each seed. ValueError for fewer than two seeds or unlike items."""
    if arm.shape != control.shape or len(arm) < 2:
        raise ValueError(f"needs the same items and seeds, two at least: {arm.shape} against {control.shape}")
    differences = arm - control
    interval = mean_interval(differences.mean(axis=0), scenes, LEVEL)
    deviation = (interval.high - interval.low) / 2 / NormalDist().inv_cdf((1 + LEVEL) / 2)
    return Scatter(len(arm), float(np.std(differences.mean(axis=1), ddof=1)), deviation)


def detectable(scatter: Scatter, seeds: int, asked: int = 1) -> float:
    """The smallest true gap that so many seeds show four times of five, at a level of 95 % over all `asked` gaps."""
    if seeds < 2:
        raise ValueError(f"{seeds} seeds: the scatter between seeds is known from two at least")
    rng = np.random.default_rng(seeds)
    draws = scatter.over_scenes * rng.standard_normal(DRAWS)
    draws += scatter.between_seeds / math.sqrt(seeds) * rng.standard_t(seeds - 1, DRAWS)
    sure = 1 - (1 - LEVEL) / asked
    reach = float(np.quantile(np.abs(draws), sure))
    return reach * (1 + NormalDist().inv_cdf(POWER) / NormalDist().inv_cdf((1 + sure) / 2))


def seeds_needed(scatter: Scatter, wanted: float, asked: int = 1) -> int | None:
    """The fewest seeds, `MOST_SEEDS` at most, that show a gap of `wanted`; None if scenes scatter too much."""
    return next((seeds for seeds in range(2, MOST_SEEDS + 1) if detectable(scatter, seeds, asked) <= wanted), None)


def advice(scatter: Scatter, wanted: float, asked: int = 1) -> str:
    """Both in words; gaps are shares of 1, of which `asked` are corrected together."""
    told = (
        f"From {scatter.seeds} seeds: the gap scatters by {100 * scatter.between_seeds:.1f} points between seeds and "
        f"by {100 * scatter.over_scenes:.1f} over scenes."
    )
    found = [seeds_needed(each, wanted, asked) for each in (scatter, scatter.cautious)]
    least = 100 * detectable(Scatter(scatter.seeds, 0.0, scatter.over_scenes), MOST_SEEDS, asked)
    if found[0] is None:
        return (
            f"{told} No {MOST_SEEDS} seeds show {100 * wanted:.1f} points: the scenes alone hide gaps below "
            f"{least:.1f}; ask more of them"
        )
    cautious = f"more than {MOST_SEEDS}" if found[1] is None else str(found[1])
    shown = 100 * detectable(scatter, found[0], asked)
    return (
        f"{told} {100 * wanted:.1f} points need {found[0]} seeds ({cautious} if the deviation is as large as it may "
        f"be, with {CAUTION:.0%} confidence); {found[0]} seeds show {shown:.1f} points"
    )
