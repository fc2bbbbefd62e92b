"""What things are: colour, shape, what is at a place, how many there are, whether there is one,
whether it is hidden.

Rules R13 (count) and G14 (place to name), R18 (occlusion) of the data notes; the others need a unique reference only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemvlm.curation.questions.visibility import Seen, SeenObject, interior, pixel_centre
from gemvlm.curation.questions.wording import pick, plural, shuffled, with_article
from gemvlm.sample import Point, Turn

HIDDEN_SHARE, WHOLE_SHARE = 0.3, 0.03


def colour(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The colour of the only mug, or of the object at a place."""
    for o in shuffled(seen.nameable, rng):
        by_name = seen.fits_one(o.state.category) and rng.random() < 0.5
        if not by_name and not o.can_be_pointed_at:
            continue
        reference = o.state.category if by_name else "object at <place:0>"
        question = pick((f"What colour is the {reference}?", f"Name the colour of the {reference}."), rng)
        places = () if by_name else (_some_place(o, rng),)
        yield Turn(question, o.state.colour, family="colour", task="reasoning", kind="text", places=places)


def shape(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The kind of the only red object, or of the object at a place."""
    for o in shuffled(seen.nameable, rng):
        by_colour = seen.fits_one(f"{o.state.colour} object") and rng.random() < 0.5
        if not by_colour and not o.can_be_pointed_at:
            continue
        if by_colour:
            question = pick((f"What is the {o.state.colour} object?", f"Which object is {o.state.colour}?"), rng)
        else:
            question = pick(("What kind of object is at <place:0>?", "Name the kind of object at <place:0>."), rng)
        places = () if by_colour else (_some_place(o, rng),)
        yield Turn(question, o.state.category, family="shape", task="reasoning", kind="text", places=places)


def object_at(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Colour and kind of the object under a place well inside its visible pixels."""
    for o in shuffled(seen.nameable, rng):
        if o.can_be_pointed_at:
            question = pick(("What is at <place:0>?", "Name the object at <place:0>."), rng)
            places = (_some_place(o, rng),)
            yield Turn(question, o.full_name, family="object_at", task="reasoning", kind="text", places=places)


def count(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """How many of a kind or colour are visible (R13).

    A noun is asked only if no instance is undecidable. Each number is asked once per view, so that ones do not take
    over; zero, of a kind and colour that are not together, in one question of ten.
    """
    kinds: dict[str, list[SeenObject]] = {}
    for o in seen.objects:
        for noun in (plural(o.state.category), f"{o.state.colour} objects", "objects"):
            kinds.setdefault(noun, []).append(o)
    by_number: dict[int, list[str]] = {}
    for noun, members in kinds.items():
        number = sum(o.is_nameable for o in members)
        if number and not any(o.is_undecidable for o in members):
            by_number.setdefault(number, []).append(noun)
    absent = [f"{a.state.colour} {plural(b.state.category)}" for a, b in _absent_combinations(seen)]
    for number in shuffled(sorted(by_number), rng):
        zero = bool(absent) and rng.random() < 0.1
        noun = pick(absent if zero else by_number[number], rng)
        question = pick((f"How many {noun} are there?", f"Count the {noun}."), rng)
        answer = "0" if zero else str(number)
        yield Turn(question, answer, family="count", task="reasoning", kind="number", tolerance=0.0)


def exists(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Is there a red mug? In pairs of one yes and one no; the no joins a colour and a kind that are in view."""
    present = shuffled(sorted({o.full_name for o in seen.nameable}), rng)
    absent = shuffled(sorted({f"{a.state.colour} {b.state.category}" for a, b in _absent_combinations(seen)}), rng)
    for yes, no in zip(present, absent, strict=False):
        for name, answer in shuffled([(yes, "yes"), (no, "no")], rng):
            question = pick((f"Is there {with_article(name)}?", f"Can you see {with_article(name)}?"), rng)
            yield Turn(question, answer, family="exists", task="reasoning", kind="yes_no")


def _absent_combinations(seen: Seen) -> list[tuple[SeenObject, SeenObject]]:
    """Pairs of nameable objects such that no visible object has the first's colour and the second's kind."""
    present = {o.full_name for o in seen.objects}
    return [
        (a, b) for a in seen.nameable for b in seen.nameable if f"{a.state.colour} {b.state.category}" not in present
    ]


def occluded(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Is it partly hidden by something (R18)? Over 30 % or under 3 % hidden, in pairs of one yes and one no."""
    hidden = [o for o in seen.referable if o.state.visible_fraction < 1 - HIDDEN_SHARE]
    whole = [o for o in seen.referable if o.state.visible_fraction > 1 - WHOLE_SHARE]
    height, size = (float(np.median([v(o) for o in seen.objects] or [0])) for v in (lambda o: o.y, lambda o: o.area))
    for yes, no in zip(shuffled(hidden, rng), shuffled(whole, rng), strict=False):
        for o, answer in shuffled([(yes, "yes"), (no, "no")], rng):
            name = seen.refer(o, rng)
            question = pick((f"Is the {name} partly hidden?", f"Does anything hide part of the {name}?"), rng)
            cues = {"height": "yes" if o.y < height else "no", "size": "yes" if o.area < size else "no"}
            yield Turn(question, answer, family="occluded", task="reasoning", kind="yes_no", cues=cues)


def _some_place(o: SeenObject, rng: np.random.Generator) -> Point:
    """The centre of a random visible pixel whose neighbours are visible too; callers check `can_be_pointed_at`."""
    inside = np.flatnonzero(interior(o.rows, o.columns) >= 2)
    chosen = inside[rng.integers(len(inside))]
    return pixel_centre(int(o.rows[chosen]), int(o.columns[chosen]), o.size)
