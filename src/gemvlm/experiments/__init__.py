"""Arms x seeds of trainings, compared: experiments that settle a claim instead of repeating it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemvlm.experiments.experiment import Experiment

if TYPE_CHECKING:
    from gemvlm.experiments.actions import ActionExperiment


def names() -> list[str]:
    """The experiments there are."""
    return sorted(_all())


def get(name: str) -> Experiment | ActionExperiment:
    """The experiment of that name, or an error that lists what there is."""
    experiments = _all()
    if name not in experiments:
        raise ValueError(f"unknown experiment {name!r}; there are {', '.join(sorted(experiments))}")
    return experiments[name]


def _all() -> dict[str, Experiment | ActionExperiment]:
    from gemvlm.experiments.actions import ACTIONS_NANO
    from gemvlm.experiments.verdict import ABLATION_NANO, VERDICT_DEBUG, VERDICT_NANO
    from gemvlm.experiments.verdict_2b import VERDICT_2B

    every = (VERDICT_DEBUG, VERDICT_NANO, ABLATION_NANO, VERDICT_2B, ACTIONS_NANO)
    return {experiment.name: experiment for experiment in every}
