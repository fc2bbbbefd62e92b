"""What carrying a recipe out checks before it trains, and what it finds again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gemvlm.curation.questions import FAMILIES
from gemvlm.data.tokenizer import SpecialIds, load_tokenizer
from gemvlm.recipes import run as recipe_run
from gemvlm.recipes.data import check_families, make_data
from gemvlm.recipes.debug import DEBUG
from gemvlm.recipes.recipe import Recipe
from gemvlm.recipes.run import make_tokenizer, train_recipe
from gemvlm.shards import ShardReader


def pretend(monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    """`train_recipe` finds this recipe under any name."""
    monkeypatch.setattr(recipe_run, "get", lambda name: recipe)


def test_rare_families_may_be_absent_but_not_all_of_a_stage(debug_run: Path) -> None:
    shards = ShardReader(debug_run / "data")
    check_families(DEBUG.stages, shards)
    absent = sorted(set(FAMILIES) - set(shards.manifest.families))
    assert absent, "the smallest data lack some rare family"
    rare = replace(DEBUG.stages[0], families=dict.fromkeys(["describe", *absent], 1.0))
    check_families([rare], shards)
    with pytest.raises(ValueError, match=f"no question of family {', '.join(absent)} in"):
        check_families([replace(rare, families=dict.fromkeys(absent, 1.0))], shards)


def test_a_misspelt_family_is_refused_before_anything_is_trained(
    debug_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TurnSampler would draw no question at all, and the stage would show images alone."""
    misspelt = replace(DEBUG.stages[0], families={"describe": 1.0, "colours": 0.5})
    pretend(monkeypatch, replace(DEBUG, stages=(misspelt,)))
    told = rf"stage '{misspelt.name}': no question of family colours in .*data; there are .*colour, .*describe"
    with pytest.raises(ValueError, match=told):
        train_recipe("debug", tmp_path, data=debug_run / "data", device="cpu")
    assert not (tmp_path / "metrics.jsonl").exists()


def test_data_are_made_once(debug_run: Path) -> None:
    manifest = debug_run / "data" / "manifest.json"
    before = manifest.stat().st_mtime_ns
    assert make_data(DEBUG.data, debug_run / "data") == debug_run / "data"
    assert manifest.stat().st_mtime_ns == before


def test_data_of_other_settings_are_refused(debug_run: Path) -> None:
    told = (
        r"data: holds samples made with .*'scenes': 12.*, the recipe asks for .*'scenes': 13.*; choose another folder"
    )
    with pytest.raises(ValueError, match=told):
        make_data(replace(DEBUG.data, scenes=13), debug_run / "data")


def test_what_a_kill_left_of_the_data_is_made_again(tmp_path: Path) -> None:
    draft = tmp_path / "data.draft"
    draft.mkdir()
    (draft / "shard-00000.parquet").write_bytes(b"half")
    folder = make_data(replace(DEBUG.data, scenes=1, views_per_scene=1), tmp_path / "data")
    assert len(ShardReader(folder)) == 1 and not draft.exists()


def test_the_tokenizer_is_trained_once_and_whole(debug_run: Path, tmp_path: Path) -> None:
    reader = ShardReader(debug_run / "data")
    made = make_tokenizer(DEBUG, reader, tmp_path / "tokenizer")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]
    found = make_tokenizer(DEBUG, [], tmp_path / "tokenizer")
    assert made.get_vocab() == found.get_vocab() == load_tokenizer(debug_run / "final").get_vocab()
    assert len(made) <= DEBUG.vocabulary


def test_the_model_has_the_ids_of_its_tokenizer_and_room_for_its_tokens(debug_run: Path) -> None:
    tokenizer = load_tokenizer(debug_run / "tokenizer")
    ids = SpecialIds.of(tokenizer)
    model = recipe_run.with_special_ids(DEBUG.model, ids, len(tokenizer))
    assert model.backbone["image_token_id"] == ids.image_pad
    with pytest.raises(ValueError, match=r"the tokenizer has 641 tokens but the model's vocab_size is 640; raise it"):
        recipe_run.with_special_ids(DEBUG.model, ids, 641)
