"""Test sets that need no download: simulated tables as trained on and shifted, and questions about real RGB-D frames.

    tabletop_bench   PROTOCOL is a set: in_distribution, new_objects, new_textures, new_cameras, clutter
    rgbd_bench       PROTOCOL is a layout: rgbd_folder, seven_scenes; PLACE is the folder of frames

`@SIZE` after a set gives another size of its square pictures (`clutter@256`), `+instructed` after either adds to every
question how it is to be answered, for models that were not trained on such questions. All sets of the tabletop have the
same seeds, those of no training, so that scores on a shifted set can be paired with those on the usual one by scene.
PLACE of a tabletop set is a folder where it is kept once it is made, or "" to make it anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gemvlm.curation.questions import FAMILIES
from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.rgbd_folder import RgbdFolders, SevenScenes
from gemvlm.curation.sources.tabletop import VERSION
from gemvlm.data.collate import keyed
from gemvlm.evaluation.depth_report import DepthPainter, DepthReport, evaluate_depth
from gemvlm.evaluation.sample_benchmark import SampleBenchmark
from gemvlm.recipes.held_out import FITTED_SCENES, fitted_samples, held_out_samples
from gemvlm.recipes.recipe import TEST_SEED
from gemvlm.runtime import get_log
from gemvlm.sample import Sample
from gemvlm.shards import MANIFEST, ShardReader, write_shards
from gemvlm.worlds.tabletop import NEW_CATEGORIES, NEW_PATTERNS, SceneConfig

SCENES, PER_FAMILY = 100, 60
"""Scenes of a tabletop set (as many again for rare families), and questions of each family and of its headline."""

SHIFTS: dict[str, dict[str, Any]] = {
    "in_distribution": {},
    "new_objects": {"categories": NEW_CATEGORIES},
    "new_textures": {"textured_chance": 1.0, "object_patterns": NEW_PATTERNS, "structure_patterns": NEW_PATTERNS},
    "new_cameras": {"fov_y_deg": (36.0, 80.0), "elevation_deg": (8.0, 18.0), "roll_deg": (18.0, 40.0)},
    "clutter": {"min_objects": 16, "max_objects": 24, "crowding": (0.75, 0.9)},
}
"""Keyword arguments of `SceneConfig`: each shifts one thing, to where no training scene has it."""
SETS = {name: SceneConfig(**shift) for name, shift in SHIFTS.items()}

LAYOUTS: dict[str, Callable[..., RgbdFolders]] = {"rgbd_folder": RgbdFolders, "seven_scenes": SevenScenes}
FITTED_SHARE = 0.3
"""Of the frames (of the places, if there are at least three), how many the blind baselines are fitted on."""
SETTINGS = "settings.json"
_PROTOCOL = re.compile(r"([a-z_]+)(?:@(\d{2,4}))?(\+instructed)?")


def open_suite(name: str, place: str = "", protocol: str | None = None, **options: Any) -> SampleBenchmark:
    """A suite by its name, under one of its protocols (its first by default). ValueError lists what there is.

    `options` of `tabletop_bench` are `scenes`, `per_family` and `families`.
    """
    if name not in SUITES:
        raise ValueError(f"suite {name!r} is unknown; choose from {', '.join(SUITES)}")
    return SUITES[name](place, protocol, **options)


def tabletop_bench(
    place: str = "",
    protocol: str | None = None,
    scenes: int = SCENES,
    per_family: int = PER_FAMILY,
    families: Sequence[str] = tuple(FAMILIES),
) -> SampleBenchmark:
    """Questions of `families` (all) about single views, and the depth of every view; see the file's opening."""
    protocol = protocol or next(iter(SETS))
    chosen, side, instructed = _parsed(protocol, tuple(SETS))
    settings = {
        "set": chosen,
        "side": side,
        "scenes": scenes,
        "per_family": per_family,
        "first_seed": TEST_SEED,
        "fitted_scenes": min(FITTED_SCENES, scenes),
        "version": VERSION,
        "families": list(families),
    }
    test, fitted = _kept(Path(place) / f"{chosen}-{side}", settings) if place else _made(settings)
    return SampleBenchmark("tabletop_bench", protocol, test, fitted, instructed)


def rgbd_bench(place: str, protocol: str | None = None) -> SampleBenchmark:
    """Questions about marked points, answered by the sensor's depth, and that depth; see the file's opening.

    One or two places are parted in time, and every frame then counts as a scene of its own: intervals say nothing of
    other places. Frames that can't be used are counted in the log with their reason. ValueError if too few are left.
    """
    protocol = protocol or next(iter(LAYOUTS))
    layout, side, instructed = _parsed(protocol, tuple(LAYOUTS))
    if side != _SIDE:
        raise ValueError(f"rgbd_bench: frames keep their size; leave out @{side}")
    source = LAYOUTS[layout](Path(place))
    samples: list[Sample] = []
    for part in source.parts():
        for found in source.read(part):
            if isinstance(found, Rejection):
                get_log().warning("rgbd_bench: left out %s: %s (%s)", found.id, found.reason, found.detail)
            else:
                samples.append(found)
    if len(dict.fromkeys(sample.scene for sample in samples)) < 3:
        samples = [replace(sample, scene=sample.id) for sample in samples]
        scenes = [sample.scene for sample in samples]
    else:
        scenes = sorted({sample.scene for sample in samples}, key=lambda scene: keyed("rgbd_bench", scene))
    if len(scenes) < 3:
        raise ValueError(f"rgbd_bench: {place} has {len(scenes)} frames that can be used; give at least three")
    fitted = set(scenes[: max(1, round(FITTED_SHARE * len(scenes)))])
    return SampleBenchmark(
        "rgbd_bench",
        protocol,
        [sample for sample in samples if sample.scene not in fitted],
        [sample for sample in samples if sample.scene in fitted],
        instructed,
    )


def suite_depth(
    suite: SampleBenchmark, pipeline: DepthPainter, *, steps: int = 30, guidance: float = 1.0, seed: int = 0
) -> DepthReport:
    """The depth that a model paints of the suite's frames, beside the blind baselines."""
    return evaluate_depth(pipeline, suite.samples, suite.fitted, steps=steps, guidance=guidance, seed=seed)


SUITES: dict[str, Callable[..., SampleBenchmark]] = {"tabletop_bench": tabletop_bench, "rgbd_bench": rgbd_bench}
_SIDE = 96


def _parsed(protocol: str, known: tuple[str, ...]) -> tuple[str, int, bool]:
    match = _PROTOCOL.fullmatch(protocol)
    if match is None or match[1] not in known:
        raise ValueError(
            f"protocol {protocol!r} is unknown; choose from {', '.join(known)}, then @SIZE or +instructed if you like"
        )
    return match[1], int(match[2] or _SIDE), match[3] is not None


Parts = tuple[Sequence[Sample], Sequence[Sample]]
"""Those of the test, and those that blind baselines are fitted on."""


def _made(settings: dict[str, Any]) -> Parts:
    size, families = (settings["side"], settings["side"]), settings["families"]
    fitted = fitted_samples(size, families, settings["fitted_scenes"])
    test = held_out_samples(
        fitted,
        settings["scenes"],
        settings["per_family"],
        2 * settings["scenes"],
        settings["first_seed"],
        size=size,
        config=SETS[settings["set"]],
        families=families,
    )
    return test, fitted


def _kept(folder: Path, settings: dict[str, Any]) -> Parts:
    """The set in `folder`, made now if it is not there. ValueError if one of other settings is."""
    note = folder / SETTINGS
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{folder}: holds a set of other settings ({SETTINGS}); remove it or name another folder")
    parts = [folder / "test", folder / "fitted"]
    if not all((part / MANIFEST).is_file() for part in parts):
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        for part, samples in zip(parts, _made(settings), strict=True):
            if not (part / MANIFEST).is_file():
                write_shards(samples, part)
    test, fitted = (ShardReader(part, cache=True) for part in parts)
    return test, fitted
