"""What a model got wrong, to be looked at: picture, question, reply, truth, and the places of all three drawn in."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from gemvlm.data.video import evenly
from gemvlm.evaluation.answer_files import Line
from gemvlm.evaluation.answerers.media import Picture, frames_of
from gemvlm.evaluation.benchmark import Benchmark, Convention, Item, WritesPlaces
from gemvlm.evaluation.coordinates import Places, read_places
from gemvlm.evaluation.pointing import mask_levels
from gemvlm.evaluation.polygons import polygon_mask
from gemvlm.figure import Exchange, Report, draw_points_boxes, enlarge
from gemvlm.figure.pictures import MARKS

SIDE = 480
SHOWN_FRAMES = 4
LONGEST_TEXT = 1200
HALF = 0.5
OUTLINE = MARKS[0]
"""That of the first mark, which is true."""


def wrong_items(lines: Sequence[Line], count: int) -> list[Line]:
    """Up to `count` replies that scored below one half, in turn from every category, drawn by their ids.

    Failures of the answerer itself are no replies; tables count them.
    """
    by_category: dict[str, list[Line]] = {}
    for line in sorted(lines, key=lambda line: zlib.crc32(line["id"].encode())):
        if line["score"] < HALF and line["failure"] is None:
            by_category.setdefault(line["category"], []).append(line)
    longest = max(map(len, by_category.values()), default=0)
    turns = [members[turn] for turn in range(longest) for members in by_category.values() if turn < len(members)]
    return turns[:count]


def add_gallery(
    report: Report, benchmark: Benchmark, items: Mapping[str, Item], lines: Sequence[Line], convention: Convention
) -> None:
    """One block for each line; an item whose media can't be drawn is shown by its words."""
    for line in lines:
        item = items[line["id"]]
        said, true = line["reply"], benchmark.oracle(item, convention)
        caption = f"{item.category} · {item.id}"
        try:
            asked = item.prompt if isinstance(benchmark, WritesPlaces) else ""
            picture = illustrate(item, said, true, convention, asked)
        except ValueError as error:
            report.text(f"`{caption}`: {error}")
            continue
        question = _cut(item.prompt)
        report.conversation(picture, [Exchange(question, _cut(said), _cut(true), False)], caption)


def illustrate(item: Item, said: str, true: str, convention: Convention, asked: str = "") -> Picture:
    """The item's pictures side by side, at most four.

    On the first one the outline of the true region, the true places, those that were said, and those of `asked`, named
    A, B, ... in its order where there are several.
    """
    frames = [frame for medium in frames_of(item) for frame in medium]
    if not frames:
        return np.full((SIDE // 4, SIDE, 3), 200, np.uint8)
    chosen = [frames[index] for index in evenly(len(frames), SHOWN_FRAMES)]
    size = (frames[0].shape[1], frames[0].shape[0])
    truth = read_places(true, convention, size)
    answer = read_places(said, convention, size) if truth.points or truth.boxes else Places()
    question = read_places(asked, convention, size)
    names = [chr(ord("A") + i) for i in range(len(question.points))] if len(question.points) > 1 else ["asked"]
    ground = enlarge(_shrunk(chosen[0], SIDE), SIDE)
    first = draw_points_boxes(
        ground if (region := true_region(item)) is None else outlined(ground, region),
        [*truth.points, *answer.points, *question.points],
        [*truth.boxes, *answer.boxes, *question.boxes],
        ["true"] * len(truth.points)
        + ["said"] * len(answer.points)
        + names[: len(question.points)]
        + ["true"] * len(truth.boxes)
        + ["said"] * len(answer.boxes)
        + ["asked"] * len(question.boxes),
        SIDE,
    )
    strip = [first, *(_shrunk(frame, SIDE) for frame in chosen[1:])]
    height = first.shape[0]
    return np.concatenate([_of_height(picture, height) for picture in strip], axis=1)


def true_region(item: Item) -> Bool[np.ndarray, "h w"] | None:
    """What a pointing benchmark counts as right: its mask above half its range, or its polygon; None of others."""
    truth: Any = item.truth if isinstance(item.truth, Mapping) else {}
    if isinstance(mask := truth.get("mask", truth), Mapping) and "levels" in mask:
        return mask_levels(mask) > 127
    if polygon := truth.get("polygon"):
        return polygon_mask(polygon, SIDE, SIDE) > 0
    return None


def outlined(picture: Picture, region: Bool[np.ndarray, "h w"]) -> Picture:
    """The picture with the border of a region, which is resized to it."""
    size = (picture.shape[1], picture.shape[0])
    inside = np.pad(np.asarray(Image.fromarray(region).resize(size, Image.Resampling.NEAREST)), 2)
    rolled = [np.roll(inside, (dy, dx), (0, 1)) for dy in (-2, 0, 2) for dx in (-2, 0, 2)]
    border = (inside & ~np.logical_and.reduce(rolled))[2:-2, 2:-2]
    marked = picture.copy()
    marked[border] = OUTLINE
    return marked


def _shrunk(picture: Picture, side: int) -> Picture:
    image = Image.fromarray(picture)
    image.thumbnail((side, side))
    return np.asarray(image)


def _of_height(picture: Picture, height: int) -> Picture:
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return np.asarray(Image.fromarray(picture).resize((width, height)))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " …"
