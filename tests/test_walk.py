"""The whole walk, small: scenes, tokenizer, stages, checkpoint, loading, an answer, depth, scores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import gemvlm
from gemvlm.__main__ import main
from gemvlm.evaluation.run import evaluate_model
from gemvlm.inference import GemPipeline
from gemvlm.recipes.data import development_samples
from gemvlm.recipes.debug import DEBUG
from gemvlm.sample import Sample
from gemvlm.shards import ShardReader
from gemvlm.training.metrics import read_metrics

SOURCE = Path(gemvlm.__file__).parents[1]
STEPS = sum(stage.steps for stage in DEBUG.stages)
PATIENCE_S = 120


@pytest.fixture(scope="module")
def pipeline(debug_run: Path) -> GemPipeline:
    return gemvlm.load(debug_run / "final", device="cpu")


@pytest.fixture(scope="module")
def unseen() -> list[Sample]:
    return development_samples(DEBUG.data, 2)


def test_data_are_made_as_the_recipe_asks(debug_run: Path) -> None:
    reader = ShardReader(debug_run / "data")
    assert len(reader) == DEBUG.data.scenes * DEBUG.data.views_per_scene
    assert len(set(reader.scenes())) == DEBUG.data.scenes and reader[0].frames[0].image.shape == (*DEBUG.data.size, 3)
    assert (debug_run / "quarantine.jsonl").read_text() == ""


def test_every_stage_logs_its_losses_and_nothing_else(debug_run: Path) -> None:
    lines = read_metrics(debug_run / "metrics.jsonl")
    assert list(dict.fromkeys(line["stage"] for line in lines)) == [stage.name for stage in DEBUG.stages]
    assert lines[-1]["step"] == STEPS
    for stage in DEBUG.stages:
        for line in (line for line in lines if line["stage"] == stage.name):
            assert {k.removeprefix("loss/") for k in line if k.startswith("loss/")} == set(stage.loss_weights)
            norms = {k.removeprefix("grad_norm/") for k in line if k.startswith("grad_norm/")}
            assert norms == set(stage.learning_rates)
            assert all(np.isfinite(value) for value in line.values() if not isinstance(value, str))


def test_previews_are_painted_as_it_trains(debug_run: Path) -> None:
    pictures = sorted((debug_run / "preview").iterdir())
    ends = np.cumsum([stage.steps for stage in DEBUG.stages])
    painting = [end for stage, end in zip(DEBUG.stages, ends, strict=True) if "depth" in stage.loss_weights]
    assert {f"depth-{end:06d}.png" for end in painting} <= {picture.name for picture in pictures}
    with Image.open(pictures[-1]) as last, Image.open(pictures[0]) as first:
        assert last.size == first.size
        assert not np.array_equal(np.array(last), np.array(first))


def test_a_checkpoint_explains_itself(debug_run: Path) -> None:
    folder = debug_run / "final"
    card = json.loads((folder / "gem.json").read_text())
    assert (card["recipe"], card["stage"], card["step"]) == ("debug", "final", STEPS)
    assert card["trained_groups"] == ["connector", "generator", "language", "merger", "vision"]
    assert card["model"]["encoding"]["name"] == DEBUG.model.encoding.name
    assert (card["model"]["encoding"]["near_m"], card["model"]["encoding"]["far_m"]) == (
        DEBUG.model.encoding.near_m,
        DEBUG.model.encoding.far_m,
    )
    assert card["coordinates"] == {"scale": 1000, "step": 10}
    assert card["target"] == dict(zip(("height", "width"), DEBUG.target, strict=True))
    assert card["versions"]["torch"] == torch.__version__ and "commit" in card["versions"]
    backbone = json.loads((folder / "config.json").read_text())
    assert backbone["image_token_id"] == card["model"]["backbone"]["image_token_id"]
    assert not {"state.json", "optimizer.safetensors"} & {path.name for path in folder.iterdir()}


def test_it_answers(pipeline: GemPipeline, unseen: list[Sample]) -> None:
    image = unseen[0].frames[0].image
    answer = pipeline.ask(image, "Describe the scene.", max_new_tokens=16)
    assert answer == pipeline.ask(Image.fromarray(image), "Describe the scene.", max_new_tokens=16)
    assert isinstance(answer.text, str)


def test_it_paints_depth_in_metres(pipeline: GemPipeline, unseen: list[Sample]) -> None:
    image = unseen[0].frames[0].image
    depth = pipeline.depth(image, steps=4).depth
    assert depth.values.shape == image.shape[:2] and depth.is_metric
    near, far = DEBUG.model.encoding.near_m, DEBUG.model.encoding.far_m
    assert near is not None and far is not None
    assert near * 0.999 <= depth.values[depth.valid].min() and depth.values[depth.valid].max() <= far * 1.001


def test_it_is_scored_beside_blind_baselines(
    pipeline: GemPipeline, unseen: list[Sample], debug_run: Path, tmp_path: Path
) -> None:
    reader = ShardReader(debug_run / "data")
    fitted = [reader[index] for index in range(6)]
    evaluation = evaluate_model(pipeline, unseen, fitted, tmp_path, steps=2)
    page = evaluation.write(tmp_path, "debug")
    assert page.read_text().startswith("<!") and (tmp_path / "scores.json").is_file()
    rows = evaluation.questions.rows
    assert len(rows) >= 10 and all(0 <= row.score.mean <= 1 and row.baselines for row in rows)
    asked = sum(len(sample.turns) for sample in unseen)
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == asked
    assert evaluation.depth is not None and {"model"} < set(evaluation.depth.methods("all", "aligned"))


def test_the_command_line_asks_and_paints(
    debug_run: Path, unseen: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, model = tmp_path / "scene.png", str(debug_run / "final")
    Image.fromarray(unseen[0].frames[0].image).save(picture)
    assert main(["ask", model, str(picture), "Describe the scene.", "--max-new-tokens", "4", "--device", "cpu"]) == 0
    words = ["depth", model, str(picture), "--out", str(tmp_path / "out"), "--steps", "2", "--device", "cpu"]
    assert main(words) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"scene-view.png", "scene-depth.png"}
    capsys.readouterr()


def test_a_killed_training_is_gone_on_with_from_the_command_line(debug_run: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle, then `--resume`: the same weights, bit for bit, as the run that nobody disturbed."""
    out = tmp_path / "run"
    words = ["train", "debug", "--out", str(out), "--data", str(debug_run / "data"), "--device", "cpu"]
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": threads}
    process = subprocess.Popen(
        [sys.executable, "-m", "gemvlm", *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    first = out / f"step-{DEBUG.stages[0].steps}"
    deadline = time.monotonic() + PATIENCE_S
    while not first.is_dir() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and first.is_dir() and not (out / "final").exists()
    assert main([*words, "--resume"]) == 0
    ours, theirs = (load_file(folder / "final" / "model.safetensors") for folder in (out, debug_run))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [line["step"] for line in read_metrics(out / "metrics.jsonl")] == [
        line["step"] for line in read_metrics(debug_run / "metrics.jsonl")
    ]
    cards = [_without_versions(folder / "final") for folder in (out, debug_run)]
    assert cards[0] == cards[1]


def _without_versions(folder: Path) -> dict[str, Any]:
    card = json.loads((folder / "gem.json").read_text())
    return {name: value for name, value in card.items() if name != "versions"}
