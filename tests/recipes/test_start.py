"""What a training begins with, and what it refuses before its first step."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemvlm.__main__ import main
from gemvlm.depth_map import Encoding
from gemvlm.model.weights import named_tensors
from gemvlm.recipes import run as recipe_run
from gemvlm.recipes.data import cached_makers, check_place, check_set
from gemvlm.recipes.debug import DEBUG
from gemvlm.recipes.gem_2b import GEM_2B
from gemvlm.recipes.plan import check_memory
from gemvlm.recipes.recipe import Start
from gemvlm.recipes.run import find_beginning, train_recipe
from gemvlm.recipes.start import find_start, located
from gemvlm.runtime import detect
from gemvlm.shards import ShardReader, write_shards
from gemvlm.training.loop import Run


def test_places_are_said_part_by_part_or_as_a_whole() -> None:
    start = Start(qwen="a/b", sana="c/d").given(["qwen=/x", "dc_ae=/y"])
    assert (start.qwen, start.sana, start.dc_ae) == ("/x", "c/d", "/y")
    assert Start(qwen="a/b").given(["/ckpt"]) == Start(checkpoint="/ckpt")
    with pytest.raises(ValueError, match="'vae' is no part; write qwen=PLACE"):
        Start().given(["vae=/x"])


def test_a_place_that_is_neither_folder_nor_hub_id_is_refused(tmp_path: Path) -> None:
    assert located(str(tmp_path)) == tmp_path
    for place in (str(tmp_path / "no"), "./no/such", "word", "a/b/c"):
        with pytest.raises(ValueError, match=r"no such folder, and no hub id"):
            located(place)


def test_ours_begins_another_training_of_ours(debug_run: Path) -> None:
    begun = find_start(DEBUG, Start().given([str(debug_run / "final")]))
    gem = begun.load(begun.model, seed=0)
    from gemvlm.inference import load

    theirs = named_tensors(load(debug_run / "final", "cpu").gem)
    assert all(bool((tensor == theirs[name]).all()) for name, tensor in named_tensors(gem).items())


def test_a_checkpoint_of_another_size_encoding_or_stage_is_refused(debug_run: Path) -> None:
    given = Start().given([str(debug_run / "final")])
    text = {**DEBUG.model.backbone["text_config"], "hidden_size": 128}
    wider = replace(DEBUG.model, backbone={**DEBUG.model.backbone, "text_config": text})
    told = r"another model than recipe debug trains: backbone.text_config.hidden_size is 64, expected 128; choose"
    with pytest.raises(ValueError, match=told):
        find_start(replace(DEBUG, model=wider), given)
    painted = replace(DEBUG.model, encoding=Encoding("sqrt_disparity", 0.25, 8.0))
    with pytest.raises(ValueError, match=r"encoding.name is log, expected sqrt_disparity"):
        find_start(replace(DEBUG, model=painted), given)
    first = next(path for path in sorted(debug_run.glob("step-*")) if path.is_dir())
    card = json.loads((first / "gem.json").read_text())
    (first / "gem.json").write_text(json.dumps(card | {"trained_groups": ["connector"]}))
    try:
        with pytest.raises(ValueError, match=r"needs a trained generator: finish the earlier stages first"):
            find_start(DEBUG, replace(Start(trained=("connector", "generator")), checkpoint=str(first)))
    finally:
        (first / "gem.json").write_text(json.dumps(card))


def test_published_parts_of_another_size_are_refused(publish: Callable[..., Any]) -> None:
    published = publish(GEM_2B)
    with pytest.raises(ValueError, match=r"hidden_size is 32, expected 2048"):
        find_start(GEM_2B, GEM_2B.start.given(published.words))


def test_a_run_of_another_recipe_is_not_gone_on_with(debug_run: Path) -> None:
    with pytest.raises(ValueError, match=r"the run is one of recipe debug, not other; go on with that recipe"):
        find_beginning(replace(DEBUG, name="other"), debug_run, ())
    found = find_beginning(DEBUG, debug_run, ())
    assert found is not None and found.parts["checkpoint"].name.startswith("step-")


def test_a_folder_without_a_set_is_refused_unless_it_may_be_made(tmp_path: Path) -> None:
    out = tmp_path / "run"
    check_place(DEBUG, out, None)
    check_place(DEBUG, out, out / "data")
    with pytest.raises(ValueError, match=r"no such folder .*or leave --data out"):
        check_place(DEBUG, out, tmp_path / "misspelt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no set"):
        check_place(DEBUG, out, tmp_path / "empty")
    with pytest.raises(ValueError, match=r"recipe gem_2b learns from a set that you give: add --data SET"):
        check_place(GEM_2B, out, None)
    with pytest.raises(ValueError, match=r"no such folder"):
        check_place(GEM_2B, out, out / "data")


def test_sets_with_nothing_to_learn_are_refused(tmp_path: Path, learned_set: Path) -> None:
    write_shards([], tmp_path / "empty")
    with pytest.raises(ValueError, match="the set is empty"):
        check_set(DEBUG.stages, ShardReader(tmp_path / "empty"))
    seen = ShardReader(learned_set)
    blind = [replace(seen[n], id=f"b{n}", frames=tuple(replace(f, depth=None) for f in seen[n].frames)) for n in (1, 2)]
    write_shards(blind, tmp_path / "blind")
    with pytest.raises(ValueError, match=r"learns from depth alone, but none of the 2 samples .* has depth"):
        check_set(DEBUG.stages[1:2], ShardReader(tmp_path / "blind"))


def test_latents_of_another_encoding_are_refused(debug_run: Path, tmp_path: Path) -> None:
    from gemvlm.curation.encode import Codec, encode
    from gemvlm.inference import load

    samples = [ShardReader(debug_run / "data")[number] for number in range(2)]
    write_shards(samples, tmp_path / "set")
    checkpoint = debug_run / "final"
    encode(tmp_path / "set", Codec.from_checkpoint(checkpoint, "depth"), show_progress=False)
    latents = load(checkpoint, "cpu").gem.supervision.latents
    makers = cached_makers(DEBUG, tmp_path / "set", latents, ["depth"])
    assert type(makers["depth"]).__name__ == "LatentCache"
    other = replace(DEBUG, model=replace(DEBUG.model, encoding=Encoding("log", 0.5, 4.0)))
    with pytest.raises(ValueError, match=r"encoding differ"):
        cached_makers(other, tmp_path / "set", latents, ["depth"])


def test_a_recipe_that_needs_more_memory_than_there_is_is_refused() -> None:
    large = replace(GEM_2B, stages=tuple(replace(s, recompute=False) for s in GEM_2B.stages), precision="float32")
    with pytest.raises(ValueError, match=r"is planned to take [\d.]+ GiB on each of 1 processes .* cpu has [\d.]+"):
        check_memory(large, large.model, detect("cpu"))
    check_memory(DEBUG, DEBUG.model, detect("cpu"))


def test_refusals_leave_nothing_behind(tmp_path: Path, learned_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_run, "get", lambda name: GEM_2B)
    with pytest.raises(ValueError, match="no such folder"):
        train_recipe("gem_2b", tmp_path / "run", learned_set, "cpu", Run(tmp_path / "run"), ["qwen=/no", "sana=/no"])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_the_command_asks_for_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["gem_2b"], "add --out DIR"),
        (["gem_2b", "--out", str(tmp_path)], "add --data SET"),
        (["debug", "--out", str(tmp_path), "--data", str(tmp_path / "x" / ".." / ".." / "y")], "no such folder"),
        (["gem_2b", "--plan", "--gpu", "tpu"], "unknown GPU 'tpu'"),
        (["gem_2b", "--plan", "--gpus", "3"], "can't be shared by 3 processes"),
    ):
        assert main(["train", *words]) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1, words


def test_a_plan_is_printed_and_nothing_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "gem_2b", "--plan", "--gpus", "8", "--gpu", "a800-80gb"]) == 0
    shown = capsys.readouterr().out
    for words in ("1,720.6 M", "optimizer", "autoencoder", "logits", "3-everything", "a800-80gb", "Planned, not"):
        assert words in shown
    assert "h100-80gb" not in shown
