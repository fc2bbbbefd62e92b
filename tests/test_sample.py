"""The training item refuses what can't be meant, at the moment it is made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame, Point, Region, Turn


def turn(question: str = "What is at <place:0>?", answer: str = "mug", **changes: object) -> Turn:
    fields = {"family": "object_at", "task": "reasoning", "kind": "text", "places": (Point(0.5, 0.5),)} | changes
    return Turn(question, answer, **fields)


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_regions_give_back_their_mask(mask: np.ndarray) -> None:
    region = Region.from_mask(mask)
    assert (region.to_mask() == mask).all()
    assert sum(region.runs) == mask.size


@given(arrays(bool, (6, 9)), st.floats(-0.5, 1.5), st.floats(-0.5, 1.5))
def test_a_region_contains_the_points_of_its_pixels(mask: np.ndarray, x: float, y: float) -> None:
    row, column = int(np.floor(y * 6)), int(np.floor(x * 9))
    inside = 0 <= row < 6 and 0 <= column < 9 and bool(mask[row, column])
    assert Region.from_mask(mask).contains(Point(x, y)) == inside


def test_pixel_centres_belong_to_their_pixel() -> None:
    mask = np.zeros((6, 9), bool)
    mask[2, 4] = True
    hits = [
        (row, column)
        for row in range(6)
        for column in range(9)
        if Region.from_mask(mask).contains(Point((column + 0.5) / 9, (row + 0.5) / 6))
    ]
    assert hits == [(2, 4)]


def test_a_marker_needs_its_place() -> None:
    assert turn().places == (Point(0.5, 0.5),)
    with pytest.raises(ValueError, match=r"'object_at': text names <place:1> but only 1 places"):
        turn(answer="<place:1>")
    with pytest.raises(ValueError, match=r"names <place:0> but only 0"):
        turn(places=())


def test_a_choice_is_one_of_its_options() -> None:
    assert turn(kind="choice", options=("mug", "bowl")).answer == "mug"
    with pytest.raises(ValueError, match="'cup' is not one of"):
        turn(answer="cup", kind="choice", options=("mug", "bowl"))


def test_depth_must_belong_to_the_image() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    assert Frame(image, DepthMap.from_values(np.ones((4, 6)))).view is None
    with pytest.raises(ValueError, match=r"depth is \(6, 4\) but the image is \(4, 6\)"):
        Frame(image, DepthMap.from_values(np.ones((6, 4))))
