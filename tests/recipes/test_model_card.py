"""A model card says what the checkpoint says of itself, and nothing else."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gemvlm.inference.load import shipped_checkpoints
from gemvlm.model.card import CheckpointCard
from gemvlm.model.policy_card import PolicyCard
from gemvlm.recipes import get, get_policy
from gemvlm.recipes.model_card import BY_MACHINE, README, model_card, parameters, write_model_card
from gemvlm.recipes.run import card_of
from gemvlm.robot.embodiments import EMBODIMENTS
from gemvlm.robot.statistics import Normalisation, Statistics

NANO = shipped_checkpoints()["nano"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped description with tiny weights, without its card."""
    shutil.copy(NANO / "gem.json", tmp_path)
    tensors = {"model.visual.a": np.zeros((3, 4), np.float32), "sana.b": np.zeros(5, np.float32)}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def policy(folder: Path) -> Path:
    recipe, robot = get_policy("vla_nano"), EMBODIMENTS["metaworld"]
    base = card_of(get("gem_nano"), get("gem_nano").model)
    values = {field.name: getattr(base, field.name) for field in dataclasses.fields(CheckpointCard)}
    statistics = Statistics.of([np.zeros((3, 4))], ("a", "b", "c", "d"))
    PolicyCard(
        **values | {"model": recipe.policy(4, 4), "recipe": recipe.name, "stage": "final"},
        contract=robot.contract,
        embodiment="metaworld",
        normalisation=Normalisation("quantiles", {"action": statistics}),
        system=None,
        flow_steps=5,
        executed=8,
        guidance=1.0,
        data={"episodes": "abc", "learned": 25, "measured": 3},
    ).write(folder)
    save_file({"expert.a": np.zeros(7, np.float32)}, folder / "model.safetensors")
    return folder


def test_the_shipped_model_says_what_it_is() -> None:
    text = model_card(NANO)
    for words in (
        "license: apache-2.0",
        "whole numbers from 0 to 1000",
        "metric z-depth in metres, from 0.35 to 4.5 m",
        "| weights | Apache-2.0 |",
        "1,984 simulated tabletop scenes",
        "| 3-everything | 4,500 | 16 | 1 text, 0.1 depth |",
        "| point, all | 0.764 [0.728, 0.803] |",
        'gemvlm.load("nano")',
    ):
        assert words in text
    assert sum(parameters(NANO).values()) == pytest.approx(9.83e6, rel=1e-3)


def test_elsewhere_nothing_is_said_of_its_licence(folder: Path) -> None:
    text = model_card(folder)
    assert "license:" not in text and "not stated: put a LICENSE file" in text and 'load("FOLDER")' in text
    (folder / "LICENSE").write_text("\n   MIT License\n")
    assert "license: mit" in model_card(folder) and "MIT License (`LICENSE`)" in model_card(folder)


def test_parameters_are_counted_from_headers(folder: Path) -> None:
    assert parameters(folder) == {"vision tower": 12, "depth generator": 5}
    (folder / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(ValueError, match="not a file of weights"):
        parameters(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"holds no model\*\.safetensors"):
        parameters(folder)


def test_what_a_person_wrote_is_left_alone(folder: Path) -> None:
    path = write_model_card(folder)
    assert path == folder / README and BY_MACHINE in path.read_text()
    assert write_model_card(folder) == path, "its own card is written again"
    path.write_text("# Mine\n")
    with pytest.raises(ValueError, match="written by hand"):
        write_model_card(folder)
    assert path.read_text() == "# Mine\n"


def test_words_of_a_file_are_no_markup(folder: Path) -> None:
    card = CheckpointCard.read(folder)
    dataclasses.replace(card, recipe="x`|\n<script>").write(folder)
    text = model_card(folder)
    assert "<script>" not in text and "recipe `x script`" in text and "none of those that this package names" in text


def test_a_policy_tells_its_contract(tmp_path: Path) -> None:
    text = model_card(policy(tmp_path))
    for words in (
        "pipeline_tag: robotics",
        "25 episodes (hash `abc`), 3 more held out",
        "dx, dy, dz, grip: delta",
        "| rotation; gripper | none; high_closes |",
        "16 actions in 5 flow steps, 8 carried out",
        "| action expert | 0.00 M |",
        "It begins with `nano`",
        "`gemvlm vla evaluate` measures it",
    ):
        assert words in text


def test_scores_stand_beside_the_best_blind_one_where_it_was_kept(folder: Path) -> None:
    mean = {"mean": 0.7, "low": 0.6, "high": 0.8, "n": 50}
    scores = {
        "questions": {"point, all": {**mean, "blind": {"name": "majority", "mean": 0.3}}, "box, all": mean},
        "depth": {"metric": {"abs_rel": [0.1, 0.05, 0.2]}},
        "depth_blind": {"metric": {"abs_rel": {"name": "mean map", "mean": 0.3}}},
    }
    dataclasses.replace(CheckpointCard.read(folder), scores=scores).write(folder)
    text = model_card(folder)
    assert "| point, all | 0.700 [0.600, 0.800] | 50 | 0.300 (majority) |" in text
    assert "| box, all | 0.700 [0.600, 0.800] | 50 | – |" in text
    assert "| metric | abs_rel | 0.100 [0.050, 0.200] | 0.300 (mean map) |" in text


def test_no_folder_of_ours_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gem\.json: not found"):
        model_card(tmp_path)
