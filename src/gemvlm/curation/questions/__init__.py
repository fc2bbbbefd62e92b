"""Question families: rules that turn the truth behind an image into questions with answers.

Each family is a generator of turns from what is seen (`Seen`), lazily and in random order, so that a caller takes as
many as it wants. The families, their rules and margins are those of `docs/data.md`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from gemvlm.curation.questions import attributes, description, grounding, measures, planning, relations, surfaces
from gemvlm.curation.questions.visibility import Seen, Without
from gemvlm.sample import Task, Turn
from gemvlm.worlds.observation import Observation

Writer = Callable[[Seen, np.random.Generator], Iterator[Turn]]


@dataclass(frozen=True)
class Family:
    """A kind of question: `write` yields turns in random order; yes/no come in pairs of both answers."""

    name: str
    task: Task
    write: Writer


_WRITERS: dict[Task, tuple[Writer, ...]] = {
    "description": (description.describe, description.scan),
    "grounding": (
        grounding.point,
        grounding.box,
        grounding.point_relation,
        grounding.point_extremum,
        surfaces.free_space,
    ),
    "reasoning": (
        attributes.colour,
        attributes.shape,
        attributes.object_at,
        attributes.count,
        attributes.exists,
        attributes.occluded,
        relations.left_right,
        relations.above_below,
        relations.closer,
        relations.nearest_of,
        relations.larger,
        relations.nearer_to,
        relations.perspective,
        measures.object_depth,
        measures.distance,
        planning.support,
    ),
    "planning": (planning.removal_order, planning.can_lift, planning.consequence, surfaces.fits),
}

FAMILIES: dict[str, Family] = {
    write.__name__: Family(write.__name__, task, write) for task, writers in _WRITERS.items() for write in writers
}


def write_questions(
    observation: Observation,
    key: Iterable[int],
    families: Iterable[str] | None = None,
    turns_per_family: int | Mapping[str, int] = 2,
    without: Without | None = None,
) -> list[Turn]:
    """Up to `turns_per_family` turns (one count, or one by family) of each of `families`, by default all, on one view.

    `key` seeds each family by itself, so that adding one changes no other. `without` is the world's own simulation of a
    removal; the family `consequence` is silent without it. ValueError for an unknown family.
    """
    chosen = tuple(FAMILIES if families is None else families)
    if unknown := sorted(set(chosen) - FAMILIES.keys()):
        raise ValueError(f"families: {unknown} are unknown; choose from {sorted(FAMILIES)}")
    seen = Seen(observation, without)
    seed = tuple(key)
    turns: list[Turn] = []
    for name in chosen:
        count = turns_per_family if isinstance(turns_per_family, int) else turns_per_family[name]
        rng = np.random.default_rng((*seed, zlib.crc32(name.encode())))
        turns.extend(islice(FAMILIES[name].write(seen, rng), count))
    return turns
