"""Every importer reads a tiny data set in its publisher's layout, and training collates what it gives."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gemvlm.curation.source import Rejection, Source
from gemvlm.curation.sources import SOURCES
from gemvlm.sample import Box, Point, Sample

NAMES = ("gem_250k", "llava", "refspatial", "robopoint", "sat", "sharerobot", "vsi_590k")


def read(source: Source) -> list[Sample | Rejection]:
    return [each for part in source.parts() for each in source.read(part)]


@pytest.fixture(scope="module")
def imported(importing: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Sample]]:
    """The samples of a layout, none of which may be refused."""
    done: dict[str, list[Sample]] = {}

    def get(name: str) -> list[Sample]:
        if name not in done:
            found = read(importing.written(name, tmp_path_factory.mktemp(name)))
            assert not [each for each in found if isinstance(each, Rejection)]
            done[name] = [each for each in found if isinstance(each, Sample)]
        return done[name]

    return get


def test_sources_are_found_by_name_and_have_layouts() -> None:
    assert {name.replace("-", "_") for name in SOURCES} >= set(NAMES)
    with pytest.raises(KeyError, match=r"unknown source 'gem_giga'; there are .*gem-250k"):
        SOURCES["gem_giga"]
    assert SOURCES["sat"].__name__ == "Sat"


@pytest.mark.parametrize("name", NAMES)
def test_samples_collate_without_a_warning(importing: Any, name: str, imported: Callable[[str], list[Sample]]) -> None:
    samples = imported(name)
    assert len({sample.id for sample in samples}) == len(samples) > 0
    for sample in samples:
        assert sample.source.replace("-", "_") == name
        assert sample.provenance.record
        assert all(np.array_equal(_plain(frame.encoded), frame.image) for frame in sample.frames if frame.encoded)
    batch = importing.collated(samples)
    assert len(batch.spans) == sum(len(sample.frames) for sample in samples)
    assert len(batch.targets) == sum(frame.depth is not None for sample in samples for frame in sample.frames)


def _plain(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("name", NAMES)
def test_parts_read_again_give_the_same_samples(importing: Any, name: str, tmp_path: Path) -> None:
    source = importing.written(name, tmp_path)
    assert isinstance(source, Source)
    assert list(source.parts()) == list(source.parts())
    assert repr(read(source)) == repr(read(source))


def test_gem_250k_keeps_text_and_counts_and_finds_depth_by_path(imported: Callable[[str], list[Sample]]) -> None:
    desk, far, door, both, film, _ = imported("gem_250k")
    assert desk.turns[0].answer == "A red mug (123, 456)."
    assert far.dialogue
    assert not desk.dialogue
    depths = [sample.frames[0].depth for sample in (desk, far, door)]
    assert all(depth is not None and depth.kind == "affine_depth" and not depth.valid[0, 0] for depth in depths)
    assert len({depth.values.tobytes() for depth in depths if depth is not None}) == 3
    assert [frame.depth is not None for frame in both.frames] == [True, True]
    assert both.turns[0].question == "<image>\n<image>\nSame room?"
    assert len(film.frames) == 8
    assert film.turns[0].question == "<image>" * 8 + "\nWhat happens?"
    assert [frame.time_s for frame in film.frames] == pytest.approx([0, 1 / 3, 0.5, 5 / 6, 1, 4 / 3, 1.5, 11 / 6])


def test_gem_250k_refuses_a_basename_that_two_pictures_share(importing: Any, tmp_path: Path) -> None:
    """The published loader gives both the same depth."""
    gem = importing.written("gem_250k", tmp_path)
    (tmp_path / "depth/images/a/0001.png").rename(tmp_path / "depth/0001.png")
    (tmp_path / "depth/images/b/0001.png").unlink()
    refused = [each for each in read(gem) if isinstance(each, Rejection)]
    assert [each.reason for each in refused] == ["ambiguous_depth", "ambiguous_depth"]
    assert "2 images are called '0001'" in refused[0].detail
    (tmp_path / "depth/0001.png").unlink()
    refused = [each for each in read(gem) if isinstance(each, Rejection)]
    assert [each.reason for each in refused] == ["missing_depth", "missing_depth"]


def test_coordinates_become_places_once(imported: Callable[[str], list[Sample]]) -> None:
    said = imported("llava")[0]
    assert (said.turns[0].kind, said.turns[0].answer, said.turns[0].places) == (
        "point",
        "mug <place:0>",
        (Point(0.5, 0.25),),
    )
    assert (said.turns[1].kind, said.turns[1].places) == ("box", (Box(0.1, 0.2, 0.4, 1.0),))
    assert said.system == "Answer briefly."
    flat, _, simulated = imported("refspatial")
    assert flat.turns[0].places == (Point(0.407, 0.852),)
    assert "between 0 and 1" not in flat.turns[0].question
    assert "[(x1, y1), ...]" in flat.turns[0].question
    assert (flat.turns[1].answer, flat.turns[1].options) == ("(B)", ("(A)", "(B)"))
    assert simulated.turns[0].kind == "points"
    assert json.loads(simulated.meta["record"])["thinking"][0]["thinking"] == "Left of the cup."


def test_robopoint_decides_from_its_boxes_what_four_numbers_are(
    importing: Any, imported: Callable[[str], list[Sample]], tmp_path: Path
) -> None:
    box = imported("robopoint")[1]
    assert box.turns[0].kind == "box"
    (place,) = box.turns[0].places
    assert isinstance(place, Box)
    assert (place.x0, place.y0, place.x1, place.y1) == pytest.approx((0.6, 0.5, 0.8, 0.6))
    assert (box.meta["box_form"], box.meta["box_form_declared"]) == ("xywh", False)
    assert imported("robopoint")[3].turns[0].answer == "There are two of them (2, 3)."
    source = importing.written("robopoint", tmp_path)
    file = tmp_path / "robopoint_1432k.json"
    records = json.loads(file.read_text())
    records[1]["conversations"][1]["value"] = "[(0.1, 0.1, 0.2, 0.3)]"
    del records[2]
    file.write_text(json.dumps(records))
    (refused,) = [each for each in read(source) if isinstance(each, Rejection)]
    assert refused.reason == "box_form_undecided"
    assert "say so with boxes=" in refused.detail


def test_sharerobot_divides_pixels_by_the_original_size(imported: Callable[[str], list[Sample]]) -> None:
    affordance, planning, trajectory = imported("sharerobot")
    (box,) = affordance.turns[0].places
    assert isinstance(box, Box)
    assert (box.x0, box.x1) == pytest.approx((352.87425387858815 / 640, 372.1702620871 / 640))
    assert len(planning.frames) == 10
    assert planning.turns[0].task == "planning"
    assert trajectory.turns[0].kind == "trajectory"
    assert trajectory.turns[0].places[0] == Point(265.45454545454544 / 640, 0.25)


def test_vsi_numbers_have_their_unit(imported: Callable[[str], list[Sample]]) -> None:
    choice, distance, count = (sample.turns[0] for sample in imported("vsi_590k"))
    assert (choice.kind, choice.answer, choice.options) == ("choice", "B", ("A", "B"))
    assert (distance.kind, distance.unit, distance.family) == ("number", "m", "absolute_distance_object")
    assert (count.kind, count.unit) == ("number", None)


def test_sat_takes_the_correct_answer_by_its_text(imported: Callable[[str], list[Sample]]) -> None:
    samples = imported("sat")
    assert [sample.turns[0].answer for sample in samples] == ["rotated left", "rotated right"] * 2
    assert [len(sample.frames) for sample in samples] == [1, 2, 1, 2]
    assert "rotated left or rotated right" in samples[0].turns[0].question
