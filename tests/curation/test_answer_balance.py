"""Shares become even with as few losses as possible, whatever the order of the prints."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from gemvlm.curation.answer_balance import BalanceRules, Group, TurnPrint, turn_prints, unbalancing
from gemvlm.curation.filters import TURN_FIELD
from gemvlm.sample import Sample, Turn


def prints(group, counts):
    answers = [answer for answer, count in counts.items() for _ in range(count)]
    order = np.random.default_rng(0).permutation(len(answers))
    return [TurnPrint(f"s{i // 3}", i % 3, group, answers[j]) for i, j in enumerate(order)]


def kept(items, rules=None):
    gone = {(r.id, int(TURN_FIELD.fullmatch(r.field)[1])) for r in unbalancing(items, rules)}
    return Counter(item.answer for item in items if (item.id, item.turn) not in gone)


@pytest.mark.parametrize("counts", [{"A": 400, "B": 300, "C": 250, "D": 200}, {"A": 900, "B": 60, "C": 70, "D": 80}])
def test_letters_end_within_the_margin_and_one_more_would_leave_it(counts):
    left = kept(prints(Group("f", "choice", 4), counts))
    total = sum(left.values())
    assert all(abs(n / total - 0.25) <= 0.02 for n in left.values())
    cap = max(left.values())
    grown = [min(n, cap + 1) for n in counts.values()]
    assert any(abs(n / sum(grown) - 0.25) > 0.02 for n in grown)


def test_yes_and_no_are_equally_many():
    assert kept(prints(Group("f", "yes_no"), {"yes": 320, "no": 75})) == {"yes": 75, "no": 75}


def test_no_rounded_number_exceeds_its_share():
    counts = {"0.1": 500, **{f"{1 + i / 10:.2g}": 20 for i in range(50)}}
    left = kept(prints(Group("f", "number"), counts))
    assert max(left.values()) <= 0.05 * sum(left.values())
    assert left["0.1"] > 40
    assert all(left[answer] == 20 for answer in counts if answer != "0.1")


def test_counts_of_few_values_keep_twice_their_even_share():
    left = kept(prints(Group("count", "number"), {"1": 600, "2": 200, "3": 100, "4": 50, "5": 10}))
    assert max(left.values()) <= 0.4 * sum(left.values())
    assert left["5"] == 10


def test_a_letter_that_is_never_right_leaves_nothing():
    assert not kept(prints(Group("f", "choice", 3), {"A": 100, "B": 100}))
    assert not kept(prints(Group("f", "yes_no"), {"yes": 100}))


def test_small_groups_are_left_alone():
    assert sum(kept(prints(Group("f", "yes_no"), {"yes": 40, "no": 2})).values()) == 42


def test_groups_do_not_mix_and_order_does_not_matter():
    items = [
        *prints(Group("f", "yes_no"), {"yes": 200, "no": 100}),
        *(TurnPrint(f"t{i}", 0, Group("g", "yes_no"), "no" if i % 2 else "yes") for i in range(100)),
    ]
    found = list(unbalancing(items))
    assert len(found) == 100
    assert {r.stage for r in found} == {"balance"}
    assert {r.id[0] for r in found} == {"s"}
    assert list(unbalancing(reversed(items))) == found
    assert list(unbalancing(items, BalanceRules(seed=1))) != found


def test_prints_of_a_sample_name_letters_yes_no_and_rounded_numbers():
    def turn(answer, kind, **more):
        return Turn("q", answer, family="f", task="reasoning", kind=kind, **more)

    turns = (
        turn("mug", "choice", options=("cup", "mug")),
        turn("Yes.", "yes_no"),
        turn("1.234", "number", unit="m"),
        turn("25 cm", "number", unit="m"),
        turn("a mug", "text"),
        turn("perhaps", "yes_no"),
    )
    found = turn_prints(Sample("s", (), turns, "", ""))
    assert [(p.turn, p.group.kind, p.answer) for p in found] == [
        (0, "choice", "B"), (1, "yes_no", "yes"), (2, "number", "1.2"), (3, "number", "0.25"),
    ]  # fmt: skip
    assert turn_prints(Sample("s", (), turns, "", "", dialogue=True)) == ()
