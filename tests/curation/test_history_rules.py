"""Rules, margins and frames of questions about several images, on worlds of boxes worked out by hand.

The metamorphic tests mirror the world, roll the camera, rename, scale and permute: answers must follow, or stay.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from gemvlm.camera import View
from gemvlm.curation.questions.histories import HISTORY_FAMILIES, write_history_questions
from gemvlm.curation.questions.level_frame import level_axes, quadrant, turn_deg
from gemvlm.curation.questions.outlines import inside_hull, simplified
from gemvlm.worlds.observation import Event, History, OrientedBox


def ask(history, family, rounds=8, **more):
    return [t for seed in range(rounds) for t in write_history_questions(history, (seed,), [family], 6, **more)]


def moved_camera(boxes, things, eyes, **more):
    return History(tuple(boxes.observe(things, eye=eye, **more) for eye in eyes))


@pytest.fixture
def things(boxes):
    return [
        boxes.thing(1, "red cube", (-0.2, 0.2, 0.05), (0.05,) * 3),
        boxes.thing(2, "blue book", (-0.05, -0.2, 0.02), (0.1, 0.08, 0.02)),
        boxes.thing(3, "green mug", (-0.05, -0.2, 0.08), (0.03, 0.03, 0.04), on=(2,)),
        boxes.thing(4, "white can", (0.22, 0.0, 0.05), (0.04, 0.04, 0.05)),
    ]


@pytest.fixture
def task(boxes, things):
    """The green mug is taken off the book and put on the red cube: 5 images."""
    places = [(-0.05, -0.2, 0.08), (-0.05, -0.2, 0.25), (-0.2, 0.2, 0.35), (-0.2, 0.2, 0.14)]
    supports = [(2,), (), (), (1,)]
    shots = []
    for place, on in zip(places, supports, strict=True):
        mug = boxes.thing(3, "green mug", place, (0.03, 0.03, 0.04), on=on)
        shots.append(boxes.observe([*things[:2], mug, things[3]]))
    events = (
        Event("pick", "pick up the green mug", 3, 0, 1, True),
        Event("stack", "put the green mug on the red cube", 3, 1, 3, True, 1),
    )
    return History(tuple(shots), (0.0, 1.0, 2.5, 3.0), events, "put the green mug on the red cube")


def mirrored(history):
    """The world and its pictures with left and right exchanged (x becomes -x; boxes lie square to the axes)."""
    flip = np.diag([-1.0, 1, 1, 1])
    shots = []
    for o in history.observations:
        pose = flip @ o.view.camera_to_world @ np.diag([-1.0, 1, 1, 1])
        depth = replace(o.depth, values=o.depth.values[:, ::-1].copy(), valid=o.depth.valid[:, ::-1].copy())
        objects = tuple(replace(s, box=OrientedBox(s.box.center * [-1, 1, 1], s.box.rotation, s.box.half_extents))
                        for s in o.objects)  # fmt: skip
        shots.append(replace(o, image=o.image[:, ::-1].copy(), ids=o.ids[:, ::-1].copy(), depth=depth,
                             view=View(o.view.camera, pose), objects=objects))  # fmt: skip
    return replace(history, observations=tuple(shots))


def scaled(history, factor):
    shots = []
    for o in history.observations:
        pose = o.view.camera_to_world.copy()
        pose[:3, 3] *= factor
        objects = tuple(
            replace(s, box=OrientedBox(s.box.center * factor, s.box.rotation, s.box.half_extents * factor))
            for s in o.objects
        )
        depth = replace(o.depth, values=o.depth.values * np.float32(factor))
        shots.append(replace(o, depth=depth, view=View(o.view.camera, pose), objects=objects))
    return replace(history, observations=tuple(shots))


def renamed(history, names):
    def change(o):
        return replace(o, objects=tuple(replace(s, category=names.get(s.category, s.category)) for s in o.objects))

    events = tuple(replace(e, words=swap(e.words, names)) for e in history.events)
    shots = tuple(change(o) for o in history.observations)
    return replace(history, observations=shots, events=events, task=swap(history.task, names))


def swap(text, words):
    return re.sub(r"[a-z]+", lambda found: words.get(found[0], found[0]), text)


def test_the_level_frame_ignores_roll_and_pitch(boxes, things):
    upright, rolled = (boxes.observe(things, roll_deg=roll).view for roll in (0, 40))
    np.testing.assert_allclose(level_axes(upright), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(level_axes(rolled), np.eye(3), atol=1e-9)
    down = View(upright.camera, np.diag([1.0, -1, -1, 1]))
    assert level_axes(down) is None and turn_deg(upright, down) is None


@pytest.mark.parametrize("bearing", np.arange(-179.5, 180, 7))
def test_quadrants_keep_their_margin_on_both_sides(bearing):
    centre = {"ahead": 0, "right": 90, "behind": 180, "left": -90}
    off = {name: abs((bearing - middle + 180) % 360 - 180) for name, middle in centre.items()}
    name = quadrant(float(bearing), 20.0)
    assert name == next((n for n, angle in off.items() if angle <= 25), None)


@pytest.mark.parametrize(("eye", "turn", "move"), [
    ((0.5, -0.8, 0.7), "left", None),  # to the right and looking back at the middle: turned left, moved askew
    ((0.35, -0.9, 0.7), "left", "to the right"),
    ((-0.35, -0.9, 0.7), "right", "to the left"),
    ((0.0, -0.6, 0.7), None, "forward"),
    ((0.0, -1.2, 0.7), None, "backward"),
    ((0.0, -0.9, 1.1), None, "up"),
    ((0.05, -0.95, 0.75), None, None),
])  # fmt: skip
def test_camera_motion_is_that_of_the_level_frame(boxes, things, eye, turn, move):
    history = moved_camera(boxes, things, [(0.0, -0.9, 0.7), eye])
    assert {t.answer for t in ask(history, "camera_turn")} == ({turn} if turn else set())
    if move or eye[0] < 0.1:
        assert {t.answer for t in ask(history, "camera_move")} == ({move} if move else set())
    for turns in (ask(history, "camera_turn"), ask(history, "camera_move")):
        assert all(re.search(r"its left|level|which way does the camera turn", t.question) for t in turns)


OPPOSITE = {"left": "right", "right": "left", "to the left": "to the right", "to the right": "to the left"}
DRAWN = ("after_moving", "same_point")
"""Families that draw from what has an order of its own (motions by answer, pixels by row): they are mirrored apart."""
SIDED = ("camera_turn", "camera_move", "after_moving", "perspective_across", "moved_way")


@pytest.mark.parametrize("family", [f for f in HISTORY_FAMILIES if f not in DRAWN])
def test_mirroring_exchanges_left_and_right_and_nothing_else(boxes, things, task, family):
    views = moved_camera(boxes, things, [(0.3, -0.9, 0.6), (-0.4, -0.7, 0.7), (0.0, -0.5, 0.5)])
    for history in (views, task):
        there = ask(mirrored(history), family, rounds=4)
        for here, other in zip(ask(history, family, rounds=4), there, strict=True):
            assert here.question == other.question
            assert other.answer == (OPPOSITE.get(here.answer, here.answer) if family in SIDED else here.answer)
            if family == "trajectory":
                xs = [1 - p.x for p in other.places]
                np.testing.assert_allclose([p.x for p in here.places], xs, atol=1e-9)


def test_turning_and_walking_mirror_too(boxes, things):
    """The motion is drawn among those with the answer, so only the set of (motion, answer) can be compared."""
    history = moved_camera(boxes, things, [(0.3, -0.9, 0.6)])

    def facts(history, exchange):
        found = set()
        for t in ask(history, "after_moving", rounds=60):
            name = re.search(r"the ([a-z ]+?) (?:then|be)\b", t.question)[1].split()[-1]
            turn = re.search(r"turn (?:around|90 degrees to the (left|right))", t.question)
            side = None if turn is None else turn[1] or "around"
            walk = re.search(r"walk ([\d.]+)", t.question)
            facts = (side, t.answer) if not exchange else (OPPOSITE.get(side, side), OPPOSITE.get(t.answer, t.answer))
            found.add((name, *facts, walk and walk[1]))
        return found

    here, there = facts(history, False), facts(mirrored(history), True)
    assert len(here) > 15 and len({fact[2] for fact in here}) == 4
    answers = {(name, turn, walk): answer for name, turn, answer, walk in here}
    assert all(answers.get((name, turn, walk), answer) == answer for name, turn, answer, walk in there)
    assert len(here & there) > len(here) / 2


def test_rolling_the_camera_changes_no_direction(boxes, things):
    eyes = [(0.0, -0.9, 0.7), (0.35, -0.9, 0.7)]
    for family in ("camera_turn", "camera_move"):
        straight, rolled = (ask(moved_camera(boxes, things, eyes, roll_deg=r), family) for r in (0.0, 25.0))
        assert straight and [t.answer for t in straight] == [t.answer for t in rolled]


@pytest.mark.parametrize("family", HISTORY_FAMILIES)
def test_other_names_give_the_same_answers_under_those_names(task, family):
    names = {"mug": "jug", "cube": "die", "book": "tome"}
    here, there = ask(task, family, rounds=3), ask(renamed(task, names), family, rounds=3)
    assert [swap(t.question, names) for t in here] == [t.question for t in there]
    assert [swap(t.answer, names) for t in here] == [t.answer for t in there]


def test_a_world_of_twice_the_size_has_twice_the_distances(task):
    here, there = ask(task, "moved_far"), ask(scaled(task, 2.0), "moved_far")
    assert here and [2 * float(t.answer) for t in here] == pytest.approx([float(t.answer) for t in there], abs=0.011)
    for family in ("what_moved", "next_step", "what_was_done", "has_succeeded", "can_lift_now", "trajectory"):
        assert [t.answer for t in ask(task, family)] == [t.answer for t in ask(scaled(task, 2.0), family)]


def test_answers_follow_the_images_when_they_are_permuted(boxes, things):
    """One thing is out of view in all images but one; whichever place that image takes, the answer names it."""
    far = boxes.thing(5, "pink ring", (0.5, 0.5, 0.04), (0.06, 0.06, 0.04))
    views = moved_camera(boxes, things, [(0.0, -0.9, 0.6), (0.2, -0.9, 0.6)])
    looking_there = boxes.observe([*things, far], eye=(0.0, -1.4, 1.0))
    history = History((*views.observations, looking_there))
    for shown in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        turns = [t for t in ask(history, "view_showing", shown=shown) if "ring" in t.question]
        assert {t.answer for t in turns} == {f"image {shown.index(2) + 1}"}


def test_what_moved_needs_five_centimetres_and_the_others_five_millimetres(boxes, things):
    def turns(shift, wobble):
        after = [dict(thing) for thing in things]
        after[3]["center"] = (0.22 + shift, 0.0, 0.05)
        after[0]["center"] = (-0.2 + wobble, 0.2, 0.05)
        shots = boxes.observe(things), boxes.observe(after)
        event = (Event("push", "push the white can", 4, 0, 1, True),)
        return ask(History(shots, (0.0, 1.0), event), "what_moved")

    assert {t.answer.split()[-1] for t in turns(0.08, 0.0)} == {"can"}
    assert turns(0.03, 0.0) == []
    assert not any("cube" in option for t in turns(0.08, 0.01) for option in t.options)


def test_the_way_and_the_distance_of_a_push(boxes, things):
    for shift, way in (((0.1, 0, 0), "to the right"), ((0, 0.1, 0), "away from the camera"),
                       ((-0.1, 0.03, 0), "to the left"), ((0.08, 0.06, 0), None)):  # fmt: skip
        after = [dict(thing) for thing in things]
        after[3]["center"] = tuple(np.add(things[3]["center"], shift))
        event = (Event("push", "push the white can", 4, 0, 1, True),)
        history = History((boxes.observe(things), boxes.observe(after)), (0.0, 1.0), event)
        turns = ask(history, "moved_way")
        assert {t.answer for t in turns} == ({way} if way else set())
        assert all("level" in t.question for t in turns)
        assert {t.answer for t in ask(history, "moved_far")} == {f"{np.linalg.norm(shift):.2f}"}


def test_every_option_stands_in_the_question(boxes, things, task):
    """Who is asked must know what to choose from; and a task whose words are one of its steps gives nothing away."""
    views = moved_camera(boxes, things, [(0.3, -0.9, 0.6), (-0.4, -0.7, 0.7), (0.0, -0.5, 0.5)])
    turns = [t for history in (views, task) for family in HISTORY_FAMILIES for t in ask(history, family, rounds=3)]
    turns += ask(task, "next_step", shown=(0, 1))
    for t in turns:
        if t.kind == "choice" and t.family not in ("view_showing", "frame_order"):
            assert all(option in t.question for option in t.options), t.question


def test_things_without_a_colour_word_are_named_by_their_kind(task):
    def plain(text):
        return re.sub(r"\b(red|blue|green|white) ", "", text)

    shots = tuple(replace(o, objects=tuple(replace(s, colour="") for s in o.objects)) for o in task.observations)
    events = tuple(replace(e, words=plain(e.words)) for e in task.events)
    history = replace(task, observations=shots, events=events, task=plain(task.task))
    turns = [t for family in ("has_succeeded", "next_step", "what_moved") for t in ask(history, family)]
    turns += ask(history, "next_step", shown=(0, 1))
    assert {t.family for t in turns} == {"has_succeeded", "next_step", "what_moved"}
    assert not [t for t in turns if "  " in " | ".join((t.question, t.answer, *t.options))]


def test_a_plan_is_told_from_what_is_shown(task):
    def answers(family, shown, **more):
        return {t.answer for t in ask(task, family, shown=shown, **more)}

    assert answers("next_step", (0,)) == {"pick up the green mug"}
    assert answers("next_step", (0, 1)) == {"put the green mug on the red cube"}
    assert answers("next_step", (0, 1, 2)) == set()
    assert answers("next_step", (0, 1, 2, 3)) == answers("remaining_steps", (0, 3)) == {"nothing, it is done"}
    assert answers("remaining_steps", (0,)) == {"pick up the green mug, then put the green mug on the red cube"}
    assert answers("what_was_done", (0, 1)) == {"pick up the green mug"}
    assert answers("what_was_done", (0, 3)) == set()
    assert answers("frame_order", (3, 0), ordered=False) == {"image 1"}
    assert answers("frame_order", (0, 3), ordered=False) == {"image 2"}
    assert answers("frame_order", (0, 3)) == set()
    assert answers("next_step", (1, 0), ordered=False) == set()
    assert {(t.question.split(" in ")[-1][:-1], t.answer) for t in ask(task, "progress", shown=(0, 1))} <= {
        ("image 1", "0"), ("the first image", "0"), ("image 2", "1"), ("the second image", "1"),
        ("the last image", "1"),
    }  # fmt: skip


def test_success_is_not_asked_where_it_held_already(task):
    """Such words as "put the mug on the book" are true before it begins."""
    back = replace(task.events[1], words="put the green mug on the blue book", target_id=2, succeeded=False)
    history = replace(task, events=(task.events[0], back), task=back.words)
    for t in ask(history, "has_succeeded"):
        if "put" in t.question:
            assert t.answer == "no" and not re.search(r"image 1\b|first image", t.question)
    assert {t.answer for t in ask(task, "has_succeeded")} == {"yes", "no"}


def test_yes_and_no_come_in_pairs(task):
    moves = {0: {2: 0.0}, 1: {}}
    for family in ("has_succeeded", "can_lift_now", "did_it_move"):
        turns = ask(task, family)
        assert turns and sum(t.answer == "yes" for t in turns) * 2 == len(turns)
    without = {2: {1: 0.0, 3: 0.06, 4: 0.001}, 1: {2: 0.0, 3: 0.1, 4: 0.0}}
    turns = ask(task, "consequence_now", without=lambda index, taken: without[taken])
    assert turns and sum(t.answer == "yes" for t in turns) * 2 == len(turns) and moves
    assert ask(task, "consequence_now") == []


def test_a_hidden_thing_is_pointed_to_within_its_outline(boxes):
    can = boxes.thing(1, "red can", (0.0, 0.2, 0.05), (0.03, 0.03, 0.05))
    screen = [boxes.thing(2, "blue book", (x, -0.1, 0.2), (0.15, 0.02, 0.2)) for x in (0.4, 0.0)]
    cup = boxes.thing(3, "white mug", (-0.35, 0.0, 0.05), (0.04, 0.04, 0.05))
    shots = [boxes.observe([can, book, cup], eye=(0.0, -0.9, 0.3)) for book in screen]
    history = History(tuple(shots), (0.0, 2.0), (Event("push", "push the blue book", 2, 0, 1, True),))
    turns = ask(history, "hidden_place")
    assert turns
    shown = shots[0].ids == 1
    for t in turns:
        assert "can" in t.question and t.region.contains(t.places[0])
        assert (t.region.to_mask() & shown).sum() > 0.95 * shown.sum()
    assert {t.answer.split()[-1] for t in ask(history, "out_of_sight")} == {"can"}


def test_paths_are_simplified_and_hulls_filled():
    bent = np.array([[0.0, 0], [5, 0.01], [10, 0], [10, 5], [10, 10]])
    np.testing.assert_array_equal(simplified(bent, 0.5), [[0, 0], [10, 0], [10, 10]])
    np.testing.assert_array_equal(simplified(bent[:3], 0.5), [[0, 0], [5, 0], [10, 0]])
    square = inside_hull(np.array([[2.0, 2], [8, 2], [8, 6], [2, 6], [5, 4]]), 10, 12)
    assert square.sum() == 24 and square[2:6, 2:8].all()


def test_families_are_those_of_the_notes_and_bad_requests_are_named(task):
    assert len(HISTORY_FAMILIES) >= 20
    assert {family.task for family in HISTORY_FAMILIES.values()} == {"grounding", "reasoning", "planning"}
    with pytest.raises(ValueError, match="nonsense"):
        write_history_questions(task, (0,), ["nonsense"])
    with pytest.raises(ValueError, match="4 observations"):
        write_history_questions(task, (0,), shown=(7,))


def test_a_family_asks_the_same_whatever_others_are_asked(task):
    alone = write_history_questions(task, (5,), ["what_moved"])
    among = [t for t in write_history_questions(task, (5,)) if t.family == "what_moved"]
    assert alone == among
