"""A family of questions, and turns of several families drawn side by side."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import numpy as np

from gemvlm.sample import Task, Turn

Shown = TypeVar("Shown")
Writer = Callable[[Shown, np.random.Generator], Iterator[Turn]]


@dataclass(frozen=True)
class Family(Generic[Shown]):
    """A kind of question: `write` yields turns in random order; yes/no come in pairs of both answers."""

    name: str
    task: Task
    write: Writer[Shown]


def families_of(writers: Mapping[Task, Iterable[Writer[Shown]]]) -> dict[str, Family[Shown]]:
    """The families by name: that of the function which writes them."""
    return {write.__name__: Family(write.__name__, task, write) for task, those in writers.items() for write in those}


def known(chosen: Iterable[str], families: Mapping[str, Family[Shown]]) -> tuple[Family[Shown], ...]:
    """ValueError for an unknown family."""
    names = tuple(chosen)
    if unknown := sorted(set(names) - families.keys()):
        raise ValueError(f"families: {unknown} are unknown; choose from {sorted(families)}")
    return tuple(families[name] for name in names)


def draw(
    families: Iterable[Family[Shown]], shown: Shown, key: Iterable[int], turns_per_family: int | Mapping[str, int]
) -> list[Turn]:
    """Up to `turns_per_family` turns (one count, or one by family) of each family.

    `key` seeds each family by itself, so that adding one changes no other.
    """
    seed = tuple(key)
    turns: list[Turn] = []
    for family in families:
        count = turns_per_family if isinstance(turns_per_family, int) else turns_per_family[family.name]
        rng = np.random.default_rng((*seed, zlib.crc32(family.name.encode())))
        turns.extend(islice(family.write(shown, rng), count))
    return turns
