"""Small pieces of English and of chance that the question families share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from string import ascii_uppercase
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


def in_turn(by_answer: Mapping[str, Sequence[T]], rng: np.random.Generator) -> Iterator[tuple[str, T]]:
    """Everything once, with its answer: one of each answer in random order, then the next of each."""
    waiting = {answer: shuffled(items, rng) for answer, items in sorted(by_answer.items())}
    while any(waiting.values()):
        for answer in shuffled([answer for answer, items in waiting.items() if items], rng):
            yield answer, waiting[answer].pop()


def listing(words: Sequence[str], joint: str) -> str:
    """ "a, b or c": the last joined by `joint`."""
    return f"{', '.join(words[:-1])} {joint} {words[-1]}"


def lettered(question: str, choices: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """A question with its choices behind letters, and the letters: "Which? A: red mug, B: can"."""
    letters = tuple(ascii_uppercase[: len(choices)])
    return f"{question} " + ", ".join(f"{a}: {text}" for a, text in zip(letters, choices, strict=True)), letters


def with_options(question: str, options: Sequence[str]) -> str:
    """A question with the sentences that it may be answered by: "What is next? Choose from: pick it up; let it go." """
    return f"{question} Choose from: {'; '.join(options)}."


def with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def plural(noun: str) -> str:
    if noun.endswith(("f", "fe")):
        return noun.rstrip("e").removesuffix("f") + "ves"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return noun.removesuffix("y") + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")
