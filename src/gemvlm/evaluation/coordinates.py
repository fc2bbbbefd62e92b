"""Points and boxes in replies ⇄ fractions of the image, by the convention of the model that wrote them.

Every published way of writing places is understood whoever uses it: tuples and lists (RoboPoint, RoboRefer, RoboBrain),
JSON with `point_2d` or `bbox_2d` (Qwen) or `point` and `box_2d` (Gemini), tags around numbers (`<point>(x, y)</point>`
of HY-Embodied and Vlaser, `<|box_start|>(x0,y0),(x1,y1)<|box_end|>` of Qwen2-VL) or with attributes
(`<point x="61.5" y="40.4">` of Molmo), and plain numbers. What the numbers mean is never guessed from them: it is the
model's `Convention`.

A place that can't be meant in the convention is **outside** it: a number below 0 or beyond its end, or, where
coordinates are not fractions, numbers all written as decimals of at most 1. It is read as it is written all the same
(and so lies outside the image, or in its first pixel), and `Places.outside` counts it: a table that says "90 % of the
points are outside the convention" tells a wrong setting from a wrong model.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from PIL import Image

from gemvlm.evaluation.benchmark import Convention, Media

LONGEST_REPLY, MOST_PLACES = 50_000, 1000
"""Characters of a reply that are read, and places in it; nothing that answers is longer."""

XY = tuple[float, float]
XYXY = tuple[float, float, float, float]

POINT_KEYS, BOX_KEYS = ("point_2d", "point", "points_2d", "points"), ("bbox_2d", "box_2d", "bbox", "box")
ENDS = {"fraction": 1.0, "hundred": 100.0, "thousand": 1000.0}

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_VECTOR = re.compile(rf"[(\[]\s*({_NUMBER}(?:\s*,\s*{_NUMBER})+)\s*,?\s*[)\]]")
_PLAIN = re.compile(rf"\s*({_NUMBER}(?:[\s,;]+{_NUMBER})+)\s*\.?\s*")
_FIELDS = re.compile(r"\{[^{}]*\}")
_CORNERS = re.compile(
    rf"<\|box_start\|>\s*\(({_NUMBER}),\s*({_NUMBER})\)\s*,\s*\(({_NUMBER}),\s*({_NUMBER})\)\s*<\|box_end\|>"
)
_ATTRIBUTES = re.compile(r"<points?\b([^<>]*)>")
_ATTRIBUTE = re.compile(rf"\b([xy])(\d*)\s*=\s*[\"']?\s*({_NUMBER})")
_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL)


@dataclass(frozen=True)
class Places:
    """What a reply points at, in its order, as fractions of width and height: (x, y) and (x0, y0, x1, y1).

    Places outside the image are kept: a rule counts them as misses. `outside` counts those that cannot be meant in the
    model's convention.
    """

    points: tuple[XY, ...] = ()
    boxes: tuple[XYXY, ...] = ()
    outside: int = 0


def read_places(reply: str, convention: Convention, size: tuple[int, int]) -> Places:
    """Every point and box of a reply about an image of `size` (width, height); a thought before it is not read.

    The first form that is there is taken: JSON, tags with attributes, pairs of corners, tuples or lists, plain numbers.
    Vectors of two numbers are points, of four boxes; others are no places.
    """
    reply = without_thought(reply)[:LONGEST_REPLY]
    points, boxes, outside = [], [], 0
    for written in islice(_vectors(reply), MOST_PLACES):
        try:
            values = [float(number) for number in written]
        except (ValueError, OverflowError):
            continue
        fractions = to_fractions(values, convention, size)
        outside += _is_outside(written, values, convention, size)
        if len(fractions) == 2:
            points.append((fractions[0], fractions[1]))
        else:
            boxes.append((fractions[0], fractions[1], fractions[2], fractions[3]))
    return Places(tuple(points), tuple(boxes), outside)


def without_thought(reply: str) -> str:
    """The reply after its last closing think tag."""
    return _THOUGHT.sub("", reply)


def to_fractions(values: Sequence[float], convention: Convention, size: tuple[int, int]) -> tuple[float, ...]:
    """Coordinates in a convention, x and y in turn as it orders them, to x, y, ... as fractions."""
    pairs = [(values[i], values[i + 1]) for i in range(0, len(values), 2)]
    ends = _ends(convention, size)
    return tuple(
        value / end
        for pair in pairs
        for value, end in zip(pair if convention.axes == "xy" else pair[::-1], ends, strict=True)
    )


def from_fractions(fractions: Sequence[float], convention: Convention, size: tuple[int, int]) -> tuple[str, ...]:
    """Undoes `to_fractions`, as text: fractions with four decimals, a hundredth of a percent, else whole numbers."""
    ends = _ends(convention, size)
    scaled = [(x * ends[0], y * ends[1]) for x, y in zip(fractions[::2], fractions[1::2], strict=True)]
    digits = {"fraction": 4, "hundred": 2}.get(convention.unit, 0)
    ordered = [value for pair in scaled for value in (pair if convention.axes == "xy" else pair[::-1])]
    return tuple(f"{value:.{digits}f}" if digits else str(round(value)) for value in ordered)


def write_points(points: Iterable[XY], convention: Convention, size: tuple[int, int]) -> str:
    """Points as a list of tuples, "[(x, y), (x, y)]": what an oracle says."""
    return "[" + ", ".join(f"({', '.join(from_fractions(point, convention, size))})" for point in points) + "]"


def write_box(box: XYXY, convention: Convention, size: tuple[int, int]) -> str:
    """A box as a list, "[x0, y0, x1, y1]"."""
    return f"[{', '.join(from_fractions(box, convention, size))}]"


def size_of(media: Media) -> tuple[int, int]:
    """(width, height) in pixels as the file says them, without decoding it. ValueError if it is no picture."""
    try:
        with Image.open(io.BytesIO(media.content) if isinstance(media.content, bytes) else media.content) as opened:
            return opened.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        name = "a picture" if isinstance(media.content, bytes) else str(media.content)
        raise ValueError(f"{name}: its size can't be read ({error}); fetch it again") from error


def _ends(convention: Convention, size: tuple[int, int]) -> tuple[float, float]:
    if convention.unit == "pixel":
        return float(size[0]), float(size[1])
    return ENDS[convention.unit], ENDS[convention.unit]


def _is_outside(written: Sequence[str], values: Sequence[float], convention: Convention, size: tuple[int, int]) -> bool:
    ends = _ends(convention, size)
    ordered = ends if convention.axes == "xy" else ends[::-1]
    if any(not 0 <= value <= ordered[i % 2] for i, value in enumerate(values)):
        return True
    decimals = all("." in number and value <= 1 for number, value in zip(written, values, strict=True))
    return decimals and convention.unit != "fraction" and any(value > 0 for value in values)


def _vectors(reply: str) -> Iterator[Sequence[str]]:
    """The numbers of each place as they are written, in the first form that the reply has."""
    for form in (_json, _attributes, _corners, _tuples, _plain):
        found = form(reply)
        first = next(found, None)
        if first is not None:
            yield first
            yield from found
            return


def _json(reply: str) -> Iterator[Sequence[str]]:
    for fields in _FIELDS.finditer(reply):
        try:
            record = json.loads(fields[0], parse_float=_Written, parse_int=_Written)
        except (ValueError, RecursionError):
            continue
        for key in (*POINT_KEYS, *BOX_KEYS):
            value = record.get(key)
            lists = value if isinstance(value, list) and value and all(isinstance(v, list) for v in value) else [value]
            yield from (found for found in lists if _is_place(found))


class _Written(str):
    """A number of JSON, kept as it is written: 1 and 1.0 are told apart."""


def _is_place(value: object) -> bool:
    return isinstance(value, list) and len(value) in (2, 4) and all(isinstance(number, _Written) for number in value)


def _attributes(reply: str) -> Iterator[Sequence[str]]:
    for tag in _ATTRIBUTES.finditer(reply):
        numbers: dict[str, dict[str, str]] = {}
        for axis, index, number in _ATTRIBUTE.findall(tag[1]):
            numbers.setdefault(index, {})[axis] = number
        yield from ([pair["x"], pair["y"]] for pair in numbers.values() if len(pair) == 2)


def _corners(reply: str) -> Iterator[Sequence[str]]:
    return (found.groups() for found in _CORNERS.finditer(reply))


def _tuples(reply: str) -> Iterator[Sequence[str]]:
    vectors = ([number.strip() for number in found[1].split(",")] for found in _VECTOR.finditer(reply))
    return (vector for vector in vectors if len(vector) in (2, 4))


def _plain(reply: str) -> Iterator[Sequence[str]]:
    """A reply that is nothing but two or four numbers."""
    found = _PLAIN.fullmatch(reply)
    numbers = re.findall(_NUMBER, found[1]) if found else []
    if len(numbers) in (2, 4):
        yield numbers
