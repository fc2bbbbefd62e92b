"""Questions → answers: prompts packed into one batch, continued, and read back."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from gemvlm.batch import Batch
from gemvlm.data.conversation import CoordinateFormat, parse
from gemvlm.data.tokenizer import SpecialIds
from gemvlm.model.gem import Gem
from gemvlm.sample import Box, Point

_BRACKETS = re.compile(r"[(\[][^()\[\]]*[)\]]")


@dataclass(frozen=True)
class Answer:
    """What the model said, and every place that it named, in order, as fractions of the image's width and height.

    `finished` is False if the reply was cut because it was as long as it may be.
    """

    text: str
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    finished: bool = True

    @classmethod
    def from_text(cls, text: str, coordinates: CoordinateFormat, finished: bool = True) -> Answer:
        """Reads the places written in `text`; brackets that are no place inside the image are left as words."""
        groups = _BRACKETS.findall(text)
        points = [parse(group, "point", coordinates=coordinates).value for group in groups]
        boxes = [parse(group, "box", coordinates=coordinates).value for group in groups]
        return cls(
            text,
            tuple(point for point in points if isinstance(point, Point)),
            tuple(box for box in boxes if isinstance(box, Box)),
            finished,
        )


def generate_replies(
    gem: Gem, tokenizer: PreTrainedTokenizerFast, prompts: Batch, *, max_new_tokens: int, temperature: float, seed: int
) -> list[tuple[str, bool]]:
    """What the model says after each prompt of a batch, and whether it came to an end.

    At temperature 0 a reply does not depend on its neighbours.
    """
    device = next(gem.parameters()).device
    ids = SpecialIds.of(tokenizer)
    replies = gem.backbone.generate(
        prompts.to(device),
        max_new_tokens,
        eos_ids=(ids.turn_end, ids.end_of_text),
        temperature=temperature,
        generator=torch.Generator(device).manual_seed(seed),
    )
    texts = [str(tokenizer.decode(reply.tolist(), skip_special_tokens=True)).strip() for reply in replies]
    return [(text, len(reply) < max_new_tokens) for text, reply in zip(texts, replies, strict=True)]
