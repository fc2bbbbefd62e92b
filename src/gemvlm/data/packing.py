"""Samples of unequal size to batches of nearly equal work: an endless stream of packs, each within a budget.

A pack holds whole samples only, so nothing is cut, in a vision span or elsewhere. It takes every sample that fits,
first of those that wait, then in the keyed order of `loader.py`, until `window` samples did not fit; these wait for the
next pack. So no sample is lost or waits for more than `window` packs, and the sequence of packs is a function of
(plan, costs, budget) alone: rank r of w takes the r-th of each w consecutive packs, whatever w is. The whole state is
integers: how many samples were looked at, and which of them still wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from gemvlm.batch import Batch
from gemvlm.data.collate import Collator
from gemvlm.data.loader import Plan, Shuffled, digest
from gemvlm.data.wire import from_bytes, to_bytes
from gemvlm.sample import Sample

WINDOW = 32
"""Samples that may wait: enough to fill 99 % of the budget on realistic lengths (`benchmarks/packing.py`)."""
SLACK = 1.02
"""A question with image placeholders has other spaces where it doesn't come first, so costs may be off by a token."""
LOOKED_AT = 20_000
"""Samples that an estimate of an epoch's packs is made from."""

Costs = Int64[np.ndarray, "n 3"]
"""Tokens, vision patches and targets of each sample, at most (`Collator.cost`); negative: it is in no pack."""
LEFT_OUT = -1


@dataclass(frozen=True)
class Budget:
    """What one pack may hold: tokens, vision patches of all images, targets to paint."""

    tokens: int
    patches: int
    targets: int

    def __post_init__(self) -> None:
        if min(astuple(self)) < 1:
            raise ValueError(f"{self}: every part of a budget must be at least 1")


class PackedState(NamedTuple):
    """`position` samples of the plan have been looked at; `waiting` are the positions of those in no pack yet."""

    position: int
    waiting: tuple[int, ...]
    plan: str


def measure(reader: Sequence[Sample], collator: Collator, workers: int = 0, rank: int = 0, world: int = 1) -> Costs:
    """The costs of every `world`-th sample from `rank` on, each read once.

    They are those of the collator's turns, images and kinds of target. A sample that it refuses costs `LEFT_OUT`.
    """
    source = Subset(_Costs(reader, collator), range(rank, len(reader), world))
    loader = DataLoader(source, batch_size=256, num_workers=workers, collate_fn=np.array)
    parts = [np.zeros((0, 3), np.int64), *(np.asarray(part, dtype=np.int64).reshape(-1, 3) for part in loader)]
    return np.concatenate(parts)


class PackedStream:
    """Packs without end: `next(stream)`, or iterate. `state()` and `resume` continue it bit for bit, in any `world`.

    `costs` are measured if not given. `plan` says what stands where, by default `Shuffled` with the seed; a `Mixture`
    is both reader and plan. With `pinned`, what `workers` prepare lies where a GPU fetches it while the host goes on.
    ValueError for a sample that no pack can hold, unless its costs say `LEFT_OUT`.
    """

    def __init__(
        self,
        reader: Sequence[Sample],
        collator: Collator,
        budget: Budget,
        costs: Costs | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        plan: Plan | None = None,
        window: int = WINDOW,
        pinned: bool = False,
    ) -> None:
        if not len(reader):
            raise ValueError("the reader has no samples; make the data first")
        costs = measure(reader, collator, workers) if costs is None else costs
        if len(costs) != len(reader):
            raise ValueError(f"{len(costs)} costs for {len(reader)} samples; measure them again")
        if bool((costs < 0).any(1).all()):
            raise ValueError(f"all {len(costs)} samples are left out of the packs; raise max_tokens or the budget")
        too_large = np.flatnonzero((costs > astuple(budget)).any(1))
        if len(too_large):
            raise ValueError(
                f"sample {reader[int(too_large[0])].id!r} (and {len(too_large) - 1} more) needs up to (tokens, "
                f"patches, targets) {tuple(costs[too_large[0]].tolist())}, a pack holds {astuple(budget)}; raise the "
                "budget, lower the collator's max_tokens or max_pixels, or leave the sample out"
            )
        self._packer = Packer(plan or Shuffled(len(reader), seed), costs, budget, window)
        self._source = _Packs(reader, collator, budget)
        self._rank, self._world, self._workers, self._pinned = rank, world, workers, pinned
        self._state = self._packer.start
        self._ahead: deque[PackedState] = deque()
        self._batches: Iterator[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            self._ahead.clear()
            self._batches = self._start()
        batch = next(self._batches)
        self._state = self._ahead.popleft()
        return batch

    def state(self) -> PackedState:
        """What `resume` continues from; the same on every rank."""
        return self._state

    def resume(self, state: Sequence[Any]) -> None:
        """Continues where the state was taken, or what JSON made of it; batches prepared ahead are dropped.

        ValueError if it was taken from a stream of another order: other data, seed, weights, budget or window.
        """
        position, waiting, plan = state
        if plan != self._packer.hash:
            raise ValueError(
                f"the state belongs to plan {plan}, this stream follows {self._packer.hash}: data, seed, weights, "
                "budget or window have changed; resume with those of the first run, or start anew"
            )
        self._state, self._batches = PackedState(int(position), tuple(map(int, waiting)), plan), None

    @property
    def packs_per_epoch(self) -> int:
        """How many packs hold each sample about once, of all ranks together."""
        return self._packer.packs(self._source.size)

    def _start(self) -> Iterator[Batch]:
        steps = _Steps(self._packer, self._state, self._rank, self._world, self._ahead)
        if not self._workers:
            return map(self._source.batch, steps)
        loader = DataLoader(
            self._source, batch_size=None, sampler=steps, num_workers=self._workers, pin_memory=self._pinned
        )
        return map(from_bytes, loader)


class Packer:
    """State → the members of the next pack and the state after it."""

    def __init__(self, plan: Plan, costs: Costs, budget: Budget, window: int = WINDOW) -> None:
        content = sha256(np.ascontiguousarray(costs, dtype=np.int64).tobytes()).hexdigest()
        self.hash = digest("packed", plan.hash, astuple(budget), window, content)
        self.start = PackedState(0, (), self.hash)
        self._plan, self._costs, self._budget, self._window = plan, costs, astuple(budget), window
        self._member = lru_cache(8 * window)(plan.member)

    def next(self, state: PackedState) -> tuple[list[tuple[int, int]], PackedState]:
        """(epoch, index into the reader) of each sample of the next pack, in the order of the plan."""
        left, members = np.array(self._budget), []
        waiting: list[int] = []
        position, queue = state.position, deque(state.waiting)
        while len(waiting) < self._window:
            if queue:
                looked_at = queue.popleft()
            else:
                looked_at, position = position, position + 1
            epoch, index = self._member(looked_at)
            cost = self._costs[index]
            if (cost < 0).any():
                continue
            if (cost <= left).all():
                left -= cost
                members.append((epoch, index))
            else:
                waiting.append(looked_at)
        return members, PackedState(position, (*waiting, *queue), self.hash)

    def packs(self, samples: int) -> int:
        """About how many packs hold this many samples, from the plan's first ones."""
        state, packs, packed, enough = self.start, 0, 0, min(samples, LOOKED_AT)
        while packed < enough:
            members, state = self.next(state)
            packs, packed = packs + 1, packed + len(members)
        return max(1, round(packs * samples / packed))


class _Steps(Sampler[list[tuple[int, int]]]):
    """The members of one rank's packs without end. What `ahead` gets for each is the state once all ranks have one."""

    def __init__(self, packer: Packer, state: PackedState, rank: int, world: int, ahead: deque[PackedState]) -> None:
        self._packer, self._state, self._rank, self._world, self._ahead = packer, state, rank, world, ahead

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        state = self._state
        while True:
            own: list[tuple[int, int]] = []
            for rank in range(self._world):
                members, state = self._packer.next(state)
                own = members if rank == self._rank else own
            self._ahead.append(state)
            yield own


class _Packs(Dataset[Tensor]):
    """The batch of given members; as bytes, which is what worker processes compute."""

    def __init__(self, reader: Sequence[Sample], collator: Collator, budget: Budget) -> None:
        self._reader, self._collator, self._budget = reader, collator, budget
        self.size = len(reader)

    def batch(self, members: Sequence[tuple[int, int]]) -> Batch:
        batch = self._collator([self._reader[index] for _, index in members], [epoch for epoch, _ in members])
        held = (len(batch.input_ids), len(batch.pixel_values), len(batch.targets))
        if any(there > SLACK * most for there, most in zip(held, astuple(self._budget), strict=True)):
            raise ValueError(
                f"samples {batch.sample_ids} hold (tokens, patches, targets) {held}, more than their costs said and "
                f"{self._budget} holds; the costs are of other data or another collator: measure them again"
            )
        return batch

    def __getitem__(self, members: Sequence[tuple[int, int]]) -> Tensor:
        return to_bytes(self.batch(members))


class _Costs(Dataset[tuple[int, int, int]]):
    """The cost of each sample, for worker processes."""

    def __init__(self, reader: Sequence[Sample], collator: Collator) -> None:
        self._reader, self._collator = reader, collator

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[int, int, int]:
        try:
            return self._collator.cost(self._reader[index])
        except ValueError:  # too long, however few of its turns are shown
            return LEFT_OUT, LEFT_OUT, LEFT_OUT
