"""The tabletop world's promises: same bytes for a seed, exact depth, true visibility, supports and interaction."""

from __future__ import annotations

import zlib
from functools import cache

import mujoco
import numpy as np
import pytest

from gemvlm.worlds.tabletop import (
    CATEGORIES,
    COLOURS,
    NEW_CATEGORIES,
    NEW_PATTERNS,
    SceneConfig,
    TabletopScene,
    build_scene,
    generate_views,
)

SEEDS = range(12)


@cache
def scene(seed: int) -> TabletopScene:
    return build_scene(seed)


@cache
def view(seed: int, index: int = 0):
    return scene(seed).observe(index)


def unprojected(observation) -> np.ndarray:
    camera = observation.view.camera
    return observation.view.to_world(camera.rays() * observation.depth.values[..., None].astype(float))


def same(a, b) -> bool:
    equal = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("image", "ids"))
    equal &= np.array_equal(a.depth.values, b.depth.values) and a.scene == b.scene
    equal &= np.array_equal(a.view.camera_to_world, b.view.camera_to_world)
    return equal and [s.visible_fraction for s in a.objects] == [s.visible_fraction for s in b.objects]


def test_a_seed_gives_the_same_bytes_with_any_process_count():
    seeds = [3, 1, 2]
    alone = list(generate_views(seeds, 2, size=(48, 64)))
    spread = list(generate_views(seeds, 2, size=(48, 64), processes=2))
    assert [o.scene for o in alone] == [f"tabletop-{s}" for s in (3, 3, 1, 1, 2, 2)]
    assert alone[0].image.shape == (48, 64, 3)
    assert all(same(a, b) for a, b in zip(alone, spread, strict=True))


def test_a_view_does_not_depend_on_the_views_or_interactions_before_it():
    first = build_scene(5).observe(1)
    again = build_scene(5)
    again.observe(0)
    again.without(1)
    assert same(first, again.observe(1))
    assert not same(first, again.observe(2))


@pytest.mark.parametrize("seed", SEEDS)
def test_depth_and_ids_equal_single_rays(seed):
    """`mj_multiRay` misses turned bodies and those straight below the camera; `mj_ray` is the independent answer."""
    world, seen = scene(seed), view(seed)
    rays = seen.view.camera.rays() @ seen.view.camera_to_world[:3, :3].T
    geom, groups = np.zeros(1, np.int32), np.array([0, 1, 0, 0, 0, 0], np.uint8)
    for row, column in np.random.default_rng(seed).integers(0, 96, size=(400, 2)):
        z = mujoco.mj_ray(
            world.model, world.data, seen.view.camera_to_world[:3, 3], rays[row, column], groups, 1, -1, geom
        )
        body = world.model.geom_bodyid[geom[0]] if geom[0] >= 0 else 0
        assert seen.ids[row, column] == body
        assert seen.depth.valid[row, column] == (z >= 0)
        assert z < 0 or seen.depth.values[row, column] == pytest.approx(z, abs=1e-5)


def test_depth_unprojects_onto_balls_and_the_table():
    balls = 0
    for seed in SEEDS:
        seen = view(seed)
        points = unprojected(seen)
        for state in seen.objects:
            mine = points[seen.ids == state.id]
            if state.category == "ball":
                balls += len(mine) > 0
                radius = np.linalg.norm(mine - state.box.center, axis=1)
                np.testing.assert_allclose(radius, state.box.half_extents[0], atol=1e-4)
            if state.category == "table":
                top = state.box.center[2] + state.box.half_extents[2]
                assert np.mean(np.abs(mine[:, 2] - top) < 1e-3) > 0.8
                assert mine[:, 2].max() < top + 1e-4
    assert balls >= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_every_visible_point_lies_in_its_objects_box(seed):
    seen = view(seed)
    points = unprojected(seen)
    for state in seen.objects:
        local = (points[seen.ids == state.id] - state.box.center) @ state.box.rotation
        assert np.all(np.abs(local) <= state.box.half_extents + 1e-4), (
            state.category,
            np.abs(local).max(axis=0),
            state.box,
        )


def test_visible_fraction_is_pixels_over_pixels_alone():
    fractions = []
    for seed in (0, 1, 2):
        world, seen = scene(seed), view(seed)
        rays = seen.view.camera.rays() @ seen.view.camera_to_world[:3, :3].T
        for state in seen.objects[:4]:
            model = mujoco.MjModel.__copy__(world.model)
            model.geom_group[model.geom_bodyid != state.id] = 5
            count = 0
            lines, columns = np.nonzero(window(seen, state))
            for row, column in zip(lines, columns, strict=True):
                geom = np.zeros(1, np.int32)
                groups = np.array([0, 1, 0, 0, 0, 0], np.uint8)
                origin = seen.view.camera_to_world[:3, 3]
                count += mujoco.mj_ray(model, world.data, origin, rays[row, column], groups, 1, -1, geom) >= 0
            assert state.visible_pixels == np.count_nonzero(seen.ids == state.id)
            assert state.visible_fraction == pytest.approx(state.visible_pixels / max(count, 1))
            fractions.append(state.visible_fraction)
    assert max(fractions) == 1 and all(0 <= f <= 1 for f in fractions)


def window(seen, state) -> np.ndarray:
    """Pixels in the bounding rectangle of the object's box, one more on each side."""
    pixels = seen.view.camera.project(seen.view.to_camera(state.box.corners()))
    (left, top), (right, bottom) = np.floor(pixels.min(axis=0)) - 1, np.ceil(pixels.max(axis=0)) + 1
    rows, columns = np.mgrid[: seen.ids.shape[0], : seen.ids.shape[1]]
    return (rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)


def test_centres_of_unoccluded_solid_objects_project_onto_their_ids():
    checked = 0
    for seed in SEEDS:
        seen = view(seed)
        for state in seen.objects:
            if state.category not in ("ball", "cube", "can", "book", "cone") or state.visible_fraction < 1:
                continue
            column, row = np.floor(seen.view.camera.project(seen.view.to_camera(state.box.center))).astype(int)
            if 0 <= row < 96 and 0 <= column < 96:
                assert seen.ids[row, column] == state.id
                checked += 1
    assert checked > 10


def test_supports_form_stacks_and_taking_a_support_away_moves_what_it_carries():
    stacks = 0
    for seed in range(30):
        world = scene(seed)
        states = {s.id: s for s in world.states()}
        for state in states.values():
            if not state.movable:
                assert state.supported_by == () or state.category == "shelf"
                continue
            assert state.hanging != bool(state.supported_by)
            for below in state.supported_by:
                assert states[below].box.center[2] < state.box.center[2]
            carriers = [b for b in state.supported_by if states[b].movable]
            if carriers and stacks < 6:
                stacks += 1
                moved = world.without(carriers[0])
                assert carriers[0] not in moved
                assert moved[state.id] > 0.005  # a plate is 8 mm thick
                far = [
                    i
                    for i in moved
                    if np.linalg.norm((states[i].box.center - states[carriers[0]].box.center)[:2]) > 0.4
                ]
                assert all(moved[i] < 0.005 for i in far)
    assert stacks == 6


def test_taking_away_what_carries_nothing_moves_nothing():
    for seed in range(6):
        world = scene(seed)
        carrying = {below for state in world.states() for below in state.supported_by}
        free = next(state.id for state in world.states() if state.movable and state.id not in carrying)
        assert max(world.without(free).values()) < 0.005


def test_pushing_moves_the_object_by_about_the_distance():
    world = scene(2)
    states = world.states()
    table = next(s.id for s in states if s.category == "table")
    book = next(s.id for s in states if s.movable and s.supported_by == (table,))
    moved = world.pushed(book, np.array([1.0, 0.0]), 0.05)
    assert 0.03 < moved[book] < 0.12


def test_scenes_are_at_rest_on_the_table_and_vary():
    categories, colours, hanging, shelves, walls, stacked, counts = set(), set(), 0, 0, 0, 0, []
    for seed in range(30):
        world = scene(seed)
        states = world.states()
        kinds = [s.category for s in states]
        table = states[kinds.index("table")]
        top = table.box.center[2] + table.box.half_extents[2]
        objects = [s for s in states if s.movable]
        counts.append(len(objects))
        assert [s.id for s in states] == list(range(1, len(states) + 1))
        assert all(not s.movable for s in states[len(objects) :])
        for state in objects:
            assert state.box.corners()[:, 2].min() > top - 2e-3
            assert np.all(np.abs(state.box.center[:2]) < table.box.half_extents[:2])
        assert len({(s.category, s.colour) for s in objects}) == len(objects)
        categories |= {s.category for s in objects}
        colours |= {s.colour for s in objects}
        hanging += any(s.hanging for s in objects)
        shelves += "shelf" in kinds
        walls += "wall" in kinds
        stacked += any(states[b - 1].movable for s in objects for b in s.supported_by)
        assert kinds.count("string") == sum(s.hanging for s in objects)
    assert categories == set(CATEGORIES) and colours == set(COLOURS)
    assert min(counts) >= 4 and max(counts) <= 12 and len(set(counts)) > 5
    assert min(hanging, shelves, walls, stacked) >= 8


def test_cameras_vary_in_distance_elevation_field_of_view_and_roll():
    distance, elevation, fov, framed = [], [], set(), []
    for seed in range(20):
        for index in range(2):
            seen = view(seed, index)
            points = np.array([s.box.center for s in seen.objects if s.movable])
            middle = 0.5 * (points.min(axis=0) + points.max(axis=0))
            distance.append(np.linalg.norm(seen.view.camera_to_world[:3, 3] - middle))
            elevation.append(np.degrees(np.arcsin(-seen.view.camera_to_world[2, 2])))
            fov.add(round(np.degrees(2 * np.arctan(48 / seen.view.camera.fy))))
            framed.append(np.mean([s.visible_pixels > 0 for s in seen.objects if s.movable]))
    assert max(distance) / min(distance) > 2.2 and min(distance) > 0.5 and max(distance) < 1.7
    assert min(elevation) > 15 and max(elevation) < 80 and max(elevation) - min(elevation) > 35
    assert fov == {50, 57, 64}
    assert np.mean(framed) > 0.8


def test_colour_words_are_seen():
    """The mean hue of a red object's pixels is nearer to red than to any other chromatic colour, and so on."""
    names = [name for name in COLOURS if name not in ("white", "black")]
    palette = np.array([COLOURS[name] for name in names])
    right, count = 0, 0
    for seed in SEEDS:
        seen = view(seed)
        for state in seen.objects:
            if state.movable and state.colour in names and state.visible_pixels >= 30:
                mean = seen.image[seen.ids == state.id].mean(axis=0) / 255
                cosine = palette @ mean / np.linalg.norm(palette, axis=1)
                right += names[int(cosine.argmax())] == state.colour
                count += 1
    assert count > 20 and right / count > 0.85


def test_bad_requests_are_named():
    with pytest.raises(ValueError, match="min_objects"):
        SceneConfig(min_objects=5, max_objects=4)
    with pytest.raises(ValueError, match="object 99"):
        scene(0).without(99)
    with pytest.raises(ValueError, match="processes 0"):
        next(generate_views([0], 1, processes=0))


def test_scenes_are_those_that_models_were_trained_on():
    """Checksums of names, places in millimetres and ids: whatever is added to the world must not move them."""
    found = []
    for seed in (0, 1, 2_000_003):
        world = build_scene(seed)
        names = zlib.crc32(" ".join(state.name for state in world.states()).encode())
        places = np.round(np.concatenate([state.box.center for state in world.states()]) * 1000).astype(np.int32)
        found.append((names, zlib.crc32(places.tobytes()), zlib.crc32(world.observe(1).ids.tobytes())))
    assert found == [
        (579103804, 2202050555, 2411106863),
        (1672807211, 3527381539, 1227561841),
        (2816982908, 1821801096, 359707099),
    ]


def test_new_shapes_rest_and_every_one_of_their_points_lies_in_its_box():
    config = SceneConfig(categories=NEW_CATEGORIES)
    seen = [build_scene(seed, config).observe(0) for seed in range(8)]
    shown = {state.category for o in seen for state in o.objects if state.movable and state.visible_pixels > 20}
    assert shown == set(NEW_CATEGORIES) and not shown & set(CATEGORIES)
    for o in seen:
        points = unprojected(o)
        for state in o.objects:
            local = (points[o.ids == state.id] - state.box.center) @ state.box.rotation
            assert np.all(np.abs(local) <= state.box.half_extents + 1e-4), state.category


def test_new_textures_change_colours_and_nothing_else():
    usual = build_scene(4, SceneConfig(textured_chance=1.0))
    other = build_scene(
        4, SceneConfig(textured_chance=1.0, object_patterns=NEW_PATTERNS, structure_patterns=NEW_PATTERNS)
    )
    a, b = usual.observe(0), other.observe(0)
    assert [s.name for s in a.objects if s.movable] == [s.name for s in b.objects if s.movable]
    assert not np.array_equal(a.image, b.image)
    patterns = {body.surface.pattern for body in other.layout.objects}
    assert patterns <= set(NEW_PATTERNS)


def test_a_config_names_shapes_and_patterns_that_there_are():
    with pytest.raises(ValueError, match=r"categories \['sofa'\] are no shapes"):
        SceneConfig(categories=("mug", "sofa"))
    with pytest.raises(ValueError, match="patterns"):
        SceneConfig(object_patterns=("tartan",))
    with pytest.raises(ValueError, match="at least one pattern"):
        SceneConfig(structure_patterns=())
    with pytest.raises(ValueError, match="use 12 or fewer"):
        SceneConfig(categories=NEW_CATEGORIES, max_objects=20)
