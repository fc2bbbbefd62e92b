"""Is this map good enough to learn from? Numbers that need no truth, and the rule that accepts or refuses.

The checkpoints with open licences give no confidence, so the signals are model-free: does the mirrored image give the
mirrored map, do two teachers agree, is enough of it valid, is there any relief (data notes, 2.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8

from gemvlm.curation.depth_teacher.teacher import DepthTeacher
from gemvlm.curation.refusal import Refusal
from gemvlm.depth_map import DepthMap, Space, space_values
from gemvlm.depth_map.depth import AFFINE_KINDS
from gemvlm.depth_map.origin import DepthOrigin

CLOSE = 0.1
"""Of the depth where it is metric; of the range (2nd to 98th percentile) where it is relative."""
DELTA = 1.25


@dataclass(frozen=True)
class AcceptanceRules:
    """The data notes' limits; `min_flip` 0 asks for no second look at the mirrored image."""

    min_valid: float = 0.5
    min_flip: float = 0.8
    min_spread: float = 1.05
    min_agreement: float = 0.8


def accept(depth: DepthMap, rules: AcceptanceRules | None = None) -> Refusal | None:
    """Judges a map by what its origin's quality says ("flip_consistency", "agreement") and by its values."""
    rules = rules or AcceptanceRules()
    quality = {} if depth.origin is None else depth.origin.quality
    valid = float(depth.valid.mean())
    if valid < rules.min_valid or not depth.valid.any():
        return Refusal("few_valid", f"valid on {valid:.0%} of the pixels, {rules.min_valid:.0%} are needed")
    if (spread := relief(depth)) < rules.min_spread:
        return Refusal("flat", f"far is {spread:.3f} times as far as near, {rules.min_spread:g} times is needed")
    limits = (("flip_consistency", rules.min_flip), ("agreement", rules.min_agreement))
    for name, least in limits:
        if name in quality and quality[name] < least:
            return Refusal(f"low_{name}", f"{name} is {quality[name]:.2f}, {least:g} is needed")
    return None


def with_quality(depth: DepthMap, **numbers: float) -> DepthMap:
    """The map with more numbers in its origin's quality."""
    origin = depth.origin or DepthOrigin("unknown")
    return replace(depth, origin=replace(origin, quality={**origin.quality, **numbers}))


def relief(depth: DepthMap) -> float:
    """The 98th over the 2nd percentile of depth; of the map's own scalar where depth is only known up to a shift.

    Infinite where a relative map reaches zero and has any range at all, 1 where it has none.
    """
    low, high = np.percentile(depth.values[depth.valid].astype(np.float64), (2, 98))
    if depth.kind == "affine_log_depth":
        return float(np.exp(min(high - low, 50)))
    if low <= 0:
        return float("inf") if high - low > 1e-6 * max(1.0, abs(high)) else 1.0
    return float((high / low) ** (2 if depth.kind == "affine_sqrt_disparity" else 1))


def flip_consistency(
    teacher: DepthTeacher,
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    maps: Sequence[DepthMap],
    focal_px: Sequence[float | None] | None = None,
) -> list[float]:
    """For each image, the share of pixels on which the mirrored image gives the same depth, mirrored.

    Within 10 % of the depth for metric maps, as they stand; within 10 % of the range for relative ones, after a fit of
    scale and shift. 0 if nothing can be compared.
    """
    mirrored = teacher.predict([np.ascontiguousarray(image[:, ::-1]) for image in images], focal_px)
    back = [replace(one, values=one.values[:, ::-1], valid=one.valid[:, ::-1]) for one in mirrored]
    return [_share(ours, theirs, CLOSE) for ours, theirs in zip(maps, back, strict=True)]


def agreement(ours: DepthMap, theirs: DepthMap) -> float:
    """The share of pixels on which two teachers agree: a ratio below 1.25 between metric maps, else as `_share`.

    Relative maps are compared in the space of `ours`; ValueError if `theirs` can't be expressed in it.
    """
    if ours.kind == theirs.kind == "metric_z":
        both = ours.valid & theirs.valid
        if not both.any():
            return 0.0
        ratio = ours.values[both] / theirs.values[both]
        return float((np.maximum(ratio, 1 / ratio) < DELTA).mean())
    return _share(ours, theirs, CLOSE) if ours.kind != "metric_z" else _share(theirs, ours, CLOSE)


def _share(ours: DepthMap, theirs: DepthMap, close: float) -> float:
    both = ours.valid & theirs.valid
    if both.sum() < 10:
        return 0.0
    if ours.kind == theirs.kind == "metric_z":
        a, b = ours.values[both], theirs.values[both]
        return float((np.abs(a - b) < close * np.minimum(a, b)).mean())
    space = next(space for space, kind in AFFINE_KINDS.items() if kind == ours.kind)
    a, b = _scalar(ours, space)[both], _scalar(theirs, space)[both]
    fitted = _fitted(b, a)
    low, high = np.percentile(a, (2, 98))
    return float((np.abs(fitted - a) <= close * (high - low)).mean())


def _scalar(depth: DepthMap, space: Space) -> Float[np.ndarray, "H W"]:
    return space_values(depth, space).astype(np.float64)


def _fitted(x: Float[np.ndarray, "N"], y: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """scale * x + shift nearest to y in least squares; a second fit leaves out what is off by 2.5 deviations."""
    use = np.ones(len(x), bool)
    fitted = y
    for _ in range(2):
        spread = x[use] - x[use].mean()
        scale = max(0.0, float(spread @ y[use] / max(float(spread @ spread), 1e-12)))
        fitted = scale * x + (y[use].mean() - scale * x[use].mean())
        error = np.abs(fitted - y)
        use = error <= 2.5 * 1.4826 * np.median(error) + 1e-12
    return fitted
