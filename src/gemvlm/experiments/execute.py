"""Trains and measures the tasks of an experiment: what is done is found again, and several run at once.

OUT/data              the training samples, shared          OUT/tests/SET        the held-out questions
OUT/seed-S/stage-0    trained once for each seed            OUT/seed-S/ARM       one run folder of each arm
OUT/pilot/ARM-xRATE   learning rates tried                  .../SET.jsonl        one line for each question
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemvlm.data.tokenizer import load_tokenizer
from gemvlm.experiments.altered import Altered
from gemvlm.experiments.arm import get_arm, recipe_of
from gemvlm.experiments.experiment import Experiment, Task, TestSet
from gemvlm.experiments.measure import measure, read_scores, surprise, test_samples, write_scores
from gemvlm.inference import load
from gemvlm.model.card import CheckpointCard
from gemvlm.model.gem import Gem
from gemvlm.recipes.callbacks import Callback
from gemvlm.recipes.data import make_data
from gemvlm.recipes.recipe import Recipe
from gemvlm.recipes.run import card_of, train_recipe
from gemvlm.runtime import deterministic, get_log
from gemvlm.sample import Sample
from gemvlm.training.checkpoint import RunState, save_checkpoint
from gemvlm.training.loop import FINAL, Run
from gemvlm.training.metrics import read_metrics
from gemvlm.training.stage import Stage

CURVE_QUESTIONS = 256
OPERATIONS = "operations_per_sample"


def prepare(experiment: Experiment, out: Path) -> None:
    """What all tasks share: training scenes and held-out questions, made once."""
    assert experiment.base.data is not None
    make_data(experiment.base.data, out / "data")
    for test in (experiment.development, *experiment.tests):
        test_samples(test, experiment.base, place_of(test, experiment, out))


def place_of(test: TestSet, experiment: Experiment, out: Path) -> Path:
    which = "development" if test is experiment.development else test.name
    return out / "tests" / which


def is_done(task: Task, experiment: Experiment, out: Path) -> bool:
    folder = task.folder(out)
    if task.arm is None:
        return (folder / FINAL).is_dir()
    return all(
        (folder / f"{place_of(test, experiment, out).name}.jsonl").is_file() for test in tests_of(task, experiment)
    )


def tests_of(task: Task, experiment: Experiment) -> tuple[TestSet, ...]:
    """A pilot sees development questions alone."""
    return (experiment.development,) if task.rate is not None else (experiment.development, *experiment.tests)


def carry_out(
    task: Task, experiment: Experiment, out: Path, device: str | None = None, minutes: float | None = None
) -> bool:
    """One task, from where it stopped; False if `minutes` ended it before its end."""
    folder = task.folder(out)
    base = experiment.base
    if task.arm is None:
        recipe = replace(base, name=f"{base.name}-stage-0", stages=base.stages[:1], seed=task.seed)
        run = Run(folder, minutes=minutes, show_progress=False, callback_every=10**9)
        return train_recipe(recipe, folder, out / "data", device, run)
    arm = get_arm(task.arm)
    rate = task.rate if task.rate is not None else chosen_rates(experiment, out)[task.arm]
    stretch = 1.0 if arm.matching == "steps" else stretched(experiment, out)
    recipe = recipe_of(arm, base, task.seed, rate, stretch)
    start = begin_of(recipe, Task(None, task.seed).folder(out) / FINAL, folder / "start")
    samples = test_samples(experiment.development, base, place_of(experiment.development, experiment, out))
    run = Run(folder, minutes=minutes, show_progress=False, callback_every=experiment.curve_every)
    done = train_recipe(
        recipe,
        folder,
        out / "data",
        device,
        run,
        [str(start)],
        altered=lambda reader: Altered(reader, arm.alteration, task.seed),
        callbacks=lambda tokenizer, card: [curve(samples, tokenizer, card)],
    )
    if done:
        pipeline = load(folder / FINAL, device)
        for test in tests_of(task, experiment):
            place = place_of(test, experiment, out)
            write_scores(measure(pipeline, test_samples(test, base, place)), folder / f"{place.name}.jsonl")
    return done


def begin_of(recipe: Recipe, stage_0: Path, folder: Path) -> Path:
    """The checkpoint that an arm starts from: stage 0's own, or its backbone with a fresh generator of another kind."""
    there = CheckpointCard.read(stage_0)
    if (
        there.model.generator["kind"] == recipe.model.generator["kind"]
        and there.model.encoding == recipe.model.encoding
    ):
        return stage_0
    if not folder.is_dir():
        model = replace(recipe.model, backbone=there.model.backbone)
        with deterministic(recipe.seed):
            gem = Gem(model)
        read = load(stage_0, "cpu")
        gem.backbone.load_state_dict(read.gem.backbone.state_dict())
        if there.model.generator["kind"] == model.generator["kind"]:
            gem.supervision.load_state_dict(read.gem.supervision.state_dict())
        save_checkpoint(folder, gem, load_tokenizer(stage_0), card_of(recipe, model))
    return folder


def curve(samples: Sequence[Sample], tokenizer, card: CheckpointCard) -> Callback:
    """Logs how surprised the model is by held-out answers as it learns: `curve/surprise`, in nats per token."""
    questions = [replace(sample, turns=(turn,)) for sample in samples for turn in sample.turns]
    step = max(1, len(questions) // CURVE_QUESTIONS)

    def look(gem: Gem, stage: Stage, state: RunState) -> Mapping[str, float]:
        return {"curve/surprise": float(surprise(gem, questions[::step], tokenizer, card).mean())}

    return look


def chosen_rates(experiment: Experiment, out: Path) -> dict[str, float]:
    """The learning-rate factor of each arm: its own best on development questions, else that of the arm it controls.

    An arm that is neither tuned nor in a contrast takes that of the first tuned one.

    ValueError if the pilot isn't finished.
    """
    best: dict[str, float] = {}
    for arm in experiment.tuned:
        if len(experiment.rates) == 1:
            best[arm] = experiment.rates[0]
            continue
        found = {}
        for rate in experiment.rates:
            path = Task(arm, experiment.pilot_seed, rate).folder(out) / "development.jsonl"
            if not path.is_file():
                raise ValueError(f"{path}: the pilot of {arm} is not finished; carry its tasks out first")
            found[rate] = float(np.mean([item.surprise for item in read_scores(path)]))
        best[arm] = min(found, key=lambda rate: found[rate])
    fallback = best[experiment.tuned[0]]
    controlled = {contrast.control: contrast.arm for contrast in experiment.contrasts}
    return {arm: best.get(arm, best.get(controlled.get(arm, ""), fallback)) for arm in experiment.arms}


def stretched(experiment: Experiment, out: Path) -> float:
    """How many times the steps of `text` cost the operations of all stages of `depth`, as their runs counted them."""
    spent = {}
    for name in ("text", "depth"):
        stages = recipe_of(get_arm(name), experiment.base, experiment.seeds[0]).stages
        spent[name] = operations(Task(name, experiment.seeds[0]).folder(out), stages)
    return spent["depth"] / spent["text"]


def operations(folder: Path, stages: Sequence[Stage]) -> float:
    """Floating-point operations of a finished run: each stage's logged mean for a sample, for all its samples."""
    lines = read_metrics(folder / "metrics.jsonl")
    total = 0.0
    for stage in stages:
        logged = [line[OPERATIONS] for line in lines if line["stage"] == stage.name and OPERATIONS in line]
        if not logged:
            raise ValueError(f"{folder}: the log counts no operations of stage {stage.name}; run the task again")
        total += float(np.mean(logged)) * stage.steps * stage.batch_size
    return total


def carry_all_out(
    experiment: Experiment,
    out: Path,
    *,
    jobs: int = 1,
    minutes: float | None = None,
    device: str | None = None,
) -> None:
    """All tasks that are not done, `jobs` at once in processes of their own, until `minutes` are over.

    A task that fails leaves its log and does not stop those that need it not.
    """
    prepare(experiment, out)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    waiting = list(experiment.tasks())
    running: dict[Task, subprocess.Popen[bytes]] = {}
    failed: set[Task] = set()
    while True:
        for task, process in list(running.items()):
            if process.poll() is not None:
                del running[task]
                if process.returncode:
                    failed.add(task)
                    get_log().error("%s failed; see %s", task.name, task.folder(out) / "log.txt")
        left = [t for t in waiting if t not in failed and t not in running and not is_done(t, experiment, out)]
        time_left = None if deadline is None else (deadline - time.monotonic()) / 60
        ready = [t for t in left if is_ready(t, experiment, out)] if time_left is None or time_left > 0 else []
        for task in ready[: jobs - len(running)]:
            running[task] = _start(task, experiment, out, device, time_left)
        if not running:
            return
        time.sleep(1)


def is_ready(task: Task, experiment: Experiment, out: Path) -> bool:
    """Whether what the task stands on is done: its seed's stage 0, the pilot, and the runs that set its length."""
    if task.arm is None:
        return True
    needs = [Task(None, task.seed)]
    if task.rate is None and len(experiment.rates) > 1:
        needs += [Task(arm, experiment.pilot_seed, rate) for arm in experiment.tuned for rate in experiment.rates]
    if get_arm(task.arm).matching == "compute":
        needs += [Task(arm, experiment.seeds[0]) for arm in ("text", "depth")]
    return all(is_done(need, experiment, out) for need in needs)


def _start(
    task: Task, experiment: Experiment, out: Path, device: str | None, minutes: float | None
) -> subprocess.Popen[bytes]:
    folder = task.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "gemvlm", "experiment", experiment.name, "--out", str(out), "--task", task.name]
    words += [] if device is None else ["--device", device]
    words += [] if minutes is None else ["--minutes", f"{minutes:.2f}"]
    get_log().info("%s begins", task.name)
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)


def cost(experiment: Experiment, out: Path) -> str:
    """What is to be done, in trainings, steps and hours; the hours are those of this machine, from the runs so far."""
    tasks = list(experiment.tasks())
    left = [task for task in tasks if not is_done(task, experiment, out)]
    measured = [
        speed
        for task in tasks
        if (speed := _seconds_per_step(task.folder(out), experiment.base.stages[-1].batch_size)) is not None
    ]
    steps = sum(_steps(task, experiment) for task in left)
    words = f"experiment {experiment.name}: {len(tasks)} trainings, {len(left)} to do, {steps} steps"
    if not measured:
        return f"{words}; how long they take is known once the first has logged some"
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
