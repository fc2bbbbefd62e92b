"""Packs hold every sample once, whole and within the budget, whatever reads them and from wherever they go on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemvlm.data.collate import Collator, TurnSampler
from gemvlm.data.loader import Shuffled
from gemvlm.data.mixture import Mixture
from gemvlm.data.packing import Budget, PackedStream, Packer, measure
from gemvlm.sample import Sample

BUDGET = Budget(tokens=260, patches=160, targets=4)
SIZES = ((1, 2), (0, 3), (2, 1), (1, 5), (3, 2), (1, 1), (2, 4), (0, 1), (1, 3), (1, 8), (2, 2))
"""Frames and turns of each sample."""

Streams = Callable[..., PackedStream]


@pytest.fixture
def samples(make_sample) -> list[Sample]:
    return [make_sample(f"s{i}", frames=frames, turns=turns) for i, (frames, turns) in enumerate(SIZES)]


@pytest.fixture
def streams(samples: list[Sample], make_collator: Callable[..., Collator]) -> Streams:
    def make(**options: object) -> PackedStream:
        return PackedStream(
            samples, make_collator(turns=TurnSampler(3)), **{"budget": BUDGET, "seed": 3, "window": 6, **options}
        )  # type: ignore[arg-type]

    return make


def ids(stream: PackedStream, packs: int) -> list[tuple[str, ...]]:
    return [next(stream).sample_ids for _ in range(packs)]


def test_costs_bound_what_any_epoch_brings(samples, make_collator):
    for sampler in (None, TurnSampler(2), TurnSampler(0), TurnSampler(2, {"point": 1.0})):
        collator = make_collator(turns=sampler)
        for sample in samples:
            cost = collator.cost(sample)
            seen = [collator([sample], epoch) for epoch in range(6)]
            tokens = [len(batch.input_ids) for batch in seen]
            assert max(tokens) == cost[0]
            assert {len(batch.pixel_values) for batch in seen} == {cost[1]}
            assert max(len(batch.targets) for batch in seen) == cost[2]


def test_costs_bound_a_sample_that_is_too_long_whichever_of_its_turns_are_left_out(make_sample, make_collator):
    """Turns of unequal length: what is dropped, and so what stays, depends on the order that an epoch draws."""
    sample = make_sample("s", frames=1, turns=3)
    uneven = [replace(turn, answer="yes " * count) for turn, count in zip(sample.turns, (40, 45, 3), strict=True)]
    sample = replace(sample, turns=tuple(replace(turn, kind="text", family="describe") for turn in uneven))
    single = max(make_collator(turns=TurnSampler(3)).cost(replace(sample, turns=(turn,)))[0] for turn in sample.turns)
    collator = make_collator(turns=TurnSampler(3), max_tokens=single + 2)
    seen = [len(collator([sample], epoch).input_ids) for epoch in range(12)]
    assert len(set(seen)) > 1
    assert max(seen) <= collator.cost(sample)[0] <= single + 2
    with pytest.raises(ValueError, match="more than max_tokens"):
        make_collator(turns=TurnSampler(3), max_tokens=single - 1).cost(sample)


def test_packs_are_whole_samples_within_the_budget(streams, samples):
    stream, by_id = streams(), {sample.id: sample for sample in samples}
    for _ in range(30):
        batch = next(stream)
        held = (len(batch.input_ids), len(batch.pixel_values), len(batch.targets))
        assert all(there <= most for there, most in zip(held, (260, 160, 4), strict=True))
        frames = [len(by_id[name].frames) for name in batch.sample_ids]
        owners = batch.segment_ids[batch.spans[:, 0]].bincount(minlength=len(frames)).tolist()
        assert owners == frames
        counts = (batch.spans[:, 1] - batch.spans[:, 0]) * 4
        assert torch.equal(counts, batch.image_grid_thw.prod(1))


def test_no_sample_is_lost_or_shown_twice(streams, samples):
    stream = streams()
    seen: Counter[str] = Counter()
    while stream.state().position < 40 * len(samples):
        seen.update(next(stream).sample_ids)
    waiting = [f"s{Shuffled(len(samples), 3).member(position)[1]}" for position in stream.state().waiting]
    seen.update(waiting)
    assert set(seen.values()) == {40, 41} or set(seen.values()) == {40}
    assert sum(seen.values()) == stream.state().position


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=30),
    st.integers(1, 12),
)
def test_any_costs_are_packed_in_turn(sizes, window):
    """Each pack holds whoever waited longest; nobody waits for more packs than the window is wide."""
    costs = np.array(sizes)
    packer = Packer(Shuffled(len(sizes), 0), costs, Budget(50, 9, 3), window)
    state, packs = packer.start, []
    for _ in range(60):
        first = state.waiting[0] if state.waiting else state.position
        members, after = packer.next(state)
        assert packer._plan.member(first) in members
        assert (costs[[index for _, index in members]].sum(0) <= (50, 9, 3)).all()
        assert len(after.waiting) <= window
        shown = set(range(after.position)) - set(after.waiting) - (set(range(state.position)) - set(state.waiting))
        assert Counter(members) == Counter(packer._plan.member(position) for position in shown)
        packs.append(members)
        state = after
    assert sum(map(len, packs)) == state.position - len(state.waiting)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_continues_bit_for_bit_on_any_number_of_ranks(streams, workers):
    """The state is the same on every rank, survives JSON, and knows nothing of what was prepared ahead."""
    alone = ids(streams(), 12)
    ranks = [streams(rank=rank, world=2, workers=workers) for rank in (0, 1)]
    together = [name for _ in range(3) for stream in ranks for name in ids(stream, 1)]
    assert together == alone[:6]
    states = [stream.state() for stream in ranks]
    assert states[0] == states[1]
    assert states[0].waiting
    resumed = streams(workers=workers)
    resumed.resume(json.loads(json.dumps(states[0])))
    assert ids(resumed, 6) == alone[6:]


def test_another_budget_or_other_data_is_refused(streams, samples, make_collator):
    state = streams().state()
    with pytest.raises(ValueError, match="budget or window have changed"):
        streams(budget=Budget(300, 160, 4)).resume(state)
    fewer = PackedStream(samples[:-1], make_collator(), BUDGET, seed=3)
    with pytest.raises(ValueError, match="belongs to plan"):
        fewer.resume(state)


def test_a_sample_that_fits_no_pack_is_named(streams):
    with pytest.raises(ValueError, match=r"'s4' \(and 0 more\) needs up to .* 48, 3\), a pack holds \(260, 40, 4\)"):
        streams(budget=Budget(260, 40, 4))
    with pytest.raises(ValueError, match="at least 1"):
        Budget(0, 1, 1)


def test_costs_of_other_data_are_noticed(streams, samples, make_collator):
    with pytest.raises(ValueError, match="measure them again"):
        streams(costs=np.ones((3, 3), dtype=np.int64))
    stale = PackedStream(samples, make_collator(), Budget(40, 160, 4), np.ones((len(samples), 3), dtype=np.int64))
    with pytest.raises(ValueError, match="more than their costs said"):
        next(stale)


def test_a_mixture_is_packed_like_any_plan(samples, make_collator):
    mixture = Mixture({"few": samples[:3], "many": samples[3:]}, {"few": 1.0, "many": 3.0}, block=4)
    stream = PackedStream(mixture, make_collator(), BUDGET, plan=mixture, window=4)
    seen = Counter(name for pack in ids(stream, 40) for name in pack)
    share = sum(count for name, count in seen.items() if name in ("s0", "s1", "s2")) / sum(seen.values())
    assert abs(share - 0.25) < 0.03


def test_an_epoch_in_packs(streams, samples):
    stream = streams()
    packs, seen = 0, 0
    while seen < len(samples):
        seen, packs = seen + len(next(stream).sample_ids), packs + 1
    assert abs(stream.packs_per_epoch - packs) <= 1


def test_costs_are_the_same_from_any_number_of_workers_and_ranks(samples, make_collator):
    alone = measure(samples, make_collator())
    assert np.array_equal(alone, measure(samples, make_collator(), workers=2))
    for rank in range(3):
        assert np.array_equal(alone[rank::3], measure(samples, make_collator(), rank=rank, world=3))
    assert measure(samples, make_collator(), rank=20, world=30).shape == (0, 3)
