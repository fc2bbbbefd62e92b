"""The marks that SPAR's questions speak of ("the red point"), drawn into the pictures as its loader does.

Stated by fudan-zvg/spar, `datasets/draw_marker.py` (read in its copy zhangjiayi-ootd/SPARtest, commit 04f6b558): points
and boxes are thousandths of the image's width and height; a point is a disc of 20 pixels' radius; a box is a frame of
20 pixels' width around it. Which mark belongs on which picture depends on `type`. One deviation: the publisher's
`*_video` types draw yellow with swapped channels, which is cyan; here the yellow box is yellow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from gemvlm.curation.sources.places import Coordinates
from gemvlm.curation.sources.records import RecordError
from gemvlm.sample import Place, Point

RADIUS = STROKE = 20
LABEL_SIZE = 48
MOST_LISTED = 64
THOUSANDTHS = Coordinates("thousandths")
Shape = Literal["point", "bbox"]
_RED, _BLUE, _GREEN, _YELLOW = "red", "blue", "green", "yellow"

MARKS: Mapping[str, tuple[Shape, tuple[str, ...]]] = {
    "obj_spatial_relation_oo": ("bbox", (_RED, _BLUE)),
    "depth_prediction_oc": ("point", (_RED, _BLUE)),
    "depth_prediction_oo": ("point", (_RED, _BLUE, _GREEN)),
    "distance_prediction_oc": ("point", (_RED,)),
    "distance_prediction_oo": ("point", (_RED, _BLUE)),
    "distance_infer_center_oo": ("point", (_RED, _BLUE, _GREEN)),
    "spatial_volume_infer": ("bbox", (_RED,)),
    "spatial_imagination_oc": ("bbox", (_RED, _BLUE, _GREEN)),
    "spatial_imagination_oo": ("bbox", (_RED, _BLUE, _GREEN, _YELLOW)),
    "position_matching": ("bbox", (_RED,)),
    "depth_prediction_oc_mv": ("point", (_RED, _BLUE)),
    "depth_prediction_oo_mv": ("point", (_RED, _BLUE, _GREEN)),
    "distance_prediction_oc_mv": ("point", (_RED,)),
    "distance_prediction_oo_mv": ("point", (_RED, _BLUE)),
    "distance_infer_center_oo_mv": ("point", (_RED, _GREEN, _BLUE)),
    "obj_spatial_relation_oc_mv": ("bbox", (_RED, _BLUE, _GREEN)),
    "obj_spatial_relation_oo_mv": ("bbox", (_RED, _BLUE, _GREEN)),
    "spatial_imagination_oc_mv": ("bbox", (_GREEN, _BLUE, _RED)),
    "spatial_imagination_oo_mv": ("bbox", (_GREEN, _BLUE, _RED, _YELLOW)),
    "distance_prediction_oo_video": ("point", (_RED, _BLUE)),
    "spatial_imagination_oc_video": ("bbox", (_GREEN, _BLUE, _RED)),
    "spatial_imagination_oo_video": ("bbox", (_GREEN, _BLUE, _RED, _YELLOW)),
    "obj_frame_locate": ("bbox", (_RED,)),
}
"""Types with coloured marks, in the order of the record's image numbers."""

LISTED: Mapping[str, Shape] = {"spatial_imagination_map_mv": "bbox", "distance_infer_center_oo_video": "point"}
"""Types whose marks come in one list, each with a label."""

UNMARKED = frozenset(
    {
        "distance_infer_center_oc", "view_change_infer", "distance_infer_center_oc_mv", "camera_motion_infer",
        "spatial_imagination_oc_video_hard", "spatial_imagination_oo_video_hard", "appearance_order", "room_size",
        "obj_count", "nav",
    }
)  # fmt: skip
_ALL_ON_ONE = {"obj_spatial_relation_oc_mv"}
_SOME_ABSENT = {"obj_spatial_relation_oc_mv", "obj_spatial_relation_oo_mv"}
_LABELLED = {"spatial_imagination_oc_video", "spatial_imagination_oo_video"}


@dataclass(frozen=True)
class Mark:
    """A point or box in one of the record's images, and its label if it carries one."""

    image: int
    place: Place
    color: str
    label: str = ""


def read_marks(fields: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> tuple[Mark, ...]:
    """The marks of a record whose images have these (height, width). RecordError for unknown types and bad marks."""
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise RecordError("unknown_type", f"type is {kind!r:.80}; expected a text", "type")
    if kind in UNMARKED:
        return ()
    if kind in LISTED:
        return _listed(fields, LISTED[kind], sizes)
    if kind not in MARKS:
        raise RecordError("unknown_type", f"type {kind!r:.80} is none of SPAR's; how to draw it is not known", "type")
    shape, colors = MARKS[kind]
    given = [color for color in colors if fields.get(f"{color}_{shape}")]
    if (missing := [color for color in colors if color not in given]) and kind not in _SOME_ABSENT:
        raise RecordError("no_mark", f"type {kind} needs {missing[0]}_{shape}", f"{missing[0]}_{shape}")
    images = _images(fields, shape, len(given), len(sizes), kind)
    marks = []
    for position, (color, image) in enumerate(zip(given, images, strict=True)):
        field = f"{color}_{shape}"
        label = f"object{position}" if kind in _LABELLED else ""
        marks.append(Mark(image, _place(_first(fields[field], field), shape, sizes[image], field), color, label))
    return tuple(marks)


def draw_marks(image: UInt8[np.ndarray, "H W 3"], marks: Sequence[Mark]) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of the picture with the marks in it, whichever `Mark.image` they name."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    for mark in marks:
        if isinstance(mark.place, Point):
            x, y = int(mark.place.x * width), int(mark.place.y * height)
            draw.ellipse((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS), fill=mark.color)
            corner = (x + RADIUS, y + RADIUS)
        else:
            out = STROKE * 7 / 8
            box = mark.place
            edges = (box.x0 * width - out, box.y0 * height - out, box.x1 * width + out, box.y1 * height + out)
            draw.rectangle(tuple(map(int, edges)), outline=mark.color, width=STROKE)
            corner = (int(box.x1 * width), int(box.y1 * height))
        if mark.label:
            _write(draw, mark.label, corner, picture.size)
    return np.array(picture)


def _write(draw: ImageDraw.ImageDraw, label: str, corner: tuple[int, int], size: tuple[int, int]) -> None:
    """A green label at the mark's lower right corner, moved inside the picture."""
    font = ImageFont.load_default(LABEL_SIZE)
    _, _, wide, high = draw.textbbox((0, 0), label, font=font)
    at = (max(0, min(corner[0], size[0] - int(wide))), max(0, min(corner[1], size[1] - int(high))))
    draw.text(at, label, fill=(0, 255, 0), font=font)


def _listed(fields: Mapping[str, Any], shape: Shape, sizes: Sequence[tuple[int, int]]) -> tuple[Mark, ...]:
    field = f"{shape}_list"
    places = _first(fields.get(field), field)
    if not 1 <= len(places) <= MOST_LISTED:
        raise RecordError("no_mark", f"{len(places)} marks; expected 1..{MOST_LISTED}", field)
    images = _images(fields, shape, len(places), len(sizes), str(fields["type"]))
    names = [f"object{i}" for i in range(len(places))]
    if shape == "point":
        names = ["objectA", *names[:-1]]
    return tuple(
        Mark(image, _place(place, shape, sizes[image], field), _BLUE, name)
        for place, image, name in zip(places, images, names, strict=True)
    )


def _images(fields: Mapping[str, Any], shape: Shape, marks: int, images: int, kind: str) -> list[int]:
    """Which image each mark is on. Types about one image say nothing; `position_matching` marks the first."""
    field = f"{shape}_img_idx"
    if images == 1 or kind == "position_matching":
        return [0] * marks
    numbers = _first(fields.get(field), field)
    if kind in _ALL_ON_ONE:
        numbers = numbers[:1] * marks
    if len(numbers) < marks or not all(type(n) is int and 0 <= n < images for n in numbers):
        told = f"{field} is {numbers!r:.80}; expected {marks} numbers of {images} images, from 0"
        raise RecordError("bad_image_number", told, field)
    return list(numbers[:marks])


def _first(value: Any, field: str) -> list[Any]:
    """SPAR wraps every list once more."""
    if not isinstance(value, list) or not value or not isinstance(value[0], list):
        raise RecordError("no_mark", f"{field} is {value!r:.80}; expected a list in a list", field)
    return value[0]


def _place(numbers: Any, shape: Shape, size: tuple[int, int], field: str) -> Place:
    wanted = 2 if shape == "point" else 4
    exact = isinstance(numbers, list) and len(numbers) == wanted
    if not exact or not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers):
        raise RecordError("bad_mark", f"{field} is {numbers!r:.80}; expected {wanted} numbers", field)
    try:
        values = [float(number) for number in numbers]
        return THOUSANDTHS.point(values[0], values[1], size) if wanted == 2 else THOUSANDTHS.box(values, size)
    except RecordError as fault:
        raise RecordError(fault.reason, str(fault), field) from fault
