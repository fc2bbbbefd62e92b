"""What must not change an answer, and what must: mirrors, a rolled camera, other names, another scale, other letters.

The last tests seed the bugs of published generators and watch the relations catch them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from gemvlm.curation.questions import FAMILIES, directions, relations, write_questions
from gemvlm.curation.questions.relations import above_below, nearest_choice, perspective

ROUNDS, TURNS = 2, 24
SWAPPED = {"left": "right", "right": "left"}

INVARIANT = ("closer", "nearest_of", "nearest_choice", "depth_order", "above_below", "larger", "taller", "longer",
             "nearer_to", "neighbour_choice", "object_depth", "distance", "gap_cm", "size_cm", "count", "more_of",
             "gap_passes", "support", "can_lift", "point_superlative", "point_compared", "point_all")  # fmt: skip
"""In a mirror; left_right, the directions, orders and turns swap their sides."""
SIDED = ("left_right", "perspective", "direction_seen", "direction_standing")
OF_THE_WORLD = ("above_below", "larger", "taller", "longer", "nearer_to", "neighbour_choice", "perspective", "distance",
                "gap_cm", "size_cm", "direction_standing", "clock_direction", "turn_angle", "direction_seen", "support",
                "can_lift", "more_of", "count", "closer", "nearest_choice")  # fmt: skip
"""Whatever the camera's roll: what is asked and answered stays, up to what the border cuts off."""


SPOTS = ((-0.2, -0.3), (0.05, -0.28), (0.27, -0.1), (-0.25, 0.1), (0.05, 0.3), (0.3, 0.42))


def scene(boxes, seed):
    """Boxes of two kinds of names on the table, one of them on another and one hanging; away from the border."""
    rng = np.random.default_rng(seed)
    kinds, colours = ("cube", "can", "mug", "book"), ("red", "green", "blue", "white", "black")
    names = [f"{c} {k}" for c in colours for k in kinds]
    names = [names[i] for i in rng.permutation(len(names))]
    things = []
    for index, (x, y) in enumerate(SPOTS):
        half = rng.uniform(0.025, 0.06, 3)
        place = np.array([x, y]) + rng.uniform(-0.04, 0.04, 2)
        things.append(boxes.thing(index + 1, names[index], (*place, half[2]), half, yaw=rng.uniform(0, 1.5)))
    below = things[1]
    top = 2 * below["half"][2]
    things.append(boxes.thing(7, names[6], (*below["center"][:2], top + 0.02), (0.02, 0.02, 0.02), on=(2,)))
    things.append(boxes.thing(8, names[7], (-0.1, 0.0, 0.3), (0.03, 0.03, 0.03), on=(), hanging=True))
    return things


def mirrored(things):
    return [{**t, "center": (-t["center"][0], *t["center"][1:]), "yaw": -t["yaw"]} for t in things]


def renamed(things):
    """Every colour and every kind becomes the next one."""
    kinds, colours = ("cube", "can", "mug", "book"), ("red", "green", "blue", "white", "black")
    after = {w: group[(i + 1) % len(group)] for group in (kinds, colours) for i, w in enumerate(group)}
    return [{**t, "category": after[t["category"]], "colour": after[t["colour"]]} for t in things], after


def truths(observation, family, rounds=ROUNDS):
    """What is asked (without letters and the order of options) and what is answered, by text or by the object hit."""
    found = {}
    for seed in range(rounds):
        for turn in write_questions(observation, (seed,), [family], turns_per_family=TURNS):
            found[_asked(turn)] = _said(turn, observation)
    return found


def _texts(turn):
    return dict(re.findall(r"([A-D]): (.+?)(?:, (?=[A-D]:)|$)", turn.question))


def _stem(turn):
    """The question's names only: in all wordings of a family they stand in one or two orders."""
    text = turn.question.split(" A: ")[0].split(", the ")[0] if turn.options else turn.question
    return re.sub(r"(left|right|in front|behind|ahead)(, | or )", "", text)


def _asked(turn):
    return _stem(turn), frozenset(_texts(turn).values() or turn.options)


def _said(turn, observation):
    if turn.kind in ("point", "points"):
        regions = turn.regions or (turn.region,)
        return frozenset(int(np.bincount(observation.ids[r.to_mask()]).argmax()) for r in regions)
    return _texts(turn).get(turn.answer, turn.answer)


@pytest.fixture(scope="module")
def scenes(boxes):
    return [scene(boxes, seed) for seed in range(2)]


def agree(one, other):
    """Answers are the same, or numbers within what another raster and rounding to two figures can do."""
    if one == other:
        return True
    is_number = isinstance(one, str) and one.replace(".", "").isdigit() and isinstance(other, str)
    return is_number and float(one) == pytest.approx(float(other), rel=0.03, abs=1.0 if "." not in one else 0.02)


def compare(pairs, family, expected: Callable = lambda answer: answer):
    """Share of questions that both of each pair of observations ask, and all that were answered otherwise."""
    shared, asked, wrong = 0, 0, []
    for one, other in pairs:
        first, second = truths(one, family), truths(other, family)
        common = first.keys() & second.keys()
        shared, asked = shared + len(common), asked + max(len(first), len(second))
        wrong += [(q, first[q], second[q]) for q in common if not agree(expected(first[q]), second[q])]
    return shared / max(asked, 1), wrong


@pytest.fixture(scope="module")
def in_mirrors(boxes, scenes):
    eye = (0.1, -0.95, 0.75)
    return [
        (boxes.observe(things, eye=eye), boxes.observe(mirrored(things), eye=(-eye[0], *eye[1:]))) for things in scenes
    ]


@pytest.fixture(scope="module")
def rolled(boxes, scenes):
    return [(boxes.observe(things), boxes.observe(things, roll_deg=180.0)) for things in scenes]


@pytest.fixture(scope="module")
def under_other_names(boxes, scenes):
    changed = [renamed(things) for things in scenes]
    return [(boxes.observe(a), boxes.observe(b), after) for a, (b, after) in zip(scenes, changed, strict=True)]


@pytest.fixture(scope="module")
def twice_as_large(boxes, scenes):
    return [(boxes.observe(things), boxes.observe(things, scale=2.0)) for things in scenes]


@pytest.mark.parametrize("family", INVARIANT)
def test_a_mirror_changes_no_answer(in_mirrors, family):
    shared, wrong = compare(in_mirrors, family)
    assert wrong == [] and shared > 0.2


@pytest.mark.parametrize("family", SIDED)
def test_a_mirror_swaps_left_and_right(in_mirrors, family):
    def swap(answer):
        return SWAPPED.get(answer, answer)

    if family == "left_right":
        for one, other in in_mirrors:
            first, second = truths(one, family), truths(other, family)
            common = first.keys() & second.keys()
            assert common and all(first[q] != second[q] for q in common)
        return
    shared, wrong = compare(in_mirrors, family, swap)
    assert wrong == [] and shared > 0.2


def test_a_mirror_turns_the_clock_around(in_mirrors):
    shared, wrong = compare(in_mirrors, "clock_direction", lambda hour: str(-int(hour) % 12 or 12))
    assert wrong == [] and shared > 0.1


@pytest.mark.parametrize("family", OF_THE_WORLD)
def test_rolling_the_camera_changes_nothing_in_the_world(rolled, family):
    shared, wrong = compare(rolled, family)
    assert wrong == [] and shared > 0.2


@pytest.mark.parametrize(
    "family", (*INVARIANT, *SIDED, "clock_direction", "turn_angle", "point_ordinal", "point_on_top")
)
def test_other_names_change_no_truth(under_other_names, family):
    """The same seeds ask the same of things by other names."""
    for one, two, after in under_other_names:

        def translated(text, after=after):
            return re.sub(r"[a-z]+?(?=s?\b)", lambda m: after.get(m[0], m[0]), text)

        first = {
            (
                translated(t.question.split(" A: ")[0]),
                frozenset(map(translated, _texts(t).values() or t.options)),
            ): _said(t, one)
            for s in range(ROUNDS)
            for t in write_questions(one, (s,), [family], turns_per_family=TURNS)
        }
        second = {
            (t.question.split(" A: ")[0], frozenset(_texts(t).values() or t.options)): _said(t, two)
            for s in range(ROUNDS)
            for t in write_questions(two, (s,), [family], turns_per_family=TURNS)
        }
        common = first.keys() & second.keys()
        said = {q: a if isinstance(a, frozenset) else translated(a) for q, a in first.items()}
        assert [q for q in common if said[q] != second[q]] == []


METRIC = ("object_depth", "distance", "gap_cm", "size_cm", "point_depth")


@pytest.mark.parametrize("family", METRIC)
def test_a_world_twice_as_large_doubles_every_length(twice_as_large, family):
    for small, large in twice_as_large:
        small_turns, large_turns = (
            {(t.question, t.places): float(t.answer) * (0.01 if t.unit == "cm" else 1)
             for s in range(ROUNDS) for t in write_questions(o, (s,), [family], turns_per_family=TURNS)}
            for o in (small, large)
        )  # fmt: skip
        common = small_turns.keys() & large_turns.keys()
        assert common
        for question in common:
            assert large_turns[question] == pytest.approx(2 * small_turns[question], rel=0.06, abs=0.011), question


@pytest.mark.parametrize("family", ("closer", "left_right", "larger", "direction_seen", "neighbour_choice", "more_of"))
def test_a_world_twice_as_large_keeps_every_relation(twice_as_large, family):
    shared, wrong = compare(twice_as_large, family)
    assert wrong == [] and shared > 0.2


def letters_follow_their_options(observation, family):
    """Turns that ask one thing with the options in different orders: the letter moves, the text stays."""
    by_question: dict = {}
    for seed in range(40):
        for turn in write_questions(observation, (seed,), [family], turns_per_family=4):
            by_question.setdefault(_asked(turn), []).append(turn)
    several = [turns for turns in by_question.values() if len({t.answer for t in turns}) > 1]
    same_text = [len({_said(t, observation) for t in turns}) == 1 for turns in by_question.values()]
    return bool(several) and all(same_text)


@pytest.mark.parametrize("family", ("nearest_choice", "neighbour_choice"))
def test_letters_move_with_their_options(boxes, scenes, family):
    assert letters_follow_their_options(boxes.observe(scenes[0]), family)


def with_bug(monkeypatch, family, writer):
    monkeypatch.setitem(FAMILIES, family, replace(FAMILIES[family], write=writer))


def test_a_roll_finds_height_taken_from_the_picture(rolled, monkeypatch):
    """As in SpatialRGPT, where a predicate reads another axis than the vertical one."""

    def buggy(seen, rng):
        return (replace(turn, answer=turn.cues["height"]) for turn in above_below(seen, rng))

    with_bug(monkeypatch, "above_below", buggy)
    assert compare(rolled, "above_below")[1] != []


def test_a_roll_finds_sides_taken_from_the_picture(rolled, monkeypatch):
    """As in SAT, where a direction is the opposite of what its comment wants: the camera's side, not the observer's."""

    def buggy(seen, rng):
        return (replace(turn, answer=turn.cues["side"]) for turn in perspective(seen, rng))

    with_bug(monkeypatch, "perspective", buggy)
    assert compare(rolled, "perspective")[1] != []


def test_a_mirror_finds_a_margin_on_one_side_only(in_mirrors, monkeypatch):
    """As in VLM-3R, where the zone at a boundary is checked on one side: the mirror then asks what was left out."""

    def one_sided(bearing, margin_deg):
        turned = (bearing + 45) % 360
        return ("ahead", "right", "behind", "left")[int(turned // 90)] if turned % 90 >= margin_deg else None

    def candidates(observation):
        seen = directions.Seen(observation)
        axes = directions.level_axes(observation.view)
        return {(a.id, o.id) for a in seen.referable for o in seen.referable
                if a is not o and directions._sector(a, o, axes)}  # fmt: skip

    assert all(candidates(one) == candidates(other) for one, other in in_mirrors)
    monkeypatch.setattr(directions, "quadrant", one_sided)
    assert any(candidates(one) != candidates(other) for one, other in in_mirrors)


def test_permuted_options_find_an_answer_that_is_always_the_first(boxes, scenes, monkeypatch):
    """As in Molmo2's loader: an option that is not found becomes index 0."""

    def buggy(seen, rng):
        return (replace(turn, answer="A") for turn in nearest_choice(seen, rng))

    with_bug(monkeypatch, "nearest_choice", buggy)
    assert not letters_follow_their_options(boxes.observe(scenes[0]), "nearest_choice")


def test_a_millimetre_finds_a_margin_that_is_missing(boxes, scenes, monkeypatch):
    """As in SpatialRGPT and SAT: without margins rounding decides near-ties, here when the camera moves by 1 mm."""
    things = scenes[0]
    moved = [(boxes.observe(things, eye=(0.0, -0.9, 0.7)), boxes.observe(things, eye=(0.001, -0.9, 0.7)))]
    assert compare(moved, "closer")[1] == []

    def unsure(seen, a, b):
        return round(1e4 * a.near_m) % 7 < round(1e4 * b.near_m) % 7

    monkeypatch.setattr(relations, "is_nearer", unsure)
    assert compare(moved, "closer")[1] != []
