"""A whole experiment at debug size, and the harness's self-test: what only watches changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gemvlm.experiments import get
from gemvlm.experiments.execute import carry_out, chosen_rates, is_done, is_finished
from gemvlm.experiments.experiment import Task
from gemvlm.experiments.forgetting import finished_forgetting
from gemvlm.experiments.measure import read_scores
from gemvlm.experiments.mechanism import BASELINES, finished_probes, read_baselines
from gemvlm.experiments.report import write_report
from gemvlm.experiments.shared import prepare
from gemvlm.experiments.spent import spent
from gemvlm.recipes import held_out

EXPERIMENT = replace(
    get("verdict_debug"), arms=("text", "depth", "shuffled", "detached", "depth_as_text", "teacher"), seeds=(0,)
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("experiment")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "FITTED_SCENES", 6)
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
    assert all(is_finished(task, EXPERIMENT, finished) for task in EXPERIMENT.tasks())
    assert chosen_rates(EXPERIMENT, finished) == dict.fromkeys(EXPERIMENT.arms, 1.0)
    page = write_report(EXPERIMENT, finished).read_text(encoding="utf-8")
    assert "Nothing can be said yet" in page and "Everything is finished" in page


@pytest.mark.slow
def test_every_arm_is_looked_into_and_what_is_detached_holds_and_forgets_what_text_does(finished: Path) -> None:
    probes, forgetting = finished_probes(EXPERIMENT, finished), finished_forgetting(EXPERIMENT, finished)
    assert set(probes) == set(forgetting) == {"stage-0", *EXPERIMENT.arms}
    assert probes["text"][0] == probes["detached"][0] != probes["depth"][0]
    assert forgetting["text"][0] == forgetting["detached"][0]
    assert set(probes["text"][0]) == {"depth", "normals", "relief"}
    assert set(read_baselines(finished / BASELINES)) == {"random weights", "position only", "mean map"}
    assert set(forgetting["depth"][0]) == {"caption", "text_only"}
    described = {len(items) for arm in EXPERIMENT.arms for items in forgetting[arm][0].values()}
    assert len(described) == 1 and 8 <= described.pop() <= 16  # of 16 views, those with two things to tell or more
    page = write_report(EXPERIMENT, finished).read_text(encoding="utf-8")
    assert "random weights" in page and "not credited to geometry" in page and "text_only" in page


@pytest.mark.slow
def test_a_run_of_an_older_version_is_looked_into_without_training(finished: Path) -> None:
    task = Task("shuffled", 0)
    final, probed = task.folder(finished) / "final" / "model.safetensors", task.folder(finished) / "probe.json"
    before, content = final.stat().st_mtime_ns, probed.read_bytes()
    probed.unlink()
    assert is_done(task, EXPERIMENT, finished) and not is_finished(task, EXPERIMENT, finished)
    assert carry_out(task, EXPERIMENT, finished, "cpu")
    assert probed.read_bytes() == content and final.stat().st_mtime_ns == before


@pytest.mark.slow
def test_arms_that_paint_cost_more_and_leave_as_much(finished: Path) -> None:
    found = spent(EXPERIMENT, finished)
    assert found["depth"].operations == found["shuffled"].operations > found["text"].operations
    assert found["depth"].trained > found["text"].trained == found["text"].deployed == found["depth"].deployed
    assert found["depth"].steps == 25 and found["text"].steps == 10 and found["text"].seconds > 0
