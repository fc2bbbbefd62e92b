"""A model adapted to one place, beside what it must beat there: copies of the frames it learned from, itself before.

A place that has been seen can be looked up instead of understood. Each copy answers a test frame with the depth of one
training frame:

    nearest in time      the training frame nearest in the sequence: the last one, if the test comes after
    nearest in pose      the one whose camera stood and looked most alike; knows the pose, which the model does not
    nearest in picture   the one whose picture differs least: what mere memory of the pictures would paint
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gemvlm.camera import View
from gemvlm.depth_map import DepthMap, fill
from gemvlm.evaluation.depth_metrics import score
from gemvlm.evaluation.depth_report import METRICS, MODEL, READINGS, DepthReport, ImageScore
from gemvlm.evaluation.questions import QuestionReport
from gemvlm.evaluation.run import Evaluation, add_scores, evaluate_model
from gemvlm.figure import DepthRow, Report, depth_panel
from gemvlm.inference import GemPipeline
from gemvlm.sample import Frame, Sample

BEFORE = "before adaptation"
TYPICAL_DEPTH_M = 2.0
"""How far away what a camera sees is, to weigh turning against moving."""
PAINTING_STEPS = 30


@dataclass(frozen=True)
class Room:
    """One place in the order of time: frames learned from, all views made of them, and the frames of the test.

    Every sample has one frame, with z-depth in metres, all of one size; its `scene` is its frame.
    """

    views: tuple[Sample, ...]
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


def evaluate_adaptation(before: GemPipeline, after: GemPipeline, room: Room, out: Path) -> Path:
    """Writes `scores.json`, `answers.jsonl`, `panel.png` and `report.html` in `out`; returns the page."""
    adapted = evaluate_model(after, room.test, room.train, out, steps=PAINTING_STEPS)
    unadapted = evaluate_model(before, room.test, room.train, steps=PAINTING_STEPS)
    learned, tested = ([sample.frames[0] for sample in part] for part in (room.train, room.test))
    found = beside(adapted, unadapted, nearest_copies(learned, tested), room.test)
    (out / "scores.json").write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    rows = []
    painted = after.depth_batch([frame.image for frame in tested], steps=PAINTING_STEPS)
    for frame, prediction in zip(tested, painted, strict=True):
        rows.append(DepthRow(frame.image, prediction.depth.values, _depth(frame).values, _depth(frame).valid))
    panel = depth_panel(rows)
    panel.save(out / "panel.png")
    report = Report(after.card.recipe, "Adaptation to one room: nothing here says how the model would do in another.")
    known = np.mean([_depth(frame).valid.mean() for frame in tested])
    report.facts(
        [
            ("frames learned from", str(len(room.train)), f"as {len(room.views)} views"),
            ("frames tested", str(len(room.test)), "the last in time"),
            ("pixels with true depth", f"{known:.0%}", "of the tested frames; these are scored"),
            ("steps", str(after.card.step), f"after {before.card.step} of {before.card.recipe}"),
        ]
    )
    report.figure(panel, "Depth of every tested frame, in metres, not aligned. Hatched: no true depth.")
    report.text(
        "**Intervals are drawn over tested frames**, which show one room and resemble each other: another walk through "
        "it may well fall outside them. A method called nearest copies the depth of one frame that was learned from."
    )
    add_scores(report, found)
    return report.write(out / "report.html")


def beside(
    adapted: Evaluation, before: Evaluation, copies: Mapping[str, Sequence[DepthMap]], test: Sequence[Sample]
) -> Evaluation:
    """`adapted` with further methods beside it: the copies, and the model as it was; all of the same `test`."""
    if adapted.depth is None or before.depth is None:
        raise ValueError("adaptation: no frame of the test has depth; copies can't be scored")
    rows = [
        replace(row, baselines={**row.baselines, BEFORE: before.questions.row(row.family, row.subset).score})
        for row in adapted.questions.rows
    ]
    scores = [*adapted.depth.scores]
    scores += [replace(found, method=BEFORE) for found in before.depth.scores if found.method == MODEL]
    for method, predictions in copies.items():
        scores += _scores(method, predictions, adapted.depth, test)
    return Evaluation(QuestionReport(tuple(rows)), replace(adapted.depth, scores=tuple(scores)))


def nearest_copies(train: Sequence[Frame], test: Sequence[Frame]) -> dict[str, list[DepthMap]]:
    """Method → the depth that it copies for each test frame, holes filled so that all methods score the same pixels.

    Frames are in the order of time, `train` before `test`. Without poses "nearest in pose" is left out.
    """
    copies = [_filled(_depth(frame)) for frame in train]
    pictures = np.stack([frame.image for frame in train]).astype(np.float32)
    alike = [int(np.abs(pictures - frame.image).mean(axis=(1, 2, 3)).argmin()) for frame in test]
    found = {
        "nearest in time": [copies[-1]] * len(test),
        "nearest in picture": [copies[index] for index in alike],
    }
    views = [frame.view for frame in (*train, *test) if frame.view is not None]
    if len(views) == len(train) + len(test) and any(pose_distance(views[0], view) > 1e-6 for view in views):
        learned, tested = views[: len(train)], views[len(train) :]
        near = [int(np.argmin([pose_distance(view, other) for other in learned])) for view in tested]
        found["nearest in pose"] = [copies[index] for index in near]
    return found


def pose_distance(a: View, b: View, depth_m: float = TYPICAL_DEPTH_M) -> float:
    """Metres that a point `depth_m` before the camera seems to move: sqrt(shift^2 + (depth x angle)^2)."""
    between = np.linalg.inv(a.camera_to_world) @ b.camera_to_world
    angle = np.arccos(np.clip((np.trace(between[:3, :3]) - 1) / 2, -1, 1))
    return float(np.hypot(np.linalg.norm(between[:3, 3]), depth_m * angle))


def _scores(
    method: str, predictions: Sequence[DepthMap], report: DepthReport, test: Sequence[Sample]
) -> list[ImageScore]:
    scores = []
    for index, (prediction, sample) in enumerate(zip(predictions, test, strict=True)):
        for reading, mode in READINGS.items():
            found = score(prediction, _depth(sample.frames[0]), None, mode, report.space)
            values = {metric: getattr(found, metric) for metric in METRICS}
            scores.append(ImageScore(method, "all", reading, sample.scene, index, values))
    return scores


def _filled(depth: DepthMap) -> DepthMap:
    return replace(depth, values=fill(depth.values, depth.valid), valid=np.ones_like(depth.valid))


def _depth(frame: Frame) -> DepthMap:
    assert frame.depth is not None
    return frame.depth
