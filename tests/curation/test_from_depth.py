"""Questions from depth alone, checked by a second computation that shares nothing with the first."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from gemvlm.camera import Camera, View
from gemvlm.curation.questions.from_depth import questions_from_depth
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame, Point, Turn

WIDTH, HEIGHT = 160, 120
CAMERA = Camera.from_fov(WIDTH, HEIGHT, 55.0)
UP = np.array([0.0, 0.0, 1.0])
OPTIONS_FAMILIES = {"depth_closer": 2, "depth_nearest": 3, "depth_farthest": 3}


def room(seed: int = 0) -> Frame:
    """A floor and a wall seen from 1.4 m above the floor, with upright posters hanging before the wall."""
    rng = np.random.default_rng(seed)
    pitch = np.radians(25)
    forward = np.array([0, np.cos(pitch), -np.sin(pitch)])
    right = np.array([1.0, 0, 0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = (0, 0, 1.4)
    directions = CAMERA.rays() @ pose[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = np.where(directions[..., 2] < 0, -1.4 / directions[..., 2], np.inf)
        wall = np.where(directions[..., 1] > 0, 4.0 / directions[..., 1], np.inf)
        z = np.minimum(floor, wall)
        for _ in range(4):
            row, column = rng.integers(0, 80), rng.integers(0, 110)
            poster = rng.uniform(0.9, 3.0) / directions[..., 1]
            z[row : row + 36, column : column + 44] = np.minimum(z, poster)[row : row + 36, column : column + 44]
    valid = np.ones(z.shape, bool)
    valid[50:56, 20:36] = False
    depth = DepthMap(np.where(valid, z, np.nan).astype(np.float32), valid, "metric_z", "m", "room")
    return Frame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), depth, View(CAMERA, pose))


@cache
def turns() -> list[tuple[Frame, Turn]]:
    frames = [room(seed) for seed in range(10)]
    return [(frame, turn) for frame in frames for turn in questions_from_depth(frame, np.random.default_rng(1), 45, UP)]


def depth_under(frame: Frame, place: object) -> float:
    assert isinstance(place, Point)
    assert frame.depth is not None
    return float(frame.depth.values[int(place.y * HEIGHT), int(place.x * WIDTH)])


def test_all_families_appear() -> None:
    seen = Counter(turn.family for _, turn in turns())
    assert set(seen) == {*OPTIONS_FAMILIES, "depth_metres", "depth_point_nearest", "depth_surface"}
    assert all(count >= 4 for count in seen.values())


@pytest.mark.parametrize("family", OPTIONS_FAMILIES)
def test_comparisons_hold_in_the_depth_itself_with_the_margin(family: str) -> None:
    asked = [(frame, turn) for frame, turn in turns() if turn.family == family]
    assert asked
    for frame, turn in asked:
        depths = [depth_under(frame, place) for place in turn.places]
        assert len(depths) == OPTIONS_FAMILIES[family] == len(turn.options)
        chosen = depths[turn.options.index(turn.answer)]
        assert chosen == (max(depths) if family == "depth_farthest" else min(depths))
        ordered = sorted(depths)
        for near, far in pairwise(ordered):
            assert far / near > 1.07  # 1.1 between medians of the neighbourhood
            assert far - near > 0.15


@pytest.mark.parametrize("family", OPTIONS_FAMILIES)
def test_neither_height_in_the_image_nor_the_letter_tells_the_answer(family: str) -> None:
    asked = [turn for _, turn in turns() if turn.family == family]
    chance = 1 / OPTIONS_FAMILIES[family]
    by_height = [turn.cues["height"] == turn.answer for turn in asked]
    assert len(asked) > 40
    assert abs(np.mean(by_height) - chance) < 0.05
    lowest_or_highest = max if family != "depth_farthest" else min
    for turn in asked:
        heights = [place.y for place in turn.places if isinstance(place, Point)]
        assert heights[turn.options.index(turn.cues["height"])] == lowest_or_highest(heights)
    for letter in asked[0].options:
        assert abs(np.mean([turn.answer == letter for turn in asked]) - chance) < 0.2


def test_points_keep_away_from_edges_holes_and_borders() -> None:
    for frame, turn in turns():
        assert frame.depth is not None
        if turn.region is not None:
            continue
        for place in turn.places:
            assert isinstance(place, Point)
            row, column = int(place.y * HEIGHT), int(place.x * WIDTH)
            around = frame.depth.values[row - 2 : row + 3, column - 2 : column + 3]
            assert around.shape == (5, 5)
            assert np.nanmax(around) / np.nanmin(around) < 1.05
            assert not np.isnan(around).any()


def test_metres_are_the_depth_under_the_mark() -> None:
    asked = [(frame, turn) for frame, turn in turns() if turn.family == "depth_metres"]
    for frame, turn in asked:
        assert float(turn.answer) == pytest.approx(depth_under(frame, turn.places[0]), rel=0.05)
        assert (turn.unit, turn.kind, turn.tolerance) == ("m", "number", 0.1)


def test_the_nearest_region_is_near_all_over_and_holds_its_answer() -> None:
    asked = [(frame, turn) for frame, turn in turns() if turn.family == "depth_point_nearest"]
    assert asked
    for frame, turn in asked:
        assert turn.region is not None
        assert frame.depth is not None
        assert isinstance(turn.places[0], Point)
        assert turn.region.contains(turn.places[0])
        mask = turn.region.to_mask()
        inside, outside = frame.depth.values[mask], frame.depth.values[~mask & frame.depth.valid]
        assert inside.max() <= outside.min()
        assert inside.max() <= 1.05001 * np.percentile(frame.depth.values[frame.depth.valid], 0.1)


def test_what_borders_on_the_unknown_is_not_called_nearest() -> None:
    """The floor at the lower edge is nearest; a sensor that is blind below some distance does not see it."""
    frame = room()
    assert frame.depth is not None
    seeing = {turn.family for turn in questions_from_depth(frame, np.random.default_rng(0), 40, UP)}
    blind = frame.depth.valid & (frame.depth.values > 1.9)
    masked = replace(frame, depth=replace(frame.depth, valid=blind))
    asked = {turn.family for turn in questions_from_depth(masked, np.random.default_rng(0), 40, UP)}
    assert "depth_point_nearest" in seeing
    assert asked >= {"depth_closer", "depth_metres"}
    assert "depth_point_nearest" not in asked


def test_larger_images_keep_points_farther_from_edges() -> None:
    """At 800 pixels' diagonal depth must be steady for 8 pixels to each side."""
    values = np.where(np.arange(640) < 320, 1.0, 2.0) * np.ones((480, 1))
    frame = Frame(np.zeros((480, 640, 3), np.uint8), DepthMap.from_values(values))
    places = [place for turn in questions_from_depth(frame, np.random.default_rng(0), 60) for place in turn.places]
    assert len(places) > 50
    assert min(abs(place.x * 640 - 320) for place in places if isinstance(place, Point)) >= 8


def test_surfaces_are_those_of_the_room() -> None:
    asked = [(frame, turn) for frame, turn in turns() if turn.family == "depth_surface"]
    answers = Counter(turn.answer for _, turn in asked)
    assert abs(answers["horizontal"] - answers["vertical"]) <= 6
    for frame, turn in asked:
        assert isinstance(turn.places[0], Point)
        assert frame.view is not None
        place = turn.places[0]
        z = np.array(depth_under(frame, place))
        point = frame.view.to_world(CAMERA.unproject(np.array([place.x * WIDTH, place.y * HEIGHT]), z))
        assert turn.answer == ("horizontal" if abs(point[2]) < 0.03 else "vertical")


def test_without_up_or_view_the_other_families_remain() -> None:
    frame = replace(room(), view=None)
    families = {turn.family for turn in questions_from_depth(frame, np.random.default_rng(0), 40, UP)}
    assert families >= {"depth_closer", "depth_metres"}
    assert "depth_surface" not in families
    without_up = questions_from_depth(room(), np.random.default_rng(0), 40)
    assert "depth_surface" not in {turn.family for turn in without_up}


def test_the_same_seed_asks_the_same() -> None:
    first, second = (questions_from_depth(room(), np.random.default_rng(5), 20, UP) for _ in range(2))
    assert first == second
    assert len(first) == 20


def test_frames_without_metric_depth() -> None:
    black, rng = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.random.default_rng(0)
    assert questions_from_depth(Frame(black), rng, 5) == ()
    relative = DepthMap.from_values(np.ones((HEIGHT, WIDTH)), "affine_depth", "teacher")
    with pytest.raises(ValueError, match="'teacher' is affine_depth"):
        questions_from_depth(Frame(black, relative), rng, 5)
    nothing = DepthMap(np.zeros((HEIGHT, WIDTH), np.float32), np.zeros((HEIGHT, WIDTH), bool), "metric_z", "m", "x")
    assert questions_from_depth(Frame(black, nothing), rng, 5) == ()
