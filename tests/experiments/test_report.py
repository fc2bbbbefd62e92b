"""What the page says before everything is finished, and when the harness itself can't be trusted; what runs spent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gemvlm.experiments import get
from gemvlm.experiments.arm import get_arm, recipe_of
from gemvlm.experiments.experiment import Task
from gemvlm.experiments.measure import ItemScore, write_scores
from gemvlm.experiments.plan import planned
from gemvlm.experiments.report import write_report
from gemvlm.experiments.run_log import LOG_FILE, marks, whole

EXPERIMENT = get("verdict_nano")
STAGES = recipe_of(get_arm("depth"), EXPERIMENT.base, 0).stages


def answers(seed: int, rate: float) -> list[ItemScore]:
    """Of forty scenes, each with a question of each family; `rate` of them are right."""
    luck = np.random.default_rng((3, seed)).random((40, len(EXPERIMENT.primary)))
    return [
        ItemScore(f"{scene}/{place}", str(scene), family, True, float(luck[scene, place] < rate), 1.0)
        for scene in range(40)
        for place, family in enumerate(EXPERIMENT.primary)
    ]


def verdict_of(out: Path, scores: Mapping[str, Mapping[int, list[ItemScore]]]) -> str:
    """What the page concludes."""
    for arm, by_seed in scores.items():
        for seed, items in by_seed.items():
            folder = Task(arm, seed).folder(out)
            folder.mkdir(parents=True)
            write_scores(items, folder / "in_distribution.jsonl")
    write_report(EXPERIMENT, out)
    return json.loads((out / "results.json").read_text(encoding="utf-8"))["verdict"]


@pytest.fixture
def scores() -> dict[str, dict[int, list[ItemScore]]]:
    rates = {"text": 0.65, "detached": 0.65, "depth": 0.85}
    return {arm: {seed: answers(seed, rate) for seed in (0, 1)} for arm, rate in rates.items()}


def test_an_unfinished_experiment_calls_its_verdict_preliminary(tmp_path: Path, scores: dict) -> None:
    assert verdict_of(tmp_path, scores).startswith("Preliminary, 2 of 3 seeds: ")


def test_a_detached_arm_that_answers_otherwise_ends_every_verdict(tmp_path: Path, scores: dict) -> None:
    items = scores["detached"][1]
    items[5] = replace(items[5], score=1.0 - items[5].score)
    said = verdict_of(tmp_path, scores)
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
    samples = [(mark.step - before.step) * last.batch_size for before, mark in pairwise(found)]
    assert [mark.step for mark in found] == [0, ends[0], ends[1], ends[2] - 10]
    assert found[-1].operations == sum(n * 1e6 * k for n, k in zip(samples, (1, 2, 3), strict=True))
    assert found[-1].seconds == pytest.approx(sum(samples) / 8)
    with pytest.raises(ValueError, match=rf"operations up to step {ends[2] - 10} of {ends[2]}; run the task again"):
        whole(tmp_path, STAGES)


def test_seeds_are_added_to_the_primary_pair_alone_and_both_results_are_told(tmp_path: Path, scores: dict) -> None:
    more = EXPERIMENT.with_more_seeds(2)
    before, after = ({task.name for task in experiment.tasks()} for experiment in (EXPERIMENT, more))
    assert after - before == {f"seed-{seed}/{name}" for seed in (3, 4) for name in ("stage-0", "text", "depth")}
    costs = {cost.name: cost.count for cost in planned(more)}
    assert (costs["stage 0"], costs["text"], costs["depth"], costs["rgb"]) == (6, 5, 5, 3)

    first = verdict_of(tmp_path, scores)
    added = {arm: {seed: answers(seed, rate) for seed in (3, 4)} for arm, rate in (("text", 0.65), ("depth", 0.85))}
    assert verdict_of(tmp_path, added) == first  # who asks for none is told of none
    page = write_report(more, tmp_path).read_text(encoding="utf-8")
    told = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert told["planned_seeds"] == first != told["verdict"]
    assert told["verdict"].startswith("Preliminary, 4 of 5 seeds: ") and "Of the planned seeds alone" in page
