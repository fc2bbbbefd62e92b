"""What the benchmarks that are answered by one letter share; each adds its format and its readers of replies."""

from __future__ import annotations

import re
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gemvlm.evaluation.benchmark import Convention, Item, Score, means
from gemvlm.evaluation.published import folder_of

Reader = Callable[[str, Item], str | None]
"""(reply, item) → the letter that a protocol reads, any letter; None or "" if it reads none."""

IMAGE = "<image>"
_OPENING = re.compile(r"[(\s]*([A-Z])", re.IGNORECASE)


@dataclass(frozen=True)
class LetterBenchmark(ABC):
    """A benchmark in `folder` whose items' truths are letters: A is the first of `Item.options`."""

    folder: Path
    protocol: str

    name: ClassVar[str]
    hub_id: ClassVar[str]
    readers: ClassVar[Mapping[str, Reader]]
    """By protocol."""

    @classmethod
    def open(cls, place: str, protocol: str = "official") -> LetterBenchmark:
        """From a local folder or a hub id. ValueError for an unknown protocol or place."""
        known(cls.name, protocol, cls.readers)
        return cls(folder_of(place, cls.hub_id), protocol)

    @abstractmethod
    def read(self) -> Iterator[Item]:
        """The items in the published order; ValueError naming file, row and field."""

    def items(self) -> Sequence[Item]:
        return self._items

    @cached_property
    def _items(self) -> tuple[Item, ...]:
        return checked(self.name, self.read())

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        letter = self.readers[self.protocol](reply, item)
        return Score(float(letter == item.truth), letter if letter in letters_of(item) else None)

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """Accuracy over all items, and by category."""
        return {"overall": mean(scores)} | means(items, scores)

    def oracle(self, item: Item, convention: Convention) -> str:
        return self.written(item, item.truth)

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        return self.written(item, str(rng.choice(letters_of(item))))

    def chance(self, item: Item) -> float:
        return 1 / len(item.options)

    def written(self, item: Item, letter: str) -> str:
        """The letter as the prompt asks to write it."""
        return letter


def known(name: str, protocol: str, protocols: Iterable[str]) -> None:
    """ValueError that lists the protocols of benchmark `name` if `protocol` is none of them."""
    if protocol not in protocols:
        raise ValueError(f"{name}: protocol {protocol!r} is unknown; choose from {', '.join(protocols)}")


def checked(name: str, items: Iterable[Item]) -> tuple[Item, ...]:
    """The items, if each id is there once and marks of images in prompts agree with the media."""
    found: dict[str, Item] = {}
    for item in items:
        if item.id in found:
            raise ValueError(f"{name}: two items have the id {item.id!r}; fetch the annotations again")
        if item.prompt.count(IMAGE) not in (0, len(item.media)):
            raise ValueError(
                f"{name}: item {item.id!r} marks {item.prompt.count(IMAGE)} places of images and has {len(item.media)}"
            )
        found[item.id] = item
    return tuple(found.values())


def letters_of(item: Item) -> tuple[str, ...]:
    return tuple(string.ascii_uppercase[: len(item.options)])


def truth_letter(letter: str, options: Sequence[str], where: str) -> str:
    """The letter of a row's truth; ValueError naming `where` if no option has it."""
    if len(letter) != 1 or letter not in string.ascii_uppercase[: len(options)]:
        raise ValueError(f"{where}: the answer {letter!r} is none of the {len(options)} options {list(options)!r:.200}")
    return letter


def texts(values: Sequence[Any], field: str, where: str) -> tuple[str, ...]:
    """A list of texts, at least two; ValueError naming `where` and `field`."""
    if len(values) < 2 or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{where}: field {field!r} must be a list of two texts or more, found {values!r:.200}")
    return tuple(values)


def opening_letter(reply: str, item: Item) -> str | None:
    """lmms-eval's (cv_bench and embspatial): the letter that opens the reply, in brackets or not; "The" is T."""
    found = _OPENING.match(reply.strip())
    return found[1].upper() if found else None


def mean_of(values: Sequence[float]) -> float:
    """The plain mean; NaN of none."""
    return sum(values) / len(values) if values else float("nan")


def mean(scores: Iterable[Score]) -> float:
    """The mean of the counted scores; NaN of none."""
    return mean_of([score.value for score in scores if score.counted])


def grouped(scores: Sequence[Score], groups: Sequence[str]) -> dict[str, float]:
    """The mean of each group's counted scores, where the groups are other ones than `Item.category`."""
    counted = [(group, score) for group, score in zip(groups, scores, strict=True) if score.counted]
    return {
        group: mean(score for its, score in counted if its == group)
        for group in dict.fromkeys(its for its, _ in counted)
    }
