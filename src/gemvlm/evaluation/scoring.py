"""How right a parsed reply is: 1 or 0 for everything but descriptions. What can't be parsed is wrong."""

from __future__ import annotations

import re
from collections import Counter

from gemvlm.data.conversation import ParsedAnswer, normalise, parse
from gemvlm.sample import PLACE_MARKER, Box, Point, Turn

BOX_IOU = 0.5
_COORDINATES = re.compile(r"\([^()]*\)")


def score(turn: Turn, reply: ParsedAnswer) -> float:
    """1 if the reply is right, 0 if wrong or not understood, between the two for descriptions only.

    Text, choices and yes/no must agree exactly after normalisation; a number must lie within the turn's relative
    tolerance; a point inside the region; a box must overlap the true one by IoU >= 0.5. A description scores the F1 of
    the objects that it names (places aside: the family `point` measures those).
    """
    if reply.value is None:
        return 0.0
    if isinstance(reply.value, Point):
        if turn.region is None:
            raise ValueError(f"turn of family {turn.family!r}: a pointing answer needs a region to be scored")
        return float(turn.region.contains(reply.value))
    if isinstance(reply.value, Box):
        (true_box,) = (place for place in turn.places if isinstance(place, Box))
        return float(iou(reply.value, true_box) >= BOX_IOU)
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


def _named_f1(turn: Turn, reply: str) -> float:
    said = Counter(_names(_COORDINATES.sub("", reply)))
    true = Counter(_names(PLACE_MARKER.sub("", turn.answer)))
    return 2 * (said & true).total() / max(said.total() + true.total(), 1)


def _names(description: str) -> list[str]:
    return [name for part in description.split(";") if (name := normalise(part))]
