"""Adaptation of a small model to one real place: it learns from the first frames of a sequence, the last are the test.

    gemvlm adapt nano FRAMES --out out/room        # resumes where it stopped

Called what it is: the model sees no other place, so nothing here says how it would do there. Training frames are
multiplied by views from the same spots (`curation/turned_view.py`). Every number is ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gemvlm.curation.questions.from_depth import questions_from_depth
from gemvlm.curation.sources.rgbd_folder import Registration, RgbdFolder
from gemvlm.curation.turned_view import ViewLimits, random_view, resized_frame
from gemvlm.data.collate import Collator, TurnSampler, keyed
from gemvlm.data.frames import ImageConfig
from gemvlm.data.loader import BatchStream
from gemvlm.data.targets.depth import DepthTarget
from gemvlm.evaluation.real_frames import Room, evaluate_adaptation
from gemvlm.inference import GemPipeline, load
from gemvlm.inference.load import checkpoint_folder
from gemvlm.recipes.data import progress
from gemvlm.runtime import Precision, detect
from gemvlm.sample import Frame, Sample
from gemvlm.training.loop import Run, train
from gemvlm.training.stage import OptimizerConfig, Schedule, Stage

Direction = tuple[float, float, float]

PIXELS = 4 / 3
"""Pixels of the adapted model's pictures by those that it painted before: a 4:3 picture keeps a square one's rows."""

OVERSAMPLED = 2
"""Views are made at so many times the size at which they are learned, so that turning costs no sharpness."""


@dataclass(frozen=True)
class Adaptation:
    """How to adapt: the last `test_frames` are the test, all before them are learned from.

    Each of those gives `views_per_frame` samples: `unturned_per_frame` times itself with other questions, then turned
    views. These are all zoomed a little, or they would leave the frame; the test is not, hence the share of the frame
    itself. Of a sample's `turns_per_view` questions `stage` draws some every epoch.
    """

    test_frames: int
    views_per_frame: int
    unturned_per_frame: int
    limits: ViewLimits
    turns_per_view: int
    turns_per_test_frame: int
    stage: Stage
    seed: int
    precision: Precision


RATE = 1e-3

ROOM = Adaptation(
    test_frames=10,
    views_per_frame=16,
    unturned_per_frame=6,
    limits=ViewLimits(turn_deg=8.0, roll_deg=5.0, zoom=1.25),
    turns_per_view=24,
    turns_per_test_frame=60,
    stage=Stage(
        name="room",
        steps=180,
        batch_size=16,
        learning_rates=dict.fromkeys(("vision", "merger", "language", "connector", "generator"), RATE),
        loss_weights={"text": 1.0, "depth": 1.0},
        schedule=Schedule(warmup=10, shape="linear", final=0.05, hold=0.3),
        optimizer=OptimizerConfig("muon", betas=(0.9, 0.95), weight_decay=0.05),
        turns_per_sample=6,
        targets=("depth",),
    ),
    seed=0,
    precision="bfloat16",
)


def adapt(
    model: str | Path,
    frames: Path,
    out: Path,
    *,
    registration: Registration | None = None,
    up: Direction | None = None,
    first: int | None = None,
    recipe: Adaptation = ROOM,
    minutes: float | None = None,
    device: str | None = None,
) -> Path | None:
    """Adapts a checkpoint to a folder of RGB-D frames: the model in `out/run/final`, its scores in `out/report.html`.

    `up` (world frame) adds the questions that need it. With `first`, only so many frames are used: settings are chosen
    there, so that the frames of the real test choose nothing. Returns the page, or None if `minutes` of training were
    not enough; the same call goes on. ValueError if the frames lack depth or a camera, are too few or differ in size.
    """
    before, learner = load(model, device), load(model, device)
    files = RgbdFolder(frames, registration)
    data = {"frames": files.names[:first], "registration": registration and asdict(registration), "up": up}
    _note_settings(out, recipe, checkpoint_folder(model).resolve(), data)
    image = _image_config(before)
    room = make_room(files, image, recipe, up, first)
    height, width = room.test[0].frames[0].image.shape[:2]
    card = replace(
        before.card,
        image=asdict(image),
        target={"height": height, "width": width},
        recipe=f"{before.card.recipe} adapted to {frames.resolve().name}",
        scores={},
    )
    target = DepthTarget(before.encoding, height, width)

    def stream(stage: Stage) -> BatchStream:
        turns = TurnSampler(stage.turns_per_sample, stage.families)
        collator = Collator(
            before.tokenizer, before.coordinates, image, [target], seed=recipe.seed, turns=turns, cache=True
        )
        return BatchStream(room.views, collator, stage.micro_size(1), seed=recipe.seed)

    run = Run(out / "run", log_every=5, checkpoint_every=100, keep=1, minutes=minutes)
    runtime = detect(device, recipe.precision)
    if not train(learner.gem, [recipe.stage], stream, before.tokenizer, card, run, runtime):
        return None
    return evaluate_adaptation(before, load(run.folder / "final", device), room, out)


def make_room(
    files: RgbdFolder, image: ImageConfig, recipe: Adaptation, up: Direction | None = None, first: int | None = None
) -> Room:
    """Reads the first frames of the sequence, in the order of their names, at the size that `image` gives them."""
    names = files.names[:first]
    if not 0 < recipe.test_frames < len(names):
        raise ValueError(
            f"{files.path}: {len(names)} frames can't be parted into some to learn from and {recipe.test_frames} for "
            "the test; give more frames or test on fewer"
        )
    place = files.path.resolve().name
    shape = files[0].image.shape
    height, width = image.resized(*shape[:2])
    views: list[Sample] = []
    train: list[Sample] = []
    test: list[Sample] = []
    for index in progress(range(len(names)), len(names), "making views"):
        frame = _checked(files[index], names[index], files.path, shape)
        scene, rng = f"{place}/{names[index]}", np.random.default_rng(keyed(recipe.seed, names[index]))
        own = resized_frame(frame, width, height)
        if index >= len(names) - recipe.test_frames:
            test.append(_sample(own, scene, 0, rng, recipe.turns_per_test_frame, up))
            continue
        large = resized_frame(frame, OVERSAMPLED * width, OVERSAMPLED * height)
        for number in range(recipe.views_per_frame):
            turned = number >= recipe.unturned_per_frame
            view = resized_frame(random_view(large, recipe.limits, rng), width, height) if turned else own
            if view.depth is not None and view.depth.valid.any():
                views.append(_sample(view, scene, number, rng, recipe.turns_per_view, up))
        train.append(_sample(own, scene, 0, rng, recipe.turns_per_view, up))
    return Room(tuple(views), tuple(train), tuple(test))


def _sample(
    frame: Frame, scene: str, number: int, rng: np.random.Generator, turns: int, up: Direction | None
) -> Sample:
    asked = questions_from_depth(frame, rng, turns, None if up is None else np.array(up))
    return Sample(f"{scene}/{number}", (frame,), asked, scene, "rgbd_folder")


def _checked(frame: Frame, name: str, folder: Path, shape: tuple[int, ...]) -> Frame:
    """The frame with z-depth in metres; ValueError names what it lacks."""
    if frame.image.shape != shape:
        raise ValueError(f"{folder}: {name} is {frame.image.shape[:2]} but the first frame {shape[:2]}; use one size")
    if frame.view is None:
        raise ValueError(f"{folder}: the camera is unknown; add camera-intrinsics.txt or give a registration")
    if frame.depth is None or not frame.depth.valid.any():
        raise ValueError(f"{folder}: {name} has no depth; add {name}.depth.png or remove the frame")
    depth = frame.depth.to_z(frame.view.camera)
    if depth.kind != "metric_z":
        raise ValueError(f"{folder}: the depth of {name} is {depth.kind}; adaptation needs metres")
    return replace(frame, depth=depth)


def _image_config(pipeline: GemPipeline) -> ImageConfig:
    pixels = round(PIXELS * pipeline.card.target["height"] * pipeline.card.target["width"])
    return replace(ImageConfig(**pipeline.card.image), min_pixels=pixels, max_pixels=pixels)


def _note_settings(out: Path, recipe: Adaptation, model: Path, data: Mapping[str, Any]) -> None:
    """Notes what is adapted to what; ValueError if `out` holds something else, which would be gone on with silently."""
    settings = json.loads(json.dumps({"model": str(model), **data, "recipe": asdict(recipe)}))
    note = out / "settings.json"
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{out}: holds an adaptation of another model, frames or settings; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
