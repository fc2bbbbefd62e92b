"""The whole walk for somebody new: data, training, answers, depth, and one page that tells what was found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from gemvlm.curation.questions.balance import mark_headline
from gemvlm.curation.sources.rgbd_folder import RgbdFolder
from gemvlm.curation.sources.tabletop import tabletop_samples
from gemvlm.data.conversation import parse
from gemvlm.evaluation.run import Evaluation, add_scores, evaluate_model
from gemvlm.evaluation.scoring import score
from gemvlm.figure import DepthRow, Exchange, Report, draw_points_boxes, enlarge, loss_curves
from gemvlm.inference import GemPipeline, load
from gemvlm.inference.load import shipped_checkpoints
from gemvlm.recipes.data import progress
from gemvlm.recipes.quickstart import QUICKSTART
from gemvlm.recipes.recipe import TEST_SEED, Recipe
from gemvlm.recipes.run import train_recipe
from gemvlm.runtime import available_cores
from gemvlm.sample import Frame, Sample
from gemvlm.training.loop import Run
from gemvlm.training.metrics import read_metrics

TEST_SCENES = 40
SHOWN_SCENES = 6
SHOWN_SEED = TEST_SEED + 900_000
"""Scenes that are only looked at: no score is computed on them."""
SHOWN_FAMILIES = ("colour", "closer", "point", "object_depth", "left_right", "can_lift", "removal_order", "count")
PAINTING_STEPS = 20
MAX_IMAGES = 12
SHOWN_SIDE = 320
QUESTIONS = ("Describe the scene.", "How many objects are there?", "Point to the nearest object.")


def walk(images: Path | None, out: Path, recipe: Recipe = QUICKSTART, test_scenes: int = TEST_SCENES) -> Path:
    """Trains `recipe` in `out`, tries it and the shipped nano model out, and writes `out/report.html`.

    `images` is a folder of the user's own pictures, with or without depth. Called again, it goes on where it stopped.
    """
    if recipe.data is None:
        raise ValueError(f"recipe {recipe.name}: it makes no data of its own; take the quickstart's or debug")
    size = recipe.data.size
    console, started = Console(), time.monotonic()
    own = _own_frames(images) if images is not None else []
    console.rule("1  making scenes and training a small GEM on them")
    run = Run(out / "run", log_every=10, checkpoint_every=250, callback_every=150)
    train_recipe(recipe.name, out / "run", data=out / "data", run=run)
    fresh = load(out / "run" / "final")
    console.rule("2  testing it on scenes that it has never seen")
    test = _test_samples(size, TEST_SEED, test_scenes)
    train = _test_samples(size, 0, test_scenes)
    evaluation = evaluate_model(fresh, test, train, out, steps=PAINTING_STEPS)
    console.rule("3  the shipped model on new scenes")
    nano = load("nano") if "nano" in shipped_checkpoints() else fresh
    shown = _test_samples(size, SHOWN_SEED, SHOWN_SCENES)
    report = Report(
        "GEM quickstart", f"A small model, trained here in minutes, and `{nano.card.recipe}`, which is shipped."
    )
    _tell_training(report, recipe, out, fresh, evaluation, time.monotonic() - started)
    _tell_scenes(report, nano, shown)
    if own:
        console.rule("4  your images")
        _tell_own(report, nano, own)
    page = report.write(out / "report.html")
    console.print(f"[bold]{page}[/bold]  ({(time.monotonic() - started) / 60:.1f} minutes)")
    return page


def _test_samples(size: tuple[int, int], first_seed: int, scenes: int) -> list[Sample]:
    seeds = range(first_seed, first_seed + scenes)
    made = tabletop_samples(seeds, 1, size, processes=available_cores())
    return mark_headline(list(progress(made, scenes, "making scenes")))


def _tell_training(
    report: Report, recipe: Recipe, out: Path, fresh: GemPipeline, evaluation: Evaluation, seconds: float
) -> None:
    records = read_metrics(out / "run" / "metrics.jsonl")
    images = 0 if recipe.data is None else recipe.data.scenes * recipe.data.views_per_scene
    parameters = sum(p.numel() for p in fresh.gem.parameters())
    report.heading("The model that was trained just now")
    report.facts(
        [
            ("parameters", f"{parameters / 1e6:.1f} M", "vision, language, connector, generator"),
            (
                "training images",
                f"{images}",
                "simulated, with exact depth",
            ),
            ("steps", f"{fresh.card.step}", f"in {len(recipe.stages)} stages"),
            ("time", f"{seconds / 60:.1f} min", "data, training and test"),
        ]
    )
    report.text(
        "It was trained for minutes, from random weights: expect little more than first signs. Scores stand beside "
        "what can be had without looking at the image; a model that understands must beat all of them."
    )
    report.figure(
        loss_curves(records, smooth=max(1, len(records) // 20)),
        "Losses. Stage 0 stands in for pretraining; then come the paper's three stages.",
    )
    add_scores(report, evaluation)


def _tell_scenes(report: Report, pipeline: GemPipeline, samples: Sequence[Sample]) -> None:
    report.heading(f"{pipeline.card.recipe} on scenes it has never seen")
    images = [sample.frames[0].image for sample in samples]
    painted = pipeline.depth_batch(images, steps=PAINTING_STEPS)
    rows = []
    for sample, prediction in zip(samples, painted, strict=True):
        frame = sample.frames[0]
        assert frame.depth is not None
        rows.append(DepthRow(frame.image, prediction.depth.values, frame.depth.values, frame.depth.valid))
    report.picture_table(rows[0].headings(), [("", [enlarge(p, 240) for p in row.pictures()]) for row in rows])
    for sample in samples:
        turns = [next((t for t in sample.turns if t.family == family), None) for family in SHOWN_FAMILIES]
        asked = [turn for turn in turns if turn is not None]
        image = sample.frames[0].image
        prompts = [pipeline.coordinates.fill(turn.question, turn.places) for turn in asked]
        answers = pipeline.ask_batch([(image, prompt) for prompt in prompts])
        exchanges = []
        for turn, prompt, answer in zip(asked, prompts, answers, strict=True):
            parsed = parse(answer.text, turn.kind, turn.options, turn.unit, pipeline.coordinates)
            truth = pipeline.coordinates.fill(turn.answer, turn.places)
            exchanges.append(Exchange(prompt, answer.text, truth, score(turn, parsed) == 1.0))
        marked = draw_points_boxes(enlarge(image, 288), [(p.x, p.y) for a in answers for p in a.points])
        report.conversation(marked, exchanges)


@dataclass(frozen=True)
class OwnFrame:
    name: str
    frame: Frame


def _own_frames(folder: Path) -> list[OwnFrame]:
    frames = RgbdFolder(folder)
    chosen = np.linspace(0, len(frames) - 1, min(MAX_IMAGES, len(frames))).round().astype(int)
    return [OwnFrame(frames.names[index], _reduced(frames[index])) for index in dict.fromkeys(chosen.tolist())]


def _reduced(frame: Frame) -> Frame:
    """The frame at the size at which the page shows it; models resize it further themselves."""
    height, width = frame.image.shape[:2]
    share = min(1.0, SHOWN_SIDE / max(height, width))
    height, width = round(height * share), round(width * share)
    image = np.asarray(Image.fromarray(frame.image).resize((width, height), Image.Resampling.LANCZOS))
    return Frame(image, frame.depth and frame.depth.resized(width, height))


def _tell_own(report: Report, pipeline: GemPipeline, own: Sequence[OwnFrame]) -> None:
    report.heading("Your images")
    report.text(
        "The shipped model has only ever seen simulated tabletops at 96 × 96 pixels. On photographs its answers and "
        "its depth are what such a model makes of them, no more; depth is compared after fitting scale and shift where "
        "yours is known."
    )
    images = [entry.frame.image for entry in own]
    painted = pipeline.depth_batch(images, steps=PAINTING_STEPS)
    for entry, prediction in zip(own, painted, strict=True):
        true = entry.frame.depth
        row = DepthRow(
            entry.frame.image,
            prediction.depth.values,
            None if true is None else true.values,
            None if true is None else true.valid,
        )
        report.picture_table(row.headings(), [(entry.name, [enlarge(p, 240) for p in row.pictures()])])
        answers = pipeline.ask_batch([(entry.frame.image, question) for question in QUESTIONS])
        points = [(point.x, point.y) for answer in answers[2:] for point in answer.points]
        exchanges = [Exchange(q, a.text) for q, a in zip(QUESTIONS, answers, strict=True)]
        report.conversation(draw_points_boxes(enlarge(entry.frame.image, 288), points), exchanges)
