"""Polygons of fractions, by two harnesses' rules of what is inside: they differ on borders, and on upright edges."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from gemvlm.evaluation.pointing import LONGEST_LITERAL

Polygon = Sequence[Sequence[float]]


def in_polygon(x: float, y: float, polygon: Polygon) -> bool:
    """RoboSpatial-Eval's even-odd rule: an upper and a left border are inside."""
    inside = False
    for (xi, yi), (xj, yj) in zip(polygon, [polygon[-1], *polygon[:-1]], strict=True):
        if (yi > y) != (yj > y) and x < (xj - xi) * (y - yi) / (yj - yi) + xi:
            inside = not inside
    return inside


def in_polygon_vlmevalkit(x: float, y: float, polygon: Polygon) -> bool:
    """VLMEvalKit's: a lower and a right border are inside; an upright edge counts for points on either side of it, so
    that nothing is inside an upright square."""
    inside = False
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if min(y1, y2) < y <= max(y1, y2) and (x1 == x2 or x <= (y - y1) * (x2 - x1) / (y2 - y1) + x1):
            inside = not inside
    return inside


def polygon_mask(polygon: Polygon, width: int, height: int, vlmevalkit: bool = False) -> Float[np.ndarray, "H W"]:
    """1 for pixels whose centre is in the polygon, by the publisher's rule or by VLMEvalKit's."""
    y = (np.arange(height) + 0.5) / height
    flips = np.zeros((height, width + 1), bool)
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        crossed = (min(y1, y2) < y) & (y <= max(y1, y2)) if vlmevalkit else (y1 > y) != (y2 > y)
        lines = np.nonzero(crossed)[0]
        if lines.size:
            crossing = ((y[lines] - y1) * (x2 - x1) / (y2 - y1) + x1) * width - 0.5
            left = np.full(lines.size, width) if x1 == x2 else np.floor(crossing) + 1
            flips[lines, np.clip(left if vlmevalkit else np.ceil(crossing), 0, width).astype(int)] ^= True
    return np.asarray(np.logical_xor.accumulate(flips[:, ::-1], axis=1)[:, ::-1][:, 1:], np.float64)


def read_polygon(answer: str, where: str) -> list[list[float]]:
    """The polygon that an answer holds. ValueError naming `where` if it holds none."""
    try:
        corners: Any = ast.literal_eval(answer) if len(answer) <= LONGEST_LITERAL else None
        polygon = [[float(x), float(y)] for x, y in corners]
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{where}: answer {answer!r:.80} is neither yes nor no nor a polygon ({error})") from error
    if len(polygon) < 3 or not np.isfinite(polygon).all():
        raise ValueError(
            f"{where}: the answer's polygon has {len(polygon)} corners; expected three or more, finite ones"
        )
    return polygon
