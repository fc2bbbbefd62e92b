"""Meta-World as a world: names for every task, exact depth, upright cameras, repeatable seeds, experts that succeed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="needs pip install 'gemvlm[worlds]'")

from gemvlm.camera import Camera, View
from gemvlm.worlds.metaworld import ALTERNATIVES, TASKS, MetaWorld
from gemvlm.worlds.metaworld.rollout import rollout
from gemvlm.worlds.metaworld.tasks import EVERYWHERE, THINGS
from gemvlm.worlds.mujoco_gl import Canvas
from gemvlm.worlds.observation import Observation
from gemvlm.worlds.task_world import TaskWorld
from gemvlm.worlds.viewpoints import look_at

CLOSE = View(Camera.from_fov(96, 96, 45.0), look_at(np.array([0.7, 1.35, 0.75]), np.array([0, 0.68, 0.08])))


@pytest.fixture(scope="module")
def coffee() -> MetaWorld:
    return MetaWorld("coffee-push-v3", 3, drawing="plain")


def unprojected(observation: Observation) -> np.ndarray:
    camera = observation.view.camera
    return observation.view.to_world(camera.rays() * observation.depth.values[..., None].astype(float))


def test_every_task_of_the_package_is_named():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert TASKS.keys() == ALL_V3_ENVIRONMENTS.keys()
    kinds = [kind.category for things in THINGS.values() for kind in things.values()]
    assert {task.target for task in TASKS.values()} <= set(kinds)
    assert len({task.instruction for task in TASKS.values()}) == len(TASKS)
    assert all(group_task in TASKS for group in ALTERNATIVES for group_task in group)


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_scene_has_its_target_and_every_drawn_geom_an_owner(task):
    world = MetaWorld(task, 0, drawing="plain")
    assert world.id_of(TASKS[task].target) is not None and world.id_of("robot") is not None
    assert TASKS[task].place is None or world.id_of(str(TASKS[task].place)) is not None
    assert len(world.view.things) == len(world.kinds), "every name finds its body"
    seen = world.observe("corner3", (64, 64))
    assert not np.any((seen.ids == 0) & seen.depth.valid)


def test_it_is_a_task_world_and_the_robot_is_one_thing(coffee):
    assert isinstance(coffee, TaskWorld)
    names = [thing.category for thing in coffee.view.things]
    assert names.count("robot") == 1 and set(names) == {k.category for k in EVERYWHERE.values()} | {
        "mug",
        "coffee machine",
        "button",
    }


def test_depth_ids_and_boxes_are_of_one_scene(coffee):
    coffee.reset()
    seen = coffee.observe(CLOSE)
    points = unprojected(seen)
    for state in seen.objects:
        mine = points[seen.ids == state.id]
        inside = np.abs((mine - state.box.center) @ state.box.rotation) <= state.box.half_extents + 1e-3
        assert len(mine) == state.visible_pixels and inside.all(), state.category


@pytest.mark.parametrize("camera", ["corner", "corner2", "corner3"])
def test_corner_cameras_are_upright(coffee, camera):
    seen = coffee.observe(camera, (64, 64))
    assert seen.view.camera_to_world[2, 1] < 0, "the picture's downward axis points down in the room"
    assert np.linalg.det(seen.view.camera_to_world[:3, :3]) == pytest.approx(1), "turned, not mirrored"


def test_a_seed_gives_the_same_start_again_and_another_seed_another(coffee):
    coffee.reset()
    first = coffee.observe(CLOSE)
    for _ in range(3):
        coffee.step(np.ones(4))
    coffee.reset()
    again = coffee.observe(CLOSE)
    fresh = MetaWorld("coffee-push-v3", 3, drawing="plain").observe(CLOSE)
    other = MetaWorld("coffee-push-v3", 4, drawing="plain").observe(CLOSE)
    for same in (again, fresh):
        np.testing.assert_array_equal(first.depth.values, same.depth.values)
        np.testing.assert_array_equal(first.image, same.image)
    assert not np.array_equal(first.depth.values, other.depth.values)


def test_making_a_world_leaves_chance_alone():
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    MetaWorld("reach-v3", 1, drawing="plain")
    assert np.random.random() == expected


def test_the_expert_succeeds_and_its_steps_are_told(coffee):
    history = rollout(coffee, CLOSE, (96, 96), frames=4)
    reach, push = history.events
    assert history.task == "push the mug under the coffee machine"
    assert (reach.action, push.action) == ("reach", "push") and push.succeeded
    assert reach.start == 0 and reach.end == push.start and push.end == len(history.observations) - 1
    mug = [next(o for o in seen.objects if o.id == push.object_id).box.center for seen in history.observations]
    assert np.linalg.norm(mug[reach.end] - mug[0]) < 0.02
    assert np.linalg.norm(mug[-1] - mug[0]) > 0.05
    assert history.times_s is not None and list(history.times_s) == sorted(history.times_s)


def test_rays_agree_with_the_depth_buffer(coffee):
    try:
        canvas = Canvas(coffee.model, frozenset({0, 1, 2}), sites=False, samples=0)
    except ImportError as error:
        pytest.skip(str(error))
    coffee.reset()
    seen = coffee.observe("corner3", (128, 128))
    truth = canvas.z_depth(coffee.data, seen.view)
    apart = np.abs(truth - seen.depth.values)[seen.depth.valid] / seen.depth.values[seen.depth.valid]
    assert np.mean(apart < 0.005) > 0.995
    canvas.close()


def test_unknown_tasks_and_cameras_are_named(coffee):
    with pytest.raises(ValueError, match="no task 'dance-v3'"):
        MetaWorld("dance-v3")
    with pytest.raises(ValueError, match="corner2"):
        coffee.observe("ceiling")
