"""Trains and plays one policy of an experiment on actions; what is done is found again.

OUT is the folder of a verdict, whose finished arms are begun with.

OUT/actions/demonstrations/part-N   recorded once, for all      OUT/actions/seed-S/ARM-N          a run folder
                                                                OUT/actions/seed-S/ARM-N/played   its episodes
"""

from __future__ import annotations

from pathlib import Path

from gemvlm.evaluation.answer_files import held
from gemvlm.evaluation.rollout.episode import EPISODES
from gemvlm.evaluation.rollout.run import Player, run_rollout
from gemvlm.experiments.actions import PART, PLACE, ActionExperiment, ActionTask
from gemvlm.experiments.execute import RUNNING
from gemvlm.experiments.experiment import Task
from gemvlm.experiments.processes import Work
from gemvlm.inference.policy import load_policy
from gemvlm.recipes.record_worlds import Recording, record_worlds
from gemvlm.recipes.vla_evaluate import Scored, about_policy, blind_players
from gemvlm.recipes.vla_run import train_policy
from gemvlm.robot.embodiments import open_embodiment
from gemvlm.runtime import available_cores
from gemvlm.training.loop import FINAL, Run
from gemvlm.worlds.open_world import WorldMaker

PLAYED = "played"
LANES = 8
APART = 20
"""Starts between the first ones of two parts: room for those that an expert fails."""
NOISE = 0.2
"""Of what the experts' hands do, so that a policy sees how to come back."""


def prepare(experiment: ActionExperiment, out: Path) -> None:
    """Records what is not there yet. ValueError if an arm that policies begin with is not finished."""
    begun = {experiment.arm(arm).begins_with for arm in experiment.trained}
    missing = [t.name for arm in sorted(begun) for s in experiment.seeds if not _is_trained(t := Task(arm, s), out)]
    if missing:
        raise ValueError(
            f"{out}: {', '.join(missing)} not finished; policies begin there, so run `gemvlm experiment "
            f"{experiment.verdict} --out {out}` first"
        )
    for number, folder in enumerate(_parts(experiment, out)):
        if not folder.is_dir():
            recording = Recording(experiment.worlds, PART, NOISE, seed=number * APART)
            record_worlds(folder, _maker(experiment), recording, available_cores())


def work_of(experiment: ActionExperiment, out: Path) -> Work[ActionTask]:
    """All of it, for `processes.carry_all_out`. What every policy stands on is there once it is prepared."""
    return Work(list(experiment.tasks()), lambda task: is_finished(task, out), lambda task: True)


def is_finished(task: ActionTask, out: Path) -> bool:
    return (task.folder(out) / PLAYED / EPISODES).is_file()


def carry_out(
    task: ActionTask,
    experiment: ActionExperiment,
    out: Path,
    device: str | None = None,
    minutes: float | None = None,
) -> bool:
    """One task, from where it stopped; False if `minutes` ended its training early."""
    folder = task.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / RUNNING):
        return _carry_out(task, experiment, out, device, minutes)


def _carry_out(
    task: ActionTask, experiment: ActionExperiment, out: Path, device: str | None, minutes: float | None
) -> bool:
    folder = task.folder(out)
    shown = [_parts(experiment, out)[number] for number in experiment.parts_of(task)]
    if task.arm in experiment.blind:
        contract = open_embodiment(experiment.recipe.embodiment).contract
        player = {one.name: one for one in blind_players(shown, contract, experiment.recipe.expert.horizon)}[task.arm]
    else:
        start = str(Task(experiment.arm(task.arm).begins_with, task.seed).folder(out) / FINAL)
        run = Run(folder, minutes=minutes, show_progress=False, callback_every=10**9)
        if not train_policy(experiment.recipe_of(task), folder, shown, device=device, run=run, start=[start]):
            return False
        policy = load_policy(folder / FINAL, device)
        player = Player(task.arm, policy, about_policy(policy.card, folder / FINAL))
    make = _maker(experiment)
    protocol = Scored(experiment.worlds, experiment.trials).protocol(experiment.recipe.executed, make.turn)
    return run_rollout(protocol, player, make, folder / PLAYED, lanes=LANES)


def _is_trained(task: Task, out: Path) -> bool:
    return (task.folder(out) / FINAL).is_dir()


def _parts(experiment: ActionExperiment, out: Path) -> list[Path]:
    return [out / PLACE / "demonstrations" / f"part-{number}" for number in range(experiment.recorded // PART)]


def _maker(experiment: ActionExperiment) -> WorldMaker:
    target = experiment.recipe.target
    assert target is not None
    return WorldMaker(target[0])
