"""Words for image tokens: each stands where its place lies, and nothing else of the conversation changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from gemvlm.batch import IGNORE
from gemvlm.data.collate import Collator
from gemvlm.data.naming import FAMILY, Naming, named_places
from gemvlm.sample import Point, Sample, Turn

Make = Callable[..., Sample]
ANSWER = "<place:0> red mug; <place:1> wall; <place:2> blue box"


def lesson(places: tuple[Point, ...], answer: str = ANSWER) -> Turn:
    return Turn("Name what is there.", answer, family=FAMILY, task="description", kind="text", places=places)


def test_each_place_is_named_at_the_token_that_shows_it(
    make_sample: Make, make_collator: Callable[..., Collator], tokenizer: PreTrainedTokenizerFast
) -> None:
    sample = make_sample("one")
    images = make_collator().images
    _, height, width = images.grid(*sample.frames[0].image.shape[:2])
    rows, columns = height // images.merge_size, width // images.merge_size
    assert rows > 1 and columns > 1
    cells = [(0, 0), (rows - 1, columns - 1), (rows - 1, 0)]
    places = tuple(Point((column + 0.5) / columns, (row + 0.5) / rows) for row, column in cells)
    sample = replace(sample, turns=(*sample.turns, lesson(places)))
    encoded = make_collator()._fit(sample, 0)
    start, stop = encoded.spans[0].tolist()
    seen: dict[tuple[int, int], set[int]] = {cell: set() for cell in cells}
    for key in range(30):
        named = Naming(tokenizer, make_collator().images)(sample, encoded, key)
        changed = (named.labels != encoded.labels).nonzero()[:, 0].tolist()
        assert changed == sorted(start + row * columns + column + 1 for row, column in cells)
        assert torch.equal(named.input_ids, encoded.input_ids) and max(changed) <= stop
        for row, column in cells:
            seen[row, column].add(int(named.labels[start + row * columns + column + 1]))
    first = [
        {tokenizer.encode(f" {word}")[0] for word in words} for words in (["red", "mug"], ["wall"], ["blue", "box"])
    ]
    assert [seen[cell] for cell in cells] == first  # one word or the other, never a third


def test_samples_without_the_lesson_stay_as_they_are(
    make_sample: Make, make_collator: Callable[..., Collator], tokenizer: PreTrainedTokenizerFast
) -> None:
    for frames in (0, 1):
        sample = make_sample("plain", frames=frames)
        encoded = make_collator()._fit(sample, 0)
        assert Naming(tokenizer, make_collator().images)(sample, encoded, 0) is encoded


def test_places_on_the_border_belong_to_the_last_token(
    make_sample: Make, make_collator: Callable[..., Collator], tokenizer: PreTrainedTokenizerFast
) -> None:
    sample = replace(make_sample("edge"), turns=(lesson((Point(1.0, 1.0),), "<place:0> wall"),))
    encoded = make_collator()._fit(sample, 0)
    named = Naming(tokenizer, make_collator().images)(sample, encoded, 0)
    (changed,) = (named.labels != encoded.labels).nonzero()[:, 0].tolist()
    assert changed == int(encoded.spans[0, 1]) and int(encoded.labels[changed]) == IGNORE


def test_the_lesson_is_read_as_it_was_written() -> None:
    places = tuple(Point(*xy) for xy in np.random.default_rng(0).random((3, 2)))
    assert list(named_places(lesson(places))) == [
        (places[0], ["red", "mug"]),
        (places[1], ["wall"]),
        (places[2], ["blue", "box"]),
    ]
