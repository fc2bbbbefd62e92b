"""What a recipe is: model, data, stages and conventions in one frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gemvlm.data.conversation import CoordinateFormat
from gemvlm.data.frames import ImageConfig
from gemvlm.model.config import GemConfig
from gemvlm.runtime import Precision
from gemvlm.training.stage import Stage

DEVELOPMENT_SEED = 1_000_000
"""Tabletop scenes from this seed on choose hyper-parameters; training scenes come before."""

TEST_SEED = 2_000_000
"""Tabletop scenes from this seed on are scored once, for results; nothing is chosen on them."""


@dataclass(frozen=True)
class TabletopData:
    """Training scenes of the simulated tabletop: seeds [0, scenes), each seen `views_per_scene` times.

    `size` is (height, width) in pixels. `families` is a subset of `curation.questions.FAMILIES`, by default its core.
    `scene` holds keyword arguments of the tabletop's `SceneConfig`, for scenes unlike its own.
    """

    scenes: int
    views_per_scene: int
    size: tuple[int, int]
    turns_per_family: int
    families: tuple[str, ...] | None = None
    scene: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """The weights that a training begins with: published parts, or a whole checkpoint. Each a folder or a hub id.

    `qwen` is a plain Qwen3-VL, `sana` a Sana 1.5 with its `transformer/` and `vae/`, `dc_ae` an autoencoder in place of
    that `vae/`. `checkpoint` is a GEM in the authors' layout or one of ours; it must have trained the module groups
    `trained`. A place that is needed and None is asked for on the command line.
    """

    qwen: str | None = None
    sana: str | None = None
    dc_ae: str | None = None
    checkpoint: str | None = None
    trained: tuple[str, ...] = ()

    def given(self, words: Sequence[str]) -> Start:
        """With what the command line says: `PART=PLACE` for a part, or the place of a whole checkpoint alone."""
        found = self
        for word in words:
            part, separator, place = word.partition("=")
            if not separator:
                found = replace(found, checkpoint=word, qwen=None, sana=None, dc_ae=None)
            elif part in ("qwen", "sana", "dc_ae") and place:
                changed: dict[str, Any] = {part: place}
                found = replace(found, **changed)
            else:
                raise ValueError(
                    f"--start {word}: {part!r} is no part; write qwen=PLACE, sana=PLACE or dc_ae=PLACE, or the place "
                    "of a whole checkpoint alone"
                )
        return found


@dataclass(frozen=True)
class Recipe:
    """A training from its start to a checkpoint; the same fields for every size.

    `data` None means that a set of `gemvlm curate` is given with each run, `start` None that weights are drawn at
    random. `target` is the (height, width) of the pictures that the generator paints, None the published rule: long
    side 448, both sides multiples of 32. `vocabulary` is the size of the language head. `epochs`, if given, is how
    often the last stage sees the run's own set; its `steps` are then those for the paper's.
    """

    name: str
    model: GemConfig
    image: ImageConfig
    coordinates: CoordinateFormat
    target: tuple[int, int] | None
    vocabulary: int
    data: TabletopData | None
    stages: tuple[Stage, ...]
    seed: int
    precision: Precision
    start: Start | None = None
    epochs: float | None = None
    max_tokens: int = 16_384

    def stages_for(self, samples: int) -> tuple[Stage, ...]:
        """The stages, the last as long as `epochs` of a set of `samples` last; its warm-up keeps its share."""
        if self.epochs is None:
            return self.stages
        last = self.stages[-1]
        steps = max(1, math.ceil(self.epochs * samples / last.batch_size))
        warmup = math.ceil(last.schedule.warmup * steps / last.steps)  # up, as the published trainer does
        return (*self.stages[:-1], replace(last, steps=steps, schedule=replace(last.schedule, warmup=warmup)))
