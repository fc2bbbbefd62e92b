"""Trains and measures one task of an experiment; what is done is found again.

OUT/experiment.json   which set the arms learn from
OUT/data              the training samples, shared          OUT/tests/SET        the held-out questions
OUT/taught            the same with a teacher's depth       OUT/tests/looks      scenes to be looked at
OUT/seed-S/stage-0    trained once for each seed            OUT/seed-S/ARM       one run folder of each arm
OUT/pilot/ARM-xRATE   learning rates tried                  .../SET.jsonl        one line for each question
OUT/start             the given weights, where there are    .../probe.json, forgetting.json   see those files
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemvlm.evaluation.answer_files import held
from gemvlm.experiments.altered import Altered
from gemvlm.experiments.arm import get_arm, recipe_of
from gemvlm.experiments.experiment import START, Experiment, Task, TestSet
from gemvlm.experiments.forgetting import FORGETTING, write_forgetting
from gemvlm.experiments.measure import measure, read_scores, surprise, test_samples, write_scores
from gemvlm.experiments.mechanism import BASELINES, PROBE, look_samples, write_baselines, write_probe
from gemvlm.experiments.processes import Work
from gemvlm.experiments.run_log import whole
from gemvlm.experiments.shared import NOTHING, Given, learned_from, place_of
from gemvlm.inference import load
from gemvlm.inference.pipeline import GemPipeline
from gemvlm.model.card import CheckpointCard
from gemvlm.model.gem import Gem
from gemvlm.recipes.callbacks import Callback
from gemvlm.recipes.recipe import Recipe, Start
from gemvlm.recipes.run import card_of, train_recipe
from gemvlm.recipes.start import find_start
from gemvlm.runtime import default_device, deterministic
from gemvlm.sample import Sample
from gemvlm.training.checkpoint import RunState, save_checkpoint
from gemvlm.training.loop import FINAL, Run
from gemvlm.training.stage import Stage

CURVE_QUESTIONS = 256
RUNNING = "running"
"""Held by the process that carries a task out."""


def is_done(task: Task, experiment: Experiment, out: Path) -> bool:
    """Whether it is trained and has answered: what other tasks stand on."""
    folder = task.folder(out)
    if task.arm is None:
        return (folder / FINAL).is_dir()
    return all(
        (folder / f"{place_of(test, experiment, out).name}.jsonl").is_file() for test in tests_of(task, experiment)
    )


def is_finished(task: Task, experiment: Experiment, out: Path) -> bool:
    """Whether it is done and was looked into; a pilot need not be."""
    looked = all((task.folder(out) / name).is_file() for name in (PROBE, FORGETTING))
    return is_done(task, experiment, out) and (looked or task.seed == experiment.pilot_seed)


def is_ready(task: Task, experiment: Experiment, out: Path) -> bool:
    """Whether what the task stands on is done: its seed's stage 0, the pilot, and the runs that set its length."""
    if task.arm is None:
        return True
    needs = [Task(None, task.seed)] if experiment.pretrains else []
    if task.rate is None and len(experiment.rates) > 1:
        needs += [Task(arm, experiment.pilot_seed, rate) for arm in experiment.tuned for rate in experiment.rates]
    if get_arm(task.arm).matching == "compute":
        needs += [Task(arm, experiment.seeds[0]) for arm in ("text", "depth")]
    return all(is_done(need, experiment, out) for need in needs)


def work_of(experiment: Experiment, out: Path) -> Work[Task]:
    """All of it, for `processes.carry_all_out`."""
    return Work(
        list(experiment.tasks()),
        lambda task: is_finished(task, experiment, out),
        lambda task: is_ready(task, experiment, out),
    )


def tests_of(task: Task, experiment: Experiment) -> tuple[TestSet, ...]:
    """A pilot sees development questions alone."""
    return (experiment.development,) if task.rate is not None else (experiment.development, *experiment.tests)


def carry_out(
    task: Task,
    experiment: Experiment,
    out: Path,
    device: str | None = None,
    minutes: float | None = None,
    given: Given = NOTHING,
) -> bool:
    """One task, from where it stopped; False if `minutes` ended it before its end. ValueError if another does it."""
    task.folder(out).mkdir(parents=True, exist_ok=True)
    with held(task.folder(out) / RUNNING):
        if not is_done(task, experiment, out) and not _train(task, experiment, out, device, minutes, given):
            return False
        if not is_finished(task, experiment, out):
            look_into(task, experiment, out, device, given)
        return True


def _train(
    task: Task, experiment: Experiment, out: Path, device: str | None, minutes: float | None, given: Given
) -> bool:
    folder, base = task.folder(out), experiment.base
    data = learned_from(task, out, given)
    if task.arm is None:
        recipe = replace(base, name=f"{base.name}-stage-0", stages=base.stages[:1], seed=task.seed)
        run = Run(folder, minutes=minutes, show_progress=False, callback_every=10**9)
        return train_recipe(recipe, folder, data, device, run)
    arm = get_arm(task.arm)
    rate = task.rate if task.rate is not None else chosen_rates(experiment, out)[task.arm]
    stretch = 1.0 if arm.matching == "steps" else stretched(experiment, out)
    recipe = recipe_of(arm, base, task.seed, rate, stretch)
    origin = [str(Task(None, task.seed).folder(out) / FINAL)] if experiment.pretrains else list(given.start)
    samples = test_samples(experiment.development, base, place_of(experiment.development, experiment, out))
    run = Run(folder, minutes=minutes, show_progress=False, callback_every=experiment.curve_every)
    done = train_recipe(
        recipe,
        folder,
        data,
        device,
        run,
        begin_of(recipe, base, origin, folder / START),
        altered=lambda reader: Altered(reader, arm.alteration, task.seed),
        callbacks=lambda tokenizer, card: [curve(samples, tokenizer, card)],
    )
    if done:
        pipeline = load(folder / FINAL, device)
        for test in tests_of(task, experiment):
            place = place_of(test, experiment, out)
            write_scores(measure(pipeline, test_samples(test, base, place)), folder / f"{place.name}.jsonl")
    return done


def look_into(task: Task, experiment: Experiment, out: Path, device: str | None = None, given: Given = NOTHING) -> None:
    """Probes what a finished task holds and measures what it has not forgotten; what is there already is kept.

    The first to be looked into brings the baselines of the probe and the given weights with it.
    """
    pipeline, samples = load(task.folder(out) / FINAL, device), look_samples(experiment, out)
    _look(pipeline, samples, experiment, task.folder(out))
    if not (out / BASELINES).is_file():
        write_baselines(pipeline, samples, out / BASELINES)
    if not experiment.pretrains and not all((out / START / name).is_file() for name in (PROBE, FORGETTING)):
        base = experiment.base
        begun = find_start(base, (base.start or Start()).given(given.start))
        gem = begun.load(begun.model, base.seed).to(default_device(device)).eval()
        (out / START).mkdir(exist_ok=True)
        _look(GemPipeline(gem, begun.tokenizer, card_of(base, begun.model)), samples, experiment, out / START)


def _look(pipeline: GemPipeline, samples: Sequence[Sample], experiment: Experiment, folder: Path) -> None:
    if not (folder / PROBE).is_file():
        write_probe(pipeline, samples, folder / PROBE)
    if not (folder / FORGETTING).is_file():
        write_forgetting(pipeline, samples, not experiment.pretrains, folder / FORGETTING)


def begin_of(recipe: Recipe, base: Recipe, origin: Sequence[str], folder: Path) -> list[str]:
    """The start of an arm, as words: `origin`, or a checkpoint in `folder` with its backbone and a fresh generator.

    The latter where the arm's generator is of another kind than the base's, or its encoding another.
    """
    same_kind = recipe.model.generator["kind"] == base.model.generator["kind"]
    if same_kind and recipe.model.encoding == base.model.encoding:
        return list(origin)
    if not folder.is_dir():
        begun = find_start(base, (base.start or Start()).given(origin))
        there = begun.load(begun.model, recipe.seed)
        model = replace(recipe.model, backbone=begun.model.backbone, latents=begun.model.latents)
        with deterministic(recipe.seed):
            gem = Gem(model)
        gem.backbone.load_state_dict(there.backbone.state_dict())
        gem.supervision.latents.load_state_dict(there.supervision.latents.state_dict())
        if same_kind:
            gem.supervision.load_state_dict(there.supervision.state_dict())
        save_checkpoint(folder, gem, begun.tokenizer, card_of(recipe, model))
    return [str(folder)]


def curve(samples: Sequence[Sample], tokenizer, card: CheckpointCard) -> Callback:
    """Logs how surprised the model is by held-out answers as it learns: `curve/surprise`, in nats per token."""
    questions = [replace(sample, turns=(turn,)) for sample in samples for turn in sample.turns]
    step = max(1, len(questions) // CURVE_QUESTIONS)

    def look(gem: Gem, stage: Stage, state: RunState) -> Mapping[str, float]:
        return {"curve/surprise": float(surprise(gem, questions[::step], tokenizer, card).mean())}

    return look


def chosen_rates(experiment: Experiment, out: Path) -> dict[str, float]:
    """The learning-rate factor of each arm: its own best on development questions, else that of its like.

    Arms that paint take that of `depth`, the others that of `text`; where that was not tuned, the first tuned one's.

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
    return {arm: best.get(arm, best.get(_tuned_like(arm), fallback)) for arm in experiment.arms}


def _tuned_like(arm: str) -> str:
    """Arms whose backbone hears a generator learn as `depth` does, the others as `text`."""
    chosen = get_arm(arm)
    return "text" if chosen.target is None or chosen.detached else "depth"


def stretched(experiment: Experiment, out: Path) -> float:
    """How many times the steps of `text` cost the operations of all stages of `depth`, as their runs counted them."""
    spent = {}
    for name in ("text", "depth"):
        stages = recipe_of(get_arm(name), experiment.base, experiment.seeds[0]).stages
        spent[name] = whole(Task(name, experiment.seeds[0]).folder(out), stages).operations
    return spent["depth"] / spent["text"]
