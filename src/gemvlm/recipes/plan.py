"""`gemvlm train RECIPE --plan`: what a training takes, from sizes alone; nothing is loaded, and no data are read.

How large samples are is assumed, and said; the model of costs is `training/budget.py`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from gemvlm.depth_map import target_size
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import target_kind
from gemvlm.recipes.recipe import Recipe, TabletopData
from gemvlm.recipes.vla import VlaRecipe
from gemvlm.robot.embodiments import open_embodiment
from gemvlm.runtime import Runtime
from gemvlm.training.budget import Budget, Load, Memory
from gemvlm.training.gpus import ASSUMED_UTILISATION, GPUS, RESERVED, Gpu, find_gpu
from gemvlm.training.parallel import Sharding
from gemvlm.training.policy_budget import PolicyBudget
from gemvlm.training.stage import Stage

PICTURE = (480, 640)
"""Height and width in pixels of the one image that a sample of a curated set is assumed to have."""
TURNS = 4
"""Questions of such a sample."""
TURN_TOKENS, ANSWER_TOKENS, FRAME_TOKENS = 32, 10, 12
"""Tokens of a question with its answer and its markup, of the answer alone, and of the markup around an image."""
GPUS_PER_MACHINE = 8
"""For a plan of weights that are shared within a machine."""
GIB = 2**30


def budget_of(recipe: Recipe) -> Budget:
    """The costs of a recipe's model."""
    if isinstance(recipe, VlaRecipe):
        return PolicyBudget(recipe.policy(recipe.expert.state, recipe.expert.action), recipe.model)
    return Budget(recipe.model)


def moment_load(recipe: VlaRecipe, stage: Stage, factor: int) -> Load:
    """What one assumed moment of an episode is for a stage: every camera's picture, and what the robot is told."""
    cameras = len(open_embodiment(recipe.embodiment).contract.cameras)
    one = sample_load(replace(recipe, data=TabletopData(1, 1, PICTURE, 0)), replace(stage, turns_per_sample=0), factor)
    tokens = cameras * (one.conditions[0] if one.conditions else one.tokens - FRAME_TOKENS) + FRAME_TOKENS + TURN_TOKENS
    return Load((tokens,), one.images * cameras, 0, one.latents * cameras, one.conditions * cameras)


def sample_load(recipe: Recipe, stage: Stage, factor: int) -> Load:
    """What one assumed sample is for a stage."""
    if isinstance(recipe, VlaRecipe) and recipe.data is None:
        return moment_load(recipe, stage, factor)
    height, width = PICTURE if recipe.data is None else recipe.data.size
    grid = recipe.image.grid(height, width)
    seen = recipe.image.tokens(grid)
    turns = min(stage.turns_per_sample, TURNS if recipe.data is None else stage.turns_per_sample)
    painted = recipe.target or target_size(height, width)
    cells = (painted[0] // factor, painted[1] // factor)
    painted_kinds = {target_kind(name) for name in stage.loss_weights}
    targets = sum(kind in painted_kinds for kind in stage.targets)
    return Load(
        rows=(seen + FRAME_TOKENS + turns * TURN_TOKENS,),
        images=(math.prod(grid),),
        supervised=turns * ANSWER_TOKENS if "text" in stage.loss_weights else 0,
        latents=(cells,) * targets,
        conditions=(seen,) * targets,
    )


def micro_load(recipe: Recipe, stage: Stage, factor: int, processes: int) -> Load:
    """What one process computes at once: its share of the step's samples, or a pack as full as its budget allows."""
    sample = sample_load(recipe, stage, factor)
    if stage.budget is None:
        return sample.times(stage.micro_size(processes))
    budget = stage.budget
    fits = min(budget.tokens // sample.tokens, budget.patches // sum(sample.images))
    return sample.times(max(1, min(fits, budget.targets // max(1, len(sample.latents)))))


def memory_of(
    recipe: Recipe,
    stage: Stage,
    budget: Budget,
    processes: int = 1,
    sharding: Sharding | None = None,
    on_cpu: bool = False,
    local: int | None = None,
) -> Memory:
    """Bytes of one process at the fullest moment of a step of a stage; `local` of the processes share a machine."""
    local = min(processes, GPUS_PER_MACHINE) if local is None else local
    shards = (sharding or Sharding()).mesh(processes, local)[1]
    return budget.memory(
        stage,
        micro_load(recipe, stage, budget.factor, processes),
        recipe.precision,
        shards=shards,
        micro_batches=stage.micro_batches(processes),
        recompute=stage.recompute,
        on_cpu=on_cpu,
    )


def show_plan(
    recipe: Recipe, console: Console, gpu: str | None = None, gpus: int = 1, sharding: Sharding | None = None
) -> None:
    """Prints parameters, what learns, operations, memory by part on each GPU, and the time of a step and a stage."""
    if gpus < 1:
        raise ValueError(f"--gpus {gpus}: a plan is for at least one")
    chosen = list(GPUS.values()) if gpu is None else [find_gpu(gpu)]
    budget = budget_of(recipe)
    console.print(f"[bold]{recipe.name}[/bold] on {gpus} GPU{'s' * (gpus > 1)}: a plan, computed from sizes")
    console.print(_parameters(recipe, budget))
    loads = {stage.name: micro_load(recipe, stage, budget.factor, gpus) for stage in recipe.stages}
    works = {stage.name: budget.operations(stage, loads[stage.name]) for stage in recipe.stages}
    console.print(_stages(recipe, works, loads, gpus))
    memories = {stage.name: memory_of(recipe, stage, budget, gpus, sharding) for stage in recipe.stages}
    console.print(_memory(memories))
    console.print(_times(recipe, works, memories, chosen, gpus))
    height, width = PICTURE if recipe.data is None else recipe.data.size
    turns = f"{TURNS} questions" if recipe.data is None else "as many questions as a stage shows,"
    shown = f"samples of one {width} x {height} image and {turns} of {TURN_TOKENS} tokens, a target for each"
    if isinstance(recipe, VlaRecipe):
        shown = f"moments of one {width} x {height} image from each camera and {TURN_TOKENS} tokens of instruction"
    console.print(
        f"Assumed: {shown}; {ASSUMED_UTILISATION:.0%} of the peak of bfloat16 products; "
        f"{RESERVED:.0%} of a GPU's memory for the driver and fragments. Planned, not measured: docs/training.md."
    )


def _parameters(recipe: Recipe, budget: Budget) -> Table:
    table = Table("module", "parameters", title="Parameters")
    for group, count in budget.groups.items():
        if not count:
            continue
        table.add_row(group, f"{count / 1e6:,.1f} M")
    table.add_row("all", f"{sum(budget.groups.values()) / 1e6:,.1f} M")
    return table


def _stages(recipe: Recipe, works: Mapping[str, Mapping[str, float]], loads: Mapping[str, Load], gpus: int) -> Table:
    table = Table("stage", "learns", "steps", "tokens/step", "operations/step", title="Stages")
    for stage in recipe.stages:
        micro = stage.micro_batches(gpus) * gpus
        table.add_row(
            stage.name,
            ", ".join(stage.learning_rates),
            f"{stage.steps:,}" + ("*" if recipe.epochs is not None and stage is recipe.stages[-1] else ""),
            f"{loads[stage.name].tokens * micro:,}",
            f"{sum(works[stage.name].values()) * micro / 1e12:,.2f} T",
        )
    if recipe.epochs is not None:
        table.caption = f"* for the paper's set; {recipe.epochs:g} epoch of the run's own set is counted when it starts"
    return table


def _memory(memories: Mapping[str, Memory]) -> Table:
    large = max(memory.total for memory in memories.values()) >= GIB
    unit, name = (GIB, "GiB") if large else (2**20, "MiB")
    table = Table(f"{name} on each GPU", *memories, title="Memory at a step's fullest moment")
    for part in vars(next(iter(memories.values()))):
        table.add_row(part, *(f"{getattr(memory, part) / unit:,.2f}" for memory in memories.values()))
    table.add_row("all", *(f"{memory.total / unit:,.2f}" for memory in memories.values()), style="bold")
    return table


def _times(
    recipe: Recipe,
    works: Mapping[str, Mapping[str, float]],
    memories: Mapping[str, Memory],
    chosen: list[Gpu],
    gpus: int,
) -> Table:
    table = Table("seconds/step", *memories, "all stages", title="Expected time")
    for gpu in chosen:
        cells, total = [], 0.0
        for stage in recipe.stages:
            seconds = sum(works[stage.name].values()) * stage.micro_batches(gpus)
            seconds /= gpu.peak_tera * 1e12 * ASSUMED_UTILISATION
            fits = memories[stage.name].total <= gpu.memory_gib * GIB * (1 - RESERVED)
            cells.append(f"{seconds:.3g}" if fits else "does not fit")
            total += seconds * stage.steps if fits else math.nan
        table.add_row(gpu.name, *cells, f"{total / 3600:,.3g} h" if total == total else "–")
    return table


def check_memory(recipe: Recipe, model: GemConfig, runtime: Runtime, sharding: Sharding | None = None) -> None:
    """ValueError if a stage is planned to take more memory than this process has, with what to change."""
    budget, on_cpu = Budget(model), runtime.device.type == "cpu"
    for stage in recipe.stages:
        memory = memory_of(recipe, stage, budget, runtime.world, sharding, on_cpu, runtime.local_world)
        check_fits(memory, stage, recipe.name, runtime)


def check_fits(memory: Memory, stage: Stage, recipe: str, runtime: Runtime) -> None:
    """ValueError if a stage's memory is more than this process has, with what to change."""
    there = _available(runtime)
    if there is None or memory.total <= there:
        return
    largest = sorted(vars(memory), key=lambda part: -getattr(memory, part))[:3]
    parts = ", ".join(f"{part} {getattr(memory, part) / GIB:.1f}" for part in largest)
    raise ValueError(
        f"stage {stage.name!r} of {recipe} is planned to take {memory.total / GIB:.1f} GiB on each of "
        f"{runtime.world} processes ({parts}), {runtime.device} has {there / GIB:.1f}: share the weights among "
        "more processes, lower the stage's batch_size or budget, or take a smaller recipe; see --plan"
    )


def _available(runtime: Runtime) -> float | None:
    """Bytes that this process may still take; None where nobody says."""
    if runtime.device.type == "cuda":
        return torch.cuda.mem_get_info(runtime.device)[0] * 1.0
    if runtime.device.type == "cpu" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / runtime.local_world
    return None
