"""Even answers by leaving turns out: letters of choices, yes and no, repeated numbers.

Two phases. A worker turns each sample into `TurnPrint`s; `unbalancing` takes all prints and names the turns that must
go. Which of several equal turns go is drawn by a hash of (seed, sample id, turn), so neither the order of the prints
nor the number of processes matters. Time O(N log N) in the turns that can be balanced, memory some 200 bytes for each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, NamedTuple

from gemvlm.curation.source import Rejection
from gemvlm.data.conversation import parse
from gemvlm.sample import Sample, Turn


@dataclass(frozen=True)
class BalanceRules:
    """`letter_margin`: how far a letter's share may lie from even. `number_share`: of a family, by one rounded value.

    A group of fewer than `min_turns` is left alone: its shares are chance. A family of few distinct numbers (counts)
    may give each up to twice its even share where that is more than `number_share`.
    """

    letter_margin: float = 0.02
    number_share: float = 0.05
    min_turns: int = 50
    seed: int = 0


class Group(NamedTuple):
    """Turns whose answers must be even among themselves; `options` is the number of options of a choice."""

    family: str
    kind: Literal["choice", "yes_no", "number"]
    options: int = 2

    def __str__(self) -> str:
        return f"{self.family} ({f'{self.options} options' if self.kind == 'choice' else self.kind})"


@dataclass(frozen=True, slots=True)
class TurnPrint:
    """One turn as balancing sees it. `answer` is a letter, "yes" or "no", or a number rounded to two figures."""

    id: str
    turn: int
    group: Group
    answer: str
    record: str = ""


def turn_prints(sample: Sample) -> tuple[TurnPrint, ...]:
    """Prints of the turns whose answers can be evened out; none of a dialogue, which is whole or nothing."""
    if sample.dialogue:
        return ()
    classes = ((i, _class(turn)) for i, turn in enumerate(sample.turns))
    return tuple(TurnPrint(sample.id, i, *found, sample.provenance.record) for i, found in classes if found)


def _class(turn: Turn) -> tuple[Group, str] | None:
    if turn.kind == "choice":
        letter = chr(ord("A") + turn.options.index(turn.answer))
        return Group(turn.family, "choice", len(turn.options)), letter
    if turn.kind != "yes_no" and turn.kind != "number":
        return None
    value = parse(turn.answer, turn.kind, unit=turn.unit).value
    if value is None:
        return None
    if turn.kind == "yes_no":
        return Group(turn.family, "yes_no"), "yes" if value else "no"
    return Group(turn.family, "number"), f"{value:.2g}"


def unbalancing(prints: Iterable[TurnPrint], rules: BalanceRules | None = None) -> Iterator[Rejection]:
    """A rejection for each turn that must go, sorted by sample id and turn. The most that even shares allow stay.

    A letter, a yes or a no that is never the answer lets nothing of its group stay: such a family can be answered
    without looking.
    """
    rules = rules or BalanceRules()
    groups: dict[Group, dict[str, list[TurnPrint]]] = defaultdict(lambda: defaultdict(list))
    for item in prints:
        groups[item.group][item.answer].append(item)
    dropped: list[tuple[TurnPrint, str]] = []
    for group, classes in groups.items():
        total = sum(map(len, classes.values()))
        if total < rules.min_turns:
            continue
        cap = _cap(group, [len(items) for items in classes.values()], rules)
        for answer, items in classes.items():
            why = f"{group}: {len(items)} of {total} answers are {answer!r}, at most {cap} may stay"
            items.sort(key=lambda item: _rank(item, rules.seed))
            dropped += ((item, why) for item in items[cap:])
    dropped.sort(key=lambda entry: (entry[0].id, entry[0].turn))
    for item, why in dropped:
        detail, field = f"sample {item.id!r}, turn {item.turn}: {why}", f"turns[{item.turn}]"
        yield Rejection("balance", f"common_{item.group.kind}", detail, item.id, item.record, field)


def _cap(group: Group, sizes: Sequence[int], rules: BalanceRules) -> int:
    """How many turns of one answer may stay."""
    if group.kind == "number":
        share = max(rules.number_share, 2 / len(sizes))
        return _largest(sizes, lambda kept: max(kept) <= max(1.0, share * sum(kept)))
    answers = group.options
    margin = rules.letter_margin if group.kind == "choice" else 0.0
    padded = [*sizes, *[0] * (answers - len(sizes))]
    return _largest(padded, lambda kept: all(abs(one / sum(kept) - 1 / answers) <= margin + 1e-12 for one in kept))


def _largest(sizes: Sequence[int], is_even: Callable[[Sequence[int]], bool]) -> int:
    """The largest cap under which the shares are even, by bisection: a lower cap only evens them out more."""
    low, high = 0, max(sizes)
    while low < high:
        middle = (low + high + 1) // 2
        if is_even([min(size, middle) for size in sizes]):
            low = middle
        else:
            high = middle - 1
    return low


def _rank(item: TurnPrint, seed: int) -> bytes:
    return blake2b(f"{seed}\0{item.id}\0{item.turn}".encode(), digest_size=8).digest()
