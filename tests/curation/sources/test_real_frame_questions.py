"""A hundred questions on real frames, each answer computed again from the raw depth files, by other code."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.asked_frames import Asking
from gemvlm.curation.sources.rgbd_folder import SevenScenes
from gemvlm.sample import Point, Sample, Turn

KITCHEN = Path(__file__).parents[3] / "../shared/rgbd-7scenes"
UP = (0.0089, -0.904, -0.427)
pytestmark = pytest.mark.skipif(not KITCHEN.is_dir(), reason="the real frames are not beside this checkout")


@cache
def questions() -> tuple[tuple[Sample, Turn], ...]:
    source = SevenScenes(KITCHEN, asking=Asking(turns=5, seed=0, up=UP))
    found = [item for part in source.parts() for item in islice(source.read(part), 20)]
    assert not [item for item in found if isinstance(item, Rejection)]
    return tuple((item, turn) for item in found if isinstance(item, Sample) for turn in item.turns)


@cache
def landed(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every measured point of a frame: its place in the colour picture (pixels), in the camera and in the world."""
    counts = np.asarray(Image.open(KITCHEN / f"{name}.depth.png")).astype(float)
    rows, columns = np.nonzero((counts > 0) & (counts < 65535))
    z = counts[rows, columns] / 1000
    x, y = (columns - 320) / 585 * z, (rows - 240) / 585 * z
    points = np.stack([x, y, z], -1)
    pose = np.loadtxt(KITCHEN / f"{name}.pose.txt")
    seen = np.stack([526.2 * (x - 0.034) / z + 323.0, 526.2 * (y + 0.004) / z + 237.0], -1)
    return seen, points, points @ pose[:3, :3].T + pose[:3, 3]


def around(sample: Sample, place: object, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Measured points whose place in the picture is within `radius` pixels, in the camera and in the world."""
    assert isinstance(place, Point)
    return _around(sample.id.split("/")[-1], place, radius)


@cache
def _around(name: str, place: Point, radius: float) -> tuple[np.ndarray, np.ndarray]:
    seen, points, world = landed(name)
    near = np.hypot(seen[:, 0] + 0.5 - place.x * 640, seen[:, 1] + 0.5 - place.y * 480) < radius
    assert near.sum() >= 8, f"{name}: only {near.sum()} measurements near {place}"
    return points[near], world[near]


def depth_at(sample: Sample, place: object) -> float:
    return float(np.median(around(sample, place, 4)[0][:, 2]))


def test_there_are_a_hundred_of_every_family_that_the_depth_can_answer() -> None:
    families = Counter(turn.family for _, turn in questions())
    assert sum(families.values()) == 100
    assert set(families) == {"depth_closer", "depth_nearest", "depth_farthest", "depth_metres", "depth_surface"}
    assert min(families.values()) >= 10


def test_every_point_lies_on_one_surface_that_was_measured() -> None:
    for sample, turn in questions():
        for place in turn.places:
            z = around(sample, place, 4)[0][:, 2]
            assert z.max() / z.min() < 1.08, (sample.id, turn.family, place)


def test_metres_are_those_of_the_file() -> None:
    for sample, turn in questions():
        if turn.family == "depth_metres":
            assert float(turn.answer) == pytest.approx(depth_at(sample, turn.places[0]), rel=0.02)


def test_comparisons_hold_with_their_margin_in_depth_and_in_distance() -> None:
    for sample, turn in questions():
        if turn.options and turn.options[0] == "A":
            depths = [depth_at(sample, place) for place in turn.places]
            distances = [float(np.median(np.linalg.norm(around(sample, place, 4)[0], axis=1))) for place in turn.places]
            farthest = turn.family == "depth_farthest"
            chosen = turn.options.index(turn.answer)
            for values in (depths, distances):
                assert chosen == int(np.argmax(values) if farthest else np.argmin(values)), (sample.id, turn.question)
            ordered = sorted(depths)
            assert all(b / a > 1.08 and b - a > 0.17 for a, b in pairwise(ordered))


def test_surfaces_stand_or_lie() -> None:
    """The normal as the direction in which the points of a disc vary least, in the world."""
    up = np.array(UP) / np.linalg.norm(UP)
    for sample, turn in questions():
        if turn.family == "depth_surface":
            world = around(sample, turn.places[0], 9)[1]
            _, directions = np.linalg.eigh(np.cov(world.T))
            upright = abs(float(directions[:, 0] @ up))
            assert turn.answer == ("horizontal" if upright > np.cos(np.radians(22)) else "vertical"), sample.id
            assert upright > np.cos(np.radians(22)) or upright < np.cos(np.radians(68)), sample.id


def test_height_in_the_picture_does_not_tell_the_answer() -> None:
    told = [turn.cues["height"] == turn.answer for _, turn in questions() if turn.options and turn.options[0] == "A"]
    assert 0.25 < np.mean(told) < 0.6
