"""Polylines and outlines in an image, in pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float


def simplified(path: Float[np.ndarray, "N 2"], stray: float) -> Float[np.ndarray, "M 2"]:
    """Douglas and Peucker's polyline (1973) within `stray` pixels; a straight way gets its middle, for 3 points."""
    keep = {0, len(path) - 1}
    waiting = [(0, len(path) - 1)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        along = path[last] - path[first]
        share = np.clip((path[first + 1 : last] - path[first]) @ along / max(float(along @ along), 1e-12), 0, 1)
        off = np.linalg.norm(path[first] + share[:, None] * along - path[first + 1 : last], axis=1)
        if off.max() > stray:
            middle = first + 1 + int(off.argmax())
            keep.add(middle)
            waiting += [(first, middle), (middle, last)]
    corners = path[sorted(keep)]
    return corners if len(corners) > 2 else np.stack([corners[0], corners.mean(axis=0), corners[1]])


def inside_hull(points: Float[np.ndarray, "N 2"], height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """Pixels whose centre lies in the convex hull of points (pixels)."""
    center = points.mean(axis=0)
    hull = _hull(points)
    rows, columns = np.mgrid[:height, :width] + 0.5
    inside = np.ones((height, width), bool)
    for a, b in pairwise([*hull, hull[0]]):
        side = (b[0] - a[0]) * (rows - a[1]) - (b[1] - a[1]) * (columns - a[0])
        own = (b[0] - a[0]) * (center[1] - a[1]) - (b[1] - a[1]) * (center[0] - a[0])
        inside &= side * np.sign(own) >= 0
    return inside


def _hull(points: Float[np.ndarray, "N 2"]) -> list[Float[np.ndarray, "2"]]:
    """Corners of the convex hull in order (Andrew's monotone chain, 1979)."""
    ordered = sorted(map(tuple, points))

    def half(chain: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
        corners: list[tuple[float, ...]] = []
        for p in chain:
            while len(corners) > 1 and _turn(corners[-2], corners[-1], p) <= 0:
                corners.pop()
            corners.append(p)
        return corners[:-1]

    return [np.array(p) for p in half(ordered) + half(ordered[::-1])]


def _turn(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
