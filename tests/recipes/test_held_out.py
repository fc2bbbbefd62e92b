"""The held-out test: as many questions as asked for, and a headline that no shortcut answers, at any size."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("mujoco", reason="the tabletop world needs the extra `worlds`")

from gemvlm.curation.questions.balance import HEADLINE
from gemvlm.evaluation.shortcuts import shortcut_scores
from gemvlm.recipes import held_out
from gemvlm.recipes.recipe import DEVELOPMENT_SEED
from gemvlm.sample import Sample, Turn

PER_FAMILY = 16


@pytest.fixture(scope="module")
def made() -> tuple[list[Sample], list[Sample]]:
    """Baselines' training samples, and a small test on development scenes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "available_cores", lambda: 1)
        patch.setattr(held_out, "FITTED_SCENES", 15)
        fitted = held_out.fitted_samples()
        return fitted, held_out.held_out_samples(fitted, 30, PER_FAMILY, 10, DEVELOPMENT_SEED + 500_000)


def _turns(samples: list[Sample]) -> list[Turn]:
    return [turn for sample in samples for turn in sample.turns]


def test_every_shortcut_is_at_chance_in_a_headline_that_was_cut_short(made: tuple[list[Sample], list[Sample]]) -> None:
    fitted, test = made
    headline = [turn for turn in _turns(test) if HEADLINE in turn.subsets]
    families = Counter(turn.family for turn in headline)
    assert set(held_out.COMPARED) < set(families)
    assert all(families[family] == PER_FAMILY for family in ("left_right", "closer", "perspective"))
    for family in families:
        train = [turn for turn in _turns(fitted) if turn.family == family]
        asked = [turn for turn in headline if turn.family == family]
        means = {name: scores.mean() for name, scores in shortcut_scores(train, asked).items()}
        first = means.pop("majority", 0.5)  # the position of the right option evens out over pairs, not within each
        assert {name: mean for name, mean in means.items() if abs(mean - 0.5) > 0.03} == {}, family
        assert abs(first - 0.5) * len(asked) <= 1 or len(asked) < PER_FAMILY


def test_rare_families_come_from_further_scenes(made: tuple[list[Sample], list[Sample]]) -> None:
    _, test = made
    further = [sample for sample in test if sample.meta["seed"] >= DEVELOPMENT_SEED + 500_030]
    assert {turn.family for turn in _turns(further)} == set(held_out.RARE)
    assert all(sample.frames[0].depth is None for sample in further)
    assert sum(sample.frames[0].depth is not None for sample in test) == 10


def test_no_family_has_more_than_was_asked_for(made: tuple[list[Sample], list[Sample]]) -> None:
    _, test = made
    counts = Counter((turn.family, HEADLINE in turn.subsets) for turn in _turns(test))
    assert max(counts.values()) == PER_FAMILY
    assert counts["describe", False] == PER_FAMILY and ("places", False) not in counts
