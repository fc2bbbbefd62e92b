"""Depth errors against hand-made numbers, alignment that can't be gamed, and blind predictions."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest

from gemvlm.camera import Camera
from gemvlm.depth_map import DepthMap, Encoding, decode, encode, from_space, to_space
from gemvlm.evaluation.depth_metrics import (
    align,
    best_constant,
    boundary_f1,
    constant_map,
    mean_map,
    score,
    support_plane,
)

SPACES = ["depth", "disparity", "log", "sqrt_disparity"]


def scene(seed: int = 0, height: int = 32, width: int = 40) -> DepthMap:
    """A tilted wall with a box before it."""
    rng = np.random.default_rng(seed)
    z = np.linspace(2.5, 1.0, height)[:, None] + rng.uniform(0, 0.2, (height, width))
    z[10:20, 12:26] = 0.9 + rng.uniform(0, 0.05, (10, 14))
    return DepthMap.from_values(z, source="scene")


def test_errors_equal_their_formulas() -> None:
    truth = DepthMap.from_values(np.array([[1.0, 2.0], [4.0, 1.0]]))
    guess = DepthMap.from_values(np.array([[1.0, 2.2], [2.0, 1.3]]))
    got = score(guess, truth)
    d = np.log([1, 1.1, 0.5, 1.3])
    assert got.abs_rel == pytest.approx((0 + 0.1 + 0.5 + 0.3) / 4, rel=1e-5)
    assert got.sq_rel == pytest.approx((0 + 0.04 / 2 + 4 / 4 + 0.09) / 4, rel=1e-5)
    assert got.rmse == pytest.approx(math.sqrt((0.04 + 4 + 0.09) / 4), rel=1e-5)
    assert got.log_rmse == pytest.approx(math.sqrt((d**2).mean()), rel=1e-5)
    assert got.si_log == pytest.approx(math.sqrt((d**2).mean() - d.mean() ** 2), rel=1e-5)
    assert (got.delta1, got.delta2, got.delta3) == (0.5, 0.75, 0.75)
    assert got.pixels == 4


def test_the_truth_scores_perfectly_and_masks_restrict() -> None:
    truth = scene()
    perfect = score(truth, truth)
    assert (perfect.abs_rel, perfect.delta1, perfect.boundary_f1) == (0, 1, 1)
    wrong = truth.values.copy()
    wrong[:5] *= 3
    mask = np.zeros(truth.values.shape, bool)
    mask[8:] = True
    assert score(DepthMap.from_values(wrong), truth, mask).abs_rel == 0
    assert score(DepthMap.from_values(wrong), truth).abs_rel > 0.2


@pytest.mark.parametrize("space", SPACES)
def test_alignment_undoes_what_it_may(space: str) -> None:
    truth = scene()
    doubled = DepthMap.from_values(truth.values * 2)
    assert score(doubled, truth).abs_rel == pytest.approx(1.0)
    assert score(doubled, truth, mode="scale", space=space).abs_rel < 1e-5
    assert score(doubled, truth, mode="scale_shift", space=space).abs_rel < 1e-5


@pytest.mark.parametrize("name", ["spectral", "log", "sqrt_disparity"])
def test_a_decoded_picture_aligns_in_the_space_of_its_encoding(name: str) -> None:
    truth, encoding = scene(), Encoding(name)
    decoded, _ = decode(encode(truth, encoding, *truth.values.shape).picture, encoding)
    assert score(decoded, truth, mode="scale_shift", space=encoding.space).abs_rel < 0.02
    with pytest.raises(ValueError, match="align it by scale"):
        score(decoded, truth, mode="metric", space=encoding.space)


def test_a_map_in_another_space_is_refused() -> None:
    log_map = DepthMap.from_values(np.log(scene().values), "affine_log_depth", "guess")
    with pytest.raises(ValueError, match="'guess' is affine_log_depth and can't be expressed as disparity"):
        score(log_map, scene(), mode="scale_shift", space="disparity")
    with pytest.raises(ValueError, match="truth from 'guess'"):
        score(scene(), log_map)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("mode", ["scale", "scale_shift"])
def test_alignment_forgets_what_it_fits(mode: str, space: str) -> None:
    """A map scored as it is or scaled (and shifted, in that space) is the same map to every metric."""
    truth, rng = scene(1), np.random.default_rng(2)
    guess = DepthMap.from_values(truth.values * np.exp(rng.normal(0, 0.1, truth.values.shape)).astype(np.float32))
    x = to_space(guess.values.astype(np.float64), space)
    scaled, shift = (1.0, 0.35) if space == "log" else (1.7, 0.2 if mode == "scale_shift" else 0.0)
    other = DepthMap.from_values(from_space(scaled * x + shift, space).astype(np.float32))
    one, two = (asdict(score(each, truth, mode=mode, space=space)) for each in (guess, other))
    assert one == pytest.approx(two, rel=1e-3, abs=1e-5)
    assert one["abs_rel"] > 0.02


@pytest.mark.parametrize("space", SPACES)
def test_scale_and_shift_are_those_of_a_straight_line_through_the_pixels(space: str) -> None:
    truth, rng = scene(3), np.random.default_rng(4)
    guess = DepthMap.from_values(truth.values * np.exp(rng.normal(0, 0.2, truth.values.shape)).astype(np.float32))
    x, y = (to_space(m.values.astype(np.float64), space) for m in (guess, truth))
    slope, offset = np.polyfit(x.ravel(), y.ravel(), 1)
    expected = np.clip(from_space(slope * x + offset, space), 0.01, 100)
    np.testing.assert_allclose(align(guess, truth, mode="scale_shift", space=space), expected, rtol=1e-4)
    if space != "log":
        factor = np.linalg.lstsq(x.reshape(-1, 1), y.ravel(), rcond=None)[0][0]
        np.testing.assert_allclose(
            align(guess, truth, mode="scale", space=space), np.clip(from_space(factor * x, space), 0.01, 100), rtol=1e-4
        )


def test_si_log_forgets_one_factor_and_log_rmse_does_not() -> None:
    truth = scene()
    half = score(DepthMap.from_values(truth.values / 2), truth)
    assert half.si_log == pytest.approx(0, abs=1e-5)
    assert half.log_rmse == pytest.approx(math.log(2), rel=1e-5)
    assert (half.delta1, half.delta2, half.delta3) == (0, 0, 0)
    edge = score(DepthMap.from_values(truth.values * 1.5), truth)
    assert (edge.delta1, edge.delta2, edge.delta3) == (0, 1, 1)


def test_boundary_f1_equals_a_count_pair_by_pair() -> None:
    rng = np.random.default_rng(5)
    truth, guess = (np.exp(rng.normal(0, 0.12, (6, 7))) for _ in range(2))
    mask = rng.random((6, 7)) < 0.6
    valid = rng.random((6, 7)) < 0.9
    total = weight = 0.0
    for ratio in np.linspace(1.05, 1.25, 10):
        hits = said = there = 0
        for i, j in np.ndindex(6, 7):
            for k, m in ((i + 1, j), (i, j + 1)):
                if k >= 6 or m >= 7 or not (valid[i, j] and valid[k, m]) or not (mask[i, j] or mask[k, m]):
                    continue
                for a, b in (((i, j), (k, m)), ((k, m), (i, j))):
                    jump, true_jump = guess[a] / guess[b] > ratio, truth[a] / truth[b] > ratio
                    said, there, hits = said + jump, there + true_jump, hits + (jump and true_jump)
        if there:
            precision, recall = hits / max(said, 1), hits / there
            total += ratio * (2 * precision * recall / max(precision + recall, 1e-12))
            weight += ratio
    assert boundary_f1(guess, truth, mask, valid) == pytest.approx(total / weight)


def test_running_backwards_earns_no_more_than_a_constant() -> None:
    truth = scene()
    backwards = DepthMap.from_values(5 - truth.values)
    aligned = align(backwards, truth, mode="scale_shift", space="depth")
    assert np.allclose(aligned, truth.values.mean(), atol=1e-4)
    flat = score(constant_map(1.0, *truth.values.shape), truth, mode="scale_shift", space="log")
    assert flat.abs_rel == pytest.approx(
        np.mean(np.abs(np.exp(np.log(truth.values).mean()) - truth.values) / truth.values), rel=1e-3
    )


def test_alignment_is_fitted_on_the_mask_alone() -> None:
    truth = scene()
    mask = np.zeros(truth.values.shape, bool)
    mask[10:20, 12:26] = True
    spoilt = np.where(mask, truth.values * 3, 7.0)
    assert score(DepthMap.from_values(spoilt), truth, mask, "scale", "depth").abs_rel < 1e-5


def test_boundaries_must_be_where_they_are() -> None:
    truth = scene()
    everywhere, z = np.ones(truth.values.shape, bool), truth.values
    assert boundary_f1(z * 3, z, everywhere, everywhere) == pytest.approx(1)
    assert boundary_f1(np.roll(z, 4, axis=1), z, everywhere, everywhere) < 0.5
    assert boundary_f1(np.ones_like(z), z, everywhere, everywhere) == 0
    assert math.isnan(boundary_f1(z, np.ones_like(z), everywhere, everywhere))
    assert boundary_f1(5 - z, z, everywhere, everywhere) < 0.1  # jumps in the other direction
    blurred = (z + np.roll(z, 1, 1) + np.roll(z, -1, 1)) / 3
    assert 0 < boundary_f1(blurred, z, everywhere, everywhere) < 0.95


def test_boundaries_beside_invalid_pixels_do_not_count() -> None:
    z = np.where(np.arange(10) < 5, 1.0, 2.0)[None].repeat(4, 0)
    valid = np.ones(z.shape, bool)
    valid[:, 5] = False
    assert math.isnan(boundary_f1(z, z, valid, valid))


def test_the_best_constant_has_the_least_relative_error() -> None:
    training = [scene(seed) for seed in range(3)]
    best = best_constant(training)

    def error(depth_m: float) -> float:
        return float(np.mean([np.mean(np.abs(depth_m - d.values) / d.values) for d in training]))

    assert all(error(best) <= error(other) + 1e-6 for other in np.linspace(0.8, 3, 300))
    nothing = DepthMap(np.ones((2, 2), np.float32), np.zeros((2, 2), bool), "metric_z", "m", "x")
    with pytest.raises(ValueError, match="none of the 1"):
        best_constant([nothing])
    with pytest.raises(ValueError, match="none of the 1"):
        mean_map([nothing])


def test_the_mean_map_takes_only_valid_pixels() -> None:
    first, second = np.full((4, 5), 1.0, np.float32), np.full((4, 5), 3.0, np.float32)
    valid = np.ones((4, 5), bool)
    valid[0] = False
    training = [DepthMap.from_values(first), DepthMap(second, valid, "metric_z", "m", "x")]
    mean = mean_map(training, "depth")
    assert np.allclose(mean.values[0], 1)
    assert np.allclose(mean.values[1:], 2)
    assert np.allclose(mean_map(training, "log").values[1:], np.sqrt(3))


def test_the_support_plane_is_exact_on_a_plane_and_knows_no_object() -> None:
    camera = Camera.from_fov(40, 32, 50.0)
    normal, offset = np.array([0.1, -0.8, -0.6]), 1.0
    z = -offset / (camera.rays() @ normal)
    objects = np.zeros(z.shape, bool)
    objects[10:20, 12:26] = True
    truth = DepthMap.from_values(np.where(objects, z * 0.8, z), source="table")
    plane = support_plane(truth, ~objects)
    assert score(plane, truth, ~objects).abs_rel < 1e-5
    assert score(plane, truth, objects).abs_rel == pytest.approx(0.25, rel=1e-4)
    with pytest.raises(ValueError, match="0 pixels of the support"):
        support_plane(truth, np.zeros_like(objects))


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 pixels to score"):
        score(scene(), scene(), np.zeros((32, 40), bool))
    with pytest.raises(ValueError, match="resize the prediction"):
        score(scene(height=24), scene())
