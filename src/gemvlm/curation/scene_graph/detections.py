"""What a detector or segmenter found in a picture: COCO-style JSON beside it, or arrays.

The JSON is a list of results, or a mapping with "annotations" and "categories", as pycocotools reads them
(cocodataset/cocoapi, `PythonAPI/pycocotools/coco.py` and `common/maskApi.c`): `bbox` [left, top, width, height] in
pixels, `segmentation` as polygons [[x, y, x, y, ...], ...] or as run lengths {"size": [height, width], "counts": ...}
down the columns (a list, or the compressed string), `score`, and `category_id` or a name under `category`, `label` or
`phrase`. A `colour` (or `color`) may be given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

LARGEST_FILE = 64 << 20
MOST_DETECTIONS = 1000
NAMES = ("category", "label", "phrase", "category_name", "name", "class")


@dataclass(frozen=True, eq=False)
class Detection:
    """One thing: what it is called (a noun), the colour if it is known, its pixels, and how sure the detector is."""

    label: str
    mask: Bool[np.ndarray, "H W"]
    score: float = 1.0
    colour: str = ""
    from_box: bool = False


def read_detections(path: Path | str, height: int, width: int) -> list[Detection]:
    """The detections of one picture of this size. ValueError names the file, the entry and what is wrong with it."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"{path.stat().st_size} bytes, {LARGEST_FILE} at most")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); write the detections again") from error
    names: dict[Any, str] = {}
    if isinstance(content, Mapping):
        found = content.get("categories", [])
        names = {c.get("id"): str(c.get("name", "")) for c in found if isinstance(c, Mapping)}
        content = content.get("annotations", content.get("detections"))
    if not isinstance(content, list) or len(content) > MOST_DETECTIONS:
        raise ValueError(f"{path}: needs a list of at most {MOST_DETECTIONS} detections (or `annotations` with one)")
    found = []
    for index, entry in enumerate(content):
        try:
            found.append(_detection(entry, names, height, width))
        except (ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:
            raise ValueError(f"{path}: detection {index}: {error}") from error
    return found


def from_arrays(
    masks: Bool[np.ndarray, "N H W"],
    labels: Sequence[str],
    scores: Sequence[float] | None = None,
    colours: Sequence[str] | None = None,
) -> list[Detection]:
    """Detections from masks. ValueError if the numbers of masks, labels, scores and colours differ."""
    scores = [1.0] * len(labels) if scores is None else scores
    colours = [""] * len(labels) if colours is None else colours
    if not len(masks) == len(labels) == len(scores) == len(colours):
        raise ValueError(
            f"detections: {len(masks)} masks, {len(labels)} labels, {len(scores)} scores, {len(colours)} colours; "
            "give one of each per detection"
        )
    return [Detection(*one) for one in zip(labels, masks, map(float, scores), colours, strict=True)]


def _detection(entry: Any, names: Mapping[Any, str], height: int, width: int) -> Detection:
    label = next((entry[key] for key in NAMES if isinstance(entry.get(key), str)), None)
    label = names.get(entry.get("category_id"), "") if label is None else label
    label = " ".join(label.strip(" .").split())
    if not label:
        raise ValueError(f"no name under {', '.join(NAMES)}, nor a category_id that is listed")
    score = float(entry.get("score", 1.0))
    if not 0 <= score <= 1:
        raise ValueError(f"score {score} is not in [0, 1]")
    colour = str(entry.get("colour", entry.get("color", "")))
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, Mapping):
        return Detection(label, _run_lengths(segmentation, height, width), score, colour)
    if isinstance(segmentation, list) and segmentation:
        return Detection(label, _polygons(segmentation, height, width), score, colour)
    return Detection(label, _box(entry["bbox"], height, width), score, colour, from_box=True)


def _box(bbox: Any, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    left, top, wide, tall = (float(value) for value in bbox)
    if not (np.isfinite([left, top, wide, tall]).all() and wide > 0 and tall > 0):
        raise ValueError(f"bbox {bbox} needs a width and height above 0")
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    return ((rows >= top) & (rows < top + tall))[:, None] & ((columns >= left) & (columns < left + wide))


def _polygons(polygons: Any, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    canvas = Image.new("1", (width, height))
    for polygon in polygons:
        values = np.array(polygon, dtype=np.float64)
        if values.ndim != 1 or len(values) < 6 or len(values) % 2 or not np.isfinite(values).all():
            raise ValueError("a polygon needs three points or more, as [x, y, x, y, ...]")
        corners = np.clip(values.reshape(-1, 2) - 0.5, -1e6, 1e6)
        ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in corners], fill=1)
    return np.array(canvas, dtype=bool)


def _run_lengths(segmentation: Mapping[str, Any], height: int, width: int) -> Bool[np.ndarray, "H W"]:
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"segmentation is of a picture {segmentation['size']}, this is {[height, width]}")
    counts = segmentation["counts"]
    runs = _uncompressed(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if len(runs) > height * width + 1 or min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"segmentation: {len(runs)} runs do not add up to {height} x {width} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _uncompressed(text: str) -> list[int]:
    """COCO's compressed counts: six-bit groups from "0", the lowest first, five of them value and one for "more"; from
    the third count on, differences to the count before the last.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        group = character - 48
        if not 0 <= group < 64 or shift > 40:
            raise ValueError("segmentation: counts are not a compressed run-length string")
        value |= (group & 0x1F) << shift
        shift += 5
        if not group & 0x20:
            if group & 0x10:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
