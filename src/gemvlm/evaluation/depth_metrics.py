"""How far a depth map is from the truth, and what can be had without looking.

p is the predicted and t the true z-depth in metres, over the n pixels of a mask; d = log p - log t.

    abs_rel    mean |p - t| / t          log_rmse     sqrt(mean d^2)
    sq_rel     mean (p - t)^2 / t        si_log       sqrt(mean d^2 - (mean d)^2)
    rmse       sqrt(mean (p - t)^2)      delta k      share of pixels with max(p/t, t/p) < 1.25^k

    Eigen, Puhrsch, Fergus, Depth Map Prediction from a Single Image, 2014 (arXiv 1406.2283)

A map that is known up to scale or shift is first aligned to the truth, in the space in which its encoding is linear.
Whole-image numbers flatter: the mean map of a data set alone scores abs_rel 0.05 on table scenes. Score object pixels,
beside the blind predictions at the end of this file, which are aligned and scored by the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from gemvlm.depth_map import DepthMap, Space, from_space, space_values, to_space

Alignment = Literal["metric", "scale", "scale_shift"]
LIMITS_M = (0.01, 100.0)
"""Aligned depth is clipped to this range: a shift can push a far disparity below zero, where no depth is."""

BOUNDARY_RATIOS = np.linspace(1.05, 1.25, 10)


@dataclass(frozen=True)
class DepthScores:
    """The errors of one map over `pixels` pixels; `boundary_f1` is NaN where the truth has no boundary."""

    abs_rel: float
    sq_rel: float
    rmse: float
    log_rmse: float
    si_log: float
    delta1: float
    delta2: float
    delta3: float
    boundary_f1: float
    pixels: int


def score(
    prediction: DepthMap,
    truth: DepthMap,
    mask: Bool[np.ndarray, "H W"] | None = None,
    mode: Alignment = "metric",
    space: Space = "depth",
) -> DepthScores:
    """Aligns over the mask (all valid pixels if None) and measures there. ValueError with fewer than two pixels."""
    mask = _common(prediction, truth, mask)
    aligned = align(prediction, truth, mask, mode, space)
    p, t = aligned[mask].astype(np.float64), truth.values[mask].astype(np.float64)
    log_error, ratio = np.log(p / t), np.maximum(p / t, t / p)
    return DepthScores(
        abs_rel=float(np.mean(np.abs(p - t) / t)),
        sq_rel=float(np.mean((p - t) ** 2 / t)),
        rmse=float(np.sqrt(np.mean((p - t) ** 2))),
        log_rmse=float(np.sqrt(np.mean(log_error**2))),
        si_log=float(np.std(log_error)),
        delta1=float(np.mean(ratio < 1.25)),
        delta2=float(np.mean(ratio < 1.25**2)),
        delta3=float(np.mean(ratio < 1.25**3)),
        boundary_f1=boundary_f1(aligned, truth.values, mask, prediction.valid & truth.valid),
        pixels=int(mask.sum()),
    )


def align(
    prediction: DepthMap,
    truth: DepthMap,
    mask: Bool[np.ndarray, "H W"] | None = None,
    mode: Alignment = "metric",
    space: Space = "depth",
) -> Float32[np.ndarray, "H W"]:
    """The prediction as z-depth in metres, 1 where it is invalid.

    With x the prediction and y the truth in `space`, both over the mask, by least squares:

        metric       y = x, which only a metric prediction may claim
        scale        y = a x; in log space y = x + b (one factor on depth, either way)
        scale_shift  y = a x + b with a >= 0: a prediction that runs backwards earns no more than the best constant
    """
    if truth.kind != "metric_z":
        raise ValueError(f"truth from {truth.source!r} is {truth.kind}: scores need metric z-depth (see DepthMap.to_z)")
    mask = _common(prediction, truth, mask)
    scalar = space_values(prediction, space).astype(np.float64)
    x, y = scalar[mask], to_space(truth.values[mask].astype(np.float64), space)
    if mode == "metric":
        if not prediction.is_metric:
            raise ValueError(f"depth from {prediction.source!r} is {prediction.kind}: align it by scale or scale_shift")
        slope, offset = 1.0, 0.0
    elif mode == "scale":
        slope, offset = (1.0, float(np.mean(y - x))) if space == "log" else (float(x @ y / max(x @ x, 1e-12)), 0.0)
    else:
        spread = float(np.var(x))
        slope = max(float(np.mean((x - x.mean()) * (y - y.mean()))) / spread, 0.0) if spread > 1e-12 else 0.0
        offset = float(y.mean() - slope * x.mean())
    z = np.clip(from_space(slope * scalar + offset, space), *LIMITS_M)
    return np.where(prediction.valid, z, 1).astype(np.float32)


def interval_coverage(
    low: DepthMap, high: DepthMap, truth: DepthMap, mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """The share of pixels whose true depth lies between `low` and `high`, all of them metric.

    An honest ensemble covers the share that it states. ValueError with fewer than two pixels, or for depth in no unit.
    """
    if not (low.kind == high.kind == truth.kind == "metric_z"):
        raise ValueError(
            f"coverage: {low.kind} to {high.kind} of {truth.kind}; give metric z-depth (see DepthMap.to_z)"
        )
    mask = _common(low, truth, mask) & high.valid
    within = (low.values <= truth.values) & (truth.values <= high.values)
    return float(within[mask].mean())


def boundary_f1(
    prediction_m: Float[np.ndarray, "H W"],
    truth_m: Float[np.ndarray, "H W"],
    mask: Bool[np.ndarray, "H W"],
    valid: Bool[np.ndarray, "H W"],
) -> float:
    """Are depth jumps where they should be? NaN if the truth has none.

    Two neighbours (right or below) form a boundary at ratio r if one is more than r times as deep as the other; it
    counts as found if the prediction jumps there too, in the same direction. F1 of the pooled pairs for ten ratios from
    1.05 to 1.25, averaged with the ratios as weights. A pair counts if both pixels are valid and one lies in the mask.
    After the scale-invariant boundary score of Bochkovskii et al., Depth Pro, 2024 (arXiv 2410.02073), which averages
    precision and recall over directions instead of pooling.
    """
    predicted, true = (_neighbour_ratios(depth, mask, valid) for depth in (prediction_m, truth_m))
    scores, weights = [], []
    for ratio in BOUNDARY_RATIOS:
        found, there = predicted > ratio, true > ratio
        if there.any():
            scores.append(2 * np.sum(found & there) / (np.sum(found) + np.sum(there)))
            weights.append(ratio)
    return float(np.average(scores, weights=weights)) if scores else float("nan")


def _neighbour_ratios(
    depth: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "pairs"]:
    """depth(b) / depth(a) and its inverse for all neighbours a, b that count."""
    ratios = []
    for a, b in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        counts = valid[a] & valid[b] & (mask[a] | mask[b])
        ratio = depth[b][counts] / depth[a][counts]
        ratios += [ratio, 1 / ratio]
    return np.concatenate(ratios)


def _common(prediction: DepthMap, truth: DepthMap, mask: Bool[np.ndarray, "H W"] | None) -> Bool[np.ndarray, "H W"]:
    if prediction.values.shape != truth.values.shape:
        raise ValueError(
            f"prediction from {prediction.source!r} is {prediction.values.shape} but the truth is "
            f"{truth.values.shape}; resize the prediction"
        )
    common = prediction.valid & truth.valid & (True if mask is None else mask)
    if common.sum() < 2:
        raise ValueError(f"prediction from {prediction.source!r}: {int(common.sum())} pixels to score; check the masks")
    return common


def best_constant(training: Sequence[DepthMap], masks: Sequence[Bool[np.ndarray, "H W"]] | None = None) -> float:
    """The one depth (metres) with the least abs_rel on training maps: the median of t with weights 1/t."""
    masks = [depth.valid for depth in training] if masks is None else masks
    known = np.concatenate([d.values[d.valid & m] for d, m in zip(training, masks, strict=True)]).astype(np.float64)
    if not known.size:
        raise ValueError(f"best constant: none of the {len(training)} training maps has a valid pixel in its mask")
    known.sort()
    weight = np.cumsum(1 / known)
    return float(known[np.searchsorted(weight, weight[-1] / 2)])


def constant_map(depth_m: float, height: int, width: int) -> DepthMap:
    """Blind prediction: the same depth everywhere."""
    return DepthMap.from_values(np.full((height, width), depth_m, np.float32), source="blind: constant")


def mean_map(training: Sequence[DepthMap], space: Space = "depth") -> DepthMap:
    """Blind prediction: each pixel's mean over training maps of one size, in `space`; invalid where none has depth."""
    if not any(depth.valid.any() for depth in training):
        raise ValueError(f"mean map: none of the {len(training)} training maps has a valid pixel")
    total = np.zeros(training[0].values.shape)
    count = np.zeros(training[0].values.shape, np.int64)
    for depth in training:
        total += space_values(depth, space)
        count += depth.valid
    valid: Bool[np.ndarray, "H W"] = count > 0
    z = np.where(valid, from_space(total / np.maximum(count, 1), space), 0)
    return DepthMap(z.astype(np.float32), valid, "metric_z", "m", "blind: mean map")


def support_plane(truth: DepthMap, support: Bool[np.ndarray, "H W"]) -> DepthMap:
    """Nearly blind prediction: the plane under the objects, fitted to the *true* depth of its visible pixels.

    The disparity of a plane is affine in pixel coordinates: 1/z = a u + b v + c, by least squares. Knows no object.
    """
    known = support & truth.valid
    if known.sum() < 3:
        raise ValueError(f"support plane: {int(known.sum())} pixels of the support have depth, 3 are needed")
    disparity = 1 / np.where(known, truth.values, 1).astype(np.float64)
    z = np.clip(from_space(plane_disparity(disparity, known), "disparity"), *LIMITS_M)
    return DepthMap.from_values(z, source="blind: support plane")


def plane_disparity(disparity: Float[np.ndarray, "H W"], known: Bool[np.ndarray, "H W"]) -> Float64[np.ndarray, "H W"]:
    """The disparity of the plane that fits the known pixels best by least squares, at every pixel."""
    height, width = disparity.shape
    v, u = np.mgrid[:height, :width] / max(height, width)
    basis = np.stack([u, v, np.ones_like(u)], axis=-1)
    return basis @ np.linalg.lstsq(basis[known], disparity[known], rcond=None)[0]
