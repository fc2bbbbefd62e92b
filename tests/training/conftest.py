"""Small samples and the model of recipe `debug`, to be trained for a few steps in whatever stages a test asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from gemvlm.batch import Batch
from gemvlm.data.collate import Collator, TurnSampler
from gemvlm.data.loader import BatchStream
from gemvlm.data.tokenizer import SpecialIds, train_tokenizer
from gemvlm.depth_map import DepthMap
from gemvlm.model.card import CheckpointCard
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem
from gemvlm.recipes.data import target_makers
from gemvlm.recipes.debug import DEBUG
from gemvlm.runtime import detect, deterministic
from gemvlm.sample import Frame, Sample, Turn
from gemvlm.training.loop import Callback, Run, train
from gemvlm.training.metrics import read_metrics
from gemvlm.training.stage import Stage

SIDE = 48
COLOURS = ("red", "green", "blue")
RATES = ("images_per_s", "tokens_per_s")


def make_sample(number: int) -> Sample:
    rng = np.random.default_rng(number)
    colour = COLOURS[number % 3]
    depth = np.linspace(0.5, 1.0 + 0.1 * number, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    turns = (
        Turn("Describe the scene.", f"a {colour} mug", "describe", "description", "text"),
        Turn("What colour is the mug?", colour, "colour", "reasoning", "choice", options=COLOURS),
    )
    image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Sample(f"sample-{number}", (Frame(image, DepthMap.from_values(depth)),), turns, f"scene-{number}", "test")


@dataclass(frozen=True)
class Workshop:
    """What a training needs besides its stages; every model that it makes has the same weights."""

    samples: Sequence[Sample]
    tokenizer: PreTrainedTokenizerFast
    config: GemConfig

    def gem(self) -> Gem:
        with deterministic(0):
            return Gem(self.config)

    def stream(self, stage: Stage, done: int = 0) -> Iterator[Batch]:
        makers = target_makers(DEBUG)
        targets = [makers[kind] for kind in stage.targets]
        turns = TurnSampler(stage.turns_per_sample, stage.families)
        collator = Collator(self.tokenizer, DEBUG.coordinates, DEBUG.image, targets, turns=turns)
        return BatchStream(self.samples, collator, stage.batch_size, drawn=done * stage.batch_size)

    def train(
        self, folder: Path, stages: Sequence[Stage], callbacks: Sequence[Callback] = (), **options: Any
    ) -> tuple[bool, Gem]:
        """Trains a fresh model in `folder`, or goes on there; whether it finished, and the model as it then is."""
        gem = self.gem()
        card = CheckpointCard(
            model=self.config, coordinates={"scale": 1000, "step": 10}, image={},
            target={"height": SIDE, "width": SIDE}, recipe="test", stage="", step=0, versions={}, trained_groups=(),
        )  # fmt: skip
        run = Run(folder, **{"log_every": 5, "checkpoint_every": 5, "show_progress": False, **options})
        return train(gem, stages, self.stream, self.tokenizer, card, run, detect("cpu"), callbacks), gem


@pytest.fixture(scope="session")
def workshop() -> Workshop:
    samples = [make_sample(number) for number in range(8)]
    texts = [text for sample in samples for turn in sample.turns for text in (turn.question, turn.answer)]
    tokenizer = train_tokenizer(texts, DEBUG.vocabulary, range(101))
    ids = SpecialIds.of(tokenizer)
    special = {
        "image_token_id": ids.image_pad,
        "vision_start_token_id": ids.vision_start,
        "vision_end_token_id": ids.vision_end,
    }
    return Workshop(samples, tokenizer, replace(DEBUG.model, backbone={**DEBUG.model.backbone, **special}))


@pytest.fixture(scope="session")
def stage_of() -> Callable[..., Stage]:
    """A stage of recipe `debug` by its number, for so many steps of two samples."""

    def find(number: int, steps: int = 10, **changes: Any) -> Stage:
        found = next(stage for stage in DEBUG.stages if stage.name.startswith(f"{number}-"))
        return replace(found, steps=steps, batch_size=2, **changes)

    return find


def weights(gem: Gem) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in gem.state_dict().items()}


def numbers(folder: Path) -> list[Mapping[str, Any]]:
    """The logged lines without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in RATES} for line in read_metrics(folder / "metrics.jsonl")]


@pytest.fixture(scope="session")
def assert_same_run() -> Callable[[Path, Gem, Path, Gem], None]:
    """Two runs have the same weights, bit for bit, and logged the same numbers."""

    def check(folder: Path, gem: Gem, other_folder: Path, other: Gem) -> None:
        ours, theirs = weights(gem), weights(other)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
        assert numbers(folder) == numbers(other_folder)

    return check
