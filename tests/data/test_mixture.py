"""Proportions are exact, the order is a function of the plan, and another plan is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemvlm.data.collate import Collator
from gemvlm.data.loader import BatchStream
from gemvlm.data.mixture import Mixture
from gemvlm.data.shares import largest_remainder
from gemvlm.sample import Sample

SIZES = {"house": 7, "table": 30, "web": 13}
WEIGHTS = {"house": 1.0, "table": 2.0, "web": 4.5}


@pytest.fixture
def sets(make_sample: Callable[..., Sample]) -> dict[str, list[Sample]]:
    return {name: [make_sample(f"{name}{i}", depth=None) for i in range(size)] for name, size in SIZES.items()}


def drawn(mixture: Mixture, positions: range) -> list[tuple[int, str]]:
    return [(epoch, mixture[index].id) for epoch, index in map(mixture.member, positions)]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6))
def test_quotas_are_whole_and_as_near_as_can_be(weights: list[float]) -> None:
    total = 100_000
    quotas = largest_remainder(weights, total)
    assert sum(quotas) == total
    assert all(abs(q - w * total / sum(weights)) < 1 + 1e-6 for q, w in zip(quotas, weights, strict=True))


def test_the_largest_fractions_get_what_is_left() -> None:
    assert largest_remainder([1.0, 2.0, 4.5], 20) == [3, 5, 12]
    assert largest_remainder([1.0, 1.0, 1.0], 10) == [4, 3, 3]


def test_every_block_holds_exactly_its_quotas(sets: dict[str, list[Sample]]) -> None:
    mixture = Mixture(sets, WEIGHTS, seed=5, block=20)
    orders = []
    for block in range(6):
        names = [name.rstrip("0123456789") for _, name in drawn(mixture, range(20 * block, 20 * block + 20))]
        assert Counter(names) == {"house": 3, "table": 5, "web": 12}
        orders.append(names)
    assert len(set(map(tuple, orders))) == 6


def test_each_set_shows_all_its_samples_before_it_repeats_one(sets: dict[str, list[Sample]]) -> None:
    mixture = Mixture(sets, WEIGHTS, seed=5, block=20)
    shown: dict[str, list[tuple[int, str]]] = {name: [] for name in SIZES}
    for epoch, name in drawn(mixture, range(400)):
        shown[name.rstrip("0123456789")].append((epoch, name))
    for name, size in SIZES.items():
        for epoch in range(len(shown[name]) // size):
            pairs = shown[name][epoch * size : (epoch + 1) * size]
            assert {at for at, _ in pairs} == {epoch} and len({id for _, id in pairs}) == size


def test_the_stream_is_the_same_on_any_number_of_ranks_and_resumes(
    sets: dict[str, list[Sample]], make_collator: Callable[..., Collator]
) -> None:
    def stream(**options: int) -> BatchStream:
        mixture = Mixture(sets, WEIGHTS, seed=5, block=20)
        return BatchStream(mixture, make_collator(), **{"batch_size": 2, **options}, plan=mixture)

    whole = stream()
    alone = [name for _ in range(12) for name in next(whole).sample_ids]
    ranks = [stream(rank=rank, world=3) for rank in range(3)]
    together = [name for _ in range(4) for one in ranks for name in next(one).sample_ids]
    assert together == alone == [id for _, id in drawn(Mixture(sets, WEIGHTS, seed=5, block=20), range(24))]
    again = stream()
    again.resume(ranks[0].state())
    assert next(again).sample_ids == next(whole).sample_ids


def test_another_plan_is_refused(sets: dict[str, list[Sample]], make_collator: Callable[..., Collator]) -> None:
    def stream(mixture: Mixture) -> BatchStream:
        return BatchStream(mixture, make_collator(), 2, plan=mixture)

    state = stream(Mixture(sets, WEIGHTS, seed=5, block=20)).state()
    stream(Mixture(dict(reversed(sets.items())), WEIGHTS, seed=5, block=20)).resume(state)
    fewer = {**sets, "web": sets["web"][1:]}
    for other in (
        Mixture(sets, {**WEIGHTS, "web": 9.0}, seed=5, block=20),
        Mixture(sets, WEIGHTS, seed=6, block=20),
        Mixture(sets, WEIGHTS, seed=5, block=21),
        Mixture(fewer, WEIGHTS, seed=5, block=20),
    ):
        with pytest.raises(ValueError, match=r"the state belongs to plan .* have changed; resume with those"):
            stream(other).resume(state)


def test_bad_mixtures_are_refused(sets: dict[str, list[Sample]]) -> None:
    for weights, told in [
        ({"house": 1.0}, "give one weight for each set"),
        ({**WEIGHTS, "web": 0.0}, "give a positive number"),
        ({**WEIGHTS, "web": float("nan")}, "give a positive number"),
        ({**WEIGHTS, "web": 1e6}, "no place among 1000"),
    ]:
        with pytest.raises(ValueError, match=told):
            Mixture(sets, weights)
    with pytest.raises(ValueError, match="sets without samples: web"):
        Mixture({**sets, "web": []}, WEIGHTS)
    with pytest.raises(IndexError):
        Mixture(sets, WEIGHTS)[50]
