"""Conversations that wait for an answer → a batch, each image in the question that showed it.

Every exchange is rendered as training renders one (`render_dialogue`), its images numbered on from those before it: a
prompt whose images stand in the first question is the one of `Collator.prompts`, token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gemvlm.batch import Batch
from gemvlm.data.collate import Collator, Prompt
from gemvlm.data.conversation import IMAGE_PLACEHOLDER, ImageSlot, Segment, render_dialogue


def prompt_batch(collate: Collator, prompts: Sequence[Prompt]) -> Batch:
    """Packed like samples, ending where the model must begin to answer; labels are all ignored.

    Images stand at the `<image>` of the questions, in order, or before the first question if there is none. ValueError
    if there are other than as many `<image>` as images.
    """
    encoded = [collate.encode(_parts(prompt, collate.system), prompt.frames) for prompt in prompts]
    frames = [frame for prompt in prompts for frame in prompt.frames]
    return collate.pack(encoded, frames, (), tuple(str(number) for number in range(len(prompts))))


def _parts(prompt: Prompt, system: str | None) -> list[Segment | ImageSlot]:
    exchanges: list[tuple[str, str | None]] = [*prompt.history, (prompt.question, None)]
    counts = [question.count(IMAGE_PLACEHOLDER) for question, _ in exchanges]
    if not any(counts):
        counts[0] = len(prompt.frames)
    if sum(counts) != len(prompt.frames):
        raise ValueError(
            f"the questions hold {sum(counts)} {IMAGE_PLACEHOLDER} but {len(prompt.frames)} frames are shown; "
            "write one for each, or none"
        )
    before = system if prompt.system is None else prompt.system
    parts: list[Segment | ImageSlot] = []
    shown = 0
    for exchange, count in zip(exchanges, counts, strict=True):
        for part in render_dialogue(count, [exchange], None if parts else before):
            if isinstance(part, ImageSlot):
                parts.append(ImageSlot(shown + part.index))
            else:
                parts.append(replace(part, supervised=False))
        shown += count
    return parts
