"""Bringing a teacher's map to what a sensor knows, and filling its holes with it; see `depth_map.alignment`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int64

from gemvlm.curation.refusal import Refusal
from gemvlm.depth_map import AlignmentError, AlignmentRules, DepthMap
from gemvlm.depth_map import align as align_maps


def align(depth: DepthMap, truth: DepthMap, rules: AlignmentRules | None = None) -> DepthMap | Refusal:
    """`depth_map.align`, with why not in place of an error."""
    try:
        return align_maps(depth, truth, rules)
    except AlignmentError as refused:
        return Refusal(refused.reason, refused.detail)


def fill_holes(
    truth: DepthMap, aligned: DepthMap, rules: AlignmentRules | None = None
) -> tuple[DepthMap, Bool[np.ndarray, "H W"]]:
    """The sensor's map with holes filled from an aligned one, and the mask of the pixels that were filled.

    Only between the smallest and the largest of the sensor's depths that agree, beyond which the fit is a guess, and
    only where enough of the sensor's pixels around (within a fifth of the shorter side) agree too. A map
    with any pixel of a teacher's is a teacher's: the origin says so, names both, and holds the sensor's share of the
    valid pixels as quality "sensor". ValueError if either map is not z-depth or `aligned` was not aligned.
    """
    rules = rules or AlignmentRules()
    if truth.kind != "metric_z" or aligned.kind != "metric_z" or aligned.origin is None or not aligned.origin.alignment:
        raise ValueError("fill_holes: needs z-depth, and a map that `align` has brought to it")
    both = truth.valid & aligned.valid
    agree = both & (np.abs(aligned.values - truth.values) < rules.tolerance * truth.values)
    if not agree.any():
        return truth, np.zeros(truth.valid.shape, bool)
    low, high = truth.values[agree].min(), truth.values[agree].max()
    radius = max(1, min(both.shape) // 5)
    trusted = _around(agree, radius) >= rules.min_inliers * np.maximum(_around(both, radius), 1)
    filled = ~truth.valid & aligned.valid & trusted & (aligned.values >= low) & (aligned.values <= high)
    if not filled.any():
        return truth, filled
    valid = truth.valid | filled
    sensor = float(truth.valid.sum() / valid.sum())
    origin = aligned.origin
    origin = replace(
        origin,
        model=f"{truth.source}, holes filled by {origin.model}",
        quality={**origin.quality, "valid_fraction": float(valid.mean()), "sensor": sensor},
    )
    values = np.where(truth.valid, truth.values, np.where(filled, aligned.values, 0)).astype(np.float32)
    return DepthMap(values, valid, "metric_z", "m", f"{truth.source} + {aligned.source}", origin), filled


def _around(mask: Bool[np.ndarray, "H W"], radius: int) -> Int64[np.ndarray, "H W"]:
    """How many pixels of the mask lie in the square around each pixel."""
    sums = np.pad(mask, radius).astype(np.int64).cumsum(axis=0).cumsum(axis=1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    side = 2 * radius + 1
    return sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
