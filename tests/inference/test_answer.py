"""Places are read out of what a model says."""

from __future__ import annotations

from gemvlm.data.conversation import CoordinateFormat
from gemvlm.inference import Answer
from gemvlm.sample import Box, Point

QWEN = CoordinateFormat(scale=1000, step=1)


def test_points_and_boxes_are_read_in_order() -> None:
    text = "a red mug (340, 670); a bowl (100, 200, 300, 400); a book [500, 0]"
    answer = Answer.from_text(text, QWEN)
    assert answer.text == text
    assert answer.points == (Point(0.34, 0.67), Point(0.5, 0.0))
    assert answer.boxes == (Box(0.1, 0.2, 0.3, 0.4),)


def test_json_places_are_read() -> None:
    text = '```json\n[{"point_2d": [250, 750], "label": "mug"}, {"bbox_2d": [0, 0, 500, 1000]}]\n```'
    answer = Answer.from_text(text, QWEN)
    assert answer.points == (Point(0.25, 0.75),)
    assert answer.boxes == (Box(0.0, 0.0, 0.5, 1.0),)


def test_brackets_that_are_no_place_stay_words() -> None:
    answer = Answer.from_text("a mug (the red one), 3 (1, 2, 3) (2000, 4) (9, 9, 1, 1)", QWEN)
    assert answer.points == () and answer.boxes == ()
