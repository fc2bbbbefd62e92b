"""What a model got wrong, to be looked at: picture, question, reply, truth, and the places of both drawn in."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from gemvlm.evaluation.answer_files import Line
from gemvlm.evaluation.answerers.media import Picture, evenly, frames_of
from gemvlm.evaluation.benchmark import Benchmark, Convention, Item
from gemvlm.evaluation.coordinates import Places, read_places
from gemvlm.figure import Exchange, Report, draw_points_boxes

SIDE = 480
SHOWN_FRAMES = 4
LONGEST_TEXT = 1200
HALF = 0.5


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
            picture = illustrate(item, said, true, convention)
        except ValueError as error:
            report.text(f"`{caption}`: {error}")
            continue
        question = _cut(item.prompt)
        report.conversation(picture, [Exchange(question, _cut(said), _cut(true), False)], caption)


def illustrate(item: Item, said: str, true: str, convention: Convention) -> Picture:
    """The item's pictures side by side, at most four; on the first one the true places and those that were said."""
    frames = [frame for medium in frames_of(item) for frame in medium]
    if not frames:
        return np.full((SIDE // 4, SIDE, 3), 200, np.uint8)
    chosen = [frames[index] for index in evenly(len(frames), SHOWN_FRAMES)]
    size = (frames[0].shape[1], frames[0].shape[0])
    truth = read_places(true, convention, size)
    answer = read_places(said, convention, size) if truth.points or truth.boxes else Places()
    first = draw_points_boxes(
        _shrunk(chosen[0], SIDE),
        [*truth.points, *answer.points],
        [*truth.boxes, *answer.boxes],
        ["true"] * len(truth.points)
        + ["said"] * len(answer.points)
        + ["true"] * len(truth.boxes)
        + ["said"] * len(answer.boxes),
        SIDE,
    )
    strip = [first, *(_shrunk(frame, SIDE) for frame in chosen[1:])]
    height = first.shape[0]
    return np.concatenate([_of_height(picture, height) for picture in strip], axis=1)


def _shrunk(picture: Picture, side: int) -> Picture:
    image = Image.fromarray(picture)
    image.thumbnail((side, side))
    return np.asarray(image)


def _of_height(picture: Picture, height: int) -> Picture:
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return np.asarray(Image.fromarray(picture).resize((width, height)))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " …"
