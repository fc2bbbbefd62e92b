"""The stream's order depends on nothing but the seed and the number of samples drawn."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence

import pytest
import torch

from gemvlm.batch import Batch
from gemvlm.data.collate import Collator, TurnSampler
from gemvlm.data.loader import BatchStream, permuted
from gemvlm.sample import Sample

Streams = Callable[..., BatchStream]


@pytest.fixture
def streams(make_sample: Callable[..., Sample], make_collator: Callable[..., Collator]) -> Streams:
    samples = [make_sample(f"s{index}", turns=4) for index in range(10)]

    def make(**options: object) -> BatchStream:
        return BatchStream(samples, make_collator(turns=TurnSampler(2)), **{"batch_size": 2, "seed": 3, **options})

    return make


def ids(stream: BatchStream, batches: int) -> list[str]:
    return [name for _ in range(batches) for name in next(stream).sample_ids]


def equal(a: Batch, b: Batch) -> bool:
    tensors = ("input_ids", "segment_ids", "position_ids", "labels", "pixel_values", "image_grid_thw", "spans")
    pictures = all(torch.equal(s.picture, t.picture) for s, t in zip(a.targets, b.targets, strict=True))
    keys = [target.key for target in a.targets] == [target.key for target in b.targets]
    return (
        a.sample_ids == b.sample_ids
        and keys
        and pictures
        and all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors)
    )


@pytest.mark.parametrize("size", [1, 2, 3, 10, 17, 256, 1000])
def test_an_epoch_is_a_permutation(size: int) -> None:
    orders = [[permuted(place, size, seed=0, epoch=epoch) for place in range(size)] for epoch in (0, 1)]
    assert all(sorted(order) == list(range(size)) for order in orders)
    assert size < 10 or orders[0] != orders[1]


def test_places_are_spread_evenly_over_many_epochs() -> None:
    counts = torch.zeros(8, 8)
    for epoch in range(1000):
        for place in range(8):
            counts[place, permuted(place, 8, 0, epoch)] += 1
    assert (counts - 125).abs().max() < 50


def test_every_epoch_shows_every_sample_once(streams: Streams) -> None:
    seen = ids(streams(), 15)
    assert all(sorted(seen[start : start + 10]) == sorted({f"s{i}" for i in range(10)}) for start in (0, 10, 20))


def test_the_order_does_not_depend_on_the_number_of_ranks(streams: Streams) -> None:
    """B5: every rank draws from one global order, so two ranks together draw what one would."""
    alone = ids(streams(), 12)
    ranks = [streams(rank=rank, world=2) for rank in (0, 1)]
    together = [name for _ in range(6) for stream in ranks for name in next(stream).sample_ids]
    assert together == alone


def test_a_resumed_stream_continues_bit_for_bit(streams: Streams) -> None:
    whole = streams()
    for _ in range(7):
        next(whole)
    resumed = streams(drawn=whole.state().drawn)
    again = streams()
    again.resume(whole.state())
    for _ in range(5):
        expected = next(whole)
        assert equal(next(resumed), expected) and equal(next(again), expected)
    assert whole.state() == resumed.state() and whole.state().drawn == 24


def test_a_run_resumes_on_another_number_of_ranks(streams: Streams) -> None:
    first = [streams(rank=rank, world=2) for rank in (0, 1)]
    drawn = [name for _ in range(3) for stream in first for name in next(stream).sample_ids]
    assert drawn + ids(streams(drawn=first[0].state().drawn), 4) == ids(streams(), 10)


def test_a_state_of_another_order_is_refused(streams: Streams) -> None:
    state = streams().state()
    streams(rank=1, world=2, batch_size=4).resume(state)
    for other in ({"seed": 4}, {"lengths": [1] * 10}):
        with pytest.raises(ValueError, match="resume with those of the first run"):
            streams(**other).resume(state)
    with pytest.raises(ValueError, match="resume with those of the first run"):
        streams(lengths=[1] * 10, batch_size=4).resume(streams(lengths=[1] * 10).state())


def test_workers_give_the_same_batches_in_the_same_order(streams: Streams) -> None:
    alone, helped = streams(), streams(workers=2)
    assert all(equal(next(helped), next(alone)) for _ in range(8))


def test_a_dropped_stream_ends_its_workers_at_once(streams: Streams) -> None:
    stream = streams(workers=2)
    next(stream)
    workers = multiprocessing.active_children()
    start = time.monotonic()
    del stream
    assert time.monotonic() - start < 4  # waiting for a deaf worker takes five seconds
    assert workers and not any(worker.is_alive() for worker in workers)


def test_a_sample_straddling_epochs_is_keyed_by_its_own_epoch(streams: Streams) -> None:
    three = [next(stream) for stream in [streams(batch_size=3)] for _ in range(4)][3]
    pairs = [next(stream) for stream in [streams(batch_size=1)] for _ in range(12)][9:]
    assert [target.key for target in three.targets] == [batch.targets[0].key for batch in pairs]


def test_buckets_hold_samples_of_like_length_and_lose_none(
    make_sample: Callable[..., Sample], make_collator: Callable[..., Collator]
) -> None:
    samples: Sequence[Sample] = [make_sample(f"s{index}", turns=index % 8) for index in range(64)]
    lengths = [len(sample.turns) for sample in samples]
    stream = BatchStream(samples, make_collator(), 4, lengths=lengths, bucket_batches=16)
    batches = [next(stream) for _ in range(16)]
    names = [name for batch in batches for name in batch.sample_ids]
    assert sorted(names) == sorted(sample.id for sample in samples)
    spread = [int(batch.lengths.max() - batch.lengths.min()) for batch in batches]
    assert max(spread) == 0
    assert [len(batch.input_ids) for batch in batches] != sorted(len(batch.input_ids) for batch in batches)


def test_bad_settings_are_refused(streams: Streams, make_collator: Callable[..., Collator]) -> None:
    with pytest.raises(ValueError, match="no samples"):
        BatchStream([], make_collator(), 2)
    with pytest.raises(ValueError, match="3 lengths for 10 samples"):
        streams(lengths=[1, 2, 3])
    with pytest.raises(ValueError, match="3 drawn samples are no whole steps of 2"):
        next(streams(lengths=[1] * 10, drawn=3))
