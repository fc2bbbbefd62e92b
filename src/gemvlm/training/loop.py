"""The one training loop: it asks a model for its named losses on a batch, and knows nothing of what they mean."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from transformers import PreTrainedTokenizerBase

from gemvlm.batch import Batch
from gemvlm.model.card import CheckpointCard
from gemvlm.model.learner import Learner
from gemvlm.runtime import Runtime, get_log, versions
from gemvlm.training.average import Average
from gemvlm.training.checkpoint import (
    DiskFullError,
    Identity,
    RunState,
    latest_checkpoint,
    prune,
    read_state,
    restore,
    save_checkpoint,
)
from gemvlm.training.lora import add_lora, merge_lora
from gemvlm.training.metrics import Meter, MetricsLog, Speedometer, StepBar, named, rates
from gemvlm.training.optimizer import GroupOptimizer
from gemvlm.training.parallel import Processes, Sharding, local
from gemvlm.training.signals import SIGNALS, Stopped, StopRequest
from gemvlm.training.stage import Stage
from gemvlm.training.step import Outcome, train_step

FINAL = "final"
"""Folder of the finished model inside a run's."""

NONFINITE = "nonfinite.jsonl"
"""Steps that were left out because a loss or a gradient was no number, with the ids of their samples."""


@runtime_checkable
class Stream(Protocol):
    """One process's batches without end. Its state counts what all processes have read, and is the same on each."""

    def __next__(self) -> Batch: ...

    def state(self) -> Sequence[Any]:
        """Numbers and words that JSON can hold."""
        ...

    def resume(self, state: Sequence[Any]) -> None:
        """Goes on where `state`, as JSON gives it back, was taken. ValueError for a state of other data."""
        ...


StreamFactory = Callable[[Stage], Stream]
"""The batches of a stage from its begin; see `Stage.micro_size` for how many samples a batch has."""

M = TypeVar("M", bound=Learner)

Callback = Callable[[M, Stage, RunState], Mapping[str, float] | None]
"""Called every `Run.callback_every` steps and at the end of each stage; previews and evaluations come in this way.

Every process calls it, as they may need each other to run the model. The numbers it returns are logged.
"""


@dataclasses.dataclass(frozen=True)
class Run:
    """Where a training writes and how often (in steps of a stage). `minutes`, if given, ends it early, resumable.

    `facts` must be the same on every process and whenever the run goes on: the recipe, the seed, the data's hash.
    `seed` is that of the modules' own randomness. After more than `most_skipped` steps whose losses or gradients were
    no numbers the run stops. `trackers` are names that `MetricsLog` knows. `operations` counts the useful ones of a
    batch in a stage and `peak` is what a process's device could do in a second; with them its utilisation is logged.
    """

    folder: Path
    log_every: int = 20
    checkpoint_every: int = 500
    callback_every: int = 500
    keep: int = 2
    minutes: float | None = None
    show_progress: bool = True
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seed: int = 0
    most_skipped: int = 20
    trackers: tuple[str, ...] = ()
    operations: Callable[[Stage, Batch], float] | None = None
    peak: float = 0.0


def train(
    model: M,
    stages: Sequence[Stage],
    streams: StreamFactory,
    tokenizer: PreTrainedTokenizerBase,
    card: CheckpointCard,
    run: Run,
    runtime: Runtime,
    callbacks: Sequence[Callback[M]] = (),
    sharding: Sharding | None = None,
) -> bool:
    """Train through the stages, from the newest checkpoint in `run.folder` if there is one.

    Returns True when all stages are done, False when `run.minutes` ended the run before; calling again continues it,
    with the same numbers as if it had never stopped, on any number of processes. SIGTERM or SIGINT end it after a
    checkpoint too, by `Stopped`. The finished model lies in `run.folder / "final"`. Every process calls this with the
    same whole model; where there are several, `sharding` says how its weights lie on them.
    """
    with Processes(runtime, sharding).joined() as processes, StopRequest() as stop:
        return _Training(model, stages, streams, tokenizer, card, run, runtime, callbacks, processes, stop).all()


class _Training:
    """What stays the same through the stages of one run."""

    def __init__(
        self,
        model: Learner,
        stages: Sequence[Stage],
        streams: StreamFactory,
        tokenizer: PreTrainedTokenizerBase,
        card: CheckpointCard,
        run: Run,
        runtime: Runtime,
        callbacks: Sequence[Callback[Any]],
        processes: Processes,
        stop: StopRequest,
    ):
        self.model, self.stages, self.streams, self.tokenizer, self.card = model, stages, streams, tokenizer, card
        self.run, self.runtime, self.callbacks, self.processes, self.stop = run, runtime, callbacks, processes, stop
        self.identity = Identity.of(run.facts, card, stages)
        self.deadline = None if run.minutes is None else time.monotonic() + 60 * run.minutes
        self.metrics: MetricsLog | None = None

    def all(self) -> bool:
        """`train`."""
        for stage in self.stages:
            stage.micro_size(self.processes.world)
            if stage.lora is not None and self.processes.world > 1:
                raise ValueError(
                    f"stage {stage.name!r}: adapters learn on one process, here are {self.processes.world}; start one, "
                    "or take the recipe without adapters"
                )
        newest = latest_checkpoint(self.run.folder)
        self._agree(newest)
        state = RunState(stage=0, stage_step=0, step=0)
        if newest is not None:
            found, identity = read_state(newest)
            self.identity.refuse_unless_equal(identity, found.stage, newest)
            state = _continued(found, self.stages, newest)
        self.processes.spread(self.model)
        if newest is not None and state.stage >= len(self.stages):
            restore(newest, self.model, None)
            if (self.run.folder / FINAL).is_dir():
                return True
        with ExitStack() as stack:
            if self.processes.is_main:
                self.metrics = MetricsLog(self.run.folder, state.step, self.run.trackers)
                stack.callback(self.metrics.close)
            for index in range(state.stage, len(self.stages)):
                state = self._stage(index, state, newest)
                newest = None
                if state.stage == index:
                    return False
            self._save(self.run.folder / FINAL, self._card("final", state.step, len(self.stages)))
        return True

    def _agree(self, newest: Path | None) -> None:
        """ValueError unless every process is about to do the same."""
        facts = {name: str(value) for name, value in self.run.facts.items()}
        facts |= {"stages": json.dumps([str(stage) for stage in self.stages])}
        facts |= {"the model": json.dumps(self.card.model.to_dict(), sort_keys=True)}
        facts |= {"the newest checkpoint": str(newest), "torch's version": torch.__version__}
        self.processes.agree(facts)

    def _card(self, name: str, step: int, stages: int) -> CheckpointCard:
        """The card of a checkpoint in, or at the end of, the first `stages` stages."""
        trained = sorted({group for stage in self.stages[:stages] for group in stage.learning_rates})
        return dataclasses.replace(self.card, stage=name, step=step, trained_groups=tuple(trained), versions=versions())

    def _stage(self, index: int, state: RunState, newest: Path | None) -> RunState:
        """Trains stage `index` on from `state`, which is that of checkpoint `newest` if one is given."""
        stage, run = self.stages[index], self.run
        if stage.lora is not None:
            add_lora(self.model, stage.lora, run.seed)
        self.model.checkpoint_activations(stage.recompute)
        optimizer = GroupOptimizer(self.model, stage)
        average = Average(optimizer.parameters(), stage.ema) if stage.ema else None
        if newest is not None:
            begun = state.stage_step > 0
            restore(newest, self.model, optimizer if begun else None, average if begun else None)
            if average is not None and not begun:
                average = Average(optimizer.parameters(), average.decay)
            get_log().info("resumed %s at stage %s, step %d", run.folder, stage.name, state.stage_step)
        stream = self.streams(stage)
        if state.stream is not None:
            stream.resume(state.stream)
        self.model.train()
        meter = Meter(state.unlogged)
        speed = Speedometer(run.operations and partial(run.operations, stage), run.peak)
        with StepBar(stage, state.stage_step, run.show_progress and self.processes.is_main) as advance:
            while True:
                batches = [next(stream) for _ in range(stage.micro_batches(self.processes.world))]
                outcome = train_step(
                    self.model, stage, batches, optimizer, state.stage_step, self.runtime, self.processes, run.seed
                )
                state = dataclasses.replace(
                    state,
                    stage_step=state.stage_step + 1,
                    step=state.step + 1,
                    stream=list(stream.state()),
                    skipped=state.skipped + (not outcome.finite),
                )
                speed.add(batches)
                if outcome.finite:
                    meter.add(outcome)
                    if average is not None:
                        average.update(state.stage_step - 1)
                else:
                    self._note_skipped(stage, state, batches, outcome)
                done = state.stage_step == stage.steps
                number, late = self._wish_to_stop()
                ends = done or late or number > 0
                if done or state.stage_step % run.log_every == 0:
                    values = meter.means() | speed.rates(self.processes.world)
                    meter = Meter()
                    self._log(stage, state, values | rates(stage, state) | {"skipped": float(state.skipped)})
                    advance(state.stage_step, values)
                if done:
                    if average is not None:
                        average.take_over()
                    merge_lora(self.model)
                if done or state.stage_step % run.callback_every == 0:
                    self._call_back(stage, state)
                if done:
                    state = RunState(state.stage + 1, 0, state.step, skipped=state.skipped)
                if ends or state.stage_step % run.checkpoint_every == 0:
                    state = dataclasses.replace(state, unlogged=meter.totals())
                    self._save_state(stage, index, state, None if done else optimizer, average, must=ends)
                if number:
                    get_log().info(
                        "%s ended the run after step %d, which is saved; resumed, it goes on from there",
                        NAMES[number],
                        state.step,
                    )
                    raise Stopped(number)
                if ends:
                    return state

    def _wish_to_stop(self) -> tuple[int, bool]:
        """(a signal that any process got or 0, whether time is up), the same on every process."""
        late = self.deadline is not None and time.monotonic() > self.deadline
        told = self.processes.sum([*(float(self.stop.signal == number) for number in SIGNALS), float(late)])
        return next((int(number) for number, count in zip(SIGNALS, told, strict=False) if count), 0), told[-1] > 0

    def _log(self, stage: Stage, state: RunState, values: Mapping[str, float]) -> None:
        if self.metrics is not None and values:
            self.metrics.write(state.step, stage.name, values)

    def _call_back(self, stage: Stage, state: RunState) -> None:
        for callback in self.callbacks:
            with self.processes.whole(self.model):
                found = callback(self.model, stage, state)
            self._log(stage, state, found or {})
        self.model.train()

    def _note_skipped(self, stage: Stage, state: RunState, batches: Sequence[Batch], outcome: Outcome) -> None:
        """Writes what was skipped and on which samples. FloatingPointError when it was too often."""
        ours = [sample for batch in batches for sample in batch.sample_ids]
        samples = [sample for text in self.processes.texts(json.dumps(ours)) for sample in json.loads(text)]
        values = named(outcome)
        bad = [name for name, value in values.items() if not abs(value) < float("inf")]
        path = self.run.folder / NONFINITE
        if self.processes.is_main:
            before = [line for line in _lines(path) if line["step"] < state.step]
            line = {"step": state.step, "stage": stage.name, "bad": bad, "samples": samples}
            path.write_text("".join(json.dumps(one) + "\n" for one in [*before, line]), encoding="utf-8")
        told = f"stage {stage.name!r}, step {state.stage_step}: {', '.join(bad)} NaN or infinite; the step was left out"
        get_log().warning("%s (%d so far); samples %s", told, state.skipped, samples[:4])
        if state.skipped > self.run.most_skipped:
            raise FloatingPointError(
                f"{told}, as {state.skipped - 1} before it, more than {self.run.most_skipped}; last samples "
                f"{samples[:4]}, all of them in {path}: look at these, lower the learning rate, or resume from an "
                "earlier checkpoint"
            )

    def _save_state(
        self,
        stage: Stage,
        index: int,
        state: RunState,
        optimizer: GroupOptimizer | None,
        average: Average | None,
        must: bool,
    ) -> None:
        """A resumable checkpoint. Where the disk is full the run goes on without, unless it `must` end now.

        FloatingPointError if a weight is no number: the checkpoint before is worth more.
        """
        sums = torch.stack([local(parameter.detach()).sum() for parameter in self.model.parameters()])
        if self.processes.sum([float(not bool(sums.isfinite().all()))])[0]:
            raise FloatingPointError(
                f"stage {stage.name!r}, step {state.step} of the run: weights became NaN or infinite and are not "
                "saved; lower the learning rate and start again from the checkpoint before, or from an earlier one"
            )
        folder = self.run.folder / f"step-{state.step}"
        options = {"optimizer": optimizer, "average": average if optimizer else None, "state": state}
        try:
            self._save(folder, self._card(stage.name, state.step, index + 1), **options, identity=self.identity)
        except DiskFullError as error:
            if must:
                raise
            get_log().error("%s; the training goes on, and tries again at its next checkpoint", error)
            return
        if self.processes.is_main:
            prune(self.run.folder, self.run.keep)

    def _save(self, folder: Path, card: CheckpointCard, **options: Any) -> None:
        save_checkpoint(folder, self.model, self.tokenizer, card, processes=self.processes, **options)


NAMES = {int(number): number.name for number in SIGNALS}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _continued(state: RunState, stages: Sequence[Stage], folder: Path) -> RunState:
    """Where to go on: a stage may have been shortened to the steps it has done, but not below them."""
    if state.stage >= len(stages) or state.stage_step < stages[state.stage].steps:
        return state
    stage = stages[state.stage]
    if state.stage_step > stage.steps:
        raise ValueError(
            f"{folder}: {state.stage_step} steps of stage {stage.name!r} are done, the recipe has {stage.steps}; "
            "remove the later checkpoints, restore the recipe, or train into another folder"
        )
    if stage.lora is not None or stage.ema is not None:
        raise ValueError(
            f"{folder}: stage {stage.name!r} was shortened to the {stage.steps} steps that are done, but its adapters "
            f"or averages become weights after its last step only; give it {stage.steps + 1} steps or more"
        )
    return RunState(state.stage + 1, 0, state.step, skipped=state.skipped)
