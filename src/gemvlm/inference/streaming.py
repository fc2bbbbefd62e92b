"""A reply in pieces, each given out as soon as it is certain."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import torch
from transformers import PreTrainedTokenizerFast

from gemvlm.batch import Batch
from gemvlm.data.tokenizer import SpecialIds
from gemvlm.inference.reply_text import ReplyText
from gemvlm.model.gem import Gem


class TextStream(Iterator[str]):
    """The reply to the one prompt of a batch, piece by piece; the pieces joined are the text that `ask` gives.

    `tokens` counts those of the reply so far; `finished` turns True once the model has said that it is done, and stays
    False where `max_new_tokens` cut the reply. `close` ends it early: nothing is computed but what is asked for.
    """

    def __init__(
        self,
        gem: Gem,
        tokenizer: PreTrainedTokenizerFast,
        prompt: Batch,
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> None:
        self.tokens = 0
        self.finished = False
        device = next(gem.parameters()).device
        draws = torch.Generator(device).manual_seed(seed)
        steps = gem.backbone.next_tokens(prompt.to(device), max_new_tokens, temperature, draws)
        ids = SpecialIds.of(tokenizer)
        self._pieces = self._read(steps, tokenizer, (ids.turn_end, ids.end_of_text))

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        self._pieces.close()

    def _read(
        self, steps: Iterator[torch.Tensor], tokenizer: PreTrainedTokenizerFast, ends: tuple[int, int]
    ) -> Generator[str, None, None]:
        reply = ReplyText(tokenizer)
        for step in steps:
            token = int(step[0])
            self.finished = token in ends
            if self.finished:
                break
            self.tokens += 1
            if piece := reply.add(token):
                yield piece
        if rest := reply.rest():
            yield rest
