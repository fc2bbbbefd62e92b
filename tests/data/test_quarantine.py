"""Bad samples are set aside with a reason; too many refuse the training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gemvlm.data.quarantine import (
    QuarantineError,
    SampleError,
    Usable,
    check,
    find_bad,
    judge,
    leave_verdict,
    quarantined,
)
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame, Sample
from gemvlm.shards import ShardReader, write_shards

Make = Callable[..., Sample]
IMAGE = np.zeros((4, 4, 3), np.uint8)


def loader(make_sample: Make) -> Callable[[str], Sample]:
    def load(name: str) -> Sample:
        if name == "torn":
            raise SampleError("image file is truncated", id="torn", file="torn.jpg", field="image")
        if name == "size":
            return Sample(name, (Frame(IMAGE, DepthMap.from_values(np.ones((2, 2)))),), (), "", "")
        if name == "nan":
            return Sample(name, (Frame(IMAGE, DepthMap.from_values(np.full((4, 4), np.nan))),), (), "", "")
        if name == "negative":
            return Sample(name, (Frame(IMAGE, DepthMap.from_values(np.full((4, 4), -1.0))),), (), "", "")
        if name == "placeholder":
            return make_sample(name, frames=2, question="<image>?", turns=1)
        return make_sample(name)

    return load


def test_bad_samples_become_lines_of_reasons_and_good_ones_go_on(make_sample: Make, tmp_path: Path) -> None:
    names = ["a", "torn", "size", "b", "nan", "negative", "placeholder", "c"]
    good = list(quarantined(map(loader(make_sample), names), tmp_path, max_bad_share=0.7))
    assert [sample.id for sample in good] == ["a", "b", "c"]
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["torn", "#2", "#4", "#5", "placeholder"]
    assert lines[0] == {"id": "torn", "file": "torn.jpg", "field": "image", "reason": "image file is truncated"}
    for line, reason in zip(lines[1:], ["depth is", "NaN", "negative", "1 <image> but the sample has 2"], strict=True):
        assert reason in line["reason"]


def test_too_many_bad_samples_are_refused_with_the_counts(make_sample: Make, tmp_path: Path) -> None:
    names = ["a", "torn", "b", "nan"]
    with pytest.raises(
        QuarantineError, match=r"2 of 4 samples are bad, more than the allowed 25.0%; .*quarantine.jsonl"
    ):
        list(quarantined(map(loader(make_sample), names), tmp_path, max_bad_share=0.25))
    assert len(list(quarantined(map(loader(make_sample), names), tmp_path, max_bad_share=0.5))) == 2


def test_shards_are_not_finished_if_too_many_are_bad(make_sample: Make, tmp_path: Path) -> None:
    samples = quarantined(map(loader(make_sample), ["a", "torn"]), tmp_path / "reasons", max_bad_share=0.1)
    with pytest.raises(QuarantineError):
        write_shards(samples, tmp_path / "shards")
    with pytest.raises(ValueError, match=r"manifest.json: missing"):
        ShardReader(tmp_path / "shards")


def test_a_generator_that_fails_is_not_taken_for_finished(make_sample: Make, tmp_path: Path) -> None:
    def source() -> Iterator[Sample]:
        yield make_sample("a")
        raise ValueError("b.png: unreadable")

    with pytest.raises(ValueError, match=r"b\.png"):
        list(quarantined(source(), tmp_path, max_bad_share=1.0))


def test_what_only_the_whole_sample_shows(make_sample: Make) -> None:
    assert check(make_sample("a")) is None
    assert check(make_sample("a", frames=0)) is None
    nothing = DepthMap.from_values(np.zeros((4, 4)))
    for sample, field in [
        (Sample("a", (), (), "", ""), "frames"),
        (Sample("a", (Frame(IMAGE[:0]),), (), "", ""), "frames[0].image"),
        (Sample("a", (Frame(IMAGE), Frame(IMAGE, nothing)), (), "", ""), "frames[1].depth"),
    ]:
        error = check(sample)
        assert error is not None and (error.id, error.field) == ("a", field)


def test_training_reads_only_usable_samples(make_sample: Make, tmp_path: Path) -> None:
    bad = make_sample("bad", frames=2, question="<image>?", turns=1)
    write_shards([make_sample("a"), bad, make_sample("b")], tmp_path / "shards")
    usable = Usable(ShardReader(tmp_path / "shards"), tmp_path, max_bad_share=0.5)
    assert [usable[index].id for index in range(len(usable))] == ["a", "b"]
    with pytest.raises(QuarantineError, match="1 of 3"):
        Usable(ShardReader(tmp_path / "shards"), tmp_path, max_bad_share=0.1)


def test_a_set_is_checked_once_and_its_verdict_remembered(
    make_sample: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = make_sample("bad", frames=2, question="<image>?", turns=1)
    write_shards([make_sample("a"), bad, make_sample("b"), make_sample("c")], tmp_path / "shards")
    checked: list[str] = []

    def counted(sample: Sample) -> SampleError | None:
        checked.append(sample.id)
        return check(sample)

    def usable(share: float, out: str = "run") -> list[str]:
        checked.clear()
        found = Usable(ShardReader(tmp_path / "shards"), tmp_path / out, share)
        return [found[index].id for index in range(-len(found), 0)]

    monkeypatch.setattr("gemvlm.data.quarantine.check", counted)
    assert usable(0.5) == ["a", "b", "c"] and checked == ["a", "bad", "b", "c"]
    assert usable(0.5) == ["a", "b", "c"] and not checked
    with pytest.raises(QuarantineError, match="1 of 4 samples are bad"):
        usable(0.1)
    assert not checked  # a remembered verdict is held against every share
    judge(ShardReader(tmp_path / "shards"), tmp_path / "shards", 0.5)
    assert usable(0.5, "another run") == ["a", "b", "c"] and not checked


def test_a_verdict_about_other_data_is_not_believed(make_sample: Make, tmp_path: Path) -> None:
    write_shards([make_sample("a"), make_sample("b")], tmp_path / "one")
    write_shards([make_sample("a"), make_sample("c", frames=2, question="<image>?", turns=1)], tmp_path / "two")
    assert len(Usable(ShardReader(tmp_path / "one"), tmp_path, 0.0)) == 2
    assert len(Usable(ShardReader(tmp_path / "two"), tmp_path, 0.5)) == 1
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "check": 0, "bad": []}))
    assert len(Usable(ShardReader(tmp_path / "two"), tmp_path, 0.5)) == 1
    path.write_text("{")
    with pytest.raises(ValueError, match=r"verdict.json: not a verdict .* remove it"):
        Usable(ShardReader(tmp_path / "two"), tmp_path, 0.5)


def test_a_verdict_found_in_pieces_is_believed(make_sample: Make, tmp_path: Path) -> None:
    names = ["a", "placeholder", "b", "c"]
    write_shards(map(loader(make_sample), names), tmp_path)
    bad = [*find_bad(tmp_path, range(3)), *find_bad(tmp_path, range(3, 4))]
    assert [index for index, _ in bad] == [1]
    leave_verdict(tmp_path, bad)
    usable = Usable(ShardReader(tmp_path), tmp_path / "run", max_bad_share=0.25)
    assert [sample.id for sample in usable] == ["a", "b", "c"] and not (tmp_path / "run").exists()
    assert json.loads((tmp_path / "quarantine.jsonl").read_text())["id"] == "placeholder"
    with pytest.raises(QuarantineError, match="1 of 4 samples are bad"):
        Usable(ShardReader(tmp_path), tmp_path / "run", max_bad_share=0.2)
