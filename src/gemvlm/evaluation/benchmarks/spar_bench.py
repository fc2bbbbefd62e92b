"""SPAR-Bench (hub `jasonzhango/SPAR-Bench`): twenty tasks of seeing space, from depths to imagined viewpoints.

Publisher: LogosRoboticsGroup/SPAR, `lmms-eval/lmms_eval/tasks/sparbench/utils.py`, which EvolvingLMMs-Lab/lmms-eval
took over (75571cfe, `tasks/sparbench`). Read from the hub's `data/test-*.parquet`: some 7,000 rows of `id` int,
`img_type`, `format_type`, `task`, `source`, `image` (a list of pictures), `question`, `answer`.

Rules: eight tasks of depth and distance score mean relative accuracy, the share of ten thresholds t = 0.50, ..., 0.95
with |p - g| / g <= 1 - t (without the division if g is 0), where p is the first number of the reply, of several views
the last. `view_change_infer` reads "move_right:0.5,rotate_up:10", opposite directions giving five signed axes, and
averages the accuracy over them, with the error over the *prediction*. The eleven choices are right if the reply is the
answer, is a part of it, or begins with it: "Because" is B. The headline is the mean of the tasks; levels are means of
their tasks, but the publisher's script leaves `view_change_infer` out of `middle`, and so do we.

Protocols: `official`; `official_empty`, where an empty reply to a choice is right, as the script has it, since it is a
part of any answer. lmms-eval's copy (75571cfe) lacks an import and swallows the error, so that there every number
scores 0: what it prints for `low` and for the headline is no score, and no protocol here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from gemvlm.evaluation.benchmark import Convention, Item, Score, means
from gemvlm.evaluation.benchmarks.folder import FolderBenchmark
from gemvlm.evaluation.benchmarks.lettered import mean_of
from gemvlm.evaluation.coordinates import LONGEST_REPLY
from gemvlm.evaluation.published import need, picture, rows

PROTOCOLS = ("official", "official_empty")
NUMBERS = tuple(
    f"{what}_prediction_{kind}" for what in ("depth", "distance") for kind in ("oc", "oo", "oc_mv", "oo_mv")
)
MOVES = "view_change_infer"
BOXED = ("position_matching", "camera_motion_infer")
HIGH = (
    "obj_spatial_relation_oo",
    "obj_spatial_relation_oc_mv",
    "obj_spatial_relation_oo_mv",
    "spatial_imagination_oc",
    "spatial_imagination_oo",
    "spatial_imagination_oc_mv",
    "spatial_imagination_oo_mv",
    "distance_infer_center_oo",
    "distance_infer_center_oo_mv",
)
TASKS = (*NUMBERS, MOVES, *BOXED, *HIGH)
LEVELS = {"low": NUMBERS, "middle": BOXED, "high": HIGH}
AXES = (
    ("move_right", "move_left"),
    ("move_up", "move_down"),
    ("move_forward", "move_backward"),
    ("rotate_right", "rotate_left"),
    ("rotate_up", "rotate_down"),
)
THRESHOLDS = np.linspace(0.5, 0.95, 10)
LETTER_FORM = "Answer with the option's letter from the given choices directly."
NUMBER_FORM = "Please answer the question using a single word or phrase."
BOX_FORM = (
    "The values represent the bounding box coordinates normalized to a 0-1000 scale, with the top-left corner as the "
    "origin of the image."
)
GUESSES = {"letter": tuple("ABCD"), "number": tuple(f"{k / 2}" for k in range(1, 11))}
"""What someone writes who knows only the form; of moves, one of the ten by one."""

_NUMBER = re.compile(r"(?<!\^)\d+\.\d+|(?<!\^)\d+")


@dataclass(frozen=True)
class SparBench(FolderBenchmark):
    """The test split of the hub's folder (or of SPAR-Bench-Tiny, which has the same layout)."""

    name = "spar_bench"
    hub_id = "jasonzhango/SPAR-Bench"
    protocols = PROTOCOLS

    def read(self) -> Iterator[Item]:
        for where, row in rows(self.folder, "data/test-*.parquet"):
            task, question, answer = (need(row, field, str, where) for field in ("task", "question", "answer"))
            if task not in TASKS:
                raise ValueError(f"{where}: task {task!r} is unknown; expected one of {', '.join(TASKS)}")
            shown = need(row, "image", list, where)
            if not shown or not answer:
                raise ValueError(f"{where}: {len(shown)} pictures and the answer {answer!r}; expected some of both")
            yield Item(
                id=str(need(row, "id", int, where)),
                media=tuple(picture(each, self.folder, f"{where} image {k}") for k, each in enumerate(shown)),
                prompt=_prompt(question, task),
                truth=_truth(answer, task, where),
                category=task,
                scene=f"{need(row, 'source', str, where)}/{row['id']}",
                max_new_tokens=100,
            )

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        reply = reply[:LONGEST_REPLY]
        if item.category in NUMBERS:
            value = _number(reply, item.category)
            return Score(0.0, None) if value is None else Score(accuracy(value, item.truth, item.truth), value)
        if item.category == MOVES:
            moved = _moves(reply)
            if moved is None:
                return Score(0.0, None)
            axes = [accuracy(truth, value, value) for truth, value in zip(item.truth, moved, strict=True)]
            return Score(mean_of(axes), [value if isfinite(value) else None for value in moved])
        said, truth = reply.lower(), item.truth.lower()
        if not said and self.protocol == "official":
            return Score(0.0, None)
        right = said in truth or said[:1] == truth
        return Score(float(right), reply if right else next(iter(re.findall(r"^[A-F]", reply.upper())), None))

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """The mean of the tasks, the levels that are there, and each task."""
        tasks = means(items, scores)
        levels = {level: [tasks[task] for task in its if task in tasks] for level, its in LEVELS.items()}
        found = {level: mean_of(values) for level, values in levels.items() if values}
        return {"overall": mean_of([*tasks.values()]), **found, **tasks}

    def oracle(self, item: Item, convention: Convention) -> str:
        if item.category == MOVES:
            signed = zip(AXES, item.truth, strict=True)
            return ",".join(f"{axis[value < 0]}:{abs(value)!r}" for axis, value in signed)
        return np.format_float_positional(item.truth, trim="-") if item.category in NUMBERS else str(item.truth)

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        return str(rng.choice(_guesses(item)))

    def chance(self, item: Item) -> float:
        """The mean over all that `guess` may say."""
        return mean_of([self.score(item, guess, Convention()).value for guess in _guesses(item)])


def accuracy(value: float, truth: float, over: float) -> float:
    """The share of thresholds that the error keeps: relative to `over`, absolute if that is 0. NaN keeps none."""
    with np.errstate(invalid="ignore"):
        error = abs(value - truth) if over == 0.0 else abs(np.float64(value - truth) / over)
    return float(np.mean(error <= 1 - THRESHOLDS))


def _prompt(question: str, task: str) -> str:
    if task in NUMBERS:
        return f"\n{question}\n{NUMBER_FORM}"
    if task == MOVES:
        return f"\n{question}\n\n"
    return f"\n{question}\n{BOX_FORM if task in BOXED else ''}\n{LETTER_FORM}"


def _truth(answer: str, task: str, where: str) -> Any:
    if task in NUMBERS:
        try:
            value = float(answer)
        except ValueError:
            value = float("nan")
        if not isfinite(value) or value < 0:
            raise ValueError(f"{where}: the answer {answer!r:.80} is no number of at least 0")
        return value
    if task != MOVES:
        return answer
    moves = _moves(answer)
    if moves is None or not all(map(isfinite, moves)):
        raise ValueError(
            f"{where}: the answer {answer!r:.80} is no list of moves, such as 'move_right:0.5,rotate_up:10'"
        )
    return moves


def _number(reply: str, task: str) -> float | None:
    """The first number without a sign, of several views the last; the exponent in 10^2 is none."""
    found = _NUMBER.findall(reply)
    value = float(found[-1 if task.endswith("_mv") else 0]) if found else float("inf")
    return value if isfinite(value) else None


def _moves(text: str) -> list[float] | None:
    """The five signed axes of "name:number,name:number" without spaces; a name that is none is not counted."""
    try:
        said = {name: float(number) for name, number in (move.split(":") for move in text.split(","))}
    except ValueError:
        return None
    return [said.get(forth, 0.0) - said.get(back, 0.0) for forth, back in AXES]


def _guesses(item: Item) -> Sequence[str]:
    if item.category == MOVES:
        return [f"{name}:1" for axis in AXES for name in axis]
    return GUESSES["number" if item.category in NUMBERS else "letter"]
