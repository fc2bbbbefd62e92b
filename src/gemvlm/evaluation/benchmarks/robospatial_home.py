"""RoboSpatial-Home (hub `chanhee-luke/RoboSpatial-Home`): free places, and whether things fit and stand so.

Publisher: chanhee-luke/RoboSpatial-Eval, `evaluation.py` (3af8ceb), `download_benchmark.py` (7385399). Read from the
hub's `data/{context,compatibility,configuration}-*.parquet`: 122, 105 and 123 rows of `category`, `question` (with the
reply's form), `answer` ("Yes", "No", or the text of a polygon [(x, y), ...] in fractions), `img`, `depth_image`, `mask`
(of context). Or from the `annotations.json` that the publisher's download writes, where pictures are paths.

Rule: yes and no must open the reply. Of points the first counts, and scores 1 if it lies in the polygon (even-odd
rule): the first "(x, y)" of numbers without sign, else the first "[x, y]", else the first bracketed list, read as
Python. The board's total is the mean of the three categories; `pooled` is the script's, over questions.

Protocols: `official`; `lmms_eval` (EvolvingLMMs-Lab/lmms-eval 75571cfe, `tasks/robo_spatial`): JSON in a fence, any
point in the mask scores 1; yes or no alone in the last line; `vlmevalkit` (open-compass/VLMEvalKit e8e78f05, class
RoboSpatialBench): JSON, the first point, a polygon with other borders. Their headline is the mean over questions.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from gemvlm.evaluation.benchmark import Convention, Item, Score, means
from gemvlm.evaluation.benchmarks.folder import FolderBenchmark
from gemvlm.evaluation.benchmarks.lettered import mean, mean_of
from gemvlm.evaluation.coordinates import LONGEST_REPLY, XY, read_places, size_of
from gemvlm.evaluation.pointing import (
    FRACTION,
    JSON_FORM,
    LONGEST_LITERAL,
    THOUSAND,
    image_size,
    in_pixels,
    mask_of,
    mask_truth,
    point_anywhere,
    point_at,
    vlmevalkit_vectors,
)
from gemvlm.evaluation.polygons import in_polygon, in_polygon_vlmevalkit, polygon_mask, read_polygon
from gemvlm.evaluation.published import need, picture, rows

CATEGORIES = ("context", "compatibility", "configuration")
PROTOCOLS = {"official": FRACTION, "lmms_eval": THOUSAND, "vlmevalkit": THOUSAND}
"""The convention in which the publisher's own parser reads."""
FORMS = (
    "Your answer should be formatted as a list of tuples, i.e. [(x1, y1), ...], where each tuple contains the x and y "
    "coordinates of a point satisfying the conditions above. The coordinates should be between 0 and 1, indicating the "
    "normalized pixel locations of the points.",
    "Answer yes or no.",
)
"""What questions end with; lmms-eval cuts it off."""
LMMS_EVAL_POINTS = (
    "Your task is to identify specific points in the image based on the question. Respond with a brief explanation if "
    "needed, followed by a list of 2D point coordinates.\n\n    The points should be in JSON format and normalized to "
    "the range [0, 1000].\n\n    Do not include additional text after this line.\n    "
)
LMMS_EVAL_YES_NO = (
    "Your task is to answer the question above. Respond with a brief explanation if needed, followed by a yes or no "
    "answer in the last line of your response.\n\n    Format your final answer strictly as follows on the last line of "
    "your response:\n    Answer: yes or no\n\n    Do not include additional text after this line.\n    "
)

FARTHEST = 1e9
"""Fractions beyond which, as NaN, a number names no place."""

_PAIRS = tuple(
    re.compile(rf"{opening}\s*(\d+(?:\.\d*)?)\s*,\s*(\d+(?:\.\d*)?)\s*{closing}")
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]"))
)
_FENCE = re.compile(r"```(?:\w+)?\n(.*?)```", re.DOTALL)
_THOUGHTS = (re.compile(r"^.*?</think>", re.DOTALL), re.compile(r"^.*?</thought>", re.DOTALL))
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)


def first_point(reply: str) -> XY | None:
    """The point that the publisher reads, in fractions."""
    for pattern in _PAIRS:
        if found := pattern.search(reply):
            return float(found[1]), float(found[2])
    start = reply.find("[")
    end = reply.find("]", start)
    if start < 0 or end < 0 or end - start > LONGEST_LITERAL:
        return None
    try:
        listed = re.sub(r",(\S)", r", \1", reply[start + 1 : end]).strip().removesuffix(",")
        values = ast.literal_eval(f"[{listed}]")
        if len(values) == 2 and all(isinstance(value, int | float) for value in values):
            return float(values[0]), float(values[1])
        x, y = values[0] if isinstance(values[0], tuple) else ()
        return float(x), float(y)
    except (ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError):
        return None


@dataclass(frozen=True)
class RoboSpatialHome(FolderBenchmark):
    """The three categories of the hub's folder, or what the publisher's download makes of it."""

    name = "robospatial_home"
    hub_id = "chanhee-luke/RoboSpatial-Home"
    protocols = PROTOCOLS

    def read(self) -> Iterator[Item]:
        made = (self.folder / "annotations.json").is_file()
        for pattern in ["annotations.json"] if made else [f"data/{category}-*.parquet" for category in CATEGORIES]:
            for number, (where, row) in enumerate(rows(self.folder, pattern)):
                yield self._item(number, where, row)

    def _item(self, number: int, where: str, row: dict[str, Any]) -> Item:
        category, question, answer = (need(row, field, str, where) for field in ("category", "question", "answer"))
        if category not in CATEGORIES:
            raise ValueError(f"{where}: category {category!r} is unknown; expected one of {', '.join(CATEGORIES)}")
        image = picture(row.get("img"), self.folder, f"{where} img")
        width, height = size_of(image)
        truth: Any = answer.strip().lower()
        if truth not in ("yes", "no"):
            truth = {"polygon": read_polygon(answer, where)}
            if self.protocol == "lmms_eval":
                truth["mask"] = mask_truth(picture(row.get("mask"), self.folder, f"{where} mask"), f"{where} mask")
        return Item(
            id=f"{category}/{number}",
            media=(image,),
            prompt=self._prompt(question, isinstance(truth, dict)),
            truth=truth,
            category=category,
            scene=f"{category}/{number}",
            meta={"width": width, "height": height},
            max_new_tokens=512,
        )

    def _prompt(self, question: str, points: bool) -> str:
        if self.protocol == "vlmevalkit" and points:
            return question.split("Your answer should")[0].strip() + "\n\n" + JSON_FORM
        if self.protocol != "lmms_eval":
            return question
        for form in FORMS:
            question = question.replace(form, "").strip()
        return f"{question}\n{LMMS_EVAL_POINTS if points else LMMS_EVAL_YES_NO}"

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        reply = reply[:LONGEST_REPLY]
        if self.protocol == "lmms_eval":
            reply = _lmms_eval_answer(reply)
        if item.truth in ("yes", "no"):
            said = self._yes_no(reply)
            return Score(float(said == item.truth), said)
        points = self._points(item, reply, convention)
        outside = read_places(reply, convention, image_size(item)).outside
        hit = any(self._hits(item, x, y, convention) for x, y in points)
        return Score(float(hit), points or None, outside=outside)

    def _yes_no(self, reply: str) -> str | None:
        if self.protocol == "lmms_eval":
            last = reply.strip().lower().split("\n")[-1]
            said = [word for word in ("yes", "no") if word in last]
            return said[0] if len(said) == 1 else None
        return next((word for word in ("yes", "no") if reply.strip().lower().startswith(word)), None)

    def _points(self, item: Item, reply: str, convention: Convention) -> list[list[float]]:
        """Those that count, as fractions: all under lmms-eval, else the first."""
        width, height = image_size(item)
        if convention != PROTOCOLS[self.protocol]:
            points: list[XY] = list(read_places(reply, convention, (width, height)).points)
        elif self.protocol == "official":
            points = [point for point in [first_point(reply)] if point is not None]
        elif self.protocol == "vlmevalkit":
            points = [(vector[0], vector[1]) for vector in vlmevalkit_vectors(reply.strip(), width, height)]
        else:
            points = _lmms_eval_points(reply)
        counting = points if self.protocol == "lmms_eval" else points[:1]
        return [[x, y] for x, y in counting if abs(x) < FARTHEST and abs(y) < FARTHEST]

    def _hits(self, item: Item, x: float, y: float, convention: Convention) -> bool:
        if self.protocol == "official":
            return in_polygon(x, y, item.truth["polygon"])
        if self.protocol == "vlmevalkit":
            return in_polygon_vlmevalkit(x, y, item.truth["polygon"])
        mask = self._mask(item)
        height, width = mask.shape
        own = convention == PROTOCOLS[self.protocol]
        column, line = (int(x * width), int(y * height)) if own else in_pixels((x, y), width, height)
        return bool(0 <= column < width and 0 <= line < height and mask[line, column])

    def _mask(self, item: Item) -> Float[np.ndarray, "H W"]:
        if self.protocol == "lmms_eval":
            return mask_of(item.truth["mask"], "any")
        return polygon_mask(item.truth["polygon"], *image_size(item), self.protocol == "vlmevalkit")

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """The mean of the categories (of the harnesses: of the questions), `pooled`, and each category."""
        categories = means(items, scores)
        pooled = mean(scores)
        overall = mean_of([*categories.values()]) if self.protocol == "official" else pooled
        return {"overall": overall, "pooled": pooled, **categories}

    def oracle(self, item: Item, convention: Convention) -> str:
        if item.truth in ("yes", "no"):
            return str(item.truth)

        def value(reply: str) -> float:
            return self.score(item, self._fenced(reply), convention).value

        return self._fenced(point_at(self._mask(item), item, convention, value, self.protocol != "official"))

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        if item.truth in ("yes", "no"):
            return str(rng.choice(["yes", "no"]))
        return self._fenced(point_anywhere(item, rng, convention, self.protocol != "official"))

    def _fenced(self, reply: str) -> str:
        return f"```json\n{reply}\n```" if self.protocol == "lmms_eval" else reply

    def chance(self, item: Item) -> float:
        """A half, or the share of the image that the polygon (of lmms-eval: the mask) covers."""
        return 0.5 if item.truth in ("yes", "no") else float(self._mask(item).mean())


def _lmms_eval_answer(reply: str) -> str:
    for thought in _THOUGHTS:
        reply = thought.sub("", reply)
    found = _ANSWER.search(reply) if "</answer>" in reply.lower() else None  # else each opening tag would be tried
    return (found[1] if found else reply).strip()


def _lmms_eval_points(reply: str) -> list[XY]:
    """The points of the first fence; none where the harness would stop with an error."""
    found = _FENCE.search(reply)
    try:
        records = json.loads(found[1].strip()) if found else []
        places = [record["point_2d"] for record in records if "point_2d" in record]
        return [
            (x / 1000, y / 1000) for x, y in (place for place in places if isinstance(place, list) and len(place) == 2)
        ]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return []
