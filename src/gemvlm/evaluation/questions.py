"""Question answering, family by family: the model's score beside every blind baseline, with intervals by scene."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from gemvlm.data.conversation import CoordinateFormat, ParsedAnswer, parse
from gemvlm.evaluation.scoring import score
from gemvlm.evaluation.shortcuts import shortcut_scores
from gemvlm.sample import Sample, Task, Turn
from gemvlm.statistics import Interval, less_certain, mean_interval

Item = tuple[Sample, Turn]
AnswerFn = Callable[[Sequence[Item]], Sequence[str]]
ALL = "all"


@dataclass(frozen=True)
class FamilyScore:
    """One row: a family, or one subset of it. Scores are means in [0, 1] with 95 % intervals, resampled by scene.

    `unparsed` counts replies that could not be understood; they are in the mean, as wrong.
    """

    family: str
    task: Task
    subset: str
    score: Interval
    baselines: Mapping[str, Interval]
    unparsed: int

    @property
    def best_baseline(self) -> tuple[str, float]:
        """The blind baseline that scores highest, and its mean."""
        name = max(self.baselines, key=lambda name: self.baselines[name].mean)
        return name, self.baselines[name].mean


@dataclass(frozen=True)
class QuestionReport:
    """Rows in the order in which families first appear, each followed by its subsets."""

    rows: tuple[FamilyScore, ...]

    def row(self, family: str, subset: str = ALL) -> FamilyScore:
        for row in self.rows:
            if (row.family, row.subset) == (family, subset):
                return row
        raise ValueError(
            f"no scores for family {family!r}, subset {subset!r}; there are {[(r.family, r.subset) for r in self.rows]}"
        )

    def task_mean(self, task: Task, subset: str = ALL) -> float:
        """The mean over the task's families, each counting the same. ValueError if it has none."""
        scores = [row.score.mean for row in self.rows if row.task == task and row.subset == subset]
        if not scores:
            raise ValueError(f"no family of task {task!r} with subset {subset!r} was evaluated")
        return sum(scores) / len(scores)


def evaluate_questions(
    answer_fn: AnswerFn,
    items: Sequence[Item],
    train_items: Sequence[Item],
    log: Path | None = None,
    coordinates: CoordinateFormat | None = None,
) -> QuestionReport:
    """Asks every item once, scores the replies, and fits the blind baselines on `train_items`.

    `answer_fn` gets all items at once and returns as many replies, in their order. With `log`, one JSON line per item
    is written: sample, scene, family, prompt, raw reply, parsed value, true answer, score. ValueError if replies are
    missing or if a scene is in both sets.
    """
    coordinates = coordinates or CoordinateFormat()
    if shared := {sample.scene for sample, _ in items} & {sample.scene for sample, _ in train_items}:
        raise ValueError(
            f"{len(shared)} scenes are in both the test and the training items, e.g. {min(shared)!r}; split by scene"
        )
    replies = list(answer_fn(items))
    if len(replies) != len(items):
        raise ValueError(
            f"answer_fn returned {len(replies)} replies to {len(items)} items; it must return one for each"
        )
    parsed = [
        parse(reply, turn.kind, turn.options, turn.unit, coordinates)
        for reply, (_, turn) in zip(replies, items, strict=True)
    ]
    scores = [score(turn, answer) for (_, turn), answer in zip(items, parsed, strict=True)]
    if log is not None:
        _write_log(log, items, replies, parsed, scores, coordinates)
    rows = []
    for family in dict.fromkeys(turn.family for _, turn in items):
        members = [i for i, (_, turn) in enumerate(items) if turn.family == family]
        train = [turn for _, turn in train_items if turn.family == family]
        blind = shortcut_scores(train, [items[i][1] for i in members])
        for subset in (ALL, *sorted({name for i in members for name in items[i][1].subsets})):
            kept = [k for k, i in enumerate(members) if subset in (ALL, *items[i][1].subsets)]
            scenes = [items[members[k]][0].scene for k in kept]
            baselines = {name: mean_interval(values[kept].tolist(), scenes) for name, values in blind.items()}
            unparsed = sum(parsed[members[k]].value is None for k in kept)
            own = less_certain(mean_interval([scores[members[k]] for k in kept], scenes), len(set(scenes)))
            rows.append(FamilyScore(family, items[members[0]][1].task, subset, own, baselines, unparsed))
    return QuestionReport(tuple(rows))


def _write_log(
    path: Path,
    items: Sequence[Item],
    replies: Sequence[str],
    parsed: Sequence[ParsedAnswer],
    scores: Sequence[float],
    coordinates: CoordinateFormat,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for (sample, turn), reply, answer, value in zip(items, replies, parsed, scores, strict=True):
            line = {
                "sample": sample.id,
                "scene": sample.scene,
                "family": turn.family,
                "subsets": turn.subsets,
                "prompt": coordinates.fill(turn.question, turn.places),
                "reply": reply,
                "parsed": _plain(answer.value),
                "answer": coordinates.fill(turn.answer, turn.places),
                "score": value,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [asdict(point) for point in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
