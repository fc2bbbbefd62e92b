"""The analysis finds an effect that was planted, claims none where there is none, and says when it can't know."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from gemvlm.experiments import get
from gemvlm.experiments.analysis import gaps, primary_items, reached_at, table, verdict
from gemvlm.experiments.experiment import Experiment
from gemvlm.experiments.measure import ItemScore
from gemvlm.statistics import paired_over_seeds

EXPERIMENT = get("verdict_nano")
PRIMARY = EXPERIMENT.contrasts[0]
SCENES, PER_SCENE = 150, 4


def fake_scores(effects: Mapping[str, float], trial: int, seeds: int = 3) -> dict[str, dict[int, list[ItemScore]]]:
    """Arms that are right with 0.7 + effect, scenes that are harder or easier, seeds that scatter by two points."""
    rng = np.random.default_rng((7, trial))
    scenes = rng.normal(0, 0.1, SCENES)
    families = EXPERIMENT.primary
    hard = rng.normal(0, 0.15, (SCENES, PER_SCENE))  # the same questions are hard for all arms
    found: dict[str, dict[int, list[ItemScore]]] = {}
    for arm, effect in effects.items():
        for seed in range(seeds):
            luck = rng.normal(0, 0.01)
            found.setdefault(arm, {})[seed] = [
                ItemScore(
                    f"{scene}/{place}",
                    str(scene),
                    families[place % len(families)],
                    True,
                    float(rng.random() < 0.7 + effect + luck + scenes[scene] + hard[scene, place]),
                    1.0,
                )
                for scene in range(SCENES)
                for place in range(PER_SCENE)
            ]
    return found


def judged(effects: Mapping[str, float], trial: int):
    return gaps(EXPERIMENT, fake_scores(effects, trial), primary_items(EXPERIMENT), "score", lambda item: item.score)


def test_a_planted_effect_is_found_and_named() -> None:
    found = judged({"text": 0.0, "depth": 0.15, "shuffled": 0.0}, trial=0)
    assert [(g.contrast.arm, g.contrast.control) for g in found] == [("depth", "text"), ("depth", "shuffled")]
    assert all(g.decided and g.difference.interval.low > 0 for g in found)
    assert verdict(found, PRIMARY, control=0.7, chance=0.5).startswith("Generating depth helps: depth against text, +1")


def test_the_opposite_is_said_as_plainly() -> None:
    found = judged({"text": 0.15, "depth": 0.0}, 0)
    assert verdict(found, PRIMARY, 0.85, 0.5).startswith("The opposite of what was claimed")


def test_a_planted_null_is_claimed_no_more_often_than_the_level_allows() -> None:
    claims = [any(g.decided for g in judged({"text": 0.0, "depth": 0.0, "shuffled": 0.0}, t)) for t in range(30)]
    assert sum(claims) <= 5  # of 30 at a family-wise 5 %: six or more has a chance below one in a hundred
    undecided = judged({"text": 0.0, "depth": 0.0}, trial=1)
    assert verdict(undecided, PRIMARY, 0.7, 0.5).startswith("Inconclusive")
    assert "could not have been seen" in verdict(undecided, PRIMARY, 0.7, 0.5)


@pytest.mark.parametrize("control", [0.55, 0.95])
def test_a_control_at_chance_or_at_the_ceiling_shows_nothing(control: float) -> None:
    assert "no gap could show" in verdict(judged({"text": 0.0, "depth": 0.15}, 0), PRIMARY, control, 0.5)


def test_another_contrast_never_stands_in_for_the_primary_one() -> None:
    found = judged({"depth": 0.2, "shuffled": 0.0}, 0)
    assert [gap.contrast.control for gap in found] == ["shuffled"]
    assert verdict(found, PRIMARY, 0.7, 0.5).startswith("Nothing can be said yet")


def test_what_is_detectable_counts_how_many_are_asked() -> None:
    rows = np.random.default_rng(0).normal(0, 0.02, (3, 1)) + np.zeros((3, 400))
    one, four = (paired_over_seeds(rows, 0 * rows, asked=asked) for asked in (1, 4))
    assert one.interval == four.interval and one.p_value == four.p_value
    assert four.detectable > 1.5 * one.detectable  # t of two degrees: 4.3 becomes 8.9


def test_one_seed_gives_no_gap_and_no_verdict() -> None:
    scores = fake_scores({"text": 0.0, "depth": 0.2}, 0, seeds=1)
    found = gaps(EXPERIMENT, scores, primary_items(EXPERIMENT), "score", lambda item: item.score)
    assert found == []
    assert verdict(found, PRIMARY, 0.7, 0.5).startswith("Nothing can be said yet")


def test_families_count_alike_whatever_their_number_of_questions() -> None:
    items = [ItemScore(str(i), "s", "closer", True, 1.0, 1.0) for i in range(9)]
    items += [ItemScore("last", "t", "left_right", True, 0.0, 1.0)]
    values, scenes = table({0: items}, [0], primary_items(EXPERIMENT), lambda item: item.score)
    assert values.mean() == pytest.approx(0.5) and scenes[-1] == "t"


def test_seeds_that_answered_other_items_are_refused() -> None:
    one = [ItemScore("a", "s", "closer", True, 1.0, 1.0)]
    with pytest.raises(ValueError, match="must be the same"):
        table({0: one, 1: []}, [0, 1], primary_items(EXPERIMENT), lambda item: item.score)


def test_a_falling_curve_reaches_a_threshold_between_its_points() -> None:
    curve = [(0.0, 2.0), (10.0, 1.0), (20.0, 0.5)]
    assert reached_at(curve, 1.5) == pytest.approx(5.0)
    assert reached_at(curve, 2.5) == 0.0
    assert reached_at(curve, 0.1) is None


def test_an_experiment_that_compares_what_it_does_not_train_is_refused() -> None:
    fields = {name: getattr(EXPERIMENT, name) for name in Experiment.__dataclass_fields__}
    with pytest.raises(ValueError, match="not among the arms"):
        Experiment(**{**fields, "arms": ("text", "depth")})
