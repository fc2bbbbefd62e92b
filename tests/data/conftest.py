"""Small samples and a tokenizer trained on their words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from gemvlm.data.collate import Collator
from gemvlm.data.conversation import CoordinateFormat
from gemvlm.data.frames import ImageConfig
from gemvlm.data.tokenizer import train_tokenizer
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame, Point, Sample, Turn

WORDS = [
    "Where is the red mug?",
    "What colour is the box?",
    "user assistant system",
    "The red mug is at (120, 340).",
    "yes no",
]


class ConstantDepth:
    """A target whose picture is the frame's mean depth: enough to see which frame a target was made of."""

    kind = "depth"

    def make(self, frame: Frame) -> tuple[torch.Tensor, torch.Tensor] | None:
        if frame.depth is None:
            return None
        return torch.full((3, 4, 4), float(frame.depth.values.mean())), torch.ones(4, 4, dtype=torch.bool)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(WORDS * 3, 1600)


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    def make(
        id: str, frames: int = 1, turns: int = 2, depth: float | None = 0.5, question: str = "", size: int = 32
    ) -> Sample:
        rng = np.random.default_rng(list(id.encode()))
        shown = tuple(
            Frame(
                rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
                None if depth is None else DepthMap.from_values(np.full((size, size), depth + 0.01 * index)),
            )
            for index in range(frames)
        )
        asked = tuple(
            Turn(
                question or f"Where is mug {index}?",
                "<place:0>",
                "point" if index % 2 else "other",
                "grounding",
                "point",
                places=(Point(0.12, 0.34),),
            )
            for index in range(turns)
        )
        return Sample(id, shown, asked, scene=id, source="test")

    return make


@pytest.fixture
def make_collator(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Collator]:
    def make(**options: object) -> Collator:
        images = ImageConfig(patch_size=8, min_pixels=16 * 16, max_pixels=64 * 64)
        return Collator(tokenizer, CoordinateFormat(step=10), images, [ConstantDepth()], **options)  # type: ignore[arg-type]

    return make
