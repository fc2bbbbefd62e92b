"""What an experiment takes, before it starts: trainings, steps, operations, hours, and seeds to see a difference by."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from gemvlm.experiments.analysis import primary_items, table
from gemvlm.experiments.arm import get_arm, recipe_of
from gemvlm.experiments.execute import is_finished
from gemvlm.experiments.experiment import Experiment, Task
from gemvlm.experiments.measure import ItemScore, read_scores
from gemvlm.experiments.power import advice, scatter_of
from gemvlm.model.config import GemConfig
from gemvlm.recipes.plan import GIB, memory_of, sample_load
from gemvlm.recipes.recipe import Recipe
from gemvlm.training.budget import Budget
from gemvlm.training.gpus import ASSUMED_UTILISATION, RESERVED, find_gpu
from gemvlm.training.metrics import read_metrics

GPU = "h100-80gb"
DETECT = 0.02
"""A difference worth finding: two points, about the paper's."""


@dataclass(frozen=True)
class Cost:
    """Of one kind of training: how many there are, the steps and operations of each, and the most memory, in bytes."""

    name: str
    count: int
    steps: int
    operations: float
    memory: float


def planned(experiment: Experiment) -> list[Cost]:
    """Each kind of training, from sizes alone: stage 0, the pilot's, and every arm's."""
    costs, base = [], experiment.base
    seeds = len(experiment.seeds) + len(experiment.more_seeds)
    piloted = len(experiment.rates) > 1
    if experiment.pretrains:
        costs.append(_cost("stage 0", replace(base, stages=base.stages[:1]), seeds + piloted))
    arms = {
        arm: _cost(arm, recipe_of(get_arm(arm), base, experiment.seeds[0]), len(experiment.seeds_of(arm)))
        for arm in experiment.arms
    }
    if piloted:
        tried = len(experiment.rates)
        costs += [replace(arms[arm], name=f"pilot of {arm}", count=tried) for arm in experiment.tuned]
    for arm, cost in arms.items():
        if get_arm(arm).matching == "compute" and "depth" in arms:
            goal = arms["depth"].operations
            cost = replace(cost, steps=round(cost.steps * goal / cost.operations), operations=goal)
        costs.append(cost)
    return costs


def _cost(name: str, recipe: Recipe, count: int) -> Cost:
    budget = _budget(json.dumps(recipe.model.to_dict(), sort_keys=True))
    work = 0.0
    for stage in recipe.stages:
        each = budget.operations(stage, sample_load(recipe, stage, budget.factor))
        work += sum(each.values()) * stage.batch_size * stage.steps
    memory = max(memory_of(recipe, stage, budget).total for stage in recipe.stages)
    return Cost(name, count, sum(stage.steps for stage in recipe.stages), work, memory)


@cache
def _budget(model: str) -> Budget:
    """Arms share their models: of the paper's size one takes seconds to lay out."""
    return Budget(GemConfig.from_dict(json.loads(model)))


def budget_table(experiment: Experiment, gpu: str | None = None) -> str:
    """A line for each kind of training, and their sum, in hours of one GPU of that name."""
    chosen = find_gpu(gpu or GPU)
    rate = chosen.peak_tera * 1e12 * ASSUMED_UTILISATION
    costs = planned(experiment)
    width = max(len(cost.name) for cost in costs) + 2
    lines = [f"{'training':{width}}{'runs':>6}{'steps':>9}{'operations':>13}{'GPU-hours':>12}{'GiB':>8}"]
    total_work, total_steps = 0.0, 0
    for cost in costs:
        hours = cost.operations / rate / 3600
        fits = cost.memory <= chosen.memory_gib * GIB * (1 - RESERVED)
        lines.append(
            f"{cost.name:{width}}{cost.count:>6}{cost.steps:>9,}{cost.operations:>13.2e}{hours:>12.3g}"
            f"{cost.memory / GIB:>8.1f}{'' if fits else '  does not fit'}"
        )
        total_work, total_steps = total_work + cost.count * cost.operations, total_steps + cost.count * cost.steps
    runs, hours = sum(cost.count for cost in costs), total_work / rate / 3600
    lines.append(f"{'all':{width}}{runs:>6}{total_steps:>9,}{total_work:>13.2e}{hours:>12.3g}")
    lines.append(
        f"Steps and operations of one training; hours of one {chosen.name} at {ASSUMED_UTILISATION:.0%} of its peak, "
        "computed from sizes, not measured; answering and probing are not counted."
    )
    return "\n".join(lines)


def cost(experiment: Experiment, out: Path) -> str:
    """What is to be done, in trainings, steps and hours; the hours are those of this machine, from the runs so far."""
    tasks = list(experiment.tasks())
    left = [task for task in tasks if not is_finished(task, experiment, out)]
    measured = [
        speed
        for task in tasks
        if (speed := _seconds_per_step(task.folder(out), experiment.base.stages[-1].batch_size)) is not None
    ]
    steps = sum(_steps(task, experiment) for task in left)
    words = f"experiment {experiment.name}: {len(tasks)} trainings, {len(left)} to do, {steps} steps"
    if not measured:
        return f"{budget_table(experiment)}\n{words}; how long they take here is known once the first has logged some"
    hours = steps * float(np.median(measured)) / 3600
    return f"{words}, about {hours:.1f} hours of this machine, one after another ({np.median(measured):.2f} s a step)"


def _steps(task: Task, experiment: Experiment) -> int:
    if task.arm is None:
        return experiment.base.stages[0].steps
    return sum(stage.steps for stage in recipe_of(get_arm(task.arm), experiment.base, task.seed).stages)


def _seconds_per_step(folder: Path, batch_size: int) -> float | None:
    """Of a run that has begun, by its log; None without one."""
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if line.get("samples_per_s")]
    return float(np.median([batch_size / line["samples_per_s"] for line in lines])) if lines else None


def seeds_advice(experiment: Experiment, out: Path, wanted: float = DETECT) -> str:
    """How many seeds the primary gap needs, from what its finished seeds answered of the development questions."""
    contrast, chosen = experiment.contrasts[0], primary_items(experiment)
    scores: dict[str, dict[int, list[ItemScore]]] = {}
    files = experiment.files(out, "development.jsonl")
    for arm in (contrast.arm, contrast.control):
        scores[arm] = {seed: read_scores(path) for seed, path in files.get(arm, {}).items()}
    seeds = sorted(set(scores[contrast.arm]) & set(scores[contrast.control]))
    if len(seeds) < 2 or not any(chosen(item) for item in scores[contrast.arm][seeds[0]]):
        return (
            f"How many seeds show {100 * wanted:.1f} points is known once two seeds of {contrast.arm} and "
            f"{contrast.control} have answered the development questions"
        )
    first, scenes = table(scores[contrast.arm], seeds, chosen, lambda item: item.score)
    second, _ = table(scores[contrast.control], seeds, chosen, lambda item: item.score)
    scatter = scatter_of(first, second, scenes).of_scenes(experiment.tests[0].scenes / experiment.development.scenes)
    return f"{contrast.arm} - {contrast.control}: {advice(scatter, wanted, len(experiment.contrasts))}."
