"""Small samples and the model of recipe `debug`, to be trained for a few steps in whatever stages a test asks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import gemvlm
from gemvlm.data.collate import Collator, TargetMaker, TurnSampler
from gemvlm.data.loader import BatchStream
from gemvlm.data.packing import PackedStream
from gemvlm.data.tokenizer import SpecialIds, train_tokenizer
from gemvlm.depth_map import DepthMap
from gemvlm.model.card import CheckpointCard
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem
from gemvlm.recipes.data import target_makers
from gemvlm.recipes.debug import DEBUG
from gemvlm.runtime import Precision, detect, deterministic
from gemvlm.sample import Frame, Sample, Turn
from gemvlm.training.loop import Callback, Run, train
from gemvlm.training.metrics import read_metrics
from gemvlm.training.parallel import Sharding
from gemvlm.training.stage import Stage

HERE = Path(__file__).parent
SIDE = 48
COLOURS = ("red", "green", "blue")
RATES = ("samples_per_s", "images_per_s", "tokens_per_s")


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


def mixed_samples(count: int = 12) -> list[Sample]:
    """Every third without an image, the others with one or two, some of these without depth or with none valid."""
    samples = []
    for number in range(count):
        plain = make_sample(number)
        frame, kind = plain.frames[0], number % 6
        nothing = DepthMap.from_values(np.zeros((SIDE, SIDE), np.float32))
        frames = {
            0: (frame,),
            1: (),
            2: (frame, make_sample(number + 1).frames[0]),
            3: (Frame(frame.image),),
            4: (),
            5: (Frame(frame.image), Frame(frame.image, nothing)),
        }[kind]
        samples.append(replace(plain, frames=frames))
    return samples


@dataclass(frozen=True)
class SizedDepth:
    """Depth pictures of two sizes, by the image: the generator runs once for each size in a batch."""

    inner: TargetMaker
    kind: ClassVar[str] = "depth"

    def make(self, frame: Frame) -> Any:
        made = self.inner.make(frame)
        return made if made is None or frame.image[0, 0, 0] % 2 else tuple(part[..., :32, :] for part in made)


@dataclass(frozen=True)
class Workshop:
    """What a training needs besides its stages; every model that it makes has the same weights."""

    samples: Sequence[Sample]
    tokenizer: PreTrainedTokenizerFast
    config: GemConfig

    def gem(self) -> Gem:
        with deterministic(0):
            return Gem(self.config)

    def stream(
        self, stage: Stage, done: int = 0, rank: int = 0, world: int = 1, workers: int = 0, sized: bool = False
    ) -> BatchStream | PackedStream:
        """The stage's batches from step `done` on."""
        makers = target_makers(DEBUG)
        targets = [SizedDepth(makers[kind]) if sized else makers[kind] for kind in stage.targets]
        turns = TurnSampler(stage.turns_per_sample, stage.families)
        collator = Collator(self.tokenizer, DEBUG.coordinates, DEBUG.image, targets, turns=turns)
        if stage.budget is not None:
            return PackedStream(self.samples, collator, stage.budget, rank=rank, world=world, workers=workers)
        size, drawn = stage.micro_size(world), done * stage.batch_size
        return BatchStream(self.samples, collator, size, rank=rank, world=world, workers=workers, drawn=drawn)

    def train(
        self,
        folder: Path,
        stages: Sequence[Stage],
        callbacks: Sequence[Callback] = (),
        sharding: Sharding | None = None,
        workers: int = 0,
        sized: bool = False,
        precision: Precision = "float32",
        **options: Any,
    ) -> tuple[bool, Gem]:
        """Trains a fresh model in `folder`, or goes on there; whether it finished, and the model as it then is."""
        gem, runtime = self.gem(), detect("cpu", precision)
        card = CheckpointCard(
            model=self.config, coordinates={"scale": 1000, "step": 10}, image={},
            target={"height": SIDE, "width": SIDE}, recipe="test", stage="", step=0, versions={}, trained_groups=(),
        )  # fmt: skip
        run = Run(folder, **{"log_every": 5, "checkpoint_every": 5, "show_progress": False, **options})

        def stream(stage: Stage) -> BatchStream | PackedStream:
            return self.stream(stage, rank=runtime.rank, world=runtime.world, workers=workers, sized=sized)

        return train(gem, stages, stream, self.tokenizer, card, run, runtime, callbacks, sharding), gem


def make_workshop(samples: Sequence[Sample]) -> Workshop:
    texts = [text for sample in samples for turn in sample.turns for text in (turn.question, turn.answer)]
    tokenizer = train_tokenizer(texts, DEBUG.vocabulary, range(101))
    ids = SpecialIds.of(tokenizer)
    special = {
        "image_token_id": ids.image_pad,
        "vision_start_token_id": ids.vision_start,
        "vision_end_token_id": ids.vision_end,
    }
    return Workshop(samples, tokenizer, replace(DEBUG.model, backbone={**DEBUG.model.backbone, **special}))


def make_stage(number: int, steps: int = 10, **changes: Any) -> Stage:
    """A stage of recipe `debug` by its number, for so many steps of two samples."""
    found = next(stage for stage in DEBUG.stages if stage.name.startswith(f"{number}-"))
    return replace(found, **{"steps": steps, "batch_size": 2, **changes})


@pytest.fixture(scope="session")
def workshop() -> Workshop:
    return make_workshop([make_sample(number) for number in range(8)])


@pytest.fixture(scope="session")
def mixed_workshop() -> Workshop:
    return make_workshop(mixed_samples())


@pytest.fixture(scope="session")
def stage_of() -> Callable[..., Stage]:
    return make_stage


@pytest.fixture(scope="session")
def crew() -> Iterator[Crew]:
    """Processes that train together, and may be killed."""
    crew = Crew()
    yield crew
    crew.close()


class Crew:
    """A server, `train_toy.py`, that has imported all once and forks whoever is asked for."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(Path(gemvlm.__file__).parents[1]), str(HERE), str(HERE.parent / "recipes")]
            ),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(HERE / "train_toy.py")]
        self._server = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, task: str, world: int = 1, **options: Any) -> dict[str, Any]:
        """Carries out a function of `train_toy.py` on `world` processes; see `serve` there for what comes back."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps({"task": task, "world": world, "options": options}) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        assert line, "the server of train_toy.py ended"
        return json.loads(line)

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)


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
