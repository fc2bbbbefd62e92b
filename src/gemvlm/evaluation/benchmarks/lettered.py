"""What the benchmarks that are answered by one letter share; each adds its format and its readers of replies."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gemvlm.evaluation.benchmark import Convention, Item, Score, means
from gemvlm.evaluation.benchmarks.folder import FolderBenchmark

Reader = Callable[[str, Item], str | None]
"""(reply, item) → the letter that a protocol reads, any letter; None or "" if it reads none."""

_OPENING = re.compile(r"[(\s]*([A-Z])", re.IGNORECASE)


@dataclass(frozen=True)
class LetterBenchmark(FolderBenchmark):
    """A benchmark whose items' truths are letters: A is the first of `Item.options`."""

    readers: ClassVar[Mapping[str, Reader]]
    """By protocol."""

    def __init_subclass__(cls) -> None:
        cls.protocols = cls.readers

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
