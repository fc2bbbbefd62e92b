"""How much geometry a model's image states hold, found in about a minute on simulated tables or on frames of your own.

    gemvlm probe nano --out out/probe                          # our checkpoint, tabletop scenes
    gemvlm probe hf:Qwen/Qwen3-VL-2B-Instruct --out out/probe  # any image-text model of transformers
    gemvlm probe nano --frames FOLDER --out out/probe          # RGB-D frames (`curation/sources/rgbd_folder.py`)

Beside the model stand the same architecture with random weights, the place in the image alone, and the mean map.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gemvlm.curation.sources.rgbd_folder import Registration, RgbdFolder
from gemvlm.data.collate import keyed
from gemvlm.evaluation.probe import ProbeData, probe
from gemvlm.evaluation.probe_readers import GemReader, HuggingFaceReader, StateReader, untrained
from gemvlm.evaluation.probe_report import ProbeReport
from gemvlm.evaluation.probe_targets import square
from gemvlm.figure import Report
from gemvlm.inference import GemPipeline, load
from gemvlm.inference.load import shipped_checkpoints
from gemvlm.model.card import CARD_FILE
from gemvlm.recipes.data import progress
from gemvlm.recipes.recipe import DEVELOPMENT_SEED
from gemvlm.runtime import versions
from gemvlm.sample import Frame, Sample
from gemvlm.worlds.tabletop import generate_views

PROBE_SEED = DEVELOPMENT_SEED + 700_000
"""Tabletop scenes from this seed on are for probes alone."""
SHARES = (0.6, 0.15)
"""Of the scenes, how many are fitted on and how many choose the penalty; the rest is the test."""
STOCK_SIZE = 256
"""Pixels of the square that models of others see; ours see what their card says."""
RANDOM = "random weights"


def probe_model(
    model: str,
    out: Path,
    *,
    frames: Path | None = None,
    registration: Registration | None = None,
    scenes: int = 120,
    views: int = 2,
    size: int | None = None,
    beside: Sequence[str] = (),
    random_baseline: bool = True,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str | None = None,
) -> ProbeReport:
    """Probes `model` and writes `probe.json`, `probe.md`, `probe.svg` and `probe.html` to `out`.

    `model` and those `beside` it are folders or names of our checkpoints, or of any image-text model that transformers
    opens (`hf:` before its hub id, as `evaluate` wants it, may be left out), whose processor gets `options`. `scenes`
    tables are seen `views` times each; with `frames` the RGB-D frames of a folder (and of those in it) are used
    instead. `size` is the side of the square pictures in pixels.
    """
    readers: list[StateReader] = []
    first = _reader(model, "model", options, device)
    side = size or (first[1].card.target.get("height") if first[1] is not None else None) or STOCK_SIZE
    readers.append(first[0])
    if random_baseline:
        readers.append(_random(first, seed))
    readers += [_reader(other, Path(other).name, options, device)[0] for other in beside]
    data, about = tabletop_frames(scenes, views, side), f"{scenes} tabletop scenes, {views} views each"
    if frames is not None:
        data, about = rgbd_frames(frames, side, registration)
    report = probe(readers, data)
    write_probe(report, out, model, about)
    return report


def tabletop_frames(scenes: int, views: int, size: int) -> ProbeData:
    """Views of `scenes` tables of no training, parted by scene. ValueError for fewer than three."""
    made = generate_views(range(PROBE_SEED, PROBE_SEED + scenes), views, (size, size))
    samples = [
        Sample(f"{seen.scene}-{number}", (Frame(seen.image, seen.depth, seen.view),), (), seen.scene, "tabletop")
        for number, seen in enumerate(progress(made, scenes * views, "making scenes"))
    ]
    return parted(samples, dict.fromkeys(sample.scene for sample in samples))


def parted(samples: Sequence[Sample], scenes: Iterable[str]) -> ProbeData:
    """The samples of the first, the next and the last of `scenes` by `SHARES`. ValueError for fewer than three."""
    order = list(scenes)
    if len(order) < 3:
        raise ValueError(f"probe: {len(order)} scenes can't be parted into fit, choice and test; give at least three")
    first = min(max(1, round(SHARES[0] * len(order))), len(order) - 2)
    second = min(max(first + 1, round(sum(SHARES) * len(order))), len(order) - 1)
    parts = (set(order[:first]), set(order[first:second]), set(order[second:]))
    return ProbeData(*([sample for sample in samples if sample.scene in part] for part in parts))


def rgbd_frames(place: Path, size: int, registration: Registration | None = None) -> tuple[ProbeData, str]:
    """The central squares of the frames at or below `place`, and in words how they were parted.

    By folder if there are at least three; one or two are cut in time, each frame its own scene, and then the probe says
    nothing of other places. ValueError if they are too few, or if one lacks depth.
    """
    inner = [folder for folder in sorted(place.rglob("*")) if folder.is_dir()] if place.is_dir() else []
    folders = [folder for folder in (place, *inner) if not folder.is_dir() or any(map(_is_picture, folder.iterdir()))]
    samples: list[Sample] = []
    for folder in folders or [place]:
        files = RgbdFolder(folder, registration)
        for name, frame in progress(zip(files.names, files, strict=True), len(files), f"reading {folder.name}"):
            if frame.depth is None or not frame.depth.valid.any():
                raise ValueError(f"{folder}: {name} has no depth; add {name}.depth.png or remove the frame")
            scene = folder.name if len(folders) >= 3 else f"{folder.name}/{name}"
            samples.append(Sample(f"{folder.name}/{name}", (_resized(square(frame), size),), (), scene, "rgbd_folder"))
    scenes = list(dict.fromkeys(sample.scene for sample in samples))
    if len(folders) >= 3:
        scenes.sort(key=lambda scene: keyed("probe", scene))
    about = f"{len(samples)} frames of {len(folders)} places, parted by place"
    if len(folders) < 3:
        about = f"{len(samples)} frames of {place.name}, parted in time: this says nothing of other places"
    return parted(samples, scenes), about


def write_probe(report: ProbeReport, out: Path, model: str, about: str) -> Path:
    """`probe.json`, `probe.md`, `probe.svg` and `probe.html` in `out`; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    found = {"model": model, "data": about, "versions": versions(), **report.to_dict()}
    (out / "probe.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / "probe.md").write_text(report.to_markdown(), encoding="utf-8")
    (out / "probe.svg").write_bytes(report.plot())
    page = Report(f"Geometry in the image states of {model}", about)
    add_probe(page, report)
    return page.write(out / "probe.html")


def add_probe(page: Report, report: ProbeReport) -> None:
    """The probe as a section of a report."""
    page.heading("Geometry in the image states")
    page.figure(
        report.plot(),
        "What a linear probe reads from each layer at the image's tokens, on scenes that it was not fitted on. Bands "
        "are 95 % intervals by scene. A model holds geometry where its curve stands clear of the others.",
    )
    page.table(
        ["Target", "Read from", "Layer", "R²", "Model above it"],
        [
            [
                target,
                reader,
                report.best(reader, target).layer,
                str(report.best(reader, target).score),
                "" if reader == report.readers[0] else str(report.against(reader, target)),
            ]
            for target in report.targets
            for reader in report.readers
        ],
        f"At the layer that was best on development frames; {report.frames['test']} test frames of "
        f"{report.scenes['test']} scenes, {report.grid[0]} x {report.grid[1]} tokens each.",
    )


Opened = tuple[StateReader, GemPipeline | None]


def _reader(model: str, name: str, options: Mapping[str, Any] | None, device: str | None) -> Opened:
    if model in shipped_checkpoints() or (Path(model) / CARD_FILE).is_file():
        pipeline = load(model, device)
        return GemReader(pipeline, name), pipeline
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        load(model, device)  # says what is missing in a folder of ours
    reader = HuggingFaceReader.load(model.removeprefix("hf:"), device, options)
    reader.name = name
    return reader, None


def _random(opened: Opened, seed: int) -> StateReader:
    reader, pipeline = opened
    if pipeline is not None:
        return GemReader(untrained(pipeline, seed), RANDOM)
    assert isinstance(reader, HuggingFaceReader)
    return reader.with_random_weights(RANDOM, seed)


def _resized(frame: Frame, size: int) -> Frame:
    image = np.array(Image.fromarray(frame.image).resize((size, size), Image.Resampling.BILINEAR))
    depth = frame.depth and frame.depth.resized(size, size)
    view = frame.view and replace(frame.view, camera=frame.view.camera.resized(size, size))
    return Frame(image, depth, view)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg", ".png")
