"""The headline subset: questions of two answers among which no shortcut is better than a coin.

Turns of a family go into buckets by the kinds of object they name and by what every cue says; each bucket keeps as many
turns with one truth as with the other. Whoever knows only the words, the height or the size in the image, or all of
these together, is then right in exactly half of the cases.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from gemvlm.sample import Sample, Turn

HEADLINE = "headline"

Item = tuple[Sample, Turn]


def shortcut_free(items: Sequence[Item]) -> list[Item]:
    """The balanced part of all two-answer turns in `items`, in their order, marked with the subset "headline".

    Words for kinds of object are learned from the items: the last word of an option, the answer to a `shape` question.
    Deterministic: earlier items are preferred, and among equals those that even out how often the option mentioned
    first is the right one.
    """
    kinds = {option.split()[-1] for _, turn in items for option in turn.options}
    kinds |= {turn.answer for _, turn in items if turn.family == "shape"}
    buckets: dict[tuple, tuple[list[int], list[int]]] = {}
    for index, (_, turn) in enumerate(items):
        if len(answers := _answers(turn)) == 2:
            buckets.setdefault(_bucket(turn, kinds), ([], []))[answers.index(turn.answer)].append(index)
    kept: list[int] = []
    lean: dict[str, int] = {}
    for (family, *_), sides in buckets.items():
        count = min(len(side) for side in sides)
        for side in sides:
            for _ in range(count):
                wants_first = lean.get(family, 0) <= 0
                best = next((i for i in side if _is_first(items[i][1]) == wants_first), side[0])
                side.remove(best)
                kept.append(best)
                lean[family] = lean.get(family, 0) + (1 if _is_first(items[best][1]) else -1)
    return [
        (sample, replace(turn, subsets=(*turn.subsets, HEADLINE))) for sample, turn in (items[i] for i in sorted(kept))
    ]


def mark_headline(samples: Sequence[Sample]) -> list[Sample]:
    """The same samples, with the turns of the headline subset marked."""
    items = [
        (replace(sample, id=f"{i} {j}"), turn)
        for i, sample in enumerate(samples)
        for j, turn in enumerate(sample.turns)
    ]
    marked = {sample.id: turn for sample, turn in shortcut_free(items)}
    return [
        replace(sample, turns=tuple(marked.get(f"{i} {j}", turn) for j, turn in enumerate(sample.turns)))
        for i, sample in enumerate(samples)
    ]


def _answers(turn: Turn) -> list[str]:
    """What could be answered, by kind and then by name: an order that does not depend on who is mentioned first."""
    if turn.kind == "yes_no":
        return ["no", "yes"]
    return sorted(turn.options, key=lambda option: (option.split()[-1], option))


def _bucket(turn: Turn, kinds: set[str]) -> tuple:
    answers = _answers(turn)
    if turn.kind == "yes_no":
        named = tuple(word for word in re.findall(r"[a-z]+", turn.question.lower()) if word in kinds)
    else:
        named = tuple(option.split()[-1] for option in answers)
    says = tuple((cue, answers.index(answer)) for cue, answer in sorted(turn.cues.items()))
    return (turn.family, named, says)


def _is_first(turn: Turn) -> bool:
    return bool(turn.options) and turn.answer == turn.options[0]
