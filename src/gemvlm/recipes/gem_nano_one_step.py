"""gem_nano_one_step, gem_nano_guided: nano's generator taught to paint in one pass, or in one branch with guidance.

    gemvlm train gem_nano_one_step --out out/nano_one_step        # from the shipped nano; minutes on a laptop
    gemvlm train gem_nano_guided --out out/nano_guided
    gemvlm depth out/nano_one_step/final desk.png --out depth     # whatever --steps and --guidance say

Only connector and generator learn, so answers stay nano's own, word for word. Every number is ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gemvlm.recipes.gem_nano import GEM_NANO
from gemvlm.recipes.recipe import Recipe, Start
from gemvlm.training.stage import OptimizerConfig, Schedule, Stage

STEPS, BATCH_SIZE, RATE = 400, 16, 3e-4
GUIDANCE = 2.0
"""Folded into the generator of `gem_nano_guided`."""


def repainted(recipe: Recipe, name: str, start: str, steps: int, **generator: Any) -> Recipe:
    """A variant that begins with the weights of `start` and changes how its generator paints.

    With `kind="sana_one_step"` no condition is dropped: there is no unconditional branch to learn.
    """
    stage = Stage(
        name=name,
        steps=steps,
        batch_size=BATCH_SIZE,
        learning_rates={"connector": RATE, "generator": RATE},
        loss_weights={"depth": 1.0},
        schedule=Schedule(warmup=min(20, steps // 4), shape="linear", final=0.05),
        optimizer=OptimizerConfig("adamw", betas=(0.9, 0.99), weight_decay=0.0),
        turns_per_sample=0,
        targets=("depth",),
    )
    dropout = 0.0 if generator["kind"] == "sana_one_step" else recipe.model.condition_dropout
    model = replace(recipe.model, generator={**recipe.model.generator, **generator}, condition_dropout=dropout)
    begin = Start(checkpoint=start, trained=("connector", "generator"))
    return replace(recipe, name=name, model=model, stages=(stage,), start=begin)


GEM_NANO_ONE_STEP = repainted(GEM_NANO, "gem_nano_one_step", "nano", STEPS, kind="sana_one_step")
GEM_NANO_GUIDED = repainted(GEM_NANO, "gem_nano_guided", "nano", STEPS, kind="sana_guided", guidance=GUIDANCE)
