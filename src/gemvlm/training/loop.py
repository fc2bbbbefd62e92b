"""The one training loop: it asks a model for its named losses on a batch, and knows nothing of what they mean."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gemvlm.batch import Batch
from gemvlm.model.card import CheckpointCard
from gemvlm.model.gem import Gem
from gemvlm.runtime import Runtime, get_log, versions
from gemvlm.training.checkpoint import RunState, latest_checkpoint, prune, read_state, restore, save_checkpoint
from gemvlm.training.metrics import MetricsLog
from gemvlm.training.optimizer import GroupOptimizer
from gemvlm.training.stage import Stage

FINAL = "final"
"""Folder of the finished model inside a run's."""

StreamFactory = Callable[[Stage, int], Iterator[Batch]]
"""(stage, steps of it already done) → its batches from there on, the same whatever came before."""

Callback = Callable[[Gem, Stage, RunState], None]
"""Called every `Run.callback_every` steps and at the end of each stage; previews and evaluations come in this way."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Where a training writes and how often (in steps of a stage). `minutes`, if given, ends it early, resumable."""

    folder: Path
    log_every: int = 20
    checkpoint_every: int = 500
    callback_every: int = 500
    keep: int = 2
    minutes: float | None = None
    show_progress: bool = True


def train(
    gem: Gem,
    stages: Sequence[Stage],
    streams: StreamFactory,
    tokenizer: PreTrainedTokenizerBase,
    card: CheckpointCard,
    run: Run,
    runtime: Runtime,
    callbacks: Sequence[Callback] = (),
) -> bool:
    """Train through the stages, from the newest checkpoint in `run.folder` if there is one.

    Returns True when all stages are done, False when `run.minutes` ended the run before; calling again continues it,
    with the same numbers as if it had never stopped. The finished model lies in `run.folder / "final"`.
    """
    if runtime.world > 1:
        raise ValueError(
            f"{runtime.world} processes: this loop trains on one; unset WORLD_SIZE or start a single process"
        )
    gem.to(runtime.device)
    deadline = None if run.minutes is None else time.monotonic() + 60 * run.minutes
    newest = latest_checkpoint(run.folder)
    state = _continued(read_state(newest), stages, newest) if newest else RunState(stage=0, stage_step=0, step=0)
    if newest is not None and state.stage >= len(stages):
        restore(newest, gem, None)
        if (run.folder / FINAL).is_dir():
            return True
    metrics = MetricsLog(run.folder, resumed_step=state.step)
    trained: set[str] = set()
    try:
        for index, stage in enumerate(stages):
            trained |= set(stage.learning_rates)
            if index < state.stage:
                continue
            optimizer = GroupOptimizer(gem, stage)
            if newest is not None:
                restore(newest, gem, optimizer if state.stage_step > 0 else None)
                get_log().info("resumed %s at stage %s, step %d", run.folder, stage.name, state.stage_step)
                newest = None
            stage_card = dataclasses.replace(
                card, stage=stage.name, trained_groups=tuple(sorted(trained)), versions=versions()
            )
            state = _train_stage(
                gem, stage, streams, tokenizer, stage_card, optimizer, state, run, runtime, metrics, callbacks, deadline
            )
            if state.stage == index:
                return False
        final_card = dataclasses.replace(
            card, stage="final", step=state.step, trained_groups=tuple(sorted(trained)), versions=versions()
        )
        save_checkpoint(run.folder / FINAL, gem, tokenizer, final_card)
        return True
    finally:
        metrics.close()


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
    return RunState(state.stage + 1, 0, state.step)


def _train_stage(
    gem: Gem,
    stage: Stage,
    streams: StreamFactory,
    tokenizer: PreTrainedTokenizerBase,
    card: CheckpointCard,
    optimizer: GroupOptimizer,
    state: RunState,
    run: Run,
    runtime: Runtime,
    metrics: MetricsLog,
    callbacks: Sequence[Callback],
    deadline: float | None,
) -> RunState:
    gem.train()
    batches = streams(stage, state.stage_step)
    meter = _Meter(state.unlogged)
    with _progress(stage, state.stage_step, run.show_progress) as advance:
        while state.stage_step < stage.steps:
            batch = next(batches)
            losses, norms = train_step(gem, stage, batch, optimizer, state.stage_step, runtime)
            state = RunState(state.stage, state.stage_step + 1, state.step + 1)
            meter.add(batch, losses, norms)
            done = state.stage_step == stage.steps
            late = deadline is not None and time.monotonic() > deadline
            saved = done or late or state.stage_step % run.checkpoint_every == 0
            logged = done or state.stage_step % run.log_every == 0
            if logged or saved:
                _refuse_nan(meter.means(), stage, state, batch)
            if logged:
                values = meter.means() | meter.rates()
                meter = _Meter()
                factor = stage.schedule.factor(state.stage_step - 1, stage.steps)
                metrics.write(state.step, stage.name, values | {"lr_factor": factor})
                advance(state.stage_step, values)
            if done or state.stage_step % run.callback_every == 0:
                for callback in callbacks:
                    callback(gem, stage, state)
                gem.train()
            if done:
                state = RunState(state.stage + 1, 0, state.step)
            if saved:
                save_checkpoint(
                    run.folder / f"step-{state.step}",
                    gem,
                    tokenizer,
                    dataclasses.replace(card, step=state.step),
                    optimizer=None if done else optimizer,
                    state=dataclasses.replace(state, unlogged=meter.totals()),
                )
                prune(run.folder, run.keep)
            if done or late:
                break
    return state


def train_step(
    gem: Gem, stage: Stage, batch: Batch, optimizer: GroupOptimizer, stage_step: int, runtime: Runtime
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One update; returns the named losses and each module group's gradient norm before clipping, unsynchronised."""
    optimizer.set_factor(stage.schedule.factor(stage_step, stage.steps))
    with runtime.autocast():
        losses = gem(batch.to(runtime.device), losses=tuple(stage.loss_weights))
    total = sum(
        (stage.loss_weights[name] * loss.float() for name, loss in losses.items()),
        torch.zeros((), device=runtime.device),
    )
    if total.requires_grad:
        total.backward()
    norms = optimizer.clip()
    optimizer.step()
    return {name: loss.detach() for name, loss in losses.items()}, norms


class _Meter:
    """Losses and norms since the last logged step, and rates; nothing waits for the device until it is read."""

    def __init__(self, totals: Mapping[str, tuple[float, int]] | None = None) -> None:
        totals = totals or {}
        self.sums = {name: torch.tensor(total) for name, (total, _) in totals.items()}
        self.counts = {name: count for name, (_, count) in totals.items()}
        self.images = self.tokens = 0
        self.since = time.perf_counter()

    def add(self, batch: Batch, losses: Mapping[str, Tensor], norms: Mapping[str, Tensor]) -> None:
        named = {f"loss/{k}": v for k, v in losses.items()} | {f"grad_norm/{k}": v for k, v in norms.items()}
        for name, value in named.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=value.device)) + value.detach()
            self.counts[name] = self.counts.get(name, 0) + 1
        self.images += len(batch.image_grid_thw)
        self.tokens += len(batch.input_ids)

    def totals(self) -> dict[str, tuple[float, int]]:
        """(sum, count) of each number: what a resumed run begins with."""
        return {name: (float(total), self.counts[name]) for name, total in self.sums.items()}

    def means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.totals().items()}

    def rates(self) -> dict[str, float]:
        seconds = time.perf_counter() - self.since
        return {"images_per_s": self.images / seconds, "tokens_per_s": self.tokens / seconds}


def _refuse_nan(values: Mapping[str, float], stage: Stage, state: RunState, batch: Batch) -> None:
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise FloatingPointError(
            f"stage {stage.name!r}, step {state.stage_step}: {', '.join(bad)} became NaN or infinite; last samples "
            f"{batch.sample_ids[:4]}; lower the learning rate, or resume from an earlier checkpoint"
        )


class _progress:  # noqa: N801
    """A progress bar with the current losses, or nothing."""

    def __init__(self, stage: Stage, done: int, show: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            disable=not show,
        )
        self.task = self.bar.add_task(stage.name, total=stage.steps, completed=done, losses="")

    def __enter__(self) -> Callable[[int, Mapping[str, float]], None]:
        self.bar.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def _advance(self, step: int, values: Mapping[str, float]) -> None:
        losses = "  ".join(f"{k.removeprefix('loss/')} {v:.3f}" for k, v in values.items() if k.startswith("loss/"))
        self.bar.update(self.task, completed=step, losses=losses)
