"""Intervals cover what they promise, and tests find differences no more often than they should."""

from __future__ import annotations

import numpy as np
import pytest

from gemvlm.statistics import (
    Interval,
    difference_over_seeds,
    grouped_difference,
    grouped_interval,
    holm,
    less_certain,
    mean_interval,
    minimum_detectable_difference,
    paired_difference,
    proportion_interval,
    sign_test,
)


def test_the_bootstrap_interval_of_items_covers_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        interval = mean_interval(rng.normal(1.0, 2.0, 60), resamples=300, seed=trial)
        hits += interval.low <= 1.0 <= interval.high
    assert 0.89 <= hits / 200 <= 0.985


def test_only_clusters_keep_the_promise_when_items_of_a_scene_agree() -> None:
    rng = np.random.default_rng(1)
    by_item = by_cluster = 0
    clusters = np.repeat(np.arange(40), 10).tolist()
    for trial in range(150):
        scores = np.repeat(rng.normal(0.0, 1.0, 40), 10) + rng.normal(0.0, 0.3, 400)
        item, cluster = mean_interval(scores, None, 0.95, 200, trial), mean_interval(scores, clusters, 0.95, 200, trial)
        by_item += item.low <= 0 <= item.high
        by_cluster += cluster.low <= 0 <= cluster.high
    assert by_item / 150 < 0.7
    assert by_cluster / 150 > 0.87


def test_the_mean_is_the_items_mean_whatever_the_clusters() -> None:
    scores, clusters = [1.0, 0.0, 0.0, 1.0, 1.0], ["a", "b", "b", "c", "c"]
    interval = mean_interval(scores, clusters)
    assert (interval.mean, interval.n) == (0.6, 5)
    assert interval == mean_interval(scores, clusters)
    assert interval != mean_interval(scores, clusters, seed=1) or interval.low == 0.0
    assert mean_interval([2.0]).low == mean_interval([2.0]).high == 2.0


def test_wilson_agrees_with_the_published_example_and_stays_inside() -> None:
    interval = proportion_interval(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert (interval.low, interval.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert proportion_interval(0, 20).low == 0
    assert proportion_interval(0, 20).high == pytest.approx(0.1611, abs=5e-5)
    assert proportion_interval(20, 20).high == 1
    assert less_certain(Interval(0.0, 0.0, 0.0, 60), 20) == Interval(0.0, 0.0, proportion_interval(0, 20).high, 60)
    for kept in (Interval(0.5, 0.5, 0.5, 4), Interval(1.0, 0.9, 1.0, 4)):
        assert less_certain(kept, 4) == kept
    for successes, trials in ((3, 2), (0, 0), (-1, 5)):
        with pytest.raises(ValueError, match="is no proportion"):
            proportion_interval(successes, trials)


def test_a_difference_on_the_same_items_is_seen_through_their_spread() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(0.0, 5.0, 100)
    better = paired_difference(hard + rng.normal(0.5, 0.5, 100), hard)
    assert better.is_significant
    assert better.p_value < 0.01
    assert better.interval.mean == pytest.approx(0.5, abs=0.15)


def test_no_difference_is_rarely_called_one() -> None:
    rng = np.random.default_rng(3)
    p_values = [paired_difference(*rng.normal(0, 1, (2, 40)), resamples=200, seed=i).p_value for i in range(200)]
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.09
    assert paired_difference([1.0, 2.0], [1.0, 2.0]).p_value == 1.0


def test_clusters_are_flipped_as_one() -> None:
    a, b = np.ones(100), np.zeros(100)
    assert paired_difference(a, b).p_value < 0.001
    assert paired_difference(a, b, ["one scene"] * 100).p_value == 1.0


def test_the_detectable_difference_is_detected_with_the_stated_power() -> None:
    difference = minimum_detectable_difference(1.0, 50)
    assert difference == pytest.approx(2.8016 / np.sqrt(50), rel=1e-4)
    draws = np.random.default_rng(4).normal(difference, 1.0, (4000, 50)).mean(axis=1) * np.sqrt(50)
    assert np.mean(np.abs(draws) > 1.95996) == pytest.approx(0.8, abs=0.02)
    with pytest.raises(ValueError, match="at least one unit"):
        minimum_detectable_difference(1.0, 0)


def test_few_clusters_are_tested_exactly() -> None:
    assert paired_difference([1.0] * 5, [0.0] * 5).p_value == 2 / 2**5
    assert paired_difference([3.0, 1.0], [0.0, 0.0]).p_value == 0.5


def test_the_sign_test_is_the_binomials() -> None:
    ten, nine = np.array([1.0] * 9 + [0.0, 0.5]), np.array([0.0] * 9 + [1.0, 0.5])
    assert sign_test(ten, nine) == pytest.approx(2 * 11 / 2**10)
    assert sign_test(nine, ten) == sign_test(ten, nine)
    assert sign_test([0.0, 1.0], [0.0, 1.0]) == 1.0
    with pytest.raises(ValueError, match="1 against 2"):
        sign_test([1.0], [1.0, 2.0])


def test_holm_agrees_with_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_level_of_many_questions() -> None:
    rng = np.random.default_rng(5)
    wrong = sum(min(holm(rng.random(20).tolist())) < 0.05 for _ in range(2000))
    assert wrong / 2000 == pytest.approx(0.05, abs=0.015)


def test_a_headline_has_the_interval_of_the_mean_where_it_is_the_mean() -> None:
    rng = np.random.default_rng(6)
    scores, scenes = rng.random(120), np.repeat(np.arange(30), 4).tolist()
    one_group = grouped_interval(scores, np.zeros(120, np.int64), np.ones(1), scenes)
    plain = mean_interval(scores, scenes)
    assert (one_group.low, one_group.high, one_group.n) == (pytest.approx(plain.low), pytest.approx(plain.high), 120)
    assert one_group.mean == pytest.approx(plain.mean)


KINDS, HALVES = np.repeat([0, 1, 1, 1], 25), np.array([0.5, 0.5])
"""A quarter of the items makes half of the headline."""


def test_a_mean_of_means_covers_the_truth_and_the_plain_bootstrap_of_its_parts_does_not() -> None:
    rng = np.random.default_rng(10)
    covered = 0
    for trial in range(200):
        scores = rng.normal(0, 1, 100) + 5.0 * KINDS
        interval = grouped_interval(scores, KINDS, HALVES, resamples=300, seed=trial)
        covered += interval.low <= 2.5 <= interval.high
        assert interval.mean == pytest.approx((scores[:25].mean() + scores[25:].mean()) / 2)
    assert 0.88 <= covered / 200 <= 0.99
    assert interval.high - interval.low < 1, "how many items of each kind are drawn moves no mean of means"


def test_a_group_that_weighs_nothing_or_is_not_drawn_does_no_harm() -> None:
    interval = grouped_interval([1.0, 0.0, 0.0], np.array([0, 1, 1]), np.array([1.0, 0.0]))
    assert interval.mean == 1.0
    assert interval.high == 1.0


def test_a_headlines_difference_finds_the_planted_and_not_the_absent() -> None:
    rng = np.random.default_rng(7)
    wrong = found = covered = 0
    for trial in range(60):
        hard = rng.normal(0, 3, 100)
        a, b, better = (hard + rng.normal(0, 1, 100) for _ in range(3))
        null = grouped_difference(a, b, KINDS, HALVES, resamples=200, seed=trial)
        planted = grouped_difference(better + 0.6, b, KINDS, HALVES, resamples=200, seed=trial)
        wrong += null.p_value < 0.05
        covered += null.interval.low <= 0 <= null.interval.high
        found += planted.p_value < 0.05
    assert wrong <= 8
    assert covered >= 51
    assert found >= 48
    assert planted.detectable == pytest.approx(2.8 * np.sqrt(2 * (1 / 25 + 1 / 75) / 4), rel=0.25)


def test_scenes_are_drawn_and_flipped_as_one() -> None:
    a, b, alike = np.ones(60), np.zeros(60), np.zeros(60, np.int64)
    assert grouped_difference(a, b, alike, np.ones(1), ["one"] * 60).p_value == 1.0
    assert grouped_difference(a, b, alike, np.ones(1)).p_value < 0.02
    with pytest.raises(ValueError, match="60 scores but 1 cluster"):
        grouped_difference(a, b, alike, np.ones(1), ["one"])
    with pytest.raises(ValueError, match="60 against 59"):
        grouped_difference(a, b[1:].tolist(), alike, np.ones(1))


def trainings(rng: np.random.Generator, seeds: int, effect: float, items: np.ndarray) -> np.ndarray:
    """Each training is better or worse as a whole (deviation 0.5), and item by item (1)."""
    return effect + items + rng.normal(0, 0.5, (seeds, 1)) + rng.normal(0, 1, (seeds, len(items)))


def test_seeds_that_scatter_are_counted() -> None:
    rng = np.random.default_rng(8)
    covered = claimed = found = 0
    for trial in range(120):
        items = rng.normal(0, 2, 80)
        a, b = trainings(rng, 3, 0.0, items), trainings(rng, 3, 0.0, items)
        over_seeds = difference_over_seeds(a, b, resamples=400, seed=trial)
        covered += over_seeds.interval.low <= 0 <= over_seeds.interval.high
        claimed += paired_difference(a.mean(0), b.mean(0), resamples=100, seed=trial).is_significant
        found += difference_over_seeds(a + 5, b, resamples=400, seed=trial).p_value < 0.05
    assert covered / 120 >= 0.92
    assert claimed / 120 > 0.3, "items alone claim differences that are only those of two draws of seeds"
    assert found / 120 > 0.9


def test_one_training_each_is_compared_by_scenes_alone() -> None:
    rng = np.random.default_rng(9)
    a, b = rng.random((1, 50)), rng.random((1, 50))
    both, plain = difference_over_seeds(a, b, resamples=2000), paired_difference(a[0], b[0])
    assert both.interval == plain.interval
    assert both.detectable == pytest.approx(plain.detectable, rel=0.1)
    wider = difference_over_seeds(np.concatenate([a, a + 1]), b, resamples=2000)
    assert wider.interval.high - wider.interval.low > 3 * (plain.interval.high - plain.interval.low)
    with pytest.raises(ValueError, match="50 against 49"):
        difference_over_seeds(a, b[:, 1:])


def test_bad_scores_are_counted() -> None:
    with pytest.raises(ValueError, match="3 scores, 1 of them NaN"):
        mean_interval([1.0, float("nan"), 2.0])
    with pytest.raises(ValueError, match="0 scores"):
        mean_interval([])
    with pytest.raises(ValueError, match="2 scores but 1 cluster"):
        mean_interval([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="2 against 1"):
        paired_difference([1.0, 2.0], [1.0])
