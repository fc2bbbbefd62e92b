"""What finished arms have spent, as their own logs counted it, and what trained in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemvlm.experiments.arm import get_arm, recipe_of
from gemvlm.experiments.execute import is_done
from gemvlm.experiments.experiment import Experiment, Task
from gemvlm.experiments.run_log import marks
from gemvlm.training.budget import Budget

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
        tasks = [task for seed in experiment.seeds_of(arm) if is_done(task := Task(arm, seed), experiment, out)]
        recipe = recipe_of(get_arm(arm), experiment.base, experiment.seeds[0])
        ends = [marks(task.folder(out), recipe.stages)[-1] for task in tasks]
        runs = [(end.step, end.operations, end.seconds) for end in ends if end.operations]
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
