"""A stage is data: which modules learn, from which losses, on which samples, how fast and for how long.

The loop knows nothing else about stages; the paper's three (connector; connector and generator; everything) are three
values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gemvlm.data.packing import Budget


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, or Muon for the hidden matrices with AdamW for the rest (embeddings, norms, biases, convolutions)."""

    kind: Literal["adamw", "muon"]
    betas: tuple[float, float]
    weight_decay: float
    eps: float = 1e-8


@dataclass(frozen=True)
class Schedule:
    """Learning rate over a stage, as a factor of its peak: linear warm-up, a hold, then a cosine or linear fall.

    `hold` is the share of the stage before the fall begins, `final` the factor that it falls to.
    """

    warmup: int
    shape: Literal["constant", "cosine", "linear"]
    final: float = 0.0
    hold: float = 0.0

    def factor(self, step: int, steps: int) -> float:
        """Factor at `step` in [0, steps): in (0, 1], never 0 on the first step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.shape == "constant":
            return 1.0
        start = max(self.warmup, int(self.hold * steps))
        progress = min(max(step - start, 0) / max(steps - start, 1), 1.0)
        fall = 0.5 * (1 + math.cos(math.pi * progress)) if self.shape == "cosine" else 1 - progress
        return self.final + (1 - self.final) * fall


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on linear layers of the backbone: the update of a layer is alpha / rank · B A.

    `layers` maps a group of `Gem.parameter_groups()` ("language", "vision", "merger") to last names of its linear
    layers.
    """

    rank: int
    alpha: float
    layers: Mapping[str, tuple[str, ...]]
    dropout: float = 0.0


@dataclass(frozen=True)
class Stage:
    """One stage. Groups absent from `learning_rates` are frozen; losses absent from `loss_weights` are not computed.

    `learning_rates` maps a group of `Gem.parameter_groups()` to its peak rate, `loss_weights` a named loss to its
    weight in the sum. `turns_per_sample` questions are drawn anew each epoch, with `families` as weights (None: all
    alike; 0 turns: images only). `clip` is the largest gradient norm of each module group, clipped on its own so that
    no module scales another's step.

    `batch_size` counts the samples of a step over ALL processes and micro batches, so that a step is the same however
    many processes share it; with a `budget`, by which samples are packed, it counts packs. `at_once` is how many
    samples a process computes at once (None: its whole share); a pack is always computed alone. `ema`, if given, is the
    decay of a running average of the trained weights, which takes their place when the stage ends. `lora` puts adapters
    on the groups it names, and those learn in place of the groups. With `naming`, image tokens are labelled with what
    they show (data/naming.py). With `recompute`, activations are computed twice instead of kept: less memory, a quarter
    to a third more time.
    """

    name: str
    steps: int
    batch_size: int
    learning_rates: Mapping[str, float]
    loss_weights: Mapping[str, float]
    schedule: Schedule
    optimizer: OptimizerConfig
    turns_per_sample: int
    families: Mapping[str, float] | None = None
    targets: tuple[str, ...] = ()
    clip: float = 1.0
    notes: Mapping[str, str] = field(default_factory=dict)
    at_once: int | None = None
    budget: Budget | None = None
    lora: LoraConfig | None = None
    ema: float | None = None
    naming: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        if not self.learning_rates or not self.loss_weights:
            raise ValueError(f"stage {self.name!r}: name at least one module group to train and one loss")
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(
                f"stage {self.name!r}: {self.steps} steps of {self.batch_size} samples; both must be at least 1: leave "
                "the stage out of the recipe instead"
            )
        if self.at_once is not None and (self.budget is not None or self.at_once < 1):
            raise ValueError(
                f"stage {self.name!r}: at_once={self.at_once} must be at least 1, and None where a budget packs the "
                "samples: a pack is computed alone"
            )
        if self.lora is not None and not set(self.lora.layers) <= set(self.learning_rates):
            raise ValueError(
                f"stage {self.name!r}: adapters on {sorted(set(self.lora.layers) - set(self.learning_rates))} would "
                "never learn; give these groups a learning rate, or take them out of lora.layers"
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"stage {self.name!r}: ema={self.ema} is a decay, between 0 and 1, such as 0.999")

    def micro_size(self, world: int) -> int:
        """Samples, or packs, that one of `world` processes computes at once. ValueError if it can't share a step so."""
        size = 1 if self.budget is not None else self.at_once or self.batch_size // world
        if size < 1 or self.batch_size % (size * world):
            raise ValueError(
                f"stage {self.name!r}: a step of {self.batch_size} can't be shared by {world} processes, "
                f"{max(size, 1)} at once: choose a number of processes that divides {self.batch_size}, or a batch_size "
                f"that is a multiple of {max(size, 1) * world}"
            )
        return size

    def micro_batches(self, world: int) -> int:
        """Batches that each of `world` processes reads for one step."""
        return self.batch_size // (self.micro_size(world) * world)
