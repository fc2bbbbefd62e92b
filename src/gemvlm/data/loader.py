"""The endless, resumable stream of batches that training reads.

The order of samples is a function of (seed, number of samples drawn) alone: a permutation per epoch computed from a
counter, not from a generator that must be replayed. Position p of the stream is sample `permuted(p mod n)` of epoch
`p div n`, whatever the number of ranks and workers; at each step rank r of w takes the r-th of w consecutive batches.
The whole state is one integer, the number of samples that all ranks have drawn.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gemvlm.batch import Batch
from gemvlm.data.collate import Collator, keyed
from gemvlm.sample import Sample

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


class BatchStream:
    """Batches without end: `next(stream)`, or iterate. `state()` and `resume` continue it bit for bit.

    Each batch holds `batch_size` samples of `reader`. A sample's epoch keys its turns, noise and dropout, also where a
    batch straddles two epochs. `workers` processes prepare batches ahead, in order; 0 prepares them in this process.
    With `lengths` (tokens per sample, say) samples are sorted within windows of `bucket_batches` steps, so that those
    of a step are of like length; their order then depends on the samples per step, which a resumed run must keep.
    """

    def __init__(
        self,
        reader: Sequence[Sample],
        collator: Collator,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        lengths: Sequence[int] | None = None,
        bucket_batches: int = 64,
        drawn: int = 0,
    ) -> None:
        if not len(reader):
            raise ValueError("the reader has no samples; make the data first")
        if lengths is not None and len(lengths) != len(reader):
            raise ValueError(f"{len(lengths)} lengths for {len(reader)} samples; give one per sample")
        self._order = _Order(len(reader), batch_size, seed, rank, world, lengths, bucket_batches)
        self._source = _Batches(reader, collator, self._order)
        self._workers, self._drawn = workers, drawn
        self._batches: Iterator[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = self._start()
        batch = next(self._batches)
        self._drawn += self._order.step
        return batch

    def state(self) -> int:
        """Samples drawn so far by all ranks together: what `drawn` continues from."""
        return self._drawn

    def resume(self, state: int) -> None:
        """Continues as if `state` samples had been drawn; batches prepared ahead are dropped."""
        self._drawn, self._batches = state, None

    def _start(self) -> Iterator[Batch]:
        """Batches from the present position on."""
        steps = _Steps(self._drawn, self._order.step)
        if not self._workers:
            return map(self._source.__getitem__, steps)
        loader = DataLoader(
            self._source, batch_size=None, sampler=steps, num_workers=self._workers, collate_fn=_to_bytes
        )
        return map(_from_bytes, loader)


class _Order:
    """Which samples each step shows to one rank. It knows no stream, so that a dropped stream ends its workers."""

    def __init__(
        self, size: int, batch_size: int, seed: int, rank: int, world: int, lengths: Sequence[int] | None, bucket: int
    ) -> None:
        self.step = batch_size * world
        self._size, self._seed, self._lengths, self._bucket = size, seed, lengths, bucket
        self._own = range(rank * batch_size, (rank + 1) * batch_size)
        self._window: tuple[int, list[tuple[int, int]]] = (-1, [])

    def members(self, drawn: int) -> list[tuple[int, int]]:
        """(epoch, index into the reader) of this rank's samples in the step that begins after `drawn` samples."""
        if self._lengths is None:
            return [self._member(drawn + offset) for offset in self._own]
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
            members = [self._member(window * size + offset) for offset in range(size)]
            self._window = (window, sorted(members, key=lambda member: lengths[member[1]]))
        return self._window[1]

    def _member(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self._size)
        return epoch, permuted(place, self._size, self._seed, epoch)


class _Steps(Sampler[int]):
    """The positions at which steps begin, without end."""

    def __init__(self, drawn: int, step: int) -> None:
        self._drawn, self._step = drawn, step

    def __iter__(self) -> Iterator[int]:
        return count(self._drawn, self._step)


class _Batches(Dataset[Batch]):
    """The batch of the step that begins at a position; this is what worker processes compute."""

    def __init__(self, reader: Sequence[Sample], collator: Collator, order: _Order) -> None:
        self._reader, self._collator, self._order = reader, collator, order

    def __getitem__(self, drawn: int) -> Batch:
        members = self._order.members(drawn)
        samples = [self._reader[index] for _, index in members]
        return self._collator(samples, [epoch for epoch, _ in members])


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        return (torch.from_numpy, (obj.numpy(),)) if isinstance(obj, Tensor) else NotImplemented


def _to_bytes(batch: Any) -> Tensor:
    """A batch as one tensor: between processes, a hundred small tensors cost far more than their bytes."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(batch)
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)


def _from_bytes(content: Tensor) -> Batch:
    return pickle.loads(content.numpy().data)
