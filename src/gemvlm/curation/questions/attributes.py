"""What things are: colour, shape, what is at a place, how many there are, whether there is one,
whether it is hidden.

Rules R13 (count) and G14 (place to name), R18 (occlusion) of the data notes; the others need a unique reference only.
Worlds without colours have "" for one, and no question there speaks of colours.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemvlm.curation.questions.relations import is_left_of, is_surely_nearer
from gemvlm.curation.questions.visibility import Seen, SeenObject, interior, pixel_centre
from gemvlm.curation.questions.wording import lettered, pairs, pick, plural, shuffled, with_article
from gemvlm.sample import Point, Turn

HIDDEN_SHARE, WHOLE_SHARE = 0.3, 0.03


def colour(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The colour of the only mug, or of the object at a place."""
    for o in shuffled(seen.nameable, rng):
        if not o.state.colour:
            continue
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
        by_colour = o.colour_name is not None and seen.fits_one(o.colour_name) and rng.random() < 0.5
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
        for noun in map(plural, o.nouns):
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
    coloured = [o for o in seen.nameable if o.state.colour]
    return [(a, b) for a in coloured for b in seen.nameable if f"{a.state.colour} {b.state.category}" not in present]


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


def name_choice(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """What is at a place, by letter (G14): other choices are in view first, then kinds and colours that could be."""
    for o in shuffled(seen.nameable, rng):
        if not o.can_be_pointed_at:
            continue
        there = shuffled(sorted({other.full_name for other in seen.objects} - {o.full_name}), rng)
        absent = sorted({f"{a.state.colour} {b.state.category}" for a, b in _absent_combinations(seen)})
        wrong = [*there, *shuffled(absent, rng)][:3]
        if not wrong:
            continue
        names = shuffled([o.full_name, *wrong], rng)
        asked = pick(
            ("What is at <place:0>?", "Which object is marked at <place:0>?", "What does <place:0> show?",
             "Name what lies at <place:0>.", "Which of these is at <place:0>?"),
            rng,
        )  # fmt: skip
        question, letters = lettered(asked, names)
        yield Turn(
            question,
            letters[names.index(o.full_name)],
            family="name_choice",
            task="grounding",
            kind="choice",
            places=(_some_place(o, rng),),
            options=letters,
        )


def count_beside(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """How many objects are on one side of another (R13): each is clearly on it or clearly not, and clearly in view.

    Each number is asked once per view; zero in one question of ten.
    """
    if len(seen.nameable) < len(seen.objects):
        return
    by_number: dict[int, list[tuple[SeenObject, str]]] = {}
    for anchor in seen.referable:
        others = [o for o in seen.nameable if o is not anchor]
        for words, is_beside in _BESIDE:
            clear = sum(is_beside(seen, o, anchor) for o in others)
            opposite = sum(is_beside(seen, anchor, o) for o in others)
            if others and clear + opposite == len(others):
                by_number.setdefault(clear, []).append((anchor, words))
    for number in shuffled(sorted(by_number), rng):
        if number == 0 and rng.random() >= 0.1:
            continue
        anchor, words = pick(by_number[number], rng)
        where = words.format(seen.refer(anchor, rng))
        question = pick(
            (
                f"How many objects are {where}?",
                f"Count the objects that are {where}.",
                f"How many things can be seen that are {where}?",
                f"What is the number of objects {where}?",
            ),
            rng,
        )
        yield Turn(question, str(number), family="count_beside", task="reasoning", kind="number", tolerance=0.0)


_BESIDE = (
    ("left of the {} in the image", lambda seen, o, anchor: is_left_of(o, anchor)),
    ("right of the {} in the image", lambda seen, o, anchor: is_left_of(anchor, o)),
    ("closer to the camera than the {}", is_surely_nearer),
    ("farther from the camera than the {}", lambda seen, o, anchor: is_surely_nearer(seen, anchor, o)),
)


def more_of(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Of which of two kinds, or two colours, there are more (R13); no instance is undecidable.

    The size cue says the group that fills more of the image.
    """
    groups = {
        noun: group
        for noun, group in seen.groups(least=1).items()
        if noun != "object" and not any(o.is_undecidable for o in group)
    }
    by_colour = {noun for noun in groups if noun.endswith(" object")}
    for one, other in pairs(sorted(groups), rng):
        if (one in by_colour) != (other in by_colour) or len(groups[one]) == len(groups[other]):
            continue
        options = (plural(one), plural(other))
        question = pick(
            (
                f"Are there more {options[0]} or more {options[1]}?",
                f"Which are there more of, {options[0]} or {options[1]}?",
                f"Which are more numerous, {options[0]} or {options[1]}?",
                f"Which can be seen in greater number, {options[0]} or {options[1]}?",
            ),
            rng,
        )
        first_has_more = len(groups[one]) > len(groups[other])
        first_fills_more = sum(o.area for o in groups[one]) > sum(o.area for o in groups[other])
        yield Turn(
            question,
            options[0 if first_has_more else 1],
            family="more_of",
            task="reasoning",
            kind="choice",
            options=options,
            cues={"size": options[0 if first_fills_more else 1]},
        )


def _some_place(o: SeenObject, rng: np.random.Generator) -> Point:
    """The centre of a random visible pixel whose neighbours are visible too; callers check `can_be_pointed_at`."""
    inside = np.flatnonzero(interior(o.rows, o.columns) >= 2)
    chosen = inside[rng.integers(len(inside))]
    return pixel_centre(int(o.rows[chosen]), int(o.columns[chosen]), o.size)
