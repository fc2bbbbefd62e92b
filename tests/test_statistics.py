"""Intervals cover what they promise, and tests find differences no more often than they should."""

from __future__ import annotations

import numpy as np
import pytest

from gemvlm.statistics import (
    mean_interval,
    minimum_detectable_difference,
    paired_difference,
    proportion_interval,
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


def test_bad_scores_are_counted() -> None:
    with pytest.raises(ValueError, match="3 scores, 1 of them NaN"):
        mean_interval([1.0, float("nan"), 2.0])
    with pytest.raises(ValueError, match="0 scores"):
        mean_interval([])
    with pytest.raises(ValueError, match="2 scores but 1 cluster"):
        mean_interval([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="2 against 1"):
        paired_difference([1.0, 2.0], [1.0])
