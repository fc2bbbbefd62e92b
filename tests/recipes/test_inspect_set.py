"""`gemvlm inspect`: what a page says about a set, and sets that nobody should trust."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from gemvlm.__main__ import main
from gemvlm.camera import Camera, View
from gemvlm.curation.inspection import look_through
from gemvlm.depth_map import DepthMap
from gemvlm.recipes.inspect_set import inspect_set, sample_card
from gemvlm.sample import Box, Frame, Point, Provenance, Region, Sample, Turn
from gemvlm.shards import ShardReader, write_shards

SIDE = 24
EVIL = "<script>alert(1)</script>"


def sample(number: int, frames: int = 1, source: str = "made", licence: str = "MIT") -> Sample:
    rng = np.random.default_rng(number)
    shown = tuple(
        Frame(
            rng.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8),
            DepthMap.from_values(rng.uniform(0.5, 2, (SIDE, SIDE)).astype(np.float32), source="toy"),
            View(Camera.from_fov(SIDE, SIDE, 60.0), np.eye(4)),
        )
        for _ in range(frames)
    )
    mask = np.zeros((SIDE, SIDE), bool)
    mask[4:9, 4:9] = True
    turns = (
        Turn("Left or right?", "left" if number % 4 else "right", "side", "reasoning", "choice", (), ("left", "right")),
        Turn("Where?", "<place:0>", "spot", "grounding", "point", (Point(0.2, 0.2),), region=Region.from_mask(mask)),
        Turn("Box it.", "<place:0>", "box", "grounding", "box", (Box(0.1, 0.1, 0.5, 0.5),)),
        Turn("How?", "<place:0> <place:1>", "way", "planning", "trajectory", (Point(0.1, 0.1), Point(0.9, 0.2))),
    )
    terms = Provenance("1", "train", licence, "")
    return Sample(f"s{number}", shown, turns, f"scene {number // 2}", source, {}, terms)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "set"
    write_shards([sample(i, 1 + (i % 10 == 0) * 8, EVIL if i == 7 else "made") for i in range(60)], folder)
    return folder


def test_everything_is_counted(folder: Path) -> None:
    found = look_through(ShardReader(folder), examples=10)
    facts = found.facts
    assert (facts.samples, facts.turns, facts.scenes, facts.frames) == (60, 240, 30, 60 + 6 * 8)
    assert facts.families["side"].letters == {"A": 45, "B": 15} and facts.families["side"].answers["left"] == 45
    assert facts.depths == {("metric_z", "m", "unknown", "toy", ""): 108}
    assert len(found.chosen) == 10 and 7 in found.chosen, "a source of one sample is shown as well"
    assert {family: len(turns) for family, turns in found.turns.items()} == dict.fromkeys(
        ("side", "spot", "box", "way"), 60
    )


def test_the_choice_depends_on_the_seed_alone(folder: Path) -> None:
    reader = ShardReader(folder)
    assert look_through(reader, 10, seed=1).chosen == look_through(reader, 10, seed=1).chosen
    assert look_through(reader, 10, seed=1).chosen != look_through(reader, 10, seed=2).chosen
    assert look_through(reader, 1000).chosen == list(range(60))


def test_the_page_shows_samples_balances_and_shortcuts(folder: Path, tmp_path: Path) -> None:
    html = inspect_set(folder, tmp_path / "page.html", examples=20).read_text()
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert len(json.loads(data)) == 20 and EVIL not in html
    side = re.search(r"<td>side</td><td class=\"number\">60</td>(.*?)</tr>", html)
    assert side is not None, "the shortcut table has a row for the family"
    majority = [float(cell) for cell in re.findall(r">(\d+)<", side[1])][1]
    assert majority > 60, "three of four answers are left"


def test_a_card_shows_what_the_turns_speak_of() -> None:
    card = sample_card(sample(0, frames=20))
    assert len(card.pictures) == 6 and card.pictures[0].note.startswith("frame 1 ")
    assert card.pictures[-1].note.startswith("frame 20 ") and "metric_z" in card.pictures[0].note
    marks = {exchanged.family: exchanged.marks for exchanged in card.talk}
    assert [mark.kind for mark in marks["spot"] + marks["box"] + marks["way"]] == ["point", "box", "path"]
    assert marks["way"][0].values == (0.1, 0.1, 0.9, 0.2)
    assert next(one.area for one in card.talk if one.family == "spot").startswith("data:image/png")


@pytest.mark.parametrize("content", [b"not json", b'{"funnel": 3}', b"[" * 100_000])
def test_a_rotten_card_is_told_and_stops_nothing(folder: Path, tmp_path: Path, content: bytes) -> None:
    copy = tmp_path / "set"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "card.json").write_bytes(content)
    found = look_through(ShardReader(copy), 2)
    assert found.funnel is None and "card.json" in found.unreadable[0]


def test_pictures_outside_the_set_are_never_read(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "set"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    lines = [{"picture": name, "reason": "x"} for name in ("../secret.jpg", "/etc/passwd", "rejected/../../a.jpg", 3)]
    (copy / "rejections.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "[]\n")
    found = look_through(ShardReader(copy), 2)
    assert found.rejected == [] and len(found.unreadable) == 1


def test_inspect_on_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["inspect", str(folder), "--out", str(page), "--examples", "3"]) == 0
    assert capsys.readouterr().out.strip().endswith("page.html") and page.stat().st_size > 10_000
    assert main(["inspect", str(tmp_path / "none")]) == 2
    assert "manifest.json: missing" in capsys.readouterr().err


def test_export_on_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-data", str(folder), "--to", "qwen", "--out", str(tmp_path / "qwen")]) == 0
    assert "60 records" in capsys.readouterr().out
    assert len((tmp_path / "qwen" / "annotations.jsonl").read_text().splitlines()) == 60
