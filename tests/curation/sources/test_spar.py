"""SPAR: marks drawn where the questions see them, depth registered, answers of each form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemvlm.curation.sources.records import RecordError
from gemvlm.curation.sources.spar_markers import LISTED, MARKS, UNMARKED, Mark, draw_marks, read_marks
from gemvlm.sample import Box, Point, Sample

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 128, 0)


@pytest.fixture(scope="module")
def samples(importing: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    found, rejections = importing.read_all(importing.written("spar", tmp_path_factory.mktemp("spar")))
    assert not rejections
    assert len(importing.collated(found).sample_ids) == 5
    return {str(sample.meta["type"]): sample for sample in found}


def test_marks_stand_on_the_pictures_that_the_record_names(importing: Any, samples: dict[str, Sample]) -> None:
    pictures, frames = importing.module("pictures"), samples["depth_prediction_oo_mv"].frames
    for frame, color, (x, y), number in (
        (frames[0], RED, (395, 89), 0),
        (frames[2], BLUE, (494, 620), 2),
        (frames[1], GREEN, (878, 737), 1),
    ):
        column, row = int(x / 1000 * 320), int(y / 1000 * 240)
        assert (frame.image[row, column] == color).all()
        painted = (frame.image != pictures.pixels(number, (240, 320))).any(-1)
        rows, columns = np.nonzero(painted)
        assert np.hypot(rows - row, columns - column).max() <= 20.5  # a disc of 20 pixels' radius, cut by the border
        assert painted[max(row - 10, 0) : row + 10, column - 10 : column + 10].mean() > 0.99
        assert frame.encoded is None


def test_boxes_are_framed_from_outside(importing: Any, samples: dict[str, Sample]) -> None:
    image = samples["obj_spatial_relation_oo"].frames[0].image
    original = importing.module("pictures").pixels(0, (240, 320))
    left, top, right, bottom = 64, 72, 128, 120  # [200, 300, 400, 500] of 320 x 240
    assert (image[top - 10, (left + right) // 2] == RED).all()
    assert (image[(top + bottom) // 2, right + 10] == RED).all()
    inside = slice(top + 4, bottom - 4), slice(left + 4, right - 4)
    assert (image[inside] == original[inside]).all()
    assert (image[168 + 8, 224] == BLUE).all()  # below the lower edge of the blue box, 700 of 1000
    assert (image[168 + 20, 224] == original[168 + 20, 224]).all()


def test_depth_is_brought_to_the_picture_by_the_intrinsics(importing: Any, samples: dict[str, Sample]) -> None:
    frame = samples["depth_prediction_oo_mv"].frames[0]
    assert frame.depth is not None
    assert frame.depth.origin is not None
    assert frame.depth.origin.provenance == "sensor"
    assert frame.depth.values.shape == (240, 320)
    counts = 1000 + importing.module("pictures").pixels(0, (120, 160))[..., 0].astype(np.uint16) * 20
    assert np.allclose(frame.depth.values[100:200:2, 100:200:2], counts[50:100, 50:100] / 1000)
    assert not frame.depth.valid[:6, :6].any()
    assert frame.depth.valid[6:, 6:].all()


def test_answers_have_their_kind(samples: dict[str, Sample]) -> None:
    fill = samples["depth_prediction_oo_mv"].turns[0]
    assert (fill.kind, fill.answer, fill.unit, fill.tolerance) == ("number", "1.5", "m", 0.1)
    assert fill.question.startswith("<image>\n<image>\n<image>\nHow far is")
    select = samples["obj_spatial_relation_oo"].turns[0]
    assert (select.kind, select.answer, select.options) == ("choice", "C", ("A", "B", "C", "D"))
    matching = samples["position_matching"].turns[0]
    assert matching.kind == "box"
    assert matching.places == (Box(0.1, 0.2, 0.3, 0.4),)
    count = samples["obj_count"]
    assert count.turns[0].kind == "text"
    assert len(count.frames) == 12
    assert count.turns[0].question.startswith("Frame-1: <image>\nFrame-2: <image>\n")
    assert count.provenance.licence == "MIT AND LicenseRef-ScanNet-non-commercial"


def test_listed_marks_carry_their_label(importing: Any, samples: dict[str, Sample]) -> None:
    frames = samples["spatial_imagination_map_mv"].frames
    for frame, number in zip(frames, (0, 1), strict=True):
        assert (frame.image == (0, 255, 0)).all(
            -1
        ).sum() > 100  # object0 is on the second picture, object1 on the first
        assert (frame.image == BLUE).all(-1).sum() > 1000
        assert (frame.image != importing.module("pictures").pixels(number, (240, 320))).any()


def test_every_type_of_the_publisher_is_known_once() -> None:
    assert len(MARKS) + len(LISTED) + len(UNMARKED) == 35
    assert not set(MARKS) & set(LISTED) | set(MARKS) & UNMARKED


SIZES = [(240, 320)] * 3


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"type": "new_task"}, "unknown_type"),
        ({"type": ["obj_count"]}, "unknown_type"),
        ({"type": "distance_prediction_oc"}, "no_mark"),
        ({"type": "distance_prediction_oc", "red_point": [1, 2]}, "no_mark"),
        ({"type": "distance_prediction_oc_mv", "red_point": [[1, 2]], "point_img_idx": [[3]]}, "bad_image_number"),
        ({"type": "distance_prediction_oc_mv", "red_point": [[1, 2]]}, "no_mark"),
        ({"type": "distance_prediction_oc_mv", "red_point": [[1, "2"]], "point_img_idx": [[0]]}, "bad_mark"),
        ({"type": "distance_prediction_oc_mv", "red_point": [[1, 2, 3]], "point_img_idx": [[0]]}, "bad_mark"),
        ({"type": "distance_prediction_oc_mv", "red_point": [[1, 1200]], "point_img_idx": [[0]]}, "point_outside"),
        ({"type": "position_matching", "red_bbox": [[500, 0, 400, 10]]}, "box_inside_out"),
    ],
)
def test_marks_that_cannot_be_drawn_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_marks(fields, SIZES)
    assert caught.value.reason == reason


def test_a_mark_at_the_border_stays_in_the_picture() -> None:
    black = np.zeros((60, 80, 3), np.uint8)
    drawn = draw_marks(black, [Mark(0, Point(0.0, 1.0), "red"), Mark(0, Box(0.5, 0.5, 1.0, 1.0), "blue", "object0")])
    assert drawn.shape == black.shape
    assert (drawn[59, 0] == RED).all()
    assert not black.any()


def test_bad_records_are_left_out_with_their_reason(importing: Any, tmp_path: Path) -> None:
    source = importing.written("spar", tmp_path)
    path = next((tmp_path / "spar/scannet/qa_jsonl/train").rglob("depth_prediction_oo_mv/fill/*.jsonl"))
    good = json.loads(path.read_text())
    wrong = [
        good | {"depth": good["depth"][:1]},
        good | {"image": [f"../{name}" for name in good["image"]]},
        good | {"image": []},
        good | {"conversations": good["conversations"] * 2},
        good | {"type": None},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in wrong))
    samples, rejections = importing.read_all(source)
    assert len(samples) == 4
    reasons = ["bad_path", "outside_folder", "bad_path", "speakers", "unknown_type"]
    assert [item.reason for item in rejections] == reasons
