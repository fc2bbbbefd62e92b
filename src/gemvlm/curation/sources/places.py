"""Coordinates in published text become `<place:i>` markers, once, at import; in no declared convention they stay text.

Known forms: "(0.407, 0.852)", "[(x, y), ...]", "(x0, y0, x1, y1)", "[x0, y0, x1, y1]", and Qwen's JSON
`{"point_2d": [x, y], "label": "mug"}` and `{"bbox_2d": [x0, y0, x1, y1], "label": "mug"}`, alone, in a list or in a
code fence, which become "mug <place:0>". A value may lie half a pixel outside the image and is then moved to its
border; anything further is refused. Absolute pixels are continuous: x / width.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gemvlm.curation.sources.records import RecordError
from gemvlm.sample import PLACE_MARKER, AnswerKind, Box, Place, Point

Scale = Literal["fractions", "percent", "thousandths", "pixels"]
BoxForm = Literal["xyxy", "xywh"]
HALF_PIXEL = 0.5

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_TUPLE = re.compile(rf"([(\[])\s*({_NUMBER}\s*,\s*{_NUMBER}(?:\s*,\s*{_NUMBER}\s*,\s*{_NUMBER})?)\s*([)\]])")
_RANGE = re.compile(
    r" ?(?:The |All )?coordinates (?:should|must) be (?:normalized )?(?:between|from) [^.]{1,300}\.(?!\d)", re.I
)
_REST = re.compile(r"^(?:<place:\d+>|[\s,;\[\](){}.]|and)*$")


@dataclass(frozen=True)
class Coordinates:
    """What the numbers in a source's text mean: their `scale`, and what a box's four numbers are.

    With `prose` False only texts that hold nothing but places are converted: for sources that mix pointing with text in
    which brackets mean something else. `slack` is how far, in fractions, rounding by the publisher may push a border
    out of the image, beyond the half pixel that is always allowed.
    """

    scale: Scale
    boxes: BoxForm = "xyxy"
    prose: bool = True
    slack: float = 0.0

    def point(self, x: float, y: float, size: tuple[int, int]) -> Point:
        """The canonical point. `size` is (height, width) of the image in pixels. RecordError if outside of it."""
        height, width = size
        return Point(self._fraction(x, width), self._fraction(y, height))

    def box(self, values: Sequence[float], size: tuple[int, int]) -> Box:
        """The canonical box of four published numbers. RecordError if outside the image, or inside out."""
        a, b, c, d = values
        if self.boxes == "xywh":
            c, d = a + c, b + d
        height, width = size
        box = Box(*(self._fraction(v, n) for v, n in ((a, width), (b, height), (c, width), (d, height))))
        if box.x0 > box.x1 or box.y0 > box.y1:
            raise RecordError(
                "box_inside_out", f"box {tuple(values)} ({self.boxes}) has its corners in the wrong order"
            )
        return box

    def _fraction(self, value: float, pixels: int) -> float:
        scale = {"fractions": 1.0, "percent": 100.0, "thousandths": 1000.0, "pixels": float(pixels)}[self.scale]
        fraction = value / scale
        margin = HALF_PIXEL / pixels + self.slack
        if not -margin <= fraction <= 1 + margin:
            told = f"coordinate {value} is outside the image of {pixels} pixels"
            raise RecordError("point_outside", f"{told} if numbers are {self.scale}; correct or remove it")
        return min(max(fraction, 0.0), 1.0)


def refuse_markers(text: str, field: str) -> None:
    """Published text may not hold our own markers: they would name places that are not there."""
    if (marker := PLACE_MARKER.search(text)) is not None:
        raise RecordError("place_marker", f"the text holds {marker[0]!r}, a mark of ours", field)


def with_places(text: str, coordinates: Coordinates, size: tuple[int, int], places: list[Place]) -> str:
    """`text` with its coordinates replaced by markers; the places are appended to `places`."""
    found: list[Place] = []
    marked = _from_json(text, coordinates, size, found, len(places))
    if marked is None:

        def mark(match: re.Match[str]) -> str:
            opened, inside, closed = match.groups()
            if (opened, closed) not in (("(", ")"), ("[", "]")):
                return match[0]
            found.append(_place([float(value) for value in inside.split(",")], coordinates, size))
            return f"<place:{len(places) + len(found) - 1}>"

        if not coordinates.prose and not _REST.match(_TUPLE.sub("", text)):
            return text
        marked = _TUPLE.sub(mark, text)
    places += found
    return marked


def _place(values: Sequence[float], coordinates: Coordinates, size: tuple[int, int]) -> Place:
    return coordinates.point(values[0], values[1], size) if len(values) == 2 else coordinates.box(values, size)


def _from_json(
    text: str, coordinates: Coordinates, size: tuple[int, int], found: list[Place], first: int
) -> str | None:
    """Qwen's objects as "label <place:i>", several joined by commas; None if the text is something else."""
    body = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    if not body.startswith(("{", "[")) or "_2d" not in body:
        return None
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    objects = parsed if isinstance(parsed, list) else [parsed]
    values = [_json_values(each) for each in objects]
    if None in values:
        return None
    found += [_place(numbers, coordinates, size) for numbers in values if numbers]
    words = (f"{each.get('label', '')} <place:{first + index}>".strip() for index, each in enumerate(objects))
    return ", ".join(words)


def _json_values(each: object) -> list[float] | None:
    """The two or four numbers of Qwen's object for a point or a box; None if it is not one, or holds more than that."""
    if not isinstance(each, dict) or set(each) - {"label"} not in ({"point_2d"}, {"bbox_2d"}):
        return None
    if not isinstance(each.get("label", ""), str):
        return None
    key, needed = ("point_2d", 2) if "point_2d" in each else ("bbox_2d", 4)
    values = each[key]
    if not isinstance(values, list) or len(values) != needed:
        return None
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return None
    return [float(value) for value in values]


def place_kind(answer: str, places: Sequence[Place]) -> AnswerKind | None:
    """ "point", "points" or "box" if that is what an answer's markers make it; None if it has none or mixes them."""
    named = [places[int(index)] for index in PLACE_MARKER.findall(answer)]
    if not named:
        return None
    if all(isinstance(place, Point) for place in named):
        return "point" if len(named) == 1 else "points"
    return "box" if len(named) == 1 else None


def without_range(question: str) -> str:
    """A question without its sentence on the range of coordinates, which is no longer true once they are converted."""
    return _RANGE.sub("", question)
