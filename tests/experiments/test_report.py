"""What the page says before everything is finished, and when the harness itself can't be trusted; what runs spent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from test_analysis import fake_scores

from gemvlm.experiments import get
from gemvlm.experiments.arm import get_arm, recipe_of
from gemvlm.experiments.experiment import Task
from gemvlm.experiments.measure import write_scores
from gemvlm.experiments.report import write_report
from gemvlm.experiments.run_log import LOG_FILE, marks, whole

EXPERIMENT = get("verdict_nano")
STAGES = recipe_of(get_arm("depth"), EXPERIMENT.base, 0).stages


def verdict_of(out: Path, effects: Mapping[str, float], **changed: str) -> str:
    """What the page concludes of fake answers; `changed` arms have one answer turned round with seed 1."""
    for arm, by_seed in fake_scores(effects, trial=0).items():
        for seed, items in by_seed.items():
            if arm in changed and seed == 1:
                items[5] = replace(items[5], score=1.0 - items[5].score)
            folder = Task(arm, seed).folder(out)
            folder.mkdir(parents=True)
            write_scores(items, folder / "in_distribution.jsonl")
    write_report(EXPERIMENT, out)
    return json.loads((out / "results.json").read_text(encoding="utf-8"))["verdict"]


def test_an_unfinished_experiment_calls_its_verdict_preliminary(tmp_path: Path) -> None:
    said = verdict_of(tmp_path, {"text": 0.0, "depth": 0.15})
    assert said.startswith("Preliminary, 3 of 3 seeds: Generating depth helps")


def test_a_detached_arm_that_answers_otherwise_ends_every_verdict(tmp_path: Path) -> None:
    same = {"text": 0.0, "depth": 0.15, "detached": 0.0}
    scores = fake_scores(same, trial=0)
    with pytest.MonkeyPatch.context() as patch:  # of a harness that works, `detached` is `text`
        patch.setitem(scores, "detached", {seed: list(items) for seed, items in scores["text"].items()})
        patch.setitem(globals(), "fake_scores", lambda *_, **__: scores)
        assert "Generating depth helps" in verdict_of(tmp_path / "works", same)
        said = verdict_of(tmp_path / "broken", same, detached="seed 1")
    assert said.startswith("The harness is broken") and "seeds [1]" in said


def lines(*counted: tuple[int, str, float]) -> str:
    return "".join(
        json.dumps({"step": step, "stage": stage, "operations_per_sample": each, "samples_per_s": 8.0}) + "\n"
        for step, stage, each in counted
    )


def test_each_line_counts_the_steps_since_the_one_before(tmp_path: Path) -> None:
    first, second, last = STAGES
    ends = [first.steps, first.steps + second.steps, sum(stage.steps for stage in STAGES)]
    (tmp_path / LOG_FILE).write_text(
        lines((ends[0], first.name, 1e6), (ends[1], second.name, 2e6), (ends[2] - 10, last.name, 3e6))
        + json.dumps({"step": ends[2] - 10, "stage": last.name, "curve/surprise": 1.0})
        + "\n",
        encoding="utf-8",
    )
    found = marks(tmp_path, STAGES)
    samples = [(mark.step - before.step) * last.batch_size for before, mark in zip(found, found[1:], strict=False)]
    assert [mark.step for mark in found] == [0, ends[0], ends[1], ends[2] - 10]
    assert found[-1].operations == sum(n * 1e6 * k for n, k in zip(samples, (1, 2, 3), strict=True))
    assert found[-1].seconds == pytest.approx(sum(samples) / 8)
    with pytest.raises(ValueError, match=rf"operations up to step {ends[2] - 10} of {ends[2]}; run the task again"):
        whole(tmp_path, STAGES)
