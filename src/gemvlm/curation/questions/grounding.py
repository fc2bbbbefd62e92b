"""Pointing and boxing: an object by name, by its relation to another, by being the first in some order.

Rules G1, G3, G4, G5 and G6 of the data notes. An answer is the pixel deepest inside the visible mask; any pixel of
the mask is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from gemvlm.curation.questions.boxes import vertical_interval_m
from gemvlm.curation.questions.relations import is_left_of
from gemvlm.curation.questions.visibility import Seen, SeenObject
from gemvlm.curation.questions.wording import pick, shuffled
from gemvlm.sample import Turn

EXTREMUM_RATIO, EXTREMUM_DEPTH_M, EXTREMUM_HEIGHT_M = 0.15, 0.05, 0.02
EXTREMUM_IMAGE = 0.03


def point(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Point to a named object (G1)."""
    for o in shuffled(seen.referable, rng):
        if o.can_be_pointed_at:
            name = seen.refer(o, rng)
            yield _point_to(o, "point", pick((f"Point to the {name}.", f"Where is the {name}?"), rng))


def box(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The tight box of an object's visible pixels (G3)."""
    for o in shuffled(seen.referable, rng):
        if o.is_measurable:
            name = seen.refer(o, rng)
            question = pick(
                (f"Box the visible part of the {name}.", f"Give the box of the visible part of the {name}."), rng
            )
            yield Turn(question, "<place:0>", family="box", task="grounding", kind="box", places=(o.box,))


def point_relation(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Point to the object that stands in a relation to another (G4): beside it in the image, or resting on it.

    Exactly one candidate is in the relation with the margin of `left_right` and no other is, even without margin. The
    noun alone must fit several objects, or the relation would not be needed.
    """
    for anchor in shuffled(seen.referable, rng):
        others = [o for o in seen.objects if o is not anchor]
        nouns = sorted({noun for o in others for noun in o.nouns})
        for noun, relation in shuffled(
            [(noun, relation) for noun in nouns for relation in ("left", "right", "on")], rng
        ):
            candidates = [o for o in others if noun in o.nouns]
            if (target := _the_only(relation, anchor, candidates)) and len(candidates) > 1 and target.can_be_pointed_at:
                name = seen.refer(anchor, rng)
                where = f"on the {name}" if relation == "on" else f"{relation} of the {name} in the image"
                yield _point_to(target, "point_relation", f"Point to the {noun} {where}.")
                break


def _the_only(relation: str, anchor: SeenObject, candidates: list[SeenObject]) -> SeenObject | None:
    if relation == "on":
        possible = [o for o in candidates if anchor.id in o.state.supported_by]
        clear = possible
    elif relation == "left":
        possible = [o for o in candidates if o.x < anchor.x]
        clear = [o for o in possible if is_left_of(o, anchor)]
    else:
        possible = [o for o in candidates if o.x > anchor.x]
        clear = [o for o in possible if is_left_of(anchor, o)]
    return clear[0] if len(possible) == 1 and len(clear) == 1 and clear[0].is_nameable else None


def point_extremum(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Point to the nearest, farthest, tallest, highest, leftmost or rightmost object (G5, G6), ahead by a margin."""
    if len(seen.objects) < 2:
        return
    for phrase, value, gap, ratio in shuffled(EXTREMA, rng):
        second, first = sorted(seen.objects, key=value)[-2:]
        lead = value(first) - value(second)
        enough = lead >= gap and lead >= ratio * min(abs(value(first)), abs(value(second)))
        if enough and first.is_nameable and first.can_be_pointed_at:
            yield _point_to(first, "point_extremum", f"Point to the {phrase}.")


EXTREMA: tuple[tuple[str, Callable[[SeenObject], float], float, float], ...] = (
    ("object nearest to the camera", lambda o: -o.near_m, EXTREMUM_DEPTH_M, EXTREMUM_RATIO),
    ("object farthest from the camera", lambda o: o.near_m, EXTREMUM_DEPTH_M, EXTREMUM_RATIO),
    ("tallest object", lambda o: -np.subtract(*vertical_interval_m(o.state)), EXTREMUM_HEIGHT_M, EXTREMUM_RATIO),
    ("object that reaches highest above the floor", lambda o: vertical_interval_m(o.state)[1], EXTREMUM_HEIGHT_M, 0.0),
    ("leftmost object in the image", lambda o: -o.x, EXTREMUM_IMAGE, 0.0),
    ("rightmost object in the image", lambda o: o.x, EXTREMUM_IMAGE, 0.0),
)
"""Phrase, the value that is largest for the answer, and its lead over the second: absolute, relative to the smaller."""


def _point_to(o: SeenObject, family: str, question: str) -> Turn:
    return Turn(
        question, "<place:0>", family=family, task="grounding", kind="point", places=(o.point,), region=o.region
    )
