"""MindCube and Robo2VLM: options inside the question, or in a string; what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gemvlm.curation.sources.mindcube import MindCube
from gemvlm.curation.sources.robo2vlm import Robo2Vlm, _choices

pq = pytest.importorskip("pyarrow.parquet")


def test_mindcube_asks_about_several_pictures_with_its_options(importing: Any, tmp_path: Path) -> None:
    samples, rejections = importing.read_all(importing.written("mindcube", tmp_path))
    assert not rejections
    assert [len(sample.frames) for sample in samples] == [2, 3, 4]
    assert [sample.turns[0].answer for sample in samples] == ["B", "A", "D"]
    assert {sample.turns[0].kind for sample in samples} == {"choice"}
    assert [sample.turns[0].family for sample in samples] == [f"mindcube_{n}" for n in ("among", "around", "rotation")]
    assert samples[0].scene == "mindcube/other_all_image/among/group0"
    assert samples[0].provenance.record == "raw/MindCube_train.jsonl:0"
    assert all(frame.encoded for sample in samples for frame in sample.frames)
    assert len(importing.collated(samples).sample_ids) == 3


def test_mindcube_names_what_is_wrong(importing: Any, tmp_path: Path) -> None:
    source = importing.written("mindcube", tmp_path)
    path = tmp_path / "data/raw/MindCube_train.jsonl"
    first = json.loads(path.read_text().splitlines()[0])
    wrong = [
        first | {"gt_answer": "E"},
        first | {"images": ["../../etc/passwd"]},
        first | {"images": []},
        first | {"question": "What is left of the mug?"},
        first | {"id": None},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in wrong) + "{cut")
    samples, rejections = importing.read_all(source)
    assert not samples
    reasons = ["option_not_found", "outside_folder", "bad_path", "no_options", "bad_text", "bad_json"]
    assert [item.reason for item in rejections] == reasons
    assert rejections[1].field == "images"
    with pytest.raises(ValueError, match=r"no raw/MindCube_train\.jsonl"):
        MindCube(tmp_path / "data/raw").parts()


def test_robo2vlm_lists_its_options_and_answers_with_a_letter(importing: Any, tmp_path: Path) -> None:
    source = importing.written("robo2vlm", tmp_path)
    samples, rejections = importing.read_all(source)
    assert not rejections
    assert [sample.turns[0].answer for sample in samples] == ["B", "B", "A"]
    assert samples[1].turns[0].question.endswith("\nB. the arm's base\nC. Red\nD. None of the above\nE. Blue")
    assert samples[1].turns[0].options == ("A", "B", "C", "D", "E")
    assert samples[0].scene == samples[1].scene == "robo2vlm/droid_lab_14346"
    assert samples[2].provenance.record == "data/train-00000-of-00001.parquet:2"
    assert len(importing.collated(samples).sample_ids) == 3
    held_out = Robo2Vlm(tmp_path, split="test")
    assert len(importing.read_all(held_out)[0]) == 1


def test_an_index_outside_and_a_string_that_is_no_list_are_refused(importing: Any, tmp_path: Path) -> None:
    import pyarrow as pa

    source = importing.written("robo2vlm", tmp_path)
    path = tmp_path / "data/train-00000-of-00001.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0]["correct_answer"] = 3
    rows[1]["choices"] = "__import__('os').listdir('.')"
    rows[2]["choices"] = "['left', 'left']"
    rows.append(rows[2] | {"choices": "['a', 'b']", "image": {"bytes": b"\xff\xd8no", "path": ""}})
    rows.append(rows[2] | {"choices": "['a', 'b']", "correct_answer": -1})
    pq.write_table(pa.Table.from_pylist(rows), path)
    samples, rejections = importing.read_all(source)
    assert not samples
    reasons = ["option_not_found", "no_options", "options_alike", "image_unreadable", "option_not_found"]
    assert [item.reason for item in rejections] == reasons
    assert rejections[0].field == "correct_answer"


@pytest.mark.parametrize("text", ["[" * 5000, "['a'", "{'a': 1}", "['a', 1]", "['a']", "x" * 30_000, "['a', b]", ""])
def test_strings_that_are_no_list_of_texts(text: str) -> None:
    with pytest.raises(ValueError, match=r"choices|expected text"):
        _choices(text)
