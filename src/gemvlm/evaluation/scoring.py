"""How right a parsed reply is: 1 or 0, for descriptions and several points a share. What can't be parsed is wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from gemvlm.data.conversation import ParsedAnswer, normalise, parse
from gemvlm.sample import PLACE_MARKER, Box, Place, Point, Region, Turn

BOX_IOU = 0.5
TRAJECTORY_DISTANCE = 0.1
"""Largest discrete Frechet distance of a right trajectory, as a share of the image's diagonal."""
TRAJECTORY_POINTS = 32
"""Both trajectories are resampled to so many points, equally far along them: how many a reply names does not matter."""
_COORDINATES = re.compile(r"\([^()]*\)")


def score(turn: Turn, reply: ParsedAnswer) -> float:
    """1 if the reply is right, 0 if wrong or not understood, between the two for descriptions only.

    Text, choices and yes/no must agree exactly after normalisation; a number must lie within the turn's relative
    tolerance; a point inside the region; a box must overlap the true one by IoU >= 0.5; a trajectory must keep within a
    tenth of the diagonal of the true one (discrete Frechet distance; `Turn.tolerance` in place of the tenth if given).
    Several points score the share of regions that are hit, each by a point of its own; points too many count like
    regions missed. A description scores the F1 of the objects that it names (places aside: the family `point` measures
    those).
    """
    if reply.value is None:
        return 0.0
    if isinstance(reply.value, tuple) and turn.kind == "points":
        if not turn.regions:
            raise ValueError(f"turn of family {turn.family!r}: an answer of several points needs regions to be scored")
        return _matched(turn.regions, reply.value) / max(len(turn.regions), len(reply.value))
    if isinstance(reply.value, tuple):
        limit = TRAJECTORY_DISTANCE if turn.tolerance is None else turn.tolerance
        return float(frechet_distance(reply.value, true_path(turn)) <= limit)
    if isinstance(reply.value, Point):
        if turn.region is None:
            raise ValueError(f"turn of family {turn.family!r}: a pointing answer needs a region to be scored")
        return float(turn.region.contains(reply.value))
    if isinstance(reply.value, Box):
        true_box = true_place(turn)
        return float(isinstance(true_box, Box) and iou(reply.value, true_box) >= BOX_IOU)
    if turn.task == "description":
        return _named_f1(turn, str(reply.value))
    truth = parse(turn.answer, turn.kind, turn.options, turn.unit).value
    if isinstance(reply.value, float) and isinstance(truth, float):
        return float(abs(reply.value - truth) <= (turn.tolerance or 0.0) * abs(truth) + 1e-9)
    return float(reply.value == truth)


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes; 0 if they are apart or without area."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    shared = max(width, 0.0) * max(height, 0.0)
    union = (a.x1 - a.x0) * (a.y1 - a.y0) + (b.x1 - b.x0) * (b.y1 - b.y0) - shared
    return shared / union if union > 0 else 0.0


def true_place(turn: Turn) -> Place:
    """The place that the answer names. ValueError if it names none, or several."""
    named = [turn.places[int(i)] for i in PLACE_MARKER.findall(turn.answer)]
    if len(named) != 1:
        raise ValueError(f"turn of family {turn.family!r}: the answer {turn.answer!r} must name one place to be scored")
    return named[0]


def true_path(turn: Turn) -> tuple[Point, ...]:
    """The points that the answer names, in its order. ValueError if they are fewer than two."""
    named = [turn.places[int(i)] for i in PLACE_MARKER.findall(turn.answer)]
    points = tuple(place for place in named if isinstance(place, Point))
    if len(points) < 2:
        raise ValueError(f"turn of family {turn.family!r}: a trajectory needs two points in its answer to be scored")
    return points


def frechet_distance(a: Sequence[Point], b: Sequence[Point]) -> float:
    """Discrete Frechet distance (Eiter and Mannila 1994) of two paths, as a share of the unit square's diagonal.

    Coordinates are fractions of width and height, so the square stands for an image of any shape. Both paths are
    resampled to `TRAJECTORY_POINTS`.
    """
    one, other = _resampled(a), _resampled(b)
    apart = np.linalg.norm(one[:, None] - other, axis=-1)
    reach = np.empty_like(apart)
    for i in range(len(one)):
        for j in range(len(other)):
            before = [reach[k] for k in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if min(k) >= 0]
            reach[i, j] = max(apart[i, j], min(before, default=0.0))
    return float(reach[-1, -1] / np.sqrt(2))


def mean_path(paths: Sequence[Sequence[Point]]) -> tuple[Point, ...]:
    """The mean of several paths, point by point as far along each."""
    return tuple(Point(float(x), float(y)) for x, y in np.mean([_resampled(path) for path in paths], axis=0))


def _resampled(path: Sequence[Point]) -> Float[np.ndarray, "N 2"]:
    points = np.array([(point.x, point.y) for point in path])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    wanted = np.linspace(0.0, along[-1], TRAJECTORY_POINTS)
    return np.stack([np.interp(wanted, along, axis) for axis in points.T], axis=-1)


def _matched(regions: Sequence[Region], points: Sequence[Point]) -> int:
    """The largest number of regions that get a point each, no point twice (augmenting paths)."""
    hits = [[i for i, region in enumerate(regions) if region.contains(point)] for point in points]
    taken: dict[int, int] = {}

    def place(point: int, tried: set[int]) -> bool:
        for region in hits[point]:
            if region not in tried:
                tried.add(region)
                if region not in taken or place(taken[region], tried):
                    taken[region] = point
                    return True
        return False

    return sum(place(point, set()) for point in range(len(points)))


def _named_f1(turn: Turn, reply: str) -> float:
    said = Counter(_names(_COORDINATES.sub("", reply)))
    true = Counter(_names(PLACE_MARKER.sub("", turn.answer)))
    return 2 * (said & true).total() / max(said.total() + true.total(), 1)


def _names(description: str) -> list[str]:
    return [name for part in description.split(";") if (name := normalise(part))]
