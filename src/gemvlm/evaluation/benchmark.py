"""What a benchmark is: items that ask, and one rule that turns a raw reply into a score.

Each is one short file in `evaluation/benchmarks/` that opens with where its format and its rule are stated. A reply
that the rule can't read is a value (`Score.parsed` is None): it scores zero, is counted and reported, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Axes = Literal["xy", "yx"]
Unit = Literal["fraction", "hundred", "thousand", "pixel"]


@dataclass(frozen=True)
class Convention:
    """How a model writes coordinates: it belongs to the model, and no rule guesses it.

    `fraction` is 0..1 of width and height, `hundred` 0..100 (Molmo), `thousand` 0..1000 (Qwen3-VL), `pixel` those of
    the image as given. A reply in another convention is read as written and counted (`Score.outside`), not converted.
    """

    unit: Unit = "thousand"
    axes: Axes = "xy"


@dataclass(frozen=True)
class Media:
    """An image or a video of an item: a file, or the encoded bytes themselves. Decoded only when it is asked about."""

    content: Path | bytes
    kind: Literal["image", "video"] = "image"


@dataclass(frozen=True, eq=False)
class Item:
    """One question. `prompt` is the whole text, as the protocol words it: `<image>` marks where each medium stands, one
    for each, or is absent, and then all media come first.

    `id` is unique in the benchmark and stable between runs; `scene` is what intervals are resampled by (an image, a
    video, a room); `category` is the sub-task that tables show. `truth` and `meta` hold plain JSON values. `frames` is
    how many evenly spaced frames of each video the protocol shows, `max_new_tokens` how long a reply it lets grow.
    """

    id: str
    media: tuple[Media, ...]
    prompt: str
    truth: Any
    category: str
    scene: str
    options: tuple[str, ...] = ()
    system: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    frames: int = 32
    max_new_tokens: int = 128


@dataclass(frozen=True)
class Score:
    """What the rule gives a reply, in [0, 1]; `parsed` is what it read (plain JSON), None if it could not.

    `counted` is False only where a protocol drops such replies (`official_skip`); a table then says how many.
    `outside` counts points and boxes that the reply wrote outside the model's convention (`coordinates.read_places`);
    tables show it, because it tells a wrong convention from a wrong answer.
    """

    value: float
    parsed: Any
    counted: bool = True
    outside: int = 0


def means(items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
    """The mean score of each category, in the order in which they first appear, of the scores that count."""
    by_category: dict[str, list[float]] = {}
    for item, score in zip(items, scores, strict=True):
        if score.counted:
            by_category.setdefault(item.category, []).append(score.value)
    return {category: sum(values) / len(values) for category, values in by_category.items()}


@runtime_checkable
class Benchmark(Protocol):
    """A published test set with its rule, under one protocol.

    Implementations are frozen dataclasses made by `open(place, protocol)`, where `place` is a local folder or a hub id.
    """

    @property
    def name(self) -> str: ...

    @property
    def protocol(self) -> str: ...

    def items(self) -> Sequence[Item]:
        """All items in the published order. ValueError naming file, row and field if anything is missing or unknown."""
        ...

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        """By the benchmark's rule; never raises for any reply."""
        ...

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """The published headline under "overall", and each published sub-score by name, in [0, 1].

        It is given any multiset of the benchmark's items (intervals resample them), a category may be missing, and all
        of their scores: those that do not count are left out here.
        """
        ...

    def oracle(self, item: Item, convention: Convention) -> str:
        """A reply that reaches the best score."""
        ...

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        """The reply of someone who reads the prompt's form but neither words nor image."""
        ...

    def chance(self, item: Item) -> float:
        """The expected score of `guess`."""
        ...


@runtime_checkable
class WritesPlaces(Protocol):
    """A benchmark whose prompts hold coordinates, which must be those of the model that is asked.

    Items keep their ids in every convention.
    """

    def written_for(self, convention: Convention) -> Benchmark: ...
