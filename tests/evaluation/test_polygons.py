"""Polygons: borders and upright edges as two harnesses have them, and masks that agree with both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gemvlm.evaluation.polygons import in_polygon, in_polygon_vlmevalkit, polygon_mask, read_polygon

POLYGON = [(0.2, 0.1), (0.8, 0.2), (0.7, 0.9), (0.5, 0.4), (0.1, 0.8)]


def test_polygons_have_the_publishers_borders() -> None:
    square = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]
    assert in_polygon(0.25, 0.5, square) and in_polygon(0.5, 0.25, square)
    assert not in_polygon(0.75, 0.5, square) and not in_polygon(0.5, 0.75, square)
    assert not in_polygon_vlmevalkit(0.5, 0.5, square)  # upright edges count on either side of them
    diamond = [(0.25, 0.5), (0.5, 0.25), (0.75, 0.5), (0.5, 0.75)]
    assert in_polygon_vlmevalkit(0.75, 0.5, diamond) and not in_polygon(0.75, 0.5, diamond)
    assert not in_polygon_vlmevalkit(0.5, 0.25, diamond) and in_polygon(0.25, 0.5, diamond)


@pytest.mark.parametrize("polygon", [POLYGON, [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]])
def test_a_polygons_mask_is_the_polygon(polygon: Any) -> None:
    y, x = np.mgrid[:30, :40]
    for vlmevalkit, rule in ((False, in_polygon), (True, in_polygon_vlmevalkit)):
        inside = [rule((a + 0.5) / 40, (b + 0.5) / 30, polygon) for a, b in zip(x.ravel(), y.ravel(), strict=True)]
        assert np.array_equal(polygon_mask(polygon, 40, 30, vlmevalkit).ravel() > 0, inside)


def test_a_polygon_is_read_from_the_text_of_an_answer() -> None:
    assert read_polygon("[(0.1, 0.2), [0.3, 1], (0, 0.5)]", "row 3") == [[0.1, 0.2], [0.3, 1.0], [0.0, 0.5]]
    for text in ("left", "[(0.1, 0.2)]", "[(0.1, 0.2), (0.3, 'a'), (0, 1)]", "[1, 2, 3]", "[" * 500, "(" * 20_000):
        with pytest.raises(ValueError, match="row 3"):
            read_polygon(text, "row 3")
