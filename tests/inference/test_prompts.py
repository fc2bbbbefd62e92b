"""Conversations with images in any question are the published template's, token by token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gemvlm.batch import IGNORE, Batch
from gemvlm.data.collate import Collator, Prompt
from gemvlm.data.conversation import Segment, render_dialogue
from gemvlm.data.frames import ImageConfig
from gemvlm.inference import GemPipeline
from gemvlm.inference.pipeline import Request
from gemvlm.sample import Frame


@pytest.fixture(scope="module")
def collate(pipeline: GemPipeline) -> Collator:
    return Collator(pipeline.tokenizer, pipeline.coordinates, ImageConfig(**pipeline.card.image), system="Be brief.")


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    draw = np.random.default_rng(5)
    return [Frame(draw.integers(0, 256, (height, 48, 3), dtype=np.uint8)) for height in (32, 48, 64)]


def equal(one: Batch, other: Batch) -> bool:
    names = ("input_ids", "segment_ids", "position_ids", "labels", "pixel_values", "image_grid_thw", "spans")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize("question", ["What is it?", "Is <image> as <image> or <image>?"])
def test_images_of_the_first_question_make_the_prompt_of_training(
    collate: Collator, frames: list[Frame], question: str
) -> None:
    prompts = [Prompt(frames, question, [], "Another."), Prompt((), "Hello")]
    later = Prompt(frames, "And now?", [(question, "a mug"), ("Sure?", "yes")])
    asked = [*prompts, later]
    encoded = []
    for prompt in asked:
        exchanges = [*prompt.history, (prompt.question, None)]
        parts = render_dialogue(len(prompt.frames), exchanges, prompt.system or collate.system)
        silent = [replace(part, supervised=False) if isinstance(part, Segment) else part for part in parts]
        encoded.append(collate.encode(silent, prompt.frames))
    taught = collate.pack(encoded, [frame for prompt in asked for frame in prompt.frames], (), ("0", "1", "2"))
    assert equal(collate.prompts(asked), taught)


def test_images_of_later_questions_stand_where_the_chat_template_has_them(
    pipeline: GemPipeline, collate: Collator, frames: list[Frame]
) -> None:
    image = {"type": "image"}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "a mug"},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "yes"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "As here"}, image, {"type": "text", "text": "or"}, image],
        },
    ]
    history = [("<image>What is it?", "a mug"), ("Sure?", "yes")]
    batch = collate.prompts([Prompt(frames, "As here<image>or<image>", history)])
    text = pipeline.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pieces = text.split("<|image_pad|>")
    images = ImageConfig(**pipeline.card.image)
    counts = [images.tokens(images.grid(*frame.image.shape[:2])) for frame in frames]
    text = pieces[0] + "".join("<|image_pad|>" * n + piece for n, piece in zip(counts, pieces[1:], strict=True))
    assert batch.input_ids.tolist() == pipeline.tokenizer.encode(text, add_special_tokens=False)
    assert (batch.spans[:, 1] - batch.spans[:, 0]).tolist() == counts
    assert (batch.labels == IGNORE).all()


def test_a_later_image_changes_what_follows_it_alone(pipeline: GemPipeline, frames: list[Frame]) -> None:
    first, second = frames[0].image, frames[1].image
    history = [("<image>Describe the scene.", "a mug")]
    batches = [
        pipeline._prompts([Request([first, other], "<image>Describe the scene.", history)])
        for other in (second, 255 - second)
    ]
    begin = int(batches[0].spans[1, 0])
    with torch.no_grad():
        one, other = (pipeline.gem.backbone(batch).states for batch in batches)
    assert torch.allclose(one[:begin], other[:begin], atol=1e-5)
    assert (one[begin:] - other[begin:]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("count", "question", "history"),
    [(1, "<image>?", [("<image>?", "yes")]), (2, "?", [("<image>?", "yes")]), (0, "<image>?", []), (3, "<image>", [])],
)
def test_other_images_than_places_are_refused(
    collate: Collator, frames: list[Frame], count: int, question: str, history: list[tuple[str, str]]
) -> None:
    with pytest.raises(ValueError, match=rf"hold [12] <image> but {count} frames are shown; write one for each"):
        collate.prompts([Prompt(frames[:count], question, history)])
