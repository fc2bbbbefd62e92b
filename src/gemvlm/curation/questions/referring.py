"""Pointing to all of a kind, or to the one that an order, a comparison or a superlative singles out.

Rules G2, G4, G5 and G6 of the data notes, beyond the families of `grounding.py`. A group is all visible objects that a
noun fits ("mug", "red object", "object"); nothing is asked about a group of which one member is neither clearly there
nor clearly hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from gemvlm.curation.questions.boxes import center_distance_m, longest_side_m, vertical_interval_m, volume_m3
from gemvlm.curation.questions.relations import SIZE_RATIO, VERTICAL_GAP_M, is_surely_nearer, nearer_neighbour
from gemvlm.curation.questions.visibility import Seen, SeenObject
from gemvlm.curation.questions.wording import pick, plural, shuffled
from gemvlm.sample import Turn

MOST_POINTS = 15
ORDINAL_GAP = 0.03
"""Of the image's width, between the centres of neighbours in a row."""
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
LEAD_RATIO, LEAD_DEPTH_M, LEAD_SIZE_M = 0.15, 0.05, 0.02
"""By which a superlative leads; sizes at table scale, where the notes' 5 cm is the size of a mug."""
TALLER_RATIO = 1.2

POINTING = ("Point to the {}.", "Where is the {}?", "Mark the {}.", "Show me the {}.", "Locate the {}.")


def point_all(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Every member of a group of 2 to 15 (G2): one point each, left to right."""
    groups = _clear_groups(seen)
    for noun in shuffled(list(groups), rng):
        members = sorted(groups[noun], key=lambda o: (o.point.x, o.point.y))
        if len(members) > MOST_POINTS or not all(o.can_be_pointed_at for o in members):
            continue
        many = plural(noun)
        question = pick(
            (
                f"Point to every {noun}.",
                f"Point to all {many}.",
                f"Where are the {many}? Give one point for each.",
                f"Mark each {noun} once, from left to right.",
                f"Locate all {many} in the image.",
            ),
            rng,
        )
        yield Turn(
            question,
            ", ".join(f"<place:{i}>" for i in range(len(members))),
            family="point_all",
            task="grounding",
            kind="points",
            places=tuple(o.point for o in members),
            regions=tuple(o.region for o in members),
        )


def point_ordinal(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The second mug from the left in the image (G5): all neighbours 3 % of the width apart."""
    groups = _clear_groups(seen)
    choices = [(noun, side, k) for noun, group in groups.items() for side in ("left", "right") for k in _ranks(group)]
    for noun, side, k in shuffled(choices, rng):
        row = sorted(groups[noun], key=lambda o: o.x, reverse=side == "right")
        if min(abs(a.x - b.x) for a, b in pairwise(row)) >= ORDINAL_GAP and row[k].can_be_pointed_at:
            yield _point_to(row[k], "point_ordinal", f"{ORDINALS[k]} {noun} from the {side} in the image", rng)


def _ranks(group: Sequence[SeenObject]) -> range:
    """Neither the first nor the last: those are superlatives."""
    return range(1, min(len(group) - 1, len(ORDINALS)))


def point_compared(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The mug that is nearer, higher or taller than the bowl, or nearest to it (G4).

    Exactly one of the group passes with the margin, and no other one even without.
    """
    for anchor in shuffled(seen.referable, rng):
        for noun, group in shuffled(list(_clear_groups(seen).items()), rng):
            candidates = [o for o in group if o is not anchor]
            found = [
                (words, target)
                for words, relation in shuffled(_RELATIONS, rng)
                if len(candidates) > 1 and (target := relation(seen, anchor, candidates)) and target.can_be_pointed_at
            ]
            if found:
                words, target = found[0]
                yield _point_to(target, "point_compared", f"{noun} {words} the {seen.refer(anchor, rng)}", rng)
                break


Compare = Callable[[Seen, SeenObject, SeenObject], bool]


def _the_only(strict: Compare, lenient: Compare) -> Callable[[Seen, SeenObject, list[SeenObject]], SeenObject | None]:
    def find(seen: Seen, anchor: SeenObject, candidates: list[SeenObject]) -> SeenObject | None:
        possible = [o for o in candidates if lenient(seen, o, anchor)]
        return possible[0] if len(possible) == 1 and strict(seen, possible[0], anchor) else None

    return find


def _might_be_nearer(seen: Seen, a: SeenObject, b: SeenObject) -> bool:
    eye = seen.observation.view.camera_to_world[:3, 3]
    by_center = np.linalg.norm(a.state.box.center - eye) < np.linalg.norm(b.state.box.center - eye)
    return bool(by_center) or a.near_m < b.near_m


def _is_higher(seen: Seen, a: SeenObject, b: SeenObject) -> bool:
    return vertical_interval_m(a.state)[0] - vertical_interval_m(b.state)[1] >= VERTICAL_GAP_M


def _might_be_higher(seen: Seen, a: SeenObject, b: SeenObject) -> bool:
    (low_a, high_a), (low_b, high_b) = vertical_interval_m(a.state), vertical_interval_m(b.state)
    return low_a > low_b or high_a > high_b


def _is_taller(seen: Seen, a: SeenObject, b: SeenObject) -> bool:
    tall, low = height_m(a), height_m(b)
    return a.is_whole and b.is_whole and tall >= TALLER_RATIO * low and tall - low >= LEAD_SIZE_M


def _might_be_taller(seen: Seen, a: SeenObject, b: SeenObject) -> bool:
    return height_m(a) > height_m(b)


def _nearest_to(seen: Seen, anchor: SeenObject, candidates: list[SeenObject]) -> SeenObject | None:
    nearest = min(candidates, key=lambda o: center_distance_m(anchor.state, o.state))
    others = [o for o in candidates if o is not nearest]
    return nearest if all(nearer_neighbour(seen, anchor, (nearest, o)) is nearest for o in others) else None


_RELATIONS = (
    ("closer to the camera than", _the_only(is_surely_nearer, _might_be_nearer)),
    (
        "farther from the camera than",
        _the_only(lambda s, a, b: is_surely_nearer(s, b, a), lambda s, a, b: _might_be_nearer(s, b, a)),
    ),
    ("higher above the floor than", _the_only(_is_higher, _might_be_higher)),
    ("taller than", _the_only(_is_taller, _might_be_taller)),
    ("nearest to", _nearest_to),
)


def height_m(o: SeenObject) -> float:
    low, high = vertical_interval_m(o.state)
    return high - low


def point_superlative(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The largest, tallest, nearest, ... of a group (G6), ahead of the second by the margin of its measure."""
    groups = _clear_groups(seen)
    choices = [(noun, words, measure) for noun in groups for words, measure in _SUPERLATIVES]
    for noun, words, measure in shuffled(choices, rng):
        best = measure(groups[noun])
        if best is not None and best.can_be_pointed_at:
            yield _point_to(best, "point_superlative", words.format(noun), rng)


def _leader(
    value: Callable[[SeenObject], float], ratio: float, gap: float, whole: bool = False
) -> Callable[[Sequence[SeenObject]], SeenObject | None]:
    """The member with the largest value, if it leads the second relatively and absolutely; sizes need all whole."""

    def find(group: Sequence[SeenObject]) -> SeenObject | None:
        second, first = sorted(group, key=value)[-2:]
        lead = value(first) - value(second)
        clear = lead >= gap and lead >= ratio * min(abs(value(first)), abs(value(second)))
        return first if clear and (not whole or all(o.is_whole for o in group)) else None

    return find


_SUPERLATIVES = (
    ("largest {}", _leader(lambda o: volume_m3(o.state), SIZE_RATIO - 1, 0.0, whole=True)),
    ("smallest {}", _leader(lambda o: -volume_m3(o.state), SIZE_RATIO - 1, 0.0, whole=True)),
    ("longest {}", _leader(lambda o: longest_side_m(o.state), LEAD_RATIO, LEAD_SIZE_M, whole=True)),
    ("tallest {}", _leader(height_m, LEAD_RATIO, LEAD_SIZE_M, whole=True)),
    ("least tall {}", _leader(lambda o: -height_m(o), LEAD_RATIO, LEAD_SIZE_M, whole=True)),
    ("{} nearest to the camera", _leader(lambda o: -o.near_m, LEAD_RATIO, LEAD_DEPTH_M)),
    ("{} farthest from the camera", _leader(lambda o: o.near_m, LEAD_RATIO, LEAD_DEPTH_M)),
    ("{} at the top of the image", _leader(lambda o: -o.y, 0.0, ORDINAL_GAP)),
    ("{} at the bottom of the image", _leader(lambda o: o.y, 0.0, ORDINAL_GAP)),
)


def _clear_groups(seen: Seen) -> dict[str, tuple[SeenObject, ...]]:
    """Groups of two or more, all of them nameable and with depth."""
    nameable = set(seen.nameable)
    return {noun: group for noun, group in seen.groups().items() if nameable.issuperset(group)}


def _point_to(o: SeenObject, family: str, phrase: str, rng: np.random.Generator) -> Turn:
    question = pick(POINTING, rng).format(phrase)
    return Turn(
        question, "<place:0>", family=family, task="grounding", kind="point", places=(o.point,), region=o.region
    )
