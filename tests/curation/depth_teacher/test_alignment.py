"""Relative maps come back to metric truth exactly, through noise and outliers; junk is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gemvlm.curation.depth_teacher import AlignmentRules, Refusal, align, fill_holes
from gemvlm.depth_map import DepthMap, to_space
from gemvlm.depth_map.depth import AFFINE_KINDS
from gemvlm.depth_map.origin import DepthOrigin

FITS = {"disparity": (0.7, -0.2), "depth": (2.0, 0.3), "log": (1.3, -0.4), "sqrt_disparity": (0.5, 0.1)}


@pytest.fixture(scope="module")
def truths():
    """Exact z-depth of three simulated tabletops, 96 x 96."""
    pytest.importorskip("mujoco")
    from gemvlm.worlds.tabletop import build_scene

    return [build_scene(seed).observe(0).depth for seed in range(3)]


def relative(truth, space, scale, shift, noise=0.0, seed=0):
    """The map x of which scale * x + shift is the truth in `space`, with relative noise on the depth."""
    rng = np.random.default_rng(seed)
    z = np.where(truth.valid, truth.values, 1).astype(np.float64)
    z = z * np.exp(noise * rng.normal(size=z.shape))
    x = (to_space(z, space) - shift) / scale
    return DepthMap(x.astype(np.float32), truth.valid, AFFINE_KINDS[space], "", "teacher", DepthOrigin("teacher", "t"))


def sparse(truth, share, outliers=0.0, seed=1):
    rng = np.random.default_rng(seed)
    valid = truth.valid & (rng.random(truth.valid.shape) < share)
    wrong = rng.random(truth.valid.shape) < outliers
    values = np.where(wrong, rng.uniform(0.1, 6, truth.valid.shape), truth.values).astype(np.float32)
    return DepthMap(np.where(valid, values, 0), valid, "metric_z", "m", "sensor", DepthOrigin("sensor"))


def errors(found, truth):
    both = found.valid & truth.valid
    return np.abs(found.values[both] / truth.values[both] - 1)


@pytest.mark.parametrize("space", ["disparity", "depth", "log", "sqrt_disparity"])
@pytest.mark.parametrize("outliers", [0.0, 0.3])
def test_exact_recovery_from_a_twentieth_of_the_pixels(truths, space, outliers):
    scale, shift = FITS[space]
    for truth in truths:
        found = align(relative(truth, space, scale, shift), sparse(truth, 0.05, outliers))
        assert isinstance(found, DepthMap)
        assert (found.kind, found.unit) == ("metric_z", "m")
        alignment = found.origin.alignment
        assert (alignment.scale, alignment.shift) == pytest.approx((scale, shift), abs=2e-4)
        assert alignment.inliers > 0.98 - outliers
        assert alignment.pixels > 0.03 * truth.values.size
        assert found.origin.provenance == "teacher"
        assert errors(found, truth).max() < 1e-3


@pytest.mark.parametrize("space", ["disparity", "depth"])
def test_noise_and_outliers_cost_little(truths, space):
    scale, shift = FITS[space]
    for truth in truths:
        exact = relative(truth, space, scale, shift)
        found = align(relative(truth, space, scale, shift, noise=0.03), sparse(truth, 0.1, 0.25))
        alignment = found.origin.alignment
        assert alignment.scale == pytest.approx(scale, rel=0.1)
        assert np.median(errors(found, truth)) < 0.03
        # the fit itself, without the noise of the pixels
        fitted = alignment.scale * exact.values + alignment.shift
        z = fitted if space == "depth" else 1 / fitted
        assert np.abs(z[truth.valid] / truth.values[truth.valid] - 1).max() < 0.03


def test_metric_maps_get_a_scale_and_no_shift(truths):
    truth = truths[0]
    longer = replace(truth, values=truth.values * np.float32(1.37), source="teacher")
    found = align(longer, sparse(truth, 0.05, 0.3))
    assert found.origin.alignment.scale == pytest.approx(1 / 1.37, rel=1e-4)
    assert found.origin.alignment.shift == 0
    assert errors(found, truth).max() < 1e-3


def test_the_same_seed_gives_the_same_bytes(truths):
    noisy, truth = relative(truths[1], "disparity", 0.7, -0.2, 0.05), sparse(truths[1], 0.1, 0.3)
    assert (align(noisy, truth).values == align(noisy, truth).values).all()
    assert align(noisy, truth, AlignmentRules(seed=1)).origin.alignment.scale == pytest.approx(0.7, rel=0.1)


def test_junk_is_refused(truths):
    truth = truths[0]
    rng = np.random.default_rng(0)
    noise = DepthMap.from_values(rng.random(truth.values.shape), "affine_disparity", "noise")
    assert align(noise, sparse(truth, 0.2)).reason == "poor_alignment"
    backwards = relative(truth, "disparity", -0.7, 2.0)
    assert align(backwards, sparse(truth, 0.2)).reason in ("no_alignment", "poor_alignment")
    flat = DepthMap.from_values(np.full(truth.values.shape, 0.5), "affine_disparity", "flat")
    assert align(flat, sparse(truth, 0.2)).reason in ("no_alignment", "poor_alignment")
    assert align(relative(truth, "disparity", 0.7, 0), sparse(truth, 0.005)).reason == "too_little_truth"
    mostly_wrong = sparse(truth, 0.2, outliers=0.9)
    assert isinstance(align(relative(truth, "disparity", 0.7, 0), mostly_wrong), Refusal)


def test_pixels_behind_the_camera_are_invalid(truths):
    truth = truths[0]
    x = relative(truth, "disparity", 0.7, -0.2)
    x.values[:4, :4] = 0.1
    found = align(x, sparse(truth, 0.1))
    assert not found.valid[:4, :4].any()
    assert found.valid[4:].all()


def test_holes_are_filled_between_the_depths_that_agree_and_the_origin_says_so(truths):
    truth = truths[0]
    sensor = replace(truth, source="kinect", origin=DepthOrigin("sensor"))
    hole = np.zeros(truth.valid.shape, bool)
    hole[30:60, 30:60] = True
    far = truth.values > np.percentile(truth.values, 90)
    sensor = DepthMap(np.where(hole | far, 0, truth.values), ~(hole | far), "metric_z", "m", "kinect", sensor.origin)
    aligned = align(relative(truth, "disparity", 0.7, -0.2), sensor)
    filled, mask = fill_holes(sensor, aligned)
    near_enough = truth.values <= truth.values[sensor.valid].max() * 1.001
    assert (mask == (hole & near_enough)).mean() > 0.999
    assert not mask[far & ~near_enough].any()
    assert (filled.values[sensor.valid] == truth.values[sensor.valid]).all()
    assert np.abs(filled.values[mask] / truth.values[mask] - 1).max() < 1e-3
    assert filled.origin.provenance == "teacher"
    assert filled.origin.model == "kinect, holes filled by t"
    assert filled.origin.quality["sensor"] == pytest.approx(sensor.valid.sum() / filled.valid.sum())
    assert filled.origin.alignment == aligned.origin.alignment


def test_holes_stay_open_where_the_sensor_around_them_disagrees(truths):
    truth = truths[0]
    hole = np.zeros(truth.valid.shape, bool)
    hole[10:20, 10:20] = hole[70:80, 70:80] = True
    sensor = DepthMap(np.where(hole, 0, truth.values), ~hole, "metric_z", "m", "kinect", DepthOrigin("sensor"))
    wrong = relative(truth, "disparity", 0.7, -0.2)
    wrong.values[:40, :40] *= 1.5
    filled, mask = fill_holes(sensor, align(wrong, sensor))
    assert mask[70:80, 70:80].all()
    assert not mask[:20, :20].any()
    assert filled.origin.quality["sensor"] < 1


def test_maps_that_do_not_belong_together_are_errors(truths):
    truth = truths[0]
    with pytest.raises(ValueError, match="same size"):
        align(relative(truth, "depth", 1.0, 0.0).resized(40, 40), truth)
    with pytest.raises(ValueError, match="z-depth"):
        align(truth, replace(truth, kind="ray_distance"))
    with pytest.raises(ValueError, match="brought to it"):
        fill_holes(truth, truth)
