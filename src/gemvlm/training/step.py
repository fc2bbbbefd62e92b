"""One update of the weights, shared by all processes: the same as one process would make of all their samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gemvlm.batch import Batch
from gemvlm.data.collate import keyed
from gemvlm.model.learner import Learner
from gemvlm.runtime import Runtime
from gemvlm.training.checkpoint import ALONE
from gemvlm.training.optimizer import GroupOptimizer
from gemvlm.training.parallel import Processes
from gemvlm.training.share import Share, filling, learnable, supervised, with_filler
from gemvlm.training.stage import Stage


@dataclass(frozen=True)
class Outcome:
    """The losses over the samples of all processes, each module group's gradient norm before clipping, and whether all
    of them are finite; if not, the weights are as before. Without anything to learn both are empty."""

    losses: Mapping[str, float]
    norms: Mapping[str, float]
    finite: bool


def train_step(
    model: Learner,
    stage: Stage,
    batches: Sequence[Batch],
    optimizer: GroupOptimizer,
    stage_step: int,
    runtime: Runtime,
    processes: Processes = ALONE,
    seed: int = 0,
) -> Outcome:
    """One update from this process's micro `batches`. Every process calls it with equally many.

    Torch's own random stream, which a module may draw dropout from, begins anew in each step, from (seed, stage, step,
    rank): a resumed run goes on exactly, without having to store it.
    """
    torch.manual_seed(keyed("step", seed, stage.name, stage_step, runtime.rank))
    optimizer.set_factor(stage.schedule.factor(stage_step, stage.steps))
    losses = {name: torch.zeros((), device=runtime.device) for name in stage.loss_weights}
    shares, present = _shares(model, stage, batches, processes)
    for share in shares:
        _learn(model, stage, share, losses, runtime, processes.world)
    if not present:
        return Outcome({}, {}, finite=True)
    norms = dict(zip(optimizer.groups, torch.stack(list(optimizer.clip().values())).tolist(), strict=True))
    sums = processes.sum(torch.stack([losses[name] for name in present]).tolist())
    found = dict(zip(present, sums, strict=True))
    finite = all(math.isfinite(value) for value in (*found.values(), *norms.values()))
    if finite:
        optimizer.step()
    else:
        optimizer.drop()
    return Outcome(found, norms, finite)


def _shares(
    model: Learner, stage: Stage, batches: Sequence[Batch], processes: Processes
) -> tuple[list[Share], tuple[str, ...]]:
    """What this process computes, leaving out the micro batches that no process learns from; the losses there are."""
    names = tuple(stage.loss_weights)
    batches = [learnable(batch) for batch in batches]
    ours = [supervised(batch, names) for batch in batches]
    sums = iter(processes.sum([float(counts[name]) for counts in ours for name in names]))
    everyones = [{name: next(sums) for name in names} for _ in batches]
    totals = {name: sum(counts[name] for counts in everyones) for name in names}
    shares = []
    for batch, own, all_of_it in zip(batches, ours, everyones, strict=True):
        if not any(all_of_it.values()):
            continue
        missing = filling(own, all_of_it)
        read = batch if missing is None else with_filler(batch, model, missing)
        shares.append(Share(read, {name: own[name] / totals[name] for name in names if totals[name]}))
    return shares, tuple(name for name in names if totals[name])


def _learn(model: Learner, stage: Stage, share: Share, sums: dict[str, Tensor], runtime: Runtime, world: int) -> None:
    """Adds a micro batch's part to the gradients and to the step's losses."""
    with runtime.autocast():
        losses = model(share.batch.to(runtime.device), losses=tuple(stage.loss_weights))
    total = torch.zeros((), device=runtime.device)
    for name, loss in losses.items():
        part = loss.float() * share.weights[name]
        if share.weights[name]:
            sums[name] += part.detach()
        total = total + stage.loss_weights[name] * part
    if total.requires_grad:
        (total * world).backward()  # the processes' gradients are averaged, the parts are to be summed
