"""What a recipe is: model, data, stages and conventions in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    scenes: int
    views_per_scene: int
    size: tuple[int, int]
    turns_per_family: int
    families: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Recipe:
    """A training from nothing to a checkpoint; the same fields for every size."""

    name: str
    model: GemConfig
    image: ImageConfig
    coordinates: CoordinateFormat
    target: tuple[int, int]
    vocabulary: int
    data: TabletopData
    stages: tuple[Stage, ...]
    seed: int
    precision: Precision
