"""Loading a checkpoint, and what is said when it is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import gemvlm
from gemvlm.inference.load import checkpoint_folder, load, shipped_checkpoints


def test_load_gives_a_pipeline_in_evaluation_mode(checkpoint: Path) -> None:
    pipeline = gemvlm.load(str(checkpoint), device="cpu", dtype=torch.bfloat16)
    assert not pipeline.gem.training
    assert next(pipeline.gem.parameters()).dtype == torch.bfloat16
    assert pipeline.card.recipe == "tiny" and pipeline.card.step == 7


def test_loading_twice_gives_equal_weights(checkpoint: Path) -> None:
    first, second = (load(checkpoint, device="cpu").gem.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", ["gem.json", "config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named_with_what_is_there(checkpoint: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "part"
    shutil.copytree(checkpoint, folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"part: {name} missing \(there is .*\); copy the whole"):
        load(folder, device="cpu")


def test_the_folder_of_a_run_is_answered_with_the_checkpoint_in_it(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "run" / "final")
    shutil.copytree(checkpoint, tmp_path / "run" / "final.draft")
    with pytest.raises(ValueError, match=r"this is the folder of a run: give \S*run/final$"):
        load(tmp_path / "run")


def test_an_unknown_name_lists_the_shipped_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nanno: neither a folder nor a shipped checkpoint \(.+\); give a folder"):
        checkpoint_folder(tmp_path / "nanno")


def test_an_empty_folder_is_called_empty(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the folder is empty"):
        load(tmp_path)


def test_sharded_weights_are_a_whole_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    assert checkpoint_folder(folder) == folder


def test_shipped_checkpoints_are_whole() -> None:
    for name, folder in shipped_checkpoints().items():
        assert checkpoint_folder(name) == folder
