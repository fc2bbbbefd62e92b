"""Histories of the tabletop: the same bytes for a seed, and events whose outcome is the one that the pictures show."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the tabletop world needs the extra `worlds`")

from gemvlm.worlds.tabletop import SceneConfig, build_scene, follow_plan, handle, look_around, walk_past
from gemvlm.worlds.tabletop.camera_motion import Motion, level_axes
from gemvlm.worlds.tabletop.handling import Handling

CALM = SceneConfig(hanging_chance=0.0)
SEEDS = range(14)


@cache
def episodes():
    return [
        e for seed in SEEDS for play in (handle, follow_plan) if (e := play(build_scene(seed, CALM), size=(64, 64)))
    ]


def bytes_of(history):
    parts = []
    for o in history.observations:
        parts += [o.image.tobytes(), o.depth.values.tobytes(), o.ids.tobytes(), o.view.camera_to_world.tobytes()]
        parts += [state.box.center.tobytes() + repr(state.supported_by).encode() for state in o.objects]
    return b"".join(parts) + repr((history.times_s, history.events, history.task)).encode()


def test_a_seed_gives_the_same_history_whatever_was_done_before():
    scene = build_scene(3, CALM)
    first = [
        bytes_of(f) for f in (look_around(scene), walk_past(scene), handle(scene).history, follow_plan(scene).history)
    ]
    again = build_scene(3, CALM)
    again.observe(0)
    played = follow_plan(again).history, handle(again).history
    assert [bytes_of(f) for f in (look_around(again), walk_past(again), *played[::-1])] == first
    assert bytes_of(look_around(scene, 1)) != first[0] and bytes_of(walk_past(scene, 1)) != first[1]


def test_handling_leaves_the_scene_as_it_was():
    scene = build_scene(4, CALM)
    before = scene.data.qpos.copy()
    episode = follow_plan(scene)
    assert np.array_equal(scene.data.qpos, before)
    assert not np.array_equal(episode.scenes[-1].data.qpos, before)


def test_a_walk_shows_things_come_and_go_from_one_still_scene():
    changes = 0
    for seed in range(4):
        history = walk_past(build_scene(seed), frames=5, size=(48, 48))
        assert history.times_s == (0, 1, 2, 3, 4) and not history.events
        boxes = [np.stack([s.box.center for s in o.objects]) for o in history.observations]
        assert all(np.array_equal(boxes[0], box) for box in boxes)
        seen = [{s.id for s in o.objects if s.movable and s.visible_pixels} for o in history.observations]
        changes += seen[0] != seen[-1]
        steps = np.diff([o.view.camera_to_world[:3, 3] for o in history.observations], axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        np.testing.assert_allclose(lengths, lengths[0], atol=1e-6)
    assert changes >= 3


def test_what_is_picked_up_is_in_the_air_and_what_is_put_down_rests_on_its_target():
    outcomes = {}
    for episode in episodes():
        observations = episode.history.observations
        for event in episode.history.events:
            outcomes.setdefault(event.action, []).append(event.succeeded)
            before, after = (next(o for o in observations[i].objects if o.id == event.object_id)
                             for i in (event.start, event.end))  # fmt: skip
            rise = after.box.center[2] - before.box.center[2]
            if event.action == "pick":
                assert rise > 0.09 and after.supported_by == ()
            elif event.action == "push":
                assert not event.succeeded or moved(before, after) >= 0.03
            elif event.succeeded:
                assert after.supported_by == (event.target_id,)
                target = next(o for o in observations[event.end].objects if o.id == event.target_id)
                bottom = after.box.corners()[:, 2].min()
                assert bottom > target.box.center[2] - 0.01
            else:
                upright = after.box.rotation[2, 2] > np.cos(np.radians(15))
                assert after.supported_by != (event.target_id,) or not upright or moved(before, after) > 0.04
    assert {"pick", "push", "place", "stack"} <= outcomes.keys()
    assert True in outcomes["stack"] and False in outcomes["stack"] and True in outcomes["place"]


def moved(before, after):
    return np.linalg.norm((after.box.center - before.box.center)[:2])


def test_a_task_ends_with_its_goal_or_with_the_step_that_failed():
    for episode in episodes():
        events, times = episode.history.events, episode.history.times_s
        assert len(times) == len(episode.history.observations) == len(episode.scenes)
        assert all(a < b for a, b in pairwise(times))
        assert events[0].start == 0 and events[-1].end == len(times) - 1
        assert all(a.end == b.start for a, b in pairwise(events))
        if episode.history.task:
            assert all(event.succeeded for event in events[:-1])
            assert [e.action == "pick" for e in events] == [i % 2 == 0 for i in range(len(events))]


def test_a_tower_topples_when_its_base_is_shoved_and_a_blocked_lift_is_refused():
    toppled = 0
    for seed in range(30):
        scene = build_scene(seed, CALM)
        states = {s.id: s for s in scene.states()}
        loads = [(b, s) for s in states.values() for b in s.supported_by if s.movable and states[b].movable]
        if not loads:
            continue
        base, top = loads[0]
        hand = Handling(scene)
        hand.shove(base, np.array([0.0, -1.0]), 0.3)
        if hand.let_rest() and base not in hand.now().states()[top.id - 1].supported_by:
            toppled += 1
        assert not Handling(scene).pick(base) or states[top.id].supported_by != (base,)
    assert toppled >= 2


def test_a_camera_brought_level_moves_along_its_own_axes():
    view = build_scene(1).observe(0, (8, 8)).view
    right, forward = level_axes(view.camera_to_world)
    assert right[2] == forward[2] == 0 and abs(right @ forward) < 1e-12
    assert np.cross(forward, [0, 0, 1]) @ right == pytest.approx(1)
    about = np.zeros(3)
    stepped = Motion(step_m=(0.1, 0.2, 0.3)).apply(view, 0.5, about)
    shift = stepped.camera_to_world[:3, 3] - view.camera_to_world[:3, 3]
    np.testing.assert_allclose([shift @ right, shift @ forward, shift[2]], [0.05, 0.1, 0.15])
    turned = Motion(turn=np.pi / 2).apply(view, 1.0, about)
    np.testing.assert_allclose(level_axes(turned.camera_to_world)[1], -right, atol=1e-12)
    orbit = Motion(orbit=np.pi).apply(view, 1.0, about)
    np.testing.assert_allclose(orbit.camera_to_world[:2, 3], -view.camera_to_world[:2, 3], atol=1e-12)
