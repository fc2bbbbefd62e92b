"""A model and a test set → every score, with its blind baselines, as files that people and programs read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gemvlm.evaluation.depth_report import METRICS, DepthReport, Pixels, Reading, evaluate_depth
from gemvlm.evaluation.questions import ALL, FamilyScore, Item, QuestionReport, evaluate_questions
from gemvlm.figure import Report, Score
from gemvlm.inference import GemPipeline
from gemvlm.sample import Sample, Turn

DESCRIPTION_TOKENS, ANSWER_TOKENS = 400, 48
"""Enough for a full scene and for any other answer; a longer reply is cut."""

READINGS: tuple[tuple[Pixels, Reading], ...] = (
    ("objects", "aligned"), ("objects", "metric"), ("all", "aligned"), ("all", "metric"),
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """What a model scored. `depth` is None if no test frame has depth."""

    questions: QuestionReport
    depth: DepthReport | None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {
            "questions": [asdict(row) for row in self.questions.rows],
            "depth": None if self.depth is None else self.depth.to_dict(),
        }

    def to_markdown(self) -> str:
        """The same numbers as tables for a document."""
        lines = ["| family | questions | score | best blind | not understood |", "|---|---|---|---|---|"]
        for row in self.questions.rows:
            name = row.family if row.subset == ALL else f"{row.family}, {row.subset}"
            blind, mean = row.best_baseline
            lines.append(f"| {name} | {row.score.n} | {row.score} | {mean:.3f} ({blind}) | {row.unparsed} |")
        if self.depth is not None:
            lines += [
                "",
                "| method | pixels | reading | AbsRel | δ < 1.25 | boundary F1 |",
                "|---|---|---|---|---|---|",
            ]
            for pixels, reading in READINGS:
                for method in self.depth.methods(pixels, reading):
                    cells = [_cell(self.depth, method, pixels, reading, metric) for metric in METRICS]
                    lines.append(f"| {method} | {pixels} | {reading} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def write(self, folder: Path, title: str) -> Path:
        """`scores.json`, `scores.md` and `report.html` in `folder`; returns the page."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scores.md").write_text(self.to_markdown(), encoding="utf-8")
        (folder / "scores.json").write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        report = Report(title, "Every score beside what can be had without looking.")
        add_scores(report, self)
        return report.write(folder / "report.html")


def evaluate_model(
    pipeline: GemPipeline,
    test: Sequence[Sample],
    train: Sequence[Sample],
    folder: Path | None = None,
    *,
    steps: int = 30,
    guidance: float = 1.0,
    seed: int = 0,
) -> Evaluation:
    """Asks every question of `test` and paints every frame; blind baselines are fitted on `train`.

    With `folder`, each question and reply is written to `answers.jsonl` there. ValueError if a scene is in both sets.
    """

    def answers(items: Sequence[Item]) -> list[str]:
        """Family by family: a batch takes as long as its longest reply."""
        replies = [""] * len(items)
        for family in dict.fromkeys(turn.family for _, turn in items):
            members = [i for i, (_, turn) in enumerate(items) if turn.family == family]
            limit = DESCRIPTION_TOKENS if items[members[0]][1].task == "description" else ANSWER_TOKENS
            found = pipeline.ask_batch([_request(pipeline, *items[i]) for i in members], max_new_tokens=limit)
            for i, answer in zip(members, found, strict=True):
                replies[i] = answer.text
        return replies

    log = None if folder is None else folder / "answers.jsonl"
    questions = evaluate_questions(answers, _items(test), _items(train), log, pipeline.coordinates)
    with_depth = any(frame.depth is not None for sample in test for frame in sample.frames)
    depth = evaluate_depth(pipeline, test, train, steps=steps, guidance=guidance, seed=seed) if with_depth else None
    return Evaluation(questions, depth)


def _request(pipeline: GemPipeline, sample: Sample, turn: Turn) -> tuple[list[Any], str]:
    return [frame.image for frame in sample.frames], pipeline.coordinates.fill(turn.question, turn.places)


def _items(samples: Sequence[Sample]) -> list[Item]:
    return [(sample, turn) for sample in samples for turn in sample.turns]


def add_scores(report: Report, evaluation: Evaluation, goals: Mapping[str, float] | None = None) -> None:
    """The scores as two sections of a report; `goals` are looked up by family, or "family, subset"."""
    goals = goals or {}
    report.heading("Answers, by family of questions")
    for task in dict.fromkeys(row.task for row in evaluation.questions.rows):
        rows = [row for row in evaluation.questions.rows if row.task == task]
        report.subheading(task.capitalize())
        report.scores([_question_score(row, goals) for row in rows])
    report.text("Intervals are 95 %, resampled by scene. Replies that could not be understood count as wrong.")
    if evaluation.depth is not None:
        report.heading("Generated depth")
        add_depth_scores(report, evaluation.depth)


def _question_score(row: FamilyScore, goals: Mapping[str, float]) -> Score:
    name = row.family if row.subset == ALL else f"{row.family}, {row.subset}"
    blind = {name.replace("_", " "): interval.mean for name, interval in row.baselines.items()}
    own, note = row.score, f"{row.unparsed} not understood" if row.unparsed else ""
    return Score(name.replace("_", " "), own.mean, own.low, own.high, blind, goals.get(name), own.n, note=note)


def add_depth_scores(report: Report, depth: DepthReport) -> None:
    """Object pixels first: whole images prove little."""
    rows = []
    for pixels, reading in READINGS:
        methods = depth.methods(pixels, reading)
        if "model" not in methods:
            continue
        own = depth.mean("model", pixels, reading)
        others = {name: depth.mean(name, pixels, reading).mean for name in methods if name != "model"}
        where = "object pixels" if pixels == "objects" else "all pixels"
        rows.append(Score(f"AbsRel, {where}, {reading}", own.mean, own.low, own.high, others, None, own.n, "lower"))
    report.scores(rows, "Relative error of depth: less is better.", percent=False)
    report.table(
        ["Method", "Pixels", "Reading", "AbsRel", "δ < 1.25", "Boundary F1"],
        [
            [method, pixels, reading, *(_cell(depth, method, pixels, reading, metric) for metric in METRICS)]
            for pixels, reading in READINGS
            for method in depth.methods(pixels, reading)
        ],
        f"Means over {depth.images} images, 95 % intervals by scene; aligned in {depth.space}.",
    )


def _cell(depth: DepthReport, method: str, pixels: Pixels, reading: Reading, metric: str) -> str:
    try:
        return str(depth.mean(method, pixels, reading, metric))
    except ValueError:
        return "–"
