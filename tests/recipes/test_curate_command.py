"""`gemvlm curate`: plans by name, what is missing, and a small set of the tabletop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemvlm.__main__ import main
from gemvlm.curation.plan import Plan, SourceUse
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
        (["tabletop_100k", *out, "--annotator", "http://x/v1"], "write MODEL@URL"),
        (["tabletop_100k", *out, "--annotator", "qwen@localhost"], "base_url"),
    ):
        assert main(["curate", *words]) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1, words
    assert not (tmp_path / "set").exists()


def test_the_command_in_the_card_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    plan = plan_of(
        "gem_4m", [f"sat={tmp_path}"], [tmp_path / "bench.json"], 7, None, ["unknown", "X-1"], "tiny@http://host:1/v1"
    )
    command = command_of("gem_4m", plan, 7, ["unknown", "X-1"])
    assert command == (
        "gemvlm curate gem_4m --limit 7 --root sat=FOLDER --benchmark bench.json --annotator tiny@URL "
        "--licence unknown --licence X-1"
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


def test_a_benchmark_is_kept_out_from_its_folder_to_the_set(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, bench, prints = tmp_path / "mine", tmp_path / "bench", tmp_path / "prints.json"
    leaked = "If you stood beside the lamp, would the chair be to your left or to your right?"
    records = []
    for folder in (mine, bench):
        folder.mkdir()
    for i, question in enumerate(("What is this?", leaked, "Is it red?", "Is it far?")):
        picture = np.random.default_rng(i).integers(0, 255, (6, 6, 3), np.uint8).repeat(12, axis=0).repeat(12, axis=1)
        Image.fromarray(picture).save(mine / f"{i}.png")
        talk = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": "A thing."}]
        records.append({"id": str(i), "image": f"{i}.png", "conversations": talk})
    (mine / "records.json").write_text(json.dumps(records))
    (bench / "picture.png").write_bytes((mine / "2.png").read_bytes())
    (bench / "broken.png").write_bytes(b"no picture")
    (bench / "test.jsonl").write_text(json.dumps({"question": leaked}))
    (tmp_path / "scenes.txt").write_text("kitchen-7\n\n")

    scenes = ["--scenes", str(tmp_path / "scenes.txt")]
    assert main(["fingerprint", str(bench), "--out", str(prints), "--name", "a bench", *scenes]) == 0
    told = capsys.readouterr()
    assert "1 pictures, 1 questions, 1 scenes" in told.out and "not protected: broken.png" in told.err
    use = SourceUse("mine", "llava", {"licence": "CC-BY-4.0"}, located_by="path")
    monkeypatch.setattr(curate, "get_plan", lambda name: Plan("mine", "Mine.", (use,)))
    out = tmp_path / "set"
    words = ["curate", "mine", "--out", str(out), "--root", f"mine={mine}", "--processes", "1"]
    assert main([*words, "--benchmark", str(prints)]) == 0
    assert [name[-1] for name in ShardReader(out).ids()] == ["0", "3"]
    lost = [json.loads(line) for line in (out / "rejections.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lost} == {"overlap"}
    assert [line["reason"] for line in lost] == ["no_turns_left", "benchmark_image"]
    assert "a question of a bench" in lost[0]["detail"] and "a picture of a bench" in lost[1]["detail"]
    prints.write_text("{}")
    assert main([*words[:3], str(tmp_path / "other"), *words[4:], "--benchmark", str(prints)]) == 2
    assert "make it with `gemvlm fingerprint`" in capsys.readouterr().err


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
