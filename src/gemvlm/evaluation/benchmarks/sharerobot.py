"""ShareRobot-Bench (hub `BAAI/ShareRobot-Bench`): the box to act on, and the path of the hand, in pictures of robots.

Publisher: flageval-baai/FlagEvalMM, which the RoboBrain reports name, `tasks/share_robot/{affordance,trajectory}/` with
`process.py` and `evaluate.py` (370668c, 24655d2). Read from the hub's folder (68e9c15): `affordance/test.json` and
`trajectory/test.json`, arrays of `id`, `image` (a file beside the table; of trajectories the first of a list) and
`conversations` (turns of `from` human or gpt and `value`); the answers are the texts "[x1, y1, x2, y2]" and "[[x, y],
...]".

Affordance: the reply must be the box and nothing else; the item scores its IoU with the truth. The headline, called
average precision, is the mean IoU; beside it the shares of at least 0.5, 0.75 and 0.9.

Trajectory: both paths as fractions (a pair in which a number is above 1 is pixels). The published distances, lower
being better, are the discrete Frechet distance, the Hausdorff distance, and the RMSE over as many points as the shorter
path has; a reply without points is one point at the origin. A score must be better when higher, so that an item scores
one minus its Frechet distance, at least 0, and 0 without points; the distances stand beside it.

Protocols: `official`; of affordances also `official_skip`, which drops replies that are no box. The script reads paths
with Python's eval; here they are literals, without arithmetic.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gemvlm.evaluation.benchmark import Convention, Item, Score
from gemvlm.evaluation.benchmarks.folder import FolderBenchmark
from gemvlm.evaluation.benchmarks.lettered import mean, mean_of
from gemvlm.evaluation.coordinates import XY, XYXY, read_places, size_of, write_box, write_points
from gemvlm.evaluation.pointing import FRACTION, LONGEST_LITERAL, PIXEL, image_size
from gemvlm.evaluation.published import need, picture, rows

PROTOCOLS = ("official", "official_skip")
BOX_FORM = "Only return the box in format: [x1, y1, x2, y2] with no other output."
ASKED = "Please predict up to 10 key trajectory points to complete the task."
PATH_FORM = (
    " Your answer should be formatted as a list of tuples, i.e. [[x1, y1], [x2, y2], ...], where each tuple contains "
    "the x and y coordinates of a point."
)
GUESSED_BOXES = tuple((x / 4, y / 4, (x + 1) / 4, (y + 1) / 4) for y in range(4) for x in range(4))
"""What someone guesses who sees no image: a sixteenth of it."""
_ENDS = tuple((x, y) for y in (0.2, 0.5, 0.8) for x in (0.2, 0.5, 0.8))
GUESSED_PATHS = tuple((a, b) for a in _ENDS for b in _ENDS)
"""Straight from one of nine places to another."""

_PATH = re.compile(r"\[(\s*\[[^\]]+\](?:\s*,\s*\[[^\]]+\])*\s*)\]")
_NUMBER = r"([-+]?(?:\d+(?:\.\d+)?|\.\d+))"
_PAIR = re.compile(rf"\[{_NUMBER}\s*,\s*{_NUMBER}\]")
UNREADABLE = (ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError)


@dataclass(frozen=True)
class ShareRobotAffordance(FolderBenchmark):
    """Boxes around what the hand must touch."""

    name = "sharerobot_affordance"
    hub_id = "BAAI/ShareRobot-Bench"
    protocols = PROTOCOLS

    def read(self) -> Iterator[Item]:
        for where, row, item in _rows(self.folder, "affordance"):
            question, answer = _turns(need(row, "conversations", list, where), where)
            box = _box(answer)
            if box is None or not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
                raise ValueError(f"{where}: the answer {answer!r:.80} is no box [x1, y1, x2, y2]")
            pixels = max(box) > 1
            truth = list(_over(box, image_size(item)) if pixels else box)
            yield replace(
                item,
                prompt=f"{question}\n{BOX_FORM}",
                truth=truth,
                meta={**item.meta, "pixels": pixels},
                max_new_tokens=64,
            )

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        places = read_places(reply, convention, image_size(item))
        box = _box(reply) if convention == _native(item) else next(iter(places.boxes), None)
        if box is None:
            return Score(0.0, None, counted=self.protocol != "official_skip", outside=places.outside)
        if convention == _native(item) == PIXEL:
            box = _over(box, image_size(item))
        return Score(iou(box, item.truth), list(box), outside=places.outside)

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """The mean IoU, and the shares of items that reach each limit."""
        values = [score.value for score in scores if score.counted]
        reached = {f"iou_{limit}": mean_of([float(value >= limit) for value in values]) for limit in (0.5, 0.75, 0.9)}
        return {"overall": mean_of(values), **reached}

    def oracle(self, item: Item, convention: Convention) -> str:
        """The true box, as near as the convention can write it."""
        return write_box(tuple(item.truth), convention, image_size(item))

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        return write_box(GUESSED_BOXES[int(rng.integers(len(GUESSED_BOXES)))], convention, image_size(item))

    def chance(self, item: Item) -> float:
        return mean_of([iou(box, item.truth) for box in GUESSED_BOXES])


@dataclass(frozen=True)
class ShareRobotTrajectory(FolderBenchmark):
    """Paths of the hand."""

    name = "sharerobot_trajectory"
    hub_id = "BAAI/ShareRobot-Bench"
    protocols = PROTOCOLS[:1]

    def read(self) -> Iterator[Item]:
        for where, row, item in _rows(self.folder, "trajectory"):
            question, answer = _turns(need(row, "conversations", list, where)[:2], where)
            path = read_path(answer, *image_size(item))
            if not path or not np.isfinite(path).all():
                raise ValueError(f"{where}: the answer {answer!r:.80} is no list of points [[x, y], ...]")
            yield replace(
                item, prompt=question.replace(ASKED, ASKED + PATH_FORM), truth=[list(point) for point in path]
            )

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        size = image_size(item)
        places = read_places(reply, convention, size)
        path = read_path(reply, *size) if convention == FRACTION else list(places.points)
        if not path or not np.isfinite(path).all():
            return Score(0.0, None, outside=places.outside)
        frechet = distances(path, item.truth)[0]
        return Score(max(0.0, 1.0 - frechet), [list(point) for point in path], outside=places.outside)

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """The mean score, and the three published distances, of which lower is better."""
        pairs = [(item, score) for item, score in zip(items, scores, strict=True) if score.counted]
        found = [distances(score.parsed or [(0.0, 0.0)], item.truth) for item, score in pairs]
        frechet, hausdorff, rmse = (mean_of([each[k] for each in found]) for k in range(3))
        return {"overall": mean(scores), "frechet_distance": frechet, "hausdorff_distance": hausdorff, "rmse": rmse}

    def oracle(self, item: Item, convention: Convention) -> str:
        """The true path, as near as the convention can write it."""
        return write_points([(x, y) for x, y in item.truth], convention, image_size(item))

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        return write_points(GUESSED_PATHS[int(rng.integers(len(GUESSED_PATHS)))], convention, image_size(item))

    def chance(self, item: Item) -> float:
        return mean_of([max(0.0, 1.0 - distances(path, item.truth)[0]) for path in GUESSED_PATHS])


def read_path(reply: str, width: int, height: int) -> list[XY]:
    """The publisher's `extract_points`: the reply as a literal, else the first list of lists in it, else the first
    "[x, y]" of each line, without what follows a #."""
    reply = reply[:LONGEST_LITERAL]
    listed = _PATH.search(reply.replace("–", "-").replace("−", "-"))
    for text in (reply, listed[0] if listed else ""):
        try:
            return [_fractions_of(pair, width, height) for pair in ast.literal_eval(text)]
        except UNREADABLE:
            continue
    points = []
    for line in reply.replace("–", "-").replace("−", "-").split("\n"):
        if found := _PAIR.search(re.sub(r"#.*$", "", line).strip()):
            x, y = float(found[1]), float(found[2])
            points.append((x / width if x > 1 else x, y / height if y > 1 else y))
    return points


def _fractions_of(pair: Any, width: int, height: int) -> XY:
    """A pair in which a number is above 1 is pixels; what does not begin with two numbers raises."""
    if pair[0] > 1 or pair[1] > 1:
        return pair[0] / width, pair[1] / height
    return float(pair[0]), float(pair[1])


def distances(path: Sequence[Sequence[float]], truth: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Discrete Frechet (Eiter and Mannila 1994) and Hausdorff distance, and RMSE over the shorter path's points."""
    a, b = np.asarray(path, np.float64), np.asarray(truth, np.float64)
    apart = np.linalg.norm(a[:, None] - b, axis=-1)
    reach = np.empty_like(apart)
    for i in range(len(a)):
        for j in range(len(b)):
            before = [reach[k] for k in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if min(k) >= 0]
            reach[i, j] = max(apart[i, j], min(before, default=0.0))
    shorter = min(len(a), len(b))
    rmse = np.sqrt(np.mean(np.sum((a[:shorter] - b[:shorter]) ** 2, axis=-1)))
    return float(reach[-1, -1]), float(max(apart.min(axis=0).max(), apart.min(axis=1).max())), float(rmse)


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes; 0 if they are apart, or if one is inside out."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width < 0 or height < 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def _box(text: str) -> XYXY | None:
    """A text that is four numbers as Python writes a list or tuple of them, and nothing else."""
    try:
        numbers: Any = ast.literal_eval(text) if len(text) <= LONGEST_LITERAL else None
        x0, y0, x1, y1 = (float(number) for number in numbers if isinstance(number, int | float))
    except UNREADABLE:
        return None
    return (x0, y0, x1, y1) if len(numbers) == 4 else None


def _native(item: Item) -> Convention:
    """What the publisher's reading of boxes takes numbers for: they are compared with the truth as it is written."""
    return PIXEL if item.meta["pixels"] else FRACTION


def _over(box: XYXY, size: tuple[int, int]) -> XYXY:
    return box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]


def _rows(folder: Path, part: str) -> Iterator[tuple[str, dict[str, Any], Item]]:
    """Each row with its item, which lacks prompt and truth."""
    for number, (where, row) in enumerate(rows(folder, f"{part}/test.json")):
        name = str(need(row, "id", (int, str), where))
        shown = need(row, "image", (str, list), where)
        path = shown[0] if isinstance(shown, list) and shown else shown
        image = picture(f"{part}/{path}", folder, f"{where} image")
        width, height = size_of(image)
        meta = {"width": width, "height": height}
        yield where, row, Item(f"{number}/{name}", (image,), "", None, part, str(path), meta=meta, max_new_tokens=512)


def _turns(conversations: Sequence[Any], where: str) -> tuple[str, str]:
    """The last question and the last answer; ValueError naming `where` if one is missing."""
    said = {}
    for turn in conversations:
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise ValueError(
                f"{where}: field 'conversations' must hold turns with 'from' and 'value', found {turn!r:.80}"
            )
        said[turn.get("from")] = turn["value"]
    if not said.get("human") or not said.get("gpt"):
        raise ValueError(f"{where}: field 'conversations' has no turn of 'human', or none of 'gpt'")
    return said["human"].replace("<image>", ""), said["gpt"]
