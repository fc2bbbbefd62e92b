"""Bringing a relative map to metric truth that is known in places.

A map that is affine in some space (disparity, depth, its logarithm, ...) is fitted there: scale * x + shift, scale > 0;
a metric one by a scale alone. Seeded RANSAC first, then least squares on the pixels that agree, ever more strictly, so
that outliers have no say. What agrees is judged in depth: within 10 %.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from gemvlm.depth_map.depth import AFFINE_KINDS, DepthKind, DepthMap, Space, from_space, to_space
from gemvlm.depth_map.origin import Alignment, DepthOrigin

HYPOTHESES, SAMPLED = 256, 4096
REFINEMENTS = 8
STRICTNESS = 2.5
"""Standard deviations (from the median deviation) beyond which a pixel has no say in the next fit."""
_SPACE_OF: dict[DepthKind, Space] = {"metric_z": "depth", **{kind: space for space, kind in AFFINE_KINDS.items()}}


@dataclass(frozen=True)
class AlignmentRules:
    """The data notes' acceptance: truth on 2 % of the pixels, 60 % of it within 10 % afterwards."""

    min_truth: float = 0.02
    min_pixels: int = 50
    min_inliers: float = 0.6
    tolerance: float = 0.1
    seed: int = 0


class AlignmentError(ValueError):
    """The maps can't be brought together: `reason` is a short code to count by, `detail` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def align(depth: DepthMap, truth: DepthMap, rules: AlignmentRules | None = None) -> DepthMap:
    """`depth` in metres by what `truth` (z-depth of the same size, mostly invalid perhaps) says.

    The origin keeps its provenance and gains the `Alignment`. Pixels that the fit puts behind the camera are invalid.
    AlignmentError if there is too little truth or too little of it agrees. ValueError for maps of different sizes,
    truth that is not z-depth, and distances along the ray.
    """
    rules = rules or AlignmentRules()
    if truth.kind != "metric_z" or depth.kind == "ray_distance" or truth.values.shape != depth.values.shape:
        raise ValueError(
            f"align: {depth.kind} {depth.values.shape} to {truth.kind} {truth.values.shape}; give z-depth of the same "
            "size as truth (see `DepthMap.to_z`)"
        )
    both = depth.valid & truth.valid
    needed = max(rules.min_pixels, rules.min_truth * both.size)
    if (pixels := int(both.sum())) < needed:
        raise AlignmentError("too_little_truth", f"{pixels} pixels have both depths, {int(np.ceil(needed))} are needed")
    space, scale_only = _SPACE_OF[depth.kind], depth.is_metric
    x, z = depth.values[both].astype(np.float64), truth.values[both].astype(np.float64)
    fit = _fit(x, z, space, scale_only, rules)
    if fit is None:
        raise AlignmentError("no_alignment", f"no scale > 0 fits the {pixels} pixels of truth")
    scale, shift = fit
    inliers = float((_errors(scale * x + shift, z, space) < rules.tolerance).mean())
    if inliers < rules.min_inliers:
        raise AlignmentError(
            "poor_alignment", f"{inliers:.0%} of {pixels} pixels of truth agree, {rules.min_inliers:.0%} must"
        )
    scalar = scale * depth.values.astype(np.float64) + shift
    valid = depth.valid & _is_depth(scalar, space)
    values = np.where(valid, from_space(np.where(valid, scalar, 1.0), space), 0).astype(np.float32)
    origin = depth.origin or DepthOrigin("unknown")
    origin = replace(origin, alignment=Alignment(float(scale), float(shift), inliers, pixels))
    return DepthMap(values, valid & (values > 0), "metric_z", "m", depth.source, origin)


def _fit(
    x: Float[np.ndarray, "N"], z: Float[np.ndarray, "N"], space: Space, scale_only: bool, rules: AlignmentRules
) -> tuple[float, float] | None:
    """Scale and shift from x to z in `space`; None if no hypothesis has a positive scale."""
    target = to_space(z, space)
    rng = np.random.default_rng((rules.seed, len(x)))
    some = rng.choice(len(x), min(len(x), SAMPLED), replace=False)
    first, second = some[rng.integers(len(some), size=(2, HYPOTHESES))]
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale_only:
            scales = target[first] / x[first]
            shifts = np.zeros_like(scales)
        else:
            scales = (target[first] - target[second]) / (x[first] - x[second])
            shifts = target[first] - scales * x[first]
    sane = np.isfinite(scales) & np.isfinite(shifts) & (scales > 0)
    if not sane.any():
        return None
    scales, shifts = scales[sane], shifts[sane]
    errors = _errors(scales[:, None] * x[some] + shifts[:, None], z[some], space)
    best = int((errors < rules.tolerance).sum(axis=1).argmax())
    scale, shift = float(scales[best]), float(shifts[best])
    for _ in range(REFINEMENTS):
        error = _errors(scale * x + shift, z, space)
        agree = error < rules.tolerance
        if not agree.any():
            break
        limit = min(rules.tolerance, STRICTNESS * 1.4826 * float(np.median(error[agree])) + 1e-12)
        refined = _least_squares(x, target, error <= limit, z, space, scale_only)
        if refined is None:
            break
        scale, shift = refined
    return (scale, shift) if scale > 0 else None


def _least_squares(
    x: Float[np.ndarray, "N"],
    target: Float[np.ndarray, "N"],
    use: Bool[np.ndarray, "N"],
    z: Float[np.ndarray, "N"],
    space: Space,
    scale_only: bool,
) -> tuple[float, float] | None:
    """Weighted so that an error counts by its share of the depth, whatever the space."""
    x, target = x[use], target[use]
    slope = {
        "depth": z[use],
        "disparity": 1 / z[use],
        "sqrt_disparity": np.sqrt(1 / z[use]) / 2,
        "log": np.ones(use.sum()),
    }
    weight = 1 / slope[space]
    if scale_only:
        return float((weight * x) @ (weight * target) / ((weight * x) @ (weight * x))), 0.0
    if len(x) < 2 or np.ptp(x) == 0:
        return None
    design = np.stack([x, np.ones_like(x)], axis=1) * weight[:, None]
    (scale, shift), *_ = np.linalg.lstsq(design, target * weight, rcond=None)
    return (float(scale), float(shift)) if scale > 0 else None


def _errors(scalar: Float[np.ndarray, "*K N"], z: Float[np.ndarray, "N"], space: Space) -> Float[np.ndarray, "*K N"]:
    """Relative error in depth; infinite where the scalar is no depth's."""
    good = _is_depth(scalar, space)
    return np.where(good, np.abs(from_space(np.where(good, scalar, 1.0), space) / z - 1), np.inf)


def _is_depth(scalar: Float[np.ndarray, "*N"], space: Space) -> Bool[np.ndarray, "*N"]:
    """Positive, finite and within 1 km, or any logarithm of that."""
    far = 1e3
    if space == "log":
        return np.abs(scalar) < np.log(far)
    if space == "depth":
        return (scalar > 0) & (scalar < far)
    return scalar > (1 / far if space == "disparity" else np.sqrt(1 / far))
