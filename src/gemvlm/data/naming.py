"""Words for image tokens: the state of a token that shows a place must say what is there.

Stage 0 of the small models stands in for a pretrained vision tower. Asked in text alone, a model of random weights must
learn to see, to find a place by its coordinates and to speak at once, and sits at guessing for a thousand steps.
Here the labels stand at the image's own tokens, so that seeing is learnt alone, and the words lie ready
where the answer's attention will look for them. [ours]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from transformers import PreTrainedTokenizerFast

from gemvlm.data.encoding import Encoded
from gemvlm.data.frames import ImageConfig
from gemvlm.sample import Point, Sample, Turn

NOUN = 0.75
"""How often the word is the kind: kinds come slower than colours."""
FAMILY = "places"
"""The questions whose answers are read: `<place:0> red mug; <place:1> wall`."""
_NAMED = re.compile(r"<place:(\d+)> ([^;]+)")


class Naming:
    """Adds labels to a conversation's first image from the sample's `places` turns, shown as text or not.

    The token that holds a place is labelled with one word of its name, its kind or its colour, another in each epoch,
    keyed by the caller; of several places in one token the last counts. A word of several tokens is labelled by its
    first.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, images: ImageConfig) -> None:
        self._tokenizer, self._images = tokenizer, images
        self._ids: dict[str, int] = {}

    def __call__(self, sample: Sample, encoded: Encoded, key: int) -> Encoded:
        turns = [turn for turn in sample.turns if turn.family == FAMILY]
        if not turns or not sample.frames:
            return encoded
        rng = np.random.Generator(np.random.PCG64(key))
        _, height, width = self._images.grid(*sample.frames[0].image.shape[:2])
        rows, columns = height // self._images.merge_size, width // self._images.merge_size
        labels = encoded.labels.clone()
        for turn in turns:
            for place, words in named_places(turn):
                cell = min(int(place.y * rows), rows - 1) * columns + min(int(place.x * columns), columns - 1)
                # labels stand at the token that the state before them predicts
                word = words[-1] if rng.random() < NOUN else words[0]
                labels[int(encoded.spans[0, 0]) + cell + 1] = self._id(word)
        return replace(encoded, labels=labels)

    def _id(self, word: str) -> int:
        if word not in self._ids:
            self._ids[word] = self._tokenizer.encode(f" {word}", add_special_tokens=False)[0]
        return self._ids[word]


def named_places(turn: Turn) -> Iterator[tuple[Point, list[str]]]:
    """Each place of the answer and the words of its name."""
    for number, name in _NAMED.findall(turn.answer):
        place = turn.places[int(number)]
        assert isinstance(place, Point), f"turn of family {turn.family!r}: place {number} is no point"
        yield place, name.split()
