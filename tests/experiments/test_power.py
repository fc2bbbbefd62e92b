"""From the scatter of a few seeds to the number of them that shows a gap: checked against trials with a planted one."""

from __future__ import annotations

import numpy as np
import pytest

from gemvlm.experiments.power import Scatter, advice, detectable, scatter_of, seeds_needed
from gemvlm.statistics import paired_over_seeds

SCENES = 120
NAMES = [str(scene) for scene in range(SCENES)]


def pilot(
    trial: int, seeds: int, gap: float, between: float = 0.02, within: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two arms: the gap scatters by `between` from seed to seed, items by `within` / sqrt(scenes)."""
    rng = np.random.default_rng((11, trial))
    control = rng.normal(0.7, 0.1, (seeds, SCENES))
    luck = rng.normal(gap, between, (seeds, 1))
    return control + luck + rng.normal(0, within, SCENES), control


def test_a_planted_scatter_is_recovered() -> None:
    scatter = scatter_of(*pilot(0, 400, 0.05), NAMES)
    assert scatter.between_seeds == pytest.approx(0.02, rel=0.15)
    assert scatter.over_scenes == pytest.approx(0.2 / SCENES**0.5, rel=0.25)


def test_the_number_of_seeds_shows_the_gap_four_times_of_five() -> None:
    scatter = Scatter(3, 0.02, 0.2 / SCENES**0.5)
    wanted = 0.07
    seeds = seeds_needed(scatter, wanted)
    assert (
        seeds is not None and 2 < seeds < 10 and detectable(scatter, seeds) <= wanted < detectable(scatter, seeds - 1)
    )
    shown = [paired_over_seeds(*pilot(t, seeds, wanted), NAMES, resamples=800).is_significant for t in range(80)]
    assert 0.68 < np.mean(shown) <= 1  # 0.8 planned; of 80 trials fewer than 0.68 come once in two hundred


def test_more_seeds_or_less_scatter_see_smaller_gaps() -> None:
    scatter = Scatter(3, 0.02, 0.005)
    found = [detectable(scatter, seeds) for seeds in (2, 3, 5, 8, 16, 64)]
    assert found == sorted(found, reverse=True) and found[-1] > 2.5 * scatter.over_scenes
    assert detectable(scatter.of_scenes(4.0), 8) < detectable(scatter, 8)
    assert scatter.cautious.between_seeds == pytest.approx(0.02 * (2 / 0.446) ** 0.5, rel=0.03)  # chi2 of 2 at 20 %


def test_scenes_that_scatter_too_much_are_named_instead_of_a_number() -> None:
    told = advice(Scatter(3, 0.001, 0.02), 0.01)
    assert seeds_needed(Scatter(3, 0.001, 0.02), 0.01) is None and "ask more of them" in told
    assert "5.0 points need 3 seeds (" in advice(Scatter(3, 0.01, 0.001), 0.05)


def test_a_single_seed_knows_no_scatter() -> None:
    arm, control = pilot(0, 1, 0.0)
    with pytest.raises(ValueError, match="two at least"):
        scatter_of(arm, control, NAMES)
    with pytest.raises(ValueError, match="from two at least"):
        detectable(Scatter(3, 0.01, 0.01), 1)
