"""The examples run, learn, save plain checkpoints, and say truly which lines they add."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

FOLDER = Path(__file__).parents[2] / "examples"
NAMES = ("depth_loss_in_trainer", "depth_loss_in_pytorch")
MARKED = re.compile(r"^ *# \+ depth\n(.*?)^ *# - depth\n", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def stand_ins():
    sys.path.insert(0, str(FOLDER))
    import stand_ins

    yield stand_ins
    sys.path.remove(str(FOLDER))
    del sys.modules["stand_ins"]


@pytest.fixture(scope="module")
def samples(stand_ins) -> list[dict[str, Any]]:
    return stand_ins.rgbd_samples(8)


@pytest.fixture
def example(stand_ins, samples, monkeypatch):
    """An example as a module, from its text; the table is laid once for all."""
    monkeypatch.setattr(stand_ins, "rgbd_samples", lambda count: samples)

    def load(name: str, text: str | None = None) -> ModuleType:
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(text or source(name), name, "exec"), module.__dict__)
        return module

    return load


def source(name: str) -> str:
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def logits(model: torch.nn.Module, stand_ins, samples) -> torch.Tensor:
    inputs = stand_ins.TinyProcessor()([sample["images"] for sample in samples[:2]], [s["text"] for s in samples[:2]])
    with torch.no_grad():
        return model.eval()(**inputs).logits


def loaded(folder: Path) -> torch.nn.Module:
    model, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model


@pytest.mark.parametrize("name", NAMES)
def test_fewer_than_forty_lines_are_added(name):
    blocks = MARKED.findall(source(name))
    added = [line for block in blocks for line in block.splitlines() if line.strip()]
    assert source(name).count("# + depth\n") == len(blocks)
    assert 8 < len(added) < 40


@pytest.mark.parametrize("name", NAMES)
def test_without_the_added_lines_it_is_a_plain_training(name, example, tmp_path):
    text = MARKED.sub("", source(name))
    assert "gemvlm" not in text and "targets" not in text
    example(name, text).train(tmp_path, 1)
    assert not list(tmp_path.glob("generative*"))
    loaded(tmp_path)


def test_in_pytorch(example, stand_ins, samples, tmp_path):
    log = example("depth_loss_in_pytorch").train(tmp_path, 8)
    first, last = log[:2], log[-2:]
    for loss in ("loss", "depth"):
        assert sum(step[loss] for step in last) < 0.8 * sum(step[loss] for step in first), loss
    model = loaded(tmp_path)
    assert set(model.state_dict()) == set(stand_ins.tiny_model().state_dict())
    supervision = load_file(tmp_path / "generative_supervision.safetensors")
    assert {name.split(".")[0] for name in supervision} == {"connector", "generator"}


def test_in_a_trainer(example, stand_ins, samples, tmp_path):
    """The saved model is the trained one, bit for bit, in stock transformers; a plain training learns other weights."""
    trainer = example("depth_loss_in_trainer").train(tmp_path / "depth", 6)
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert all(loss > 0 for loss in losses)
    scores = [trainer.evaluate(samples)["eval_loss"] for _ in range(2)]
    assert scores[0] == scores[1] > 0
    saved = loaded(tmp_path / "depth")
    assert torch.equal(logits(saved, stand_ins, samples), logits(trainer.model, stand_ins, samples))
    example("depth_loss_in_trainer", MARKED.sub("", source("depth_loss_in_trainer"))).train(tmp_path / "plain", 6)
    plain = loaded(tmp_path / "plain")
    assert not torch.allclose(logits(plain, stand_ins, samples), logits(saved, stand_ins, samples), atol=1e-3)


def test_a_trainer_resumes_with_its_supervision(example, tmp_path):
    """Four steps, or two and two more: the same weights and the same supervision, bit for bit."""
    module = example(
        "depth_loss_in_trainer", source("depth_loss_in_trainer").replace("save_steps=steps", "save_steps=2")
    )
    module.train(tmp_path / "once", 4)
    resuming = source("depth_loss_in_trainer").replace("save_steps=steps", "save_steps=2")
    resuming = resuming.replace(
        "trainer.train()", f"trainer.train({str(tmp_path / 'once/checkpoints/checkpoint-2')!r})"
    )
    again = tmp_path / "once"
    before = load_file(again / "checkpoints/checkpoint-4/generative_supervision.safetensors")
    weights = load_file(again / "model.safetensors")
    example("depth_loss_in_trainer", resuming).train(again, 4)
    after = load_file(again / "checkpoints/checkpoint-4/generative_supervision.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(torch.equal(tensor, load_file(again / "model.safetensors")[name]) for name, tensor in weights.items())


def test_the_page_has_the_lines_of_the_example():
    """docs/any_model.md shows what the example adds, and nothing that it doesn't."""
    page = (
        (FOLDER.parent / "docs" / "any_model.md").read_text(encoding="utf-8").split("## From the published painter")[0]
    )
    shown = [textwrap.dedent(block).strip() for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]
    assert shown == [textwrap.dedent(block).strip() for block in MARKED.findall(source(NAMES[0]))]
    plain = [textwrap.dedent(block).strip() for block in MARKED.findall(source(NAMES[1]))]
    assert plain[:3] == shown[:3]
