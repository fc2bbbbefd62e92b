"""What finished arms have spent, as their own logs counted it, and what trained in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemvlm.experiments.arm import get_arm, recipe_of
from gemvlm.experiments.execute import OPERATIONS, is_done
from gemvlm.experiments.experiment import Experiment, Task
from gemvlm.training.budget import Budget
from gemvlm.training.metrics import read_metrics
from gemvlm.training.stage import Stage

DEPLOYED = ("vision", "merger", "language")
"""What is left when the supervision is dropped."""


@dataclass(frozen=True)
class Spent:
    """Means over the finished seeds of an arm. `trained` and `deployed` count parameters; seconds are wall time.

    The wall time is that of the training steps with the looks in between, on whatever ran them and beside whatever else
    ran there; stage 0 and the answers at the end are not in it.
    """

    seeds: int
    steps: int
    operations: float
    seconds: float
    trained: int
    deployed: int


def spent(experiment: Experiment, out: Path) -> dict[str, Spent]:
    """Arm → what it has spent, of the arms that have a finished seed. Steps are those that its log has."""
    found = {}
    for arm in experiment.arms:
        tasks = [task for seed in experiment.seeds if is_done(task := Task(arm, seed), experiment, out)]
        recipe = recipe_of(get_arm(arm), experiment.base, experiment.seeds[0])
        runs = [run for task in tasks if (run := of_log(task.folder(out) / "metrics.jsonl", recipe.stages))]
        if runs:
            groups = Budget(recipe.model).groups
            learning = {group for stage in recipe.stages for group in stage.learning_rates}
            steps, operations, seconds = np.mean(runs, axis=0).tolist()
            found[arm] = Spent(
                len(runs),
                round(steps),
                operations,
                seconds,
                sum(groups[group] for group in learning),
                sum(groups[group] for group in DEPLOYED),
            )
    return found


def of_log(path: Path, stages: Sequence[Stage]) -> tuple[int, float, float] | None:
    """(steps, operations, seconds) of a log; None of an empty one, or of one that counts no operations."""
    batch = {stage.name: stage.batch_size for stage in stages}
    step, work, seconds = 0, 0.0, 0.0
    for line in read_metrics(path):
        if line["stage"] in batch and OPERATIONS in line:
            samples = (line["step"] - step) * batch[line["stage"]]
            work, seconds = work + line[OPERATIONS] * samples, seconds + samples / line["samples_per_s"]
            step = line["step"]
    return (step, work, seconds) if work else None
