"""A whole experiment at debug size, and the harness's self-test: what only watches changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gemvlm.experiments import get
from gemvlm.experiments.execute import carry_out, chosen_rates, is_done, prepare
from gemvlm.experiments.experiment import Task
from gemvlm.experiments.measure import read_scores
from gemvlm.experiments.report import write_report

EXPERIMENT = replace(get("verdict_debug"), seeds=(0,))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("experiment")
    prepare(EXPERIMENT, out)
    for task in EXPERIMENT.tasks():
        assert carry_out(task, EXPERIMENT, out, "cpu")
    return out


@pytest.mark.slow
def test_a_detached_generator_leaves_the_backbone_of_text_bit_for_bit(finished: Path) -> None:
    text, detached, depth = (weights(Task(arm, 0).folder(finished)) for arm in ("text", "detached", "depth"))
    backbone = [name for name in text if name.startswith(("model.", "lm_head."))]
    assert backbone and all(torch.equal(text[name], detached[name]) for name in backbone)
    assert any(not torch.equal(text[name], depth[name]) for name in backbone)
    generator = [name for name in text if name not in backbone]
    assert any(not torch.equal(text[name], detached[name]) for name in generator)


@pytest.mark.slow
def test_every_arm_answers_the_same_questions_and_the_page_says_what_is_left(finished: Path) -> None:
    tests = [read_scores(Task(arm, 0).folder(finished) / "in_distribution.jsonl") for arm in EXPERIMENT.arms]
    assert all([item.id for item in found] == [item.id for item in tests[0]] for found in tests)
    assert all(is_done(task, EXPERIMENT, finished) for task in EXPERIMENT.tasks())
    assert chosen_rates(EXPERIMENT, finished) == dict.fromkeys(EXPERIMENT.arms, 1.0)
    page = write_report(EXPERIMENT, finished).read_text(encoding="utf-8")
    assert "Nothing can be said yet" in page and "Everything is finished" in page
