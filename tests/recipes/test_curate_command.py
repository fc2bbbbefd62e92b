"""`gemvlm curate`: plans by name, what is missing, and a small set of the tabletop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gemvlm.__main__ import main
from gemvlm.recipes import curate
from gemvlm.recipes.curate import command_of, plan_of
from gemvlm.recipes.tabletop_100k import TABLETOP_100K
from gemvlm.shards import ShardReader


def test_a_plan_is_shown_with_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["curate", "gem_4m", "--out", str(tmp_path / "set"), "--plan-only", "--root", f"sat={tmp_path}"]
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "the paper gives no count" in shown and "--root refspatial=FOLDER" in shown
    assert "--root sat=" not in shown and not (tmp_path / "set").exists()


def test_options_that_do_not_fit_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "set")]
    for words, expected in (
        (["nothing", *out], "unknown plan 'nothing'; there are gem_4m, robot_worlds, tabletop_100k"),
        (["gem_4m", *out, "--root", "sat"], "write NAME=FOLDER"),
        (["tabletop_100k", *out, "--limit", "0"], "a limit of 0"),
        (["tabletop_100k", *out, "--ray-address", "ray://x"], "add --engine ray"),
        (["tabletop_100k", *out, "--processes", "-1"], "-1 processes"),
        (["tabletop_100k", *out, "--depth-teacher", "gem"], "give KIND:FOLDER"),
    ):
        assert main(["curate", *words]) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1, words
    assert not (tmp_path / "set").exists()


def test_the_command_in_the_card_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    plan = plan_of("gem_4m", [f"sat={tmp_path}"], [tmp_path / "bench.json"], 7, licences=["unknown", "X-1"])
    command = command_of("gem_4m", plan, 7, ["unknown", "X-1"])
    assert command == (
        "gemvlm curate gem_4m --limit 7 --root sat=FOLDER --benchmark bench.json --licence unknown --licence X-1"
    )
    assert plan.licences is not None and plan.licences.allow_unknown and plan.licences.allowed[-1] == "X-1"


def test_a_few_samples_of_the_tabletop(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mujoco")
    few = replace(
        TABLETOP_100K.sources[0],
        options={"scenes": 1, "views": 3, "several_views": 0, "videos": 0, "interaction": 0, "turns_per_family": 1},
    )
    monkeypatch.setattr(curate, "get_plan", lambda name: replace(TABLETOP_100K, sources=(few,)))
    out = tmp_path / "set"
    assert main(["curate", "tabletop_100k", "--out", str(out), "--limit", "2", "--processes", "1"]) == 0
    assert "2 samples" in capsys.readouterr().out
    reader = ShardReader(out)
    assert len(reader) == 2 and all(frame.depth is not None for i in range(2) for frame in reader[i].frames)
    card = json.loads((out / "card.json").read_text())
    assert card["command"] == "gemvlm curate tabletop_100k --limit 2"
    assert main(["curate", "tabletop_100k", "--out", str(out), "--limit", "2"]) == 0
    assert "already there" in capsys.readouterr().out


def test_encode_is_told_what_it_needs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gemvlm.curation import encode

    asked: list[object] = []
    monkeypatch.setattr(encode.Codec, "from_checkpoint", lambda name, kind: (name, kind))
    monkeypatch.setattr(encode, "encode", lambda *given, **named: asked.append((given, named)) or "there")
    assert main(["encode", str(tmp_path), "--checkpoint", "nano", "--kind", "rgb", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "there\n"
    assert asked == [((tmp_path, ("nano", "rgb")), {"device": "cpu"})]
