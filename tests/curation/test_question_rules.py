"""Rules and margins of the question families on scenes of boxes whose answers can be worked out by hand."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from gemvlm.camera import View
from gemvlm.curation.questions import FAMILIES, write_questions
from gemvlm.curation.questions.boxes import footprint, gaps_m, rectangles_overlap
from gemvlm.curation.questions.visibility import Seen, deepest_pixel, interior_distance
from gemvlm.depth_map import DepthMap
from gemvlm.worlds.observation import OrientedBox

DEPTH_WORDS = set(
    "near nearer nearest far farther close closer depth distance metres behind front away".split()  # noqa: SIM905
)


def ask(observation, family, rounds=12, without=None):
    """Turns of one family over several seeds."""
    return [
        turn
        for seed in range(rounds)
        for turn in write_questions(observation, (seed,), [family], turns_per_family=4, without=without)
    ]


@pytest.fixture
def table(boxes):
    """A far tall red cube, a near flat book carrying a mug, a second cube, a can to the right, a ring in the air."""
    return boxes.observe(
        [
            boxes.thing(1, "red cube", (-0.2, 0.25, 0.08), (0.05, 0.05, 0.08)),
            boxes.thing(2, "blue book", (-0.05, -0.25, 0.02), (0.1, 0.08, 0.02)),
            boxes.thing(3, "green mug", (-0.05, -0.25, 0.07), (0.03, 0.03, 0.03), on=(2,)),
            boxes.thing(4, "white cube", (0.3, 0.1, 0.04), (0.04, 0.04, 0.04)),
            boxes.thing(5, "purple can", (0.22, -0.2, 0.05), (0.035, 0.035, 0.05)),
            boxes.thing(6, "pink ring", (0.06, 0.3, 0.25), (0.04, 0.02, 0.04), on=(), hanging=True),
        ]
    )


def test_there_are_families_for_every_task():
    assert len(FAMILIES) >= 18
    assert {family.task for family in FAMILIES.values()} == {"description", "grounding", "reasoning", "planning"}


def test_every_family_writes_turns_of_its_own_name_and_task(table):
    silent = []
    for name, family in FAMILIES.items():
        turns = ask(
            table, name, rounds=4, without=lambda taken: {i: 0.1 if (taken, i) == (2, 3) else 0.0 for i in range(1, 7)}
        )
        silent += [] if turns else [name]
        assert {(turn.family, turn.task) for turn in turns} <= {(name, family.task)}
    assert silent == ["point_ordinal", "point_under", "occluded", "depth_order", "inside"]


def test_unknown_families_are_refused_by_name(table):
    with pytest.raises(ValueError, match="closest_to"):
        write_questions(table, (0,), ["closest_to"])


def test_the_same_key_writes_the_same_turns_and_another_family_changes_none(table):
    assert write_questions(table, (3, 1)) == write_questions(table, (3, 1))
    alone = write_questions(table, (3, 1), ["closer"])
    assert alone == [
        turn for turn in write_questions(table, (3, 1), ["left_right", "closer"]) if turn.family == "closer"
    ]


def test_descriptions_name_every_object_left_to_right_without_a_word_of_depth(table):
    for turn in ask(table, "describe"):
        names = re.findall(r"(\w+ \w+) <place:(\d)>", turn.answer)
        assert sorted(name for name, _ in names) == sorted(o.full_name for o in Seen(table).objects)
        assert [turn.places[int(i)].x for _, i in names] == sorted(place.x for place in turn.places)
        assert not DEPTH_WORDS & set(re.findall(r"[a-z]+", (turn.question + turn.answer).lower()))


def test_places_are_named_by_what_the_simulator_saw_there_and_next_to_it(table):
    """Half of them at least show an object; coordinates rounded to a hundredth of the image stay on the same thing."""
    names = {o.id: o.full_name for o in Seen(table).objects} | {o.id: o.state.category for o in Seen(table).structures}
    height, width = table.ids.shape
    turn = ask(table, "places", rounds=1)[0]
    said = re.findall(r"<place:(\d+)> ([a-z ]+)", turn.answer)
    assert len(said) == len(turn.places) == 16
    for number, name in said:
        place = turn.places[int(number)]
        for x, y in ((place.x, place.y), (round(place.x, 2), round(place.y, 2))):
            assert name == names.get(int(table.ids[int(y * height), int(x * width)]), "nothing")
    objects = {o.full_name for o in Seen(table).objects}
    assert sum(name in objects for _, name in said) >= 8


SINGLED_OUT = {"point_relation", "point_ordinal", "point_compared", "point_superlative"}
"""Families that say which cube by more than its name."""


def test_references_fit_one_visible_object(table):
    """Two cubes: neither may be called "the cube"."""
    seen = Seen(table)
    by_id = {o.id: o for o in seen.objects}
    assert seen.references(by_id[1]) == ("red cube",)
    assert seen.references(by_id[5]) == ("purple can", "can")
    for name in FAMILIES:
        for turn in ask(table, name, rounds=6) if name not in SINGLED_OUT else ():
            assert not re.search(r"the cube\b", turn.question) and "cube" not in turn.options


def test_a_relation_singles_out_one_of_several(table):
    """The cube left of the can is the red one; nothing is asked where the noun alone would do."""
    seen = Seen(table)
    for turn in ask(table, "point_relation"):
        noun = re.search(r"Point to the (.+?) (?:left|right|on) ", turn.question)[1]
        assert not seen.fits_one(noun)
        if turn.question == "Point to the cube left of the can in the image.":
            assert np.array_equal(turn.region.to_mask(), table.ids == 1)


def test_twins_are_not_referred_to_at_all(boxes):
    twins = [boxes.thing(i, "red cube", (x, 0, 0.05), (0.05,) * 3) for i, x in ((1, -0.2), (2, 0.2))]
    assert Seen(boxes.observe(twins)).referable == ()


@pytest.mark.parametrize(("far_y", "asked"), [(0.4, True), (-0.12, False)])
def test_closer_is_asked_only_beyond_the_margin(boxes, far_y, asked):
    things = [
        boxes.thing(1, "red cube", (-0.15, -0.2, 0.04), (0.04,) * 3),
        boxes.thing(2, "blue can", (0.15, far_y, 0.04), (0.04,) * 3),
    ]
    turns = ask(boxes.observe(things), "closer")
    assert bool(turns) == asked
    assert {Seen(boxes.observe(things)).by_id[1].state.category in turn.answer for turn in turns} <= {True}


def test_above_and_below_go_by_the_world_not_by_the_image(boxes):
    """A far thing lies higher in the image; without a vertical gap of 2 cm nothing is asked."""
    near = boxes.thing(1, "red cube", (-0.15, -0.3, 0.04), (0.04,) * 3)
    level = boxes.thing(2, "blue can", (0.15, 0.3, 0.04), (0.04,) * 3)
    assert ask(boxes.observe([near, level]), "above_below") == []
    lifted = boxes.thing(1, "red cube", (-0.15, -0.3, 0.16), (0.04,) * 3, on=(), hanging=True)
    turns = ask(boxes.observe([lifted, level]), "above_below")
    assert turns and all("cube" in turn.answer and turn.cues["height"] != turn.answer for turn in turns)


def test_larger_needs_a_clear_ratio(boxes):
    def turns(half):  # of two different kinds
        things = [
            boxes.thing(1, "red cube", (-0.15, 0, 0.04), (0.04,) * 3),
            boxes.thing(2, "blue can", (0.15, 0, half), (half,) * 3),
        ]
        return ask(boxes.observe(things), "larger")

    assert turns(0.043) == []
    assert {turn.answer.split()[-1] for turn in turns(0.055)} == {"can"}
    assert turns(0.047) == []


def test_support_removal_lifting_and_consequence_follow_the_pile(table):
    def moved(taken):
        return {i: 0.04 if (taken, i) == (2, 3) else 0.0 for i in range(1, 7)}

    support = {t.answer for t in ask(table, "support") if "mug" in t.question}
    assert support == {"blue book"}
    for turn in ask(table, "removal_order"):
        assert turn.answer == ("green mug" if "book" in turn.question else "nothing")
    for turn in ask(table, "can_lift"):
        assert turn.answer == ("no" if "book" in turn.question else "yes")
    consequences = ask(table, "consequence", without=moved)
    about_the_load = [re.search(r"does the (green )?mug move", t.question) is not None for t in consequences]
    assert [t.answer == "yes" for t in consequences] == about_the_load and any(about_the_load)
    assert ask(table, "consequence", without=None) == []


def test_unclear_displacements_are_not_asked(table):
    assert ask(table, "consequence", without=lambda taken: dict.fromkeys(range(1, 7), 0.015)) == []


def test_occlusion_is_asked_beyond_its_margins_only(boxes):
    wall = boxes.thing(1, "red book", (0.0, -0.1, 0.12), (0.1, 0.02, 0.12))
    free = boxes.thing(2, "green can", (-0.3, 0.0, 0.05), (0.04, 0.04, 0.05))
    hidden = boxes.thing(3, "blue cube", (0.11, 0.05, 0.05), (0.05,) * 3)
    seen = Seen(boxes.observe([wall, free, hidden]))
    assert 0.3 < seen.by_id[3].state.visible_fraction < 0.7
    turns = ask(seen.observation, "occluded")
    assert turns and all((turn.answer == "yes") == ("cube" in turn.question) for turn in turns)


def test_what_is_hardly_visible_is_neither_named_nor_counted(boxes):
    """An instance between hidden and visible makes its kind uncountable (R13)."""
    wall = boxes.thing(1, "red book", (0.0, -0.1, 0.12), (0.1, 0.02, 0.12))
    peeping = boxes.thing(2, "blue cube", (0.09, 0.05, 0.05), (0.05,) * 3)
    observation = boxes.observe([wall, peeping, boxes.thing(3, "green cube", (-0.3, 0, 0.05), (0.05,) * 3)])
    seen = Seen(observation)
    assert 0.05 < seen.by_id[2].state.visible_fraction < 0.3 and seen.by_id[2].is_undecidable
    assert not any(
        re.search(r"cubes|blue objects|(many|the) objects", t.question)
        for t in ask(observation, "count")
        if t.answer != "0"
    )
    assert not any("blue" in t.question + t.answer for name in ("describe", "point") for t in ask(observation, name))


def test_yes_and_no_are_balanced(table):
    moved = {2: {1: 0.0, 3: 0.04, 4: 0.0, 5: 0.0, 6: 0.0}}
    for family in ("exists", "can_lift", "fits", "consequence"):
        counts = Counter(turn.answer for turn in ask(table, family, rounds=20, without=moved.get))
        assert counts["yes"] == counts["no"] > 0, family


def test_option_order_does_not_give_the_answer_away(table):
    first = [turn.answer == turn.options[0] for turn in ask(table, "left_right", rounds=100)]
    assert 0.42 < np.mean(first) < 0.58


def test_empty_spots_are_beside_the_object_and_clear_of_the_others(table):
    turns = ask(table, "free_space")
    for turn in turns:
        mask = turn.region.to_mask()
        assert set(np.unique(table.ids[mask])) == {90} and turn.region.contains(turn.places[0])
    assert turns


def test_what_fits_depends_on_the_place(boxes):
    """A place in a gap narrower than the object is a no; one on the open table a yes."""
    things = [
        boxes.thing(1, "red cube", (-0.45, -0.3, 0.06), (0.06,) * 3),
        boxes.thing(2, "blue can", (0.1, 0, 0.05), (0.04, 0.04, 0.05)),
        boxes.thing(3, "green can", (0.25, 0, 0.05), (0.04, 0.04, 0.05)),
    ]
    observation = boxes.observe(things)
    seen = Seen(observation)
    for turn in ask(observation, "fits"):
        if "cube" in turn.question:
            row, column = (int(c * len(observation.ids)) for c in (turn.places[0].y, turn.places[0].x))
            ray = observation.view.camera.unproject(
                np.array([column + 0.5, row + 0.5]), np.float64(observation.depth.values[row, column])
            )
            spot = observation.view.to_world(ray)[:2]
            gaps = [np.abs(spot - seen.by_id[i].state.box.center[:2]).max() - 0.04 for i in (2, 3)]
            assert min(gaps) > 0.06 if turn.answer == "yes" else min(gaps) < 0.06 * np.sqrt(2)


def mirrored(observation):
    """Picture and geometry flipped left to right, in a world with x reversed."""
    flip = np.diag([-1.0, 1, 1])
    objects = tuple(
        replace(o, box=OrientedBox(flip @ o.box.center, flip @ o.box.rotation @ flip, o.box.half_extents))
        for o in observation.objects
    )
    pose = observation.view.camera_to_world.copy()
    pose[:3, :3] = flip @ pose[:3, :3] @ flip
    pose[:3, 3] = flip @ pose[:3, 3]
    depth = DepthMap.from_values(observation.depth.values[:, ::-1].copy())
    ids, image = observation.ids[:, ::-1].copy(), observation.image[:, ::-1].copy()
    return replace(
        observation, image=image, depth=depth, ids=ids, view=View(observation.view.camera, pose), objects=objects
    )


@pytest.mark.parametrize("family", ["closer", "above_below", "larger", "nearer_to", "count", "object_depth", "distance",
                                    "support", "can_lift", "removal_order", "left_right", "perspective"])  # fmt: skip
def test_a_mirror_swaps_left_and_right_and_nothing_else(table, family):
    """The truth of a question does not depend on which side things stand, unless the question is about sides."""

    def truths(observation):
        return {
            re.sub(r"further|closer|bigger", "more", t.question): t.answer for t in ask(observation, family, rounds=60)
        }

    straight, mirror = truths(table), truths(mirrored(table))
    shared = straight.keys() & mirror.keys()
    assert shared
    swapped = [straight[question] != mirror[question] for question in shared]
    assert all(swapped) if family in ("left_right", "perspective") else not any(swapped)


def test_rolling_the_camera_does_not_change_what_is_above(boxes):
    things = [
        boxes.thing(1, "red cube", (-0.1, 0, 0.2), (0.04,) * 3, on=(), hanging=True),
        boxes.thing(2, "blue can", (0.1, 0.1, 0.04), (0.04,) * 3),
    ]
    answers = {
        t.answer.split()[-1] for roll in (0, 90, 180) for t in ask(boxes.observe(things, roll_deg=roll), "above_below")
    }
    assert answers == {"cube"}


def test_a_world_twice_as_large_doubles_metres_and_keeps_relations(boxes):
    def scene(scale):
        def scaled(*values):
            return tuple(scale * v for v in values)

        things = [
            boxes.thing(1, "red cube", scaled(-0.2, 0.25, 0.05), scaled(0.05, 0.05, 0.05)),
            boxes.thing(2, "blue can", scaled(0.15, -0.2, 0.04), scaled(0.04, 0.04, 0.04)),
        ]
        return boxes.observe(things, eye=scaled(0.0, -0.9, 0.7))

    for small, large in zip(ask(scene(1), "distance"), ask(scene(2), "distance"), strict=True):
        assert float(large.answer) == pytest.approx(2 * float(small.answer), abs=0.02)


def test_interior_distance_is_exact():
    rng = np.random.default_rng(0)
    mask = np.pad(rng.random((14, 17)) < 0.8, 1)
    outside = np.argwhere(~mask)
    expected = np.array([[np.linalg.norm(outside - (i, j), axis=1).min() for j in range(19)] for i in range(16)])
    assert np.allclose(interior_distance(mask), expected)


def test_the_deepest_pixel_of_a_crescent_is_inside_it():
    """The centroid of such a mask lies outside of it."""
    y, x = np.mgrid[:60, :60]
    crescent = ((x - 30) ** 2 + (y - 30) ** 2 < 25**2) & ((x - 40) ** 2 + (y - 30) ** 2 >= 22**2)
    assert not crescent[30, 40]
    place, depth = deepest_pixel(*np.nonzero(crescent), crescent.shape)
    assert crescent[int(place.y * 60), int(place.x * 60)] and depth >= 6


def test_gaps_between_boxes():
    half = np.array([0.5, 0.5, 0.5])
    turned = np.array([[np.sqrt(0.5), -np.sqrt(0.5), 0], [np.sqrt(0.5), np.sqrt(0.5), 0], [0, 0, 1]])
    one = OrientedBox(np.zeros(3), np.eye(3), half)
    beside = OrientedBox(np.array([2.0, 0.3, 0]), np.eye(3), half)
    corner = OrientedBox(np.array([2.0, 0, 0]), turned, half)
    inside = OrientedBox(np.array([0.1, 0, 0]), turned, half)
    gaps = gaps_m([one, beside, corner, inside])
    assert np.allclose(gaps[0], [0, 1, 1.5 - np.sqrt(0.5), 0], atol=1e-3)


def test_footprints_overlap_as_rectangles_do():
    center, half = np.zeros((3, 2)), np.array([1.0, 0.5])
    yaws = np.array([0.0, np.pi / 2, np.pi / 4])
    hits = rectangles_overlap(center, yaws, half, np.array([1.25, 0.0]), 0.0, np.array([0.5, 0.1]))
    assert hits.tolist() == [True, False, True]


def test_the_footprint_of_a_box_on_its_side_is_its_side():
    lying = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
    yaw, half = footprint(OrientedBox(np.zeros(3), lying, np.array([0.1, 0.2, 0.3])))
    along_x = half if abs(np.cos(yaw)) > 0.5 else half[::-1]
    assert np.allclose(along_x, [0.3, 0.2])


def test_two_of_a_kind_are_compared_first_and_with_a_smaller_margin(boxes):
    things = [
        boxes.thing(1, "red cube", (-0.25, 0, 0.04), (0.04,) * 3),
        boxes.thing(2, "blue cube", (0.0, 0, 0.045), (0.045,) * 3),
        boxes.thing(3, "green can", (0.25, 0, 0.06), (0.06,) * 3),
    ]
    observation = boxes.observe(things)
    for seed in range(5):
        first, second = write_questions(observation, (seed,), ["larger"], turns_per_family=2)
        assert first.answer == "blue cube" and {first.answer, *first.options} == {"red cube", "blue cube"}
        assert second.answer in ("green can", "can")
