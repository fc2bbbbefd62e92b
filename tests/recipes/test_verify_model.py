"""The card of a checkpoint: what its files say, what is wrong with it, and how it does beside a base."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the tabletop world needs the extra `worlds`")

from gemvlm.evaluation import sample_benchmark
from gemvlm.evaluation.verify import checkpoint_facts
from gemvlm.inference import load
from gemvlm.recipes import held_out, verify_model
from gemvlm.recipes.verify_model import data_licences, verify
from gemvlm.sample import Frame, Provenance, Sample
from gemvlm.shards import write_shards

NANO = Path(str(files("gemvlm"))) / "checkpoints" / "nano"


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of nano's card on very few scenes."""
    out = tmp_path_factory.mktemp("card")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "available_cores", lambda: 1)
        patch.setattr(verify_model, "CORE_FAMILIES", ("closer", "colour"))
        patch.setattr(verify_model, "PAINTING_STEPS", 1)
        patch.setattr(sample_benchmark, "ANSWER_TOKENS", 6)
        verify("nano", out, scenes=2, per_family=2, probe_scenes=3, device="cpu")
    return out


def test_the_card_says_what_the_checkpoint_is_and_how_it_does(card: Path) -> None:
    found = json.loads((card / "card.json").read_text())
    facts = found["facts"]
    assert facts["recipe"] == "gem_nano" and "multiples of 10" in facts["coordinates"]
    assert facts["depth_kind"].startswith("metric z-depth in metres, from 0.35 to 4.5 m")
    assert facts["depth_encoding"].startswith("log, a fixed range") and facts["painted"] == "96 x 96 pixels"
    assert facts["actions"].startswith("none")
    assert facts["licences"] == {
        "weights": "Apache-2.0, as the package that it is part of",
        "data": "Apache-2.0: simulated by this package (recipe gem_nano)",
    }
    assert {file["name"]: file["listed"] for file in facts["files"]}["model.safetensors"] is True
    assert found["base"] == "the same model with random weights (seed 0)"
    assert set(found["questions"]) == set(found["depth"]) == {"model", "base"}
    assert set(found["questions"]["model"]["blind"]) == {"chance", "majority", "text_only", "cue"}
    assert found["probe"]["grid"] == [6, 6] and found["verified_with"]["torch"]


def test_the_page_and_the_text_say_the_same(card: Path) -> None:
    text, page = (card / "card.md").read_text(), (card / "card.html").read_text()
    for words in ("random weights", "object pixels, aligned", "colour", "position only", "multiples of 10"):
        assert words in text and words in page
    assert "Is it better than nothing?" in page and "Geometry in the image states" in page
    assert "| overall |" in text and "sha256" in text


def copied(folder: Path) -> Path:
    shutil.copytree(NANO, folder)
    return folder


def test_a_changed_or_missing_file_is_a_problem(tmp_path: Path) -> None:
    folder = copied(tmp_path / "copy")
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "training_curve.svg").unlink()
    facts = checkpoint_facts(folder, load(folder, "cpu"), {})
    problems = "\n".join(facts.problems)
    assert "metrics.jsonl differs from manifest.json" in problems
    assert "training_curve.svg is in manifest.json but not there" in problems
    assert "licence of the weights is not stated" in problems, "a copy outside the package says nothing of its licence"
    assert facts.licences == {"weights": "not stated", "data": "not stated"}


def test_a_licence_beside_the_weights_is_the_one_that_counts(tmp_path: Path) -> None:
    folder = copied(tmp_path / "copy")
    (folder / "LICENSE").write_text("\n  MIT License\n\nCopyright\n")
    facts = checkpoint_facts(folder, load(folder, "cpu"), {})
    assert facts.licences["weights"] == "MIT License (LICENSE)"
    assert not any("licence" in problem for problem in facts.problems)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', "[" * 100_000, '{"a": {"sha256": '])
def test_a_list_of_files_that_is_none_is_refused_by_name(tmp_path: Path, content: str) -> None:
    folder = copied(tmp_path / "copy")
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json: not a list of files"):
        checkpoint_facts(folder, load(folder, "cpu"), {})


def test_licences_of_data_are_those_of_the_set_beside_the_run(tmp_path: Path) -> None:
    frame = Frame(np.zeros((8, 8, 3), np.uint8))
    samples = [
        Sample(str(i), (frame,), (), "a", "test", provenance=Provenance(licence="MIT" if i else "CC-BY-4.0"))
        for i in range(3)
    ]
    write_shards(samples, tmp_path / "data")
    assert data_licences(tmp_path / "final", "unknown") == {"data, 2 samples": "MIT", "data, 1 samples": "CC-BY-4.0"}
    assert data_licences(tmp_path / "run" / "final", "debug")["data"].startswith("Apache-2.0")
    assert data_licences(tmp_path / "run" / "final", "somebody's") == {}
