"""Rendered conversations to token ids, labels and vision spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from gemvlm.batch import IGNORE
from gemvlm.data.conversation import ImageSlot, Segment
from gemvlm.data.tokenizer import SpecialIds

CACHED_CHARACTERS = 5_000_000
"""Of texts whose ids are remembered; strangers may send any number of long ones."""


@dataclass(frozen=True)
class Encoded:
    """One conversation as tokens. `spans[n]` is the half-open range of image n, strictly between its vision markers."""

    input_ids: Int64[Tensor, " T"]
    labels: Int64[Tensor, " T"]
    spans: Int64[Tensor, "N 2"]


class Encoder:
    """Segments and image slots to `Encoded`, with the text of every segment encoded once and remembered."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.ids = SpecialIds.of(tokenizer)
        self._tokenizer = tokenizer
        self._markup = tokenizer.backend_tokenizer
        self._plain = Tokenizer.from_str(self._markup.to_str())
        self._plain.encode_special_tokens = True
        self._cache: dict[tuple[str, bool], np.ndarray] = {}
        self._cached_characters = 0

    def __reduce__(self) -> tuple[type[Encoder], tuple[PreTrainedTokenizerFast]]:
        return Encoder, (self._tokenizer,)  # pickling a backend tokenizer forgets encode_special_tokens

    def __call__(self, parts: Sequence[Segment | ImageSlot], image_tokens: Sequence[int]) -> Encoded:
        """`image_tokens[i]` is the number of tokens of frame i. ValueError unless every frame has exactly one slot."""
        slots = [part.index for part in parts if isinstance(part, ImageSlot)]
        if slots != list(range(len(image_tokens))):
            raise ValueError(f"the conversation has {len(slots)} image slots but there are {len(image_tokens)} frames")
        pieces, labels, spans, length = [], [], [], 0
        for part in parts:
            if isinstance(part, ImageSlot):
                piece = np.full(image_tokens[part.index], self.ids.image_pad)
                spans.append((length, length + len(piece)))
            else:
                piece = self._text(part.text, part.markup)
            supervised = isinstance(part, Segment) and part.supervised
            pieces.append(piece)
            labels.append(piece if supervised else np.full(len(piece), IGNORE))
            length += len(piece)
        return Encoded(
            input_ids=torch.from_numpy(np.concatenate(pieces)),
            labels=torch.from_numpy(np.concatenate(labels)),
            spans=torch.tensor(spans, dtype=torch.int64).reshape(-1, 2),
        )

    def _text(self, text: str, markup: bool) -> np.ndarray:
        ids = self._cache.get((text, markup))
        if ids is None:
            tokenizer = self._markup if markup else self._plain
            ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)
            self._cached_characters += len(text)
            if self._cached_characters > CACHED_CHARACTERS:
                self._cache.clear()
                self._cached_characters = len(text)
            self._cache[text, markup] = ids
        return ids
