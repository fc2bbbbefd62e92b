"""The same arms at the paper's size, from published Qwen3-VL-2B, SANA 1.5 and DC-AE: one command for any lab.

    gemvlm experiment verdict_2b --plan                                   # trainings, operations, GPU-hours
    gemvlm experiment verdict_2b --out out/verdict-2b                     # scenes of its own, weights from the hub
    gemvlm experiment verdict_2b --out out/verdict-2b --data sets/mine --start qwen=FOLDER --start sana=FOLDER

There is no stage 0: published parts know neither our scenes nor depth pictures. A set of `gemvlm curate` may take the
place of the own scenes, if it has the families of `FAMILY_WEIGHTS`; latents that `gemvlm encode` puts beside either are
read (those of frames whose depth an arm alters are encoded anew). Rates, losses and which modules learn are the
paper's; numbers of steps and samples are ours, for a budget of days instead of months. The own scenes, 8,000 pictures
that stage 3 sees 32 times, are held in memory, about 11 GB for each training at once; a set of 100,000 is better.

Nobody has run this at its size: it is dry-run with tiny tensors in the published layout, and its hours are planned.
"""

from __future__ import annotations

from dataclasses import replace

from gemvlm.experiments.experiment import Contrast, TestSet
from gemvlm.experiments.verdict import ALL_FAMILIES, CONTRASTS, VERDICT_NANO
from gemvlm.recipes.gem_2b import GEM_2B
from gemvlm.recipes.recipe import DEVELOPMENT_SEED, TEST_SEED, Recipe, TabletopData
from gemvlm.recipes.small import FAMILY_WEIGHTS, LESSONS
from gemvlm.training.stage import Schedule, Stage

SAMPLES_PER_STEP, AT_ONCE = 64, 16
"""Of one image each; so many are computed at once."""
STEPS = (300, 1500, 4000)
"""Of stages 1 to 3."""
SIDE = 448
"""Of pictures, in pixels: the long side that the published rule paints at."""


def _in_samples(stage: Stage, steps: int) -> Stage:
    """`stage` in steps of samples instead of packs, which targets would fill and so change what arms see."""
    schedule = Schedule(
        warmup=round(stage.schedule.warmup * steps / stage.steps) or 1,
        shape=stage.schedule.shape,
        final=stage.schedule.final,
        hold=stage.schedule.hold,
    )
    return replace(stage, steps=steps, batch_size=SAMPLES_PER_STEP, at_once=AT_ONCE, budget=None, schedule=schedule)


def _base() -> Recipe:
    connector, generator, everything = map(_in_samples, GEM_2B.stages, STEPS)
    families = {name: weight for name, weight in FAMILY_WEIGHTS.items() if name not in ALL_FAMILIES["untaught"]}
    asked = replace(everything, turns_per_sample=8, families=families)
    return replace(
        GEM_2B,
        name="verdict_2b",
        data=TabletopData(scenes=4_000, views_per_scene=2, size=(SIDE, SIDE), turns_per_family=2, families=LESSONS),
        stages=(connector, generator, asked),
        epochs=None,
    )


VERDICT_2B = replace(
    VERDICT_NANO,
    name="verdict_2b",
    base=_base(),
    arms=("text", "depth", "depth_direct", "shuffled", "rgb", "regression", "depth_as_text", "detached", "text_long"),
    contrasts=(
        *CONTRASTS,
        Contrast("depth", "text_long", "Generating depth helps at equal compute"),
        Contrast("depth", "depth_as_text", "Painting depth helps more than telling it"),
        Contrast("depth", "depth_direct", "The progression helps"),
    ),
    **ALL_FAMILIES,
    development=TestSet("in_distribution", 60, 40, DEVELOPMENT_SEED + 10_000),
    tests=(TestSet("in_distribution", 300, 200, TEST_SEED), TestSet("new_textures", 150, 100, TEST_SEED)),
    curve_every=500,
)
