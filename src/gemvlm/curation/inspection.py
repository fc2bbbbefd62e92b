"""What one looks at to judge a set: its counts, a fair choice of samples, questions of every family, its losses.

Sets may come from anywhere: nothing here trusts a name, a length or a path that it reads.
"""

from __future__ import annotations

import heapq
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemvlm.curation.card import CARD
from gemvlm.curation.facts import Facts
from gemvlm.curation.funnel import Funnel
from gemvlm.curation.part import PICTURES, REJECTIONS
from gemvlm.sample import Turn
from gemvlm.shards import SampleError, ShardReader
from gemvlm.shards.record import sample_of

TURNS_PER_FAMILY = 1000
LARGEST_FAMILIES = 500
LONGEST_LINE = 1 << 16
REJECTED_SHOWN = 300

_PICTURE = re.compile(rf"{PICTURES}/\d{{1,9}}\.jpg")


@dataclass
class Inspection:
    """A set, looked through once. `turns` holds up to a thousand questions of each family with their scenes.

    `chosen` are indices of samples to look at, `unreadable` what could not be read, `rejected` losses with a picture.
    """

    facts: Facts = field(default_factory=Facts)
    chosen: list[int] = field(default_factory=list)
    turns: dict[str, list[tuple[str, Turn]]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    funnel: Funnel | None = None
    card: dict[str, Any] = field(default_factory=dict)
    rejected: list[dict[str, str]] = field(default_factory=list)


def look_through(
    reader: ShardReader, examples: int, seed: int = 0, track: Callable[..., Iterable[int]] = iter
) -> Inspection:
    """Reads every record, but no picture. The choices are functions of the seed and the samples' ids."""
    found = Inspection()
    heaps: dict[tuple[str, str], _Smallest] = defaultdict(lambda: _Smallest(max(1, examples)))
    turns: dict[str, _Smallest] = defaultdict(lambda: _Smallest(TURNS_PER_FAMILY))
    for index in track(range(len(reader))):
        try:
            row = reader.record(index)
            sample = sample_of(row, ())
            found.facts.add(row)
        except (SampleError, ValueError, KeyError, TypeError, AttributeError) as error:
            found.unreadable.append(str(error)[:500])
            continue
        rank = zlib.crc32(f"{seed}\0{sample.id}".encode("utf-8", "replace"))
        for family in sorted({turn.family for turn in sample.turns} or {""}):
            if (sample.source, family) in heaps or len(heaps) < LARGEST_FAMILIES:
                heaps[sample.source, family].add(rank, index)
        for number, turn in enumerate(sample.turns):
            if turn.family in turns or len(turns) < LARGEST_FAMILIES:
                turns[turn.family].add(zlib.crc32(f"{rank} {number}".encode()), (sample.scene, turn))
    found.chosen = _in_turns([heap.items() for _, heap in sorted(heaps.items())], examples)
    found.turns = {family: heap.items() for family, heap in sorted(turns.items())}
    if isinstance(reader.folder, Path):
        _read_beside(reader.folder, found)
    return found


class _Smallest:
    """The `limit` items of lowest rank among all that are added; among equals the first."""

    def __init__(self, limit: int) -> None:
        self._limit, self._count = limit, 0
        self._heap: list[tuple[int, int, Any]] = []

    def add(self, rank: int, item: Any) -> None:
        self._count += 1
        entry = (-rank, -self._count, item)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        elif entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)

    def items(self) -> list[Any]:
        return [item for _, _, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def _in_turns(lists: list[list[int]], limit: int) -> list[int]:
    """One of each list, then the next of each, without repetition, until there are enough; then in order."""
    taken: dict[int, None] = {}
    for round_ in range(max(map(len, lists), default=0)):
        for items in lists:
            if len(taken) < limit and round_ < len(items):
                taken.setdefault(items[round_])
    return sorted(taken)


def _read_beside(folder: Path, found: Inspection) -> None:
    """The card and the rejections that curation left with the set, if they are there and sound."""
    if (folder / CARD).is_file():
        try:
            found.card = json.loads((folder / CARD).read_bytes())
            found.funnel = Funnel.from_json(found.card["funnel"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            found.unreadable.append(f"{folder / CARD}: {error}"[:500])
    if (folder / REJECTIONS).is_file():
        for fields in _lines(folder / REJECTIONS, found):
            if len(found.rejected) < REJECTED_SHOWN and _PICTURE.fullmatch(fields.get("picture", "")):
                found.rejected.append(fields)


def _lines(path: Path, found: Inspection) -> Iterator[dict[str, str]]:
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE):
            try:
                fields = json.loads(line)
                yield {str(key): str(value) for key, value in fields.items()}
            except (ValueError, AttributeError, RecursionError) as error:
                found.unreadable.append(f"{path}: {error}"[:500])
                return
