"""The headline subset: questions of two answers among which no shortcut is better than a coin.

Turns of a family go into buckets by the kinds of object they name and by what every shortcut says; each bucket keeps as
many turns with one truth as with the other. Whoever knows only the words, the height or the size in the image, or all
of these together, is then right in exactly half of the cases. A bucket's turns are kept or left in pairs of the two
truths, so that a smaller headline is as fair as a large one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from gemvlm.data.collate import keyed
from gemvlm.sample import Sample, Turn

HEADLINE = "headline"

Item = tuple[Sample, Turn]
Words = Callable[[Turn], str | None]
"""What someone who reads the words alone would answer; None if nothing is known of the turn's family."""


def shortcut_free(items: Sequence[Item], per_family: int | None = None, words: Words | None = None) -> list[Item]:
    """The balanced part of all two-answer turns in `items`, in their order, marked with the subset "headline".

    At most `per_family` turns of each family, rounded down to whole pairs. With `words`, its answer is one
    more shortcut to balance. Words for kinds of object are learned from the items: the last word of an option, the
    answer to a `shape` question. Deterministic: earlier items are preferred, and among equals those that even out how
    often the option mentioned first is the right one; which pairs a limit keeps depends on their samples' ids alone.
    """
    return [(items[i][0], _marked(items[i][1])) for i in _headline(items, per_family, words)]


def mark_headline(samples: Sequence[Sample], per_family: int | None = None, words: Words | None = None) -> list[Sample]:
    """The same samples, with the turns of `shortcut_free` marked."""
    places = [(i, j) for i, sample in enumerate(samples) for j in range(len(sample.turns))]
    kept = {places[k] for k in _headline([(samples[i], samples[i].turns[j]) for i, j in places], per_family, words)}
    return [
        replace(sample, turns=tuple(_marked(t) if (i, j) in kept else t for j, t in enumerate(sample.turns)))
        for i, sample in enumerate(samples)
    ]


def _marked(turn: Turn) -> Turn:
    return replace(turn, subsets=(*turn.subsets, HEADLINE))


def _headline(items: Sequence[Item], per_family: int | None, words: Words | None) -> list[int]:
    return sorted(index for pair in _drawn(items, _pairs(items, words), per_family) for index in pair)


def _pairs(items: Sequence[Item], words: Words | None) -> list[tuple[int, int]]:
    """Places in `items` of two turns that agree in everything a shortcut sees, and differ in the answer."""
    kinds = {option.split()[-1] for _, turn in items for option in turn.options}
    kinds |= {turn.answer for _, turn in items if turn.family == "shape"}
    buckets: dict[tuple, tuple[list[int], list[int]]] = {}
    for index, (_, turn) in enumerate(items):
        if len(answers := _answers(turn)) == 2:
            bucket = _bucket(turn, kinds, None if words is None else words(turn))
            buckets.setdefault(bucket, ([], []))[answers.index(turn.answer)].append(index)
    lean: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    for (family, *_), sides in buckets.items():
        count = min(len(side) for side in sides)
        chosen: tuple[list[int], list[int]] = ([], [])
        for side, kept in zip(sides, chosen, strict=True):
            for _ in range(count):
                wants_first = lean.get(family, 0) <= 0
                best = next((i for i in side if _is_first(items[i][1]) == wants_first), side[0])
                side.remove(best)
                kept.append(best)
                lean[family] = lean.get(family, 0) + _lean(items[best][1])
        pairs += zip(*chosen, strict=True)
    return pairs


def _drawn(items: Sequence[Item], pairs: Sequence[tuple[int, int]], per_family: int | None) -> list[tuple[int, int]]:
    """Up to `per_family` // 2 pairs of each family, chosen by hashing; the first option stays right in half of them."""
    if per_family is None:
        return list(pairs)
    waiting: dict[str, list[tuple[int, int]]] = {}
    for pair in sorted(pairs, key=lambda pair: keyed(*((items[i][0].id, items[i][1].question) for i in pair))):
        waiting.setdefault(items[pair[0]][1].family, []).append(pair)
    drawn: list[tuple[int, int]] = []
    for left in waiting.values():
        lean = 0
        for _ in range(min(per_family // 2, len(left))):
            leans = ((pair, sum(_lean(items[i][1]) for i in pair)) for pair in left)
            best = next((pair for pair, own in leans if abs(lean + own) <= 1), left[0])
            left.remove(best)
            drawn.append(best)
            lean += sum(_lean(items[i][1]) for i in best)
    return drawn


def _answers(turn: Turn) -> list[str]:
    """What could be answered, by kind and then by name: an order that does not depend on who is mentioned first."""
    if turn.kind == "yes_no":
        return ["no", "yes"]
    return sorted(turn.options, key=lambda option: (option.split()[-1], option))


def _bucket(turn: Turn, kinds: set[str], words: str | None) -> tuple:
    answers = _answers(turn)
    if turn.kind == "yes_no":
        named = tuple(word for word in re.findall(r"[a-z]+", turn.question.lower()) if word in kinds)
    else:
        named = tuple(option.split()[-1] for option in answers)
    cues = dict(turn.cues) if words is None else {**turn.cues, "words": words}
    says = tuple((cue, answers.index(answer)) for cue, answer in sorted(cues.items()))
    return (turn.family, named, says)


def _is_first(turn: Turn) -> bool:
    return bool(turn.options) and turn.answer == turn.options[0]


def _lean(turn: Turn) -> int:
    """Which way a turn favours whoever always takes the first option; 0 where there are none."""
    return 0 if not turn.options else 1 if _is_first(turn) else -1
