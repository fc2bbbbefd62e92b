"""What all benchmarks of letters share: names, protocols, ids, marks of images, means."""

from __future__ import annotations

from importlib import import_module

import pytest

from gemvlm.evaluation.benchmark import Item, Media, Score
from gemvlm.evaluation.benchmarks import BENCHMARKS
from gemvlm.evaluation.benchmarks.folder import checked
from gemvlm.evaluation.benchmarks.lettered import grouped, mean, texts, truth_letter

HUB_IDS = {
    "vsi_bench": "nyu-visionx/VSI-Bench",
    "cv_bench": "nyu-visionx/CV-Bench",
    "blink": "BLINK-Benchmark/BLINK",
    "embspatial": "Phineas476/EmbSpatial-Bench",
    "sat": "array/SAT",
    "erqa": "FlagEval/ERQA",
    "mmsi": "RunsenXu/MMSI-Bench",
    "viewspatial": "lidingm/ViewSpatial-Bench",
    "mindcube": "MLL-Lab/MindCube",
}


@pytest.mark.parametrize("name", HUB_IDS)
def test_each_is_found_by_its_name_and_says_where_it_is_published(name, tmp_path):
    module, class_name = BENCHMARKS[name].split(":")
    found = getattr(import_module(f"gemvlm.evaluation.benchmarks.{module}"), class_name)
    opened = found.open(str(tmp_path))
    assert (opened.name, opened.hub_id, opened.protocol) == (name, HUB_IDS[name], "official")
    with pytest.raises(ValueError, match=f"{name}: protocol 'official_skip' is unknown; choose from official"):
        found.open(str(tmp_path), "official_skip")
    with pytest.raises(ValueError, match=f"no such folder; give the folder of a copy of {HUB_IDS[name]}"):
        found.open("not/a/hub/id")


def item(name, prompt="", pictures=0):
    return Item(name, tuple(Media(b"") for _ in range(pictures)), prompt, "A", "c", "s", options=("x", "y"))


def test_ids_are_there_once_and_marks_agree_with_the_media():
    assert len(checked("b", [item("1"), item("2", "<image> or <image>?", 2), item("3", "?", 2)])) == 3
    with pytest.raises(ValueError, match="b: two items have the id '1'"):
        checked("b", [item("1"), item("1")])
    with pytest.raises(ValueError, match="b: item '1' marks 1 places of images and has 2"):
        checked("b", [item("1", "<image>?", 2)])


def test_only_counted_scores_are_averaged_and_none_of_them_is_not_a_number():
    scores = [Score(1.0, "A"), Score(0.0, None, counted=False), Score(0.5, "B"), Score(0.0, None, counted=False)]
    assert mean(scores) == 0.75 and mean(scores[1:2]) != mean(scores[1:2])
    assert grouped(scores, ["u", "u", "v", "w"]) == {"u": 1.0, "v": 0.5}


def test_truths_and_options_are_checked():
    assert truth_letter("B", ("x", "y"), "f:0") == "B" and texts(["x", "y"], "f", "f:0") == ("x", "y")
    for letter in ("", "C", "AB", "b"):
        with pytest.raises(ValueError, match="f:0: the answer"):
            truth_letter(letter, ("x", "y"), "f:0")
    with pytest.raises(ValueError, match="f:0: field 'f' must be a list of two texts"):
        texts(["x"], "f", "f:0")
