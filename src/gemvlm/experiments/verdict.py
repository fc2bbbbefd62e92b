"""Does generating depth help? At the scale of a laptop, and by the same arms at any other.

    gemvlm experiment verdict_nano --out out/verdict --jobs 2          # resumes; docs/plan_verdict.md came first

In stage 0 nothing speaks of depth: descriptions in words, and a generator that learns to paint images by itself, as the
published Sana has. Every arm goes on from there with the questions of the last stage and its own target beside them.

The model and its scenes are as small as they are so that the control learns the primary questions within a thousand
steps and not to the end: an arm at chance or at the ceiling can show nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict

from gemvlm.data.conversation import CoordinateFormat
from gemvlm.experiments.arm import ARMS
from gemvlm.experiments.experiment import Contrast, Experiment, TestSet
from gemvlm.recipes.debug import DEBUG
from gemvlm.recipes.quickstart import QUICKSTART
from gemvlm.recipes.recipe import DEVELOPMENT_SEED, TEST_SEED, Recipe, TabletopData
from gemvlm.recipes.small import FAMILY_WEIGHTS, RGB_WEIGHT, small_backbone, small_generator, small_stages


class Families(TypedDict):
    """Groups of families that an experiment reports apart; those not in `untaught` are learned from.

    `taught` are those that are neither primary nor in another group.
    """

    primary: tuple[str, ...]
    taught: tuple[str, ...]
    untaught: tuple[str, ...]
    metric: tuple[str, ...]


def _families(
    primary: tuple[str, ...], learned: tuple[str, ...], untaught: tuple[str, ...], metric: tuple[str, ...]
) -> Families:
    taught = tuple(name for name in learned if name not in (*primary, *untaught, *metric, "describe"))
    return Families(primary=primary, taught=taught, untaught=untaught, metric=metric)


ALL_FAMILIES = _families(
    ("closer", "nearer_to", "larger", "left_right", "above_below"),
    tuple(FAMILY_WEIGHTS),
    ("perspective", "point_relation", "box"),
    ("object_depth", "distance"),
)
"""For models that can learn them all."""
NANO_WEIGHTS = {"describe": 2.0} | dict.fromkeys(
    ("object_at", "point", "left_right", "above_below", "closer", "object_depth"), 3.0
)
NANO_FAMILIES = _families(
    ("closer", "left_right", "above_below"),
    tuple(NANO_WEIGHTS),
    ("nearest_of", "nearer_to", "larger"),
    ("object_depth",),
)
CONTRASTS = (
    Contrast("depth", "text", "Generating depth helps"),
    Contrast("depth", "shuffled", "It is the depth of this scene that helps"),
    Contrast("depth", "rgb", "Depth helps more than painting the image"),
    Contrast("depth", "regression", "Generating helps more than regressing"),
)

VARIANTS = ("weight_0.03", "weight_0.3", "weight_1", "encoding_spectral", "encoding_sqrt_disparity")


def from_plain_parts(recipe: Recipe, families: dict[str, float]) -> Recipe:
    """`recipe` with a stage 0 that stands in for published parts without a word or a picture of depth.

    Its last stage asks `families`, so often each.
    """
    first, *others = recipe.stages
    plain = replace(first, loss_weights={"text": 1.0, "rgb_prior": RGB_WEIGHT})
    asked = replace(others[-1], families=families, naming=False)
    return replace(recipe, stages=(plain, *others[:-1], asked))


BASE = replace(
    QUICKSTART,
    name="verdict_nano",
    model=replace(
        QUICKSTART.model,
        backbone=small_backbone(
            vocabulary=640, width=96, layers=4, vision_width=96, vision_layers=4, deepstack=[1, 2], positions=144
        ),
        generator=small_generator(channels=32, heads=3, layers=2),
    ),
    coordinates=CoordinateFormat(scale=100, step=5),
    vocabulary=640,
    data=TabletopData(
        scenes=1000,
        views_per_scene=6,
        size=(96, 96),
        turns_per_family=3,
        families=(*NANO_WEIGHTS, *NANO_FAMILIES["untaught"], "places"),
        scene={
            "categories": ("cube", "ball"),
            "min_objects": 2,
            "max_objects": 3,
            "distance_m": (0.45, 0.9),
            "shelf_chance": 0.2,
            "stack_chance": 0.2,
        },
    ),
    stages=small_stages(
        pretraining=600, connector=20, generator=80, everything=900, batch_size=16, rate=2e-3, warmup=30
    ),
    precision="bfloat16",
)

VERDICT_NANO = Experiment(
    name="verdict_nano",
    base=from_plain_parts(BASE, NANO_WEIGHTS),
    arms=("text", "depth", "shuffled", "rgb", "regression", "detached"),
    seeds=(0, 1, 2),
    contrasts=CONTRASTS,
    rates=(0.5, 1.0, 2.0),
    tuned=("text", "depth"),
    pilot_seed=100,
    **NANO_FAMILIES,
    development=TestSet("in_distribution", 120, 100, DEVELOPMENT_SEED + 10_000),
    tests=(TestSet("in_distribution", 500, 300, TEST_SEED), TestSet("new_textures", 300, 200, TEST_SEED)),
    curve_every=100,
)

ABLATION_NANO = replace(
    VERDICT_NANO,
    name="ablation_nano",
    arms=tuple(ARMS),
    contrasts=(
        CONTRASTS[0],
        Contrast("depth", "text_long", "Generating depth helps at equal compute"),
        Contrast("depth", "depth_as_text", "Painting depth helps more than telling it"),
        *(Contrast("depth", name, f"{name} is worse") for name in ("depth_direct", "noise", "frozen_generator")),
        *(Contrast(name, "text", f"{name} helps") for name in ("share_10", "share_30", "teacher", "noisy", "sparse")),
        *(Contrast(name, "depth", f"{name} is better") for name in VARIANTS),
    ),
)
"""Every arm there is, in the folder of `verdict_nano`, whose finished arms are found again."""

VERDICT_DEBUG = replace(
    VERDICT_NANO,
    name="verdict_debug",
    base=from_plain_parts(
        replace(DEBUG, name="verdict_debug"),
        {name: weight for name, weight in FAMILY_WEIGHTS.items() if name not in ALL_FAMILIES["untaught"]},
    ),
    arms=("text", "depth", "shuffled", "detached"),
    seeds=(0, 1),
    contrasts=CONTRASTS[:2],
    rates=(1.0,),
    **ALL_FAMILIES,
    development=TestSet("in_distribution", 4, 6, DEVELOPMENT_SEED + 10_000),
    tests=(TestSet("in_distribution", 6, 8, TEST_SEED),),
    curve_every=5,
    probe_scenes=8,
)
"""The whole of it in a minute, for tests."""
