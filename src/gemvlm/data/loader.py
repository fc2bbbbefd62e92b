"""The endless, resumable stream of batches that training reads.

The order of samples is a function of (plan, number of samples drawn) alone: a permutation per epoch computed from a
counter, not from a generator that must be replayed. Position p of the stream is sample `permuted(p mod n)` of epoch
`p div n`, or what a `Mixture` puts there, whatever the number of ranks and workers; at each step rank r of w takes the
r-th of w consecutive batches. The whole state is the number of samples that all ranks have drawn and the plan's hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gemvlm.batch import Batch
from gemvlm.data.collate import keyed
from gemvlm.data.wire import from_bytes, to_bytes

FEISTEL_ROUNDS = 4


def permuted(position: int, size: int, seed: int, epoch: int) -> int:
    """Where `position` goes in the epoch's permutation of range(size): a Feistel network, walked until in range."""
    bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << bits) - 1
    while True:
        left, right = position >> bits, position & mask
        for turn in range(FEISTEL_ROUNDS):
            left, right = right, left ^ (keyed("order", seed, epoch, turn, right) & mask)
        position = left << bits | right
        if position < size:
            return position


@runtime_checkable
class Collates(Protocol):
    """Makes a batch of what a reader gives: `data.collate.Collator` of samples, `data.actions.ActionCollator` of both
    samples and moments of episodes."""

    def __call__(self, samples: Sequence[Any], epoch: int | Sequence[int] = 0, /) -> Batch: ...


@runtime_checkable
class Plan(Protocol):
    """Which sample stands at which position of the stream."""

    @property
    def hash(self) -> str:
        """Different for plans that differ in any position."""
        ...

    def member(self, position: int) -> tuple[int, int]:
        """(epoch, index into the reader)."""
        ...


@dataclass(frozen=True)
class Shuffled:
    """One set of `size` samples, each once per epoch."""

    size: int
    seed: int

    @property
    def hash(self) -> str:
        return digest("shuffled", self.size, self.seed)

    def member(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self.size)
        return epoch, permuted(place, self.size, self.seed, epoch)


def digest(*parts: object) -> str:
    """A short hash of plain values, for plans."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class StreamState(NamedTuple):
    """Samples drawn so far by all ranks together, and the plan that they were drawn by."""

    drawn: int
    plan: str


class BatchStream:
    """Batches without end: `next(stream)`, or iterate. `state()` and `resume` continue it bit for bit.

    Each batch holds `batch_size` samples, or other items of `reader`. A sample's epoch keys its turns, noise and
    dropout, also where a batch straddles two epochs. `workers` processes prepare batches ahead, in order; 0 prepares
    them in this process.
    `plan` says what stands where, by default `Shuffled` with the seed; a `Mixture` is both reader and plan.
    With `lengths` (tokens per sample, say) samples are sorted within windows of `bucket_batches` steps, so that those
    of a step are of like length; their order then depends on the samples per step, which a resumed run must keep.
    With `pinned`, what `workers` prepare lies where a GPU fetches it while the host goes on.
    """

    def __init__(
        self,
        reader: Sequence[Any],
        collator: Collates,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        lengths: Sequence[int] | None = None,
        bucket_batches: int = 64,
        drawn: int = 0,
        plan: Plan | None = None,
        pinned: bool = False,
    ) -> None:
        if not len(reader):
            raise ValueError("the reader has no samples; make the data first")
        if lengths is not None and len(lengths) != len(reader):
            raise ValueError(f"{len(lengths)} lengths for {len(reader)} samples; give one per sample")
        plan = plan or Shuffled(len(reader), seed)
        self._order = _Order(plan, batch_size, seed, rank, world, lengths, bucket_batches)
        self._source = _Batches(reader, collator, self._order)
        self._workers, self._pinned, self._drawn = workers, pinned, drawn
        self._batches: Iterator[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = self._start()
        batch = next(self._batches)
        self._drawn += self._order.step
        return batch

    def state(self) -> StreamState:
        """What `resume` continues from."""
        return StreamState(self._drawn, self._order.hash)

    def resume(self, state: Sequence[Any]) -> None:
        """Continues where the state was taken, or what JSON made of it; batches prepared ahead are dropped.

        ValueError if it was taken from a stream of another order: other sizes, seed, weights or buckets.
        """
        state = StreamState(*state)
        if state.plan != self._order.hash:
            raise ValueError(
                f"the state belongs to plan {state.plan}, this stream follows {self._order.hash}: data, seed, weights "
                "or buckets have changed; resume with those of the first run, or start anew"
            )
        self._drawn, self._batches = state.drawn, None

    def _start(self) -> Iterator[Batch]:
        """Batches from the present position on."""
        steps = _Steps(self._drawn, self._order.step)
        if not self._workers:
            return map(self._source.__getitem__, steps)
        source = _Sent(self._source)
        loader = DataLoader(source, batch_size=None, sampler=steps, num_workers=self._workers, pin_memory=self._pinned)
        return map(from_bytes, loader)


class _Order:
    """Which samples each step shows to one rank. It knows no stream, so that a dropped stream ends its workers."""

    def __init__(
        self, plan: Plan, batch_size: int, seed: int, rank: int, world: int, lengths: Sequence[int] | None, bucket: int
    ) -> None:
        self.step = batch_size * world
        self.hash = plan.hash if lengths is None else digest(plan.hash, self.step, bucket, seed, list(lengths))
        self._plan, self._seed, self._lengths, self._bucket = plan, seed, lengths, bucket
        self._own = range(rank * batch_size, (rank + 1) * batch_size)
        self._window: tuple[int, list[tuple[int, int]]] = (-1, [])

    def members(self, drawn: int) -> list[tuple[int, int]]:
        """(epoch, index into the reader) of this rank's samples in the step that begins after `drawn` samples."""
        if self._lengths is None:
            return [self._plan.member(drawn + offset) for offset in self._own]
        if drawn % self.step:
            raise ValueError(
                f"{drawn} drawn samples are no whole steps of {self.step}; buckets resume with the same step"
            )
        window, at = divmod(drawn // self.step, self._bucket)
        block = permuted(at, self._bucket, self._seed, -1 - window) * self.step
        return [self._sorted(window, self._lengths)[block + offset] for offset in self._own]

    def _sorted(self, window: int, lengths: Sequence[int]) -> list[tuple[int, int]]:
        """The samples of a window from short to long; the last window is remembered."""
        if self._window[0] != window:
            size = self._bucket * self.step
            members = [self._plan.member(window * size + offset) for offset in range(size)]
            self._window = (window, sorted(members, key=lambda member: lengths[member[1]]))
        return self._window[1]


class _Steps(Sampler[int]):
    """The positions at which steps begin, without end."""

    def __init__(self, drawn: int, step: int) -> None:
        self._drawn, self._step = drawn, step

    def __iter__(self) -> Iterator[int]:
        return count(self._drawn, self._step)


class _Batches(Dataset[Batch]):
    """The batch of the step that begins at a position."""

    def __init__(self, reader: Sequence[Any], collator: Collates, order: _Order) -> None:
        self._reader, self._collator, self._order = reader, collator, order

    def __getitem__(self, drawn: int) -> Batch:
        members = self._order.members(drawn)
        samples = [self._reader[index] for _, index in members]
        return self._collator(samples, [epoch for epoch, _ in members])


class _Sent(Dataset[Tensor]):
    """The same as bytes; this is what worker processes compute."""

    def __init__(self, batches: _Batches) -> None:
        self._batches = batches

    def __getitem__(self, drawn: int) -> Tensor:
        return to_bytes(self._batches[drawn])
