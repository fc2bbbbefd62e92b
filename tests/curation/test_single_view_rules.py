"""Margins and wording of the later single-view families, on scenes of boxes whose answers can be worked out by hand."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from gemvlm.curation.questions import CORE_FAMILIES, FAMILIES, write_questions
from gemvlm.curation.questions.boxes import closest_points, share_inside
from gemvlm.curation.questions.visibility import Seen
from gemvlm.curation.questions.wording import plural
from gemvlm.worlds.observation import OrientedBox


def ask(observation, family, rounds=8):
    return [t for seed in range(rounds) for t in write_questions(observation, (seed,), [family], turns_per_family=6)]


def nameless(things):
    """The same things in a world that knows no colours, where kinds are of several words."""
    words = {"cube": "small wooden cube", "can": "soup can", "mug": "red coffee mug", "book": "book"}
    return [{**t, "colour": "", "category": words[t["category"]]} for t in things]


@pytest.fixture
def row(boxes):
    """Four cans and a hanging book, from left to right and from near to far."""
    things = [boxes.thing(i + 1, f"{c} can", (x, y, 0.04), (0.03, 0.03, 0.04))
              for i, (c, x, y) in enumerate((("red", -0.3, -0.3), ("blue", -0.1, -0.1), ("green", 0.1, 0.15),
                                             ("white", 0.3, 0.4)))]  # fmt: skip
    return [*things, boxes.thing(5, "black book", (0.15, -0.2, 0.25), (0.06, 0.05, 0.02), on=(), hanging=True)]


def test_all_of_a_kind_are_pointed_to_from_left_to_right(boxes, row):
    turns = [t for t in ask(boxes.observe(row), "point_all") if "can" in t.question]
    assert turns
    for turn in turns:
        assert turn.kind == "points" and len(turn.places) == len(turn.regions) == 4
        assert [p.x for p in turn.places] == sorted(p.x for p in turn.places)


def test_nothing_is_counted_or_listed_if_one_is_between_seen_and_hidden(boxes):
    wall = boxes.thing(1, "red book", (0.0, -0.1, 0.12), (0.1, 0.02, 0.12))
    peeping = boxes.thing(2, "blue cube", (0.09, 0.05, 0.05), (0.05,) * 3)
    observation = boxes.observe([wall, peeping, boxes.thing(3, "green cube", (-0.3, 0, 0.05), (0.05,) * 3)])
    assert Seen(observation).by_id[2].is_undecidable
    for family in ("point_all", "point_ordinal", "point_superlative", "point_compared", "count_beside", "more_of"):
        assert not any(re.search(r"cubes?\b|objects?\b", turn.question) for turn in ask(observation, family)), family


def test_ordinals_skip_both_ends_and_need_gaps(boxes, row):
    observation = boxes.observe(row)
    turns = [t for t in ask(observation, "point_ordinal") if "can" in t.question]
    expected = {("second", "left"): 2, ("third", "left"): 3, ("second", "right"): 3, ("third", "right"): 2}
    for turn in turns:
        order, side = re.search(r"the (\w+) can from the (left|right)", turn.question).groups()
        assert np.array_equal(turn.region.to_mask(), observation.ids == expected[order, side])
    assert turns
    near = [{**t, "center": (0.005 * t["center"][0], *t["center"][1:])} for t in row]
    assert not any("can" in turn.question for turn in ask(boxes.observe(near), "point_ordinal"))


def test_an_order_by_depth_reads_both_ways(boxes, row):
    order = ["red can", "blue can", "green can", "white can"]
    turns = ask(boxes.observe(row), "depth_order")
    assert turns
    for turn in turns:
        ranks = [order.index(name) for name in turn.answer.split(", ") if name in order]
        far_first = turn.question.index("farthest") < turn.question.index("nearest")
        assert ranks == sorted(ranks, reverse=far_first)


def test_under_what_hangs_is_straight_below_it(boxes, row):
    observation = boxes.observe(row)
    view, turns = observation.view, ask(observation, "point_under")
    assert turns
    for turn in turns:
        rows, columns = np.nonzero(turn.region.to_mask())
        pixels = np.stack([columns + 0.5, rows + 0.5], axis=-1)
        spots = view.to_world(view.camera.unproject(pixels, observation.depth.values[rows, columns].astype(float)))
        assert np.abs(spots[:, :2] - (0.15, -0.2)).max() <= 0.061 and np.abs(spots[:, 2]).max() < 0.011


def test_between_is_the_middle_third(boxes):
    things = [
        boxes.thing(1, "red can", (-0.2, 0, 0.04), (0.04,) * 3),
        boxes.thing(2, "blue cube", (0.25, 0, 0.04), (0.04,) * 3),
    ]
    observation = boxes.observe(things)
    turns = ask(observation, "point_between")
    assert turns
    for turn in turns:
        rows, columns = np.nonzero(turn.region.to_mask())
        pixels = np.stack([columns + 0.5, rows + 0.5], axis=-1)
        x = observation.view.to_world(
            observation.view.camera.unproject(pixels, observation.depth.values[rows, columns].astype(float))
        )[:, 0]
        third = 0.37 / 3
        assert x.min() >= -0.16 + third - 1e-3 and x.max() <= -0.16 + 2 * third + 1e-3


def test_inside_needs_contact_and_most_of_the_volume(boxes):
    """A cube in a low tray, one beside it; a board over a cube does not contain it."""
    tray = boxes.thing(1, "red tray", (-0.2, 0, 0.03), (0.12, 0.12, 0.03))
    cube = boxes.thing(2, "blue cube", (-0.2, 0, 0.036), (0.03,) * 3, on=(1,))
    can = boxes.thing(3, "green can", (0.2, 0, 0.04), (0.04,) * 3)
    # The tray is drawn as a full box: what lies in it is drawn higher, and its pose is put right afterwards.
    observation = boxes.observe([tray, {**cube, "center": (-0.2, 0, 0.09)}, can])
    objects = tuple(
        o
        if o.id != 2
        else type(o)(**{**vars(o), "box": OrientedBox(np.array([-0.2, 0, 0.036]), np.eye(3), o.box.half_extents)})
        for o in observation.objects
    )
    within = type(observation)(**{**vars(observation), "objects": objects})
    assert {(("cube" in t.question), t.answer) for t in ask(within, "inside")} == {(True, "yes"), (False, "no")}
    assert ask(observation, "inside") == []
    untouched = tuple(type(o)(**{**vars(o), "supported_by": ()}) for o in objects)
    assert ask(type(observation)(**{**vars(observation), "objects": untouched}), "inside") == []


def test_shares_and_closest_points_of_boxes():
    small = OrientedBox(np.array([0.44, 0, 0]), np.eye(3), np.full(3, 0.1))
    large = OrientedBox(np.zeros(3), np.eye(3), np.full(3, 0.5))
    assert share_inside(small, large) == pytest.approx(0.8) and share_inside(large, small) < 0.01
    far = OrientedBox(np.array([2.0, 0.1, 0]), np.eye(3), np.full(3, 0.5))
    here, there = closest_points(large, far)
    assert np.allclose([here[0], there[0]], [0.5, 1.5]) and np.allclose(here[1:], there[1:], atol=1e-6)


def test_sectors_keep_away_from_their_borders(boxes):
    """Each of the two is asked from the other: ahead of one is in front of the other."""

    def answers(degrees):
        x, y = 0.3 * np.sin(np.radians(degrees)), 0.3 * np.cos(np.radians(degrees))
        can = boxes.thing(1, "red can", (0, 0, 0.03), (0.03,) * 3)
        cube = boxes.thing(2, "blue cube", (x, y, 0.03), (0.03,) * 3)
        return {turn.answer for turn in ask(boxes.observe([can, cube]), "direction_seen", rounds=3)}

    assert answers(0) == answers(180) == {"in front", "behind"}
    assert answers(90) == answers(-90) == {"left", "right"}
    assert answers(30) == answers(45) == answers(60) == set()


def test_only_widths_that_decide_are_asked(boxes, row):
    """Gaps of the row are about 0.22 m; the same width is asked of a wide gap and of a narrow one."""
    things = [*row[:4], boxes.thing(6, "pink cube", (-0.02, -0.3, 0.04), (0.03, 0.03, 0.04))]
    seen = Seen(boxes.observe(things))
    turns = ask(seen.observation, "gap_passes")
    by_name = {name: o for o in seen.objects for name in (o.full_name, o.state.category)}
    assert turns
    for turn in turns:
        a, b = re.findall(r"the ((?:\w+ )?(?:can|cube))", turn.question)
        low, high = seen.gap_bounds_m(by_name[a], by_name[b])
        width = int(re.search(r"(\d+) cm", turn.question)[1]) / 100
        assert low >= 1.15 * width if turn.answer == "yes" else high <= 0.85 * width


def test_worlds_without_colours_are_asked_without_them(boxes, row):
    extra = [
        boxes.thing(6, "red mug", (-0.05, -0.35, 0.03), (0.03,) * 3),
        boxes.thing(7, "red cube", (0.35, -0.2, 0.04), (0.04,) * 3),
    ]
    observation = boxes.observe(nameless([*row[:1], *row[4:], *extra]))
    asked = {family: ask(observation, family, rounds=4) for family in FAMILIES}
    for turns in asked.values():
        for turn in turns:
            texts = (turn.question, turn.answer, *turn.options)
            assert not any(re.search(r"  | object\b.*colour|^ | $|\ban? (?:object|s)\b", text) for text in texts), turn
            assert all(text == text.strip() for text in texts)
    assert asked["colour"] == asked["exists"] == []
    assert {turn.answer for turn in asked["shape"]} <= {"soup can", "book", "red coffee mug", "small wooden cube"}
    assert asked["point"] and asked["left_right"] and asked["name_choice"]


def test_a_shorter_name_fits_whoever_has_a_longer_one(boxes):
    """ "bowl" is both bowls; only the longer name of one is unique."""
    things = [
        boxes.thing(1, "red bowl", (-0.2, 0, 0.04), (0.04,) * 3),
        boxes.thing(2, "red cube", (0.2, 0, 0.04), (0.04,) * 3),
    ]
    things = [{**things[0], "colour": "", "category": "bowl"}, {**things[1], "colour": "", "category": "black bowl"}]
    seen = Seen(boxes.observe(things))
    assert seen.references(seen.by_id[1]) == () and seen.references(seen.by_id[2]) == ("black bowl",)


def test_letters_name_options_that_differ_and_sizes_that_cannot_be_mixed_up(boxes, row):
    observation = boxes.observe(row)
    for family in ("name_choice", "nearest_choice", "neighbour_choice", "size_choice"):
        turns = ask(observation, family)
        assert turns and {turn.kind for turn in turns} == {"choice"}
        for turn in turns:
            texts = dict(re.findall(r"([A-D]): (.+?)(?:, (?=[A-D]:)|$)", turn.question))
            assert tuple(texts) == turn.options and len(set(texts.values())) == len(texts)
            if family == "size_choice":
                sizes = sorted(float(text.split()[0]) for text in texts.values())
                assert all(b / a > 1.15 for a, b in pairwise(sizes))


def test_the_core_is_closed():
    """The recipes of small models are made of these, in this order: nothing may be added."""
    assert len(CORE_FAMILIES) == 26 and set(CORE_FAMILIES) < set(FAMILIES)
    assert CORE_FAMILIES[:2] == ("describe", "point") and CORE_FAMILIES[-1] == "fits"


@pytest.mark.parametrize(
    ("noun", "nouns"),
    [("red mug", "red mugs"), ("shelf", "shelves"), ("knife", "knives"), ("box", "boxes"), ("berry", "berries"),
     ("tray", "trays")],
)  # fmt: skip
def test_plurals(noun, nouns):
    assert plural(noun) == nouns
