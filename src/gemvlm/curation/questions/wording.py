"""Small pieces of English and of chance that the question families share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def pick(items: Sequence[T], rng: np.random.Generator) -> T:
    return items[int(rng.integers(len(items)))]


def shuffled(items: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [items[int(i)] for i in rng.permutation(len(items))]


def pairs(items: Sequence[T], rng: np.random.Generator) -> Iterator[tuple[T, T]]:
    """Every unordered pair once, in random order, each with its members in random order."""
    for first, second in shuffled(list(combinations(items, 2)), rng):
        yield (first, second) if rng.random() < 0.5 else (second, first)


def with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")
