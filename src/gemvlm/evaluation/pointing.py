"""Places of a reply against a mask: what RefSpatial-Bench, Where2Place, RoboSpatial-Home and RoboAfford-Eval share.

The rule began in wentaoyuan/RoboPoint, `robopoint/eval/summarize_vqa.py` (9d54aac): the mean of the mask under every
point, where points outside the image count zero and a box stands for all pixels in it. Each harness reads replies in
its own way, for one convention: its `native` one. There the publisher's reading holds to the letter, its quirks
included; in any other convention `coordinates.read_places` reads, and only the rule is the publisher's.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from gemvlm.evaluation.benchmark import Convention, Item, Media, Score
from gemvlm.evaluation.coordinates import LONGEST_REPLY, Places, from_fractions, read_places, write_points
from gemvlm.evaluation.published import UNREADABLE

FRACTION, THOUSAND, PIXEL = Convention("fraction"), Convention("thousand"), Convention("pixel")
LONGEST_LITERAL = 10_000
MOST_CANDIDATES = 2000
JSON_FORM = (
    'Output the point coordinates in JSON format.\nFor example:\n[\n  {"point_2d": [x, y], "label": "point_1"}\n]\n'
)
"""How VLMEvalKit asks for points, after the Qwen3-VL report."""

_TUPLE = re.compile(r"\(([-+]?\d+(?:\.\d*)?(?:,\s*[-+]?\d+(?:\.\d*)?)*)\)")
_PAIR = re.compile(r"[\[(]\s*([-+]?\d+(?:\.\d*)?)\s*,\s*([-+]?\d+(?:\.\d*)?)\s*[\])]")


@dataclass(frozen=True)
class Marks:
    """What a reply marks, in pixels of the mask: points (x, y), and boxes (x0, y0, x1, y1) without their last row.

    `clipped`: pixels of boxes that lie outside count as those of the border that are nearest, not as misses.
    """

    points: tuple[tuple[int, int], ...] = ()
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    clipped: bool = False


Reader = Callable[[str, int, int], Marks]
"""Reply, width and height of the mask to marks; ValueError, OverflowError or TypeError where the publisher's raises."""


def tuples(reply: str) -> Iterator[list[int | float]]:
    """Numbers of every tuple "(1, 0.5)": floats where they are written with a decimal point.

    No spaces before the first number or after the last, no ".5", no exponents, no square brackets: the pattern of
    RoboPoint, written so that it takes linear time.
    """
    for found in _TUPLE.finditer(reply[:LONGEST_REPLY]):
        yield [float(number) if "." in number else int(number) for number in found[1].split(",")]


def lmms_eval_tuples(reply: str, width: int, height: int) -> Marks:
    """lmms-eval's reading of tuples (`tasks/refspatial` and `tasks/where2place`, 75571cfe): every pair is fractions,
    boxes are not read."""
    pairs = (numbers for numbers in tuples(reply) if len(numbers) == 2)
    return Marks(tuple((int(x * width), int(y * height)) for x, y in pairs))


def lmms_eval_json(reply: str, width: int, height: int) -> Marks:
    """lmms-eval's reading of pairs in any brackets (`tasks/_task_utils/point_format.py`, 75571cfe): integers are
    thousandths, numbers with a decimal point (of either) fractions; boxes are not read."""
    pairs = []
    for x, y in _PAIR.findall(reply):
        end = 1 if "." in x + y else 1000
        pairs.append((int(float(x) / end * width), int(float(y) / end * height)))
    return Marks(tuple(pairs))


def vlmevalkit_vectors(reply: str, width: int, height: int) -> list[tuple[float, ...]]:
    """VLMEvalKit's reading (`Point2DParser` of `vlmeval/dataset/utils/spatial_bench/tools/utils.py`, e8e78f05).

    If the whole reply, or what its fence holds, is JSON (or a Python literal): `point_2d` or `point` of each object, by
    size fractions (to 1.5), thousandths (to 1000) or pixels. Otherwise tuples: fractions to 1.5, else pixels. Gives
    points and boxes (rounded to pixels) as fractions, in the order of the reply.
    """
    found = _objects(reply, width, height)
    if found:
        return found
    vectors: list[tuple[float, ...]] = []
    for numbers in tuples(reply):
        values = [float(number) for number in numbers]
        fraction = max(map(abs, values)) <= 1.5
        ends = (width, height) * (len(values) // 2)
        if len(values) == 2:
            vectors.append(tuple(v if fraction else v / end for v, end in zip(values, ends, strict=True)))
        elif len(values) == 4:
            x0, y0, x1, y1 = (round(v * end if fraction else v) for v, end in zip(values, ends, strict=True))
            (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
            if x0 < x1 and y0 < y1:
                vectors.append((x0 / width, y0 / height, x1 / width, y1 / height))
    return vectors


def _objects(reply: str, width: int, height: int) -> list[tuple[float, ...]]:
    """Points of a reply that is JSON; none if it is not."""
    text = reply.strip()
    if text.startswith("```"):
        text = text[text.find("\n") + 1 :].strip() if "\n" in text else text.lstrip("`").strip()
        text = text.removesuffix("```").strip()
    records = literal(text)
    points: list[tuple[float, ...]] = []
    for record in records if isinstance(records, list) else [records]:
        point = (record.get("point_2d") or record.get("point")) if isinstance(record, dict) else None
        if not isinstance(point, list | tuple) or len(point) != 2:
            continue
        try:
            x, y = float(point[0]), float(point[1])
        except (ValueError, TypeError, OverflowError):
            continue
        largest = max(abs(x), abs(y))
        ends = (1, 1) if largest <= 1.5 else (1000, 1000) if largest <= 1000 else (width, height)
        points.append((x / ends[0], y / ends[1]))
    return points


def literal(text: str) -> Any:
    """JSON or a Python literal; None if it is neither, or longer than an answer."""
    if len(text) > LONGEST_LITERAL:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return None


def hit_share(mask: Float[np.ndarray, "H W"], marks: Marks) -> float:
    """Mean of the mask under all marked pixels, those outside it counting 0; without any 0. A mask in [0, 1]."""
    height, width = mask.shape
    hits, total = 0.0, 0
    for x, y in marks.points:
        total += 1
        hits += float(mask[y, x]) if 0 <= x < width and 0 <= y < height else 0.0
    for x0, y0, x1, y1 in marks.boxes:
        total += max(x1 - x0, 0) * max(y1 - y0, 0)
        hits += float(_times(y0, y1, height, marks.clipped) @ mask @ _times(x0, x1, width, marks.clipped))
    return hits / total if total else 0.0


def _times(start: int, stop: int, size: int, clipped: bool) -> Float[np.ndarray, "size"]:
    """How often each of `size` rows is marked by those from `start` to `stop`: a box of any size costs the same."""
    times = np.zeros(size)
    times[max(start, 0) : max(stop, 0)] = 1
    if clipped and stop > start:
        times[0] += max(min(stop, 0) - start, 0)
        times[-1] += max(stop - max(start, size), 0)
    return times


def score_marks(
    item: Item,
    reply: str,
    convention: Convention,
    native: Convention | None,
    read: Reader,
    mask: Float[np.ndarray, "H W"],
) -> Score:
    """The share of hits. What can't be read scores 0 and is unparsed, also where the publisher would drop the item."""
    height, width = mask.shape
    places = read_places(reply, convention, image_size(item))
    try:
        marks = _marked(places, width, height) if convention != native else read(reply[:LONGEST_REPLY], width, height)
    except (ValueError, OverflowError, TypeError):
        return Score(0.0, None, outside=places.outside)
    share = hit_share(mask, marks)
    parsed = {
        "points": [[x / width, y / height] for x, y in marks.points],
        "boxes": [[x0 / width, y0 / height, x1 / width, y1 / height] for x0, y0, x1, y1 in marks.boxes],
    }
    return Score(share, parsed if marks.points or marks.boxes else None, outside=places.outside)


def raises(reply: str, read: Reader, mask: Float[np.ndarray, "H W"]) -> bool:
    """Whether the publisher's reading fails with an error; its script then drops the item from the mean."""
    try:
        read(reply[:LONGEST_REPLY], mask.shape[1], mask.shape[0])
    except (ValueError, OverflowError, TypeError):
        return True
    return False


def in_pixels(fractions: Sequence[float], width: int, height: int) -> tuple[int, ...]:
    """The pixels in which places lie, x and y in turn: a pixel's number over the width is that pixel again."""
    ends = (width, height) * (len(fractions) // 2)
    return tuple(math.floor(value * end + 1e-9) for value, end in zip(fractions, ends, strict=True))


def _marked(places: Places, width: int, height: int) -> Marks:
    points = (in_pixels(point, width, height) for point in places.points)
    boxes = (in_pixels(box, width, height) for box in places.boxes)
    return Marks(tuple((x, y) for x, y in points), tuple((a, b, c, d) for a, b, c, d in boxes))


def point_at(
    mask: Float[np.ndarray, "H W"],
    item: Item,
    convention: Convention,
    value: Callable[[str], float],
    as_json: bool = False,
) -> str:
    """What an oracle says: a pixel of the mask's highest level, near its middle, that is read back as a hit."""
    height, width = mask.shape
    rows, columns = np.nonzero(mask == mask.max())
    away = (rows - np.median(rows)) ** 2 + (columns - np.median(columns)) ** 2
    nearest = np.argsort(away, kind="stable")[:MOST_CANDIDATES]
    best, first = float(mask.max()), ""
    for k in nearest:
        reply = _pixel(int(columns[k]), int(rows[k]), width, height, item, convention, as_json)
        if value(reply) >= best:
            return reply
        first = first or reply
    return first


def point_anywhere(item: Item, rng: np.random.Generator, convention: Convention, as_json: bool = False) -> str:
    """One pixel, each as likely: it hits with the mask's mean level, up to what the convention can't tell apart."""
    width, height = image_size(item)
    return _pixel(int(rng.integers(width)), int(rng.integers(height)), width, height, item, convention, as_json)


def _pixel(x: int, y: int, width: int, height: int, item: Item, convention: Convention, as_json: bool) -> str:
    """Pixel x, y of `width` by `height`, by its number if the convention counts pixels, else by its centre.

    As a list of one tuple, or as the JSON that Qwen writes.
    """
    middle = 0.0 if convention.unit == "pixel" else 0.5
    point = ((x + middle) / width, (y + middle) / height)
    if as_json:
        return (
            f'[{{"point_2d": [{", ".join(from_fractions(point, convention, image_size(item)))}], "label": "point_1"}}]'
        )
    return write_points([point], convention, image_size(item))


def image_size(item: Item) -> tuple[int, int]:
    """(width, height) of the item's picture, kept in `meta` when it was read."""
    return item.meta["width"], item.meta["height"]


def mask_truth(media: Media, where: str) -> dict[str, Any]:
    """The first channel of a mask as plain JSON: {"height", "width", "levels": its bytes, compressed, as base64 text}.

    ValueError naming `where` if it can't be decoded, is not of 8 bits, or marks nothing.
    """
    try:
        with Image.open(io.BytesIO(media.content) if isinstance(media.content, bytes) else media.content) as opened:
            levels = np.asarray(opened)
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise ValueError(f"{where}: the mask can't be decoded ({error}); fetch it again") from error
    levels = levels[..., 0] if levels.ndim == 3 else levels
    if levels.dtype == bool:
        levels = levels * np.uint8(255)
    if levels.dtype != np.uint8 or not levels.any():
        raise ValueError(
            f"{where}: the mask is {levels.dtype} with {int((levels > 0).sum())} pixels set; expected uint8"
        )
    packed = base64.b64encode(zlib.compress(levels.tobytes(), 9)).decode()
    return {"height": levels.shape[0], "width": levels.shape[1], "levels": packed}


def mask_levels(truth: Mapping[str, Any]) -> UInt8[np.ndarray, "H W"]:
    """Undoes `mask_truth`."""
    content = zlib.decompressobj().decompress(base64.b64decode(truth["levels"]), truth["height"] * truth["width"])
    return np.frombuffer(content, np.uint8).reshape(truth["height"], truth["width"])


def mask_of(truth: Mapping[str, Any], counts: Literal["any", "half", "grey"]) -> Float[np.ndarray, "H W"]:
    """A mask as a rule takes it: 1 for every level above 0, 1 for levels above one half, or levels over 255."""
    return _mask(truth["levels"], truth["height"], truth["width"], counts)


@lru_cache(maxsize=16)
def _mask(packed: str, height: int, width: int, counts: str) -> Float[np.ndarray, "H W"]:
    levels = mask_levels({"levels": packed, "height": height, "width": width}) / 255
    return levels if counts == "grey" else np.asarray(levels > {"any": 0.0, "half": 0.5}[counts], np.float64)
