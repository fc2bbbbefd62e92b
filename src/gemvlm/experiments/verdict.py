"""Does generating depth help? At the scale of a laptop, and by the same arms at any other.

    gemvlm experiment verdict_nano --out out/verdict          # resumes

In stage 0 nothing speaks of depth: descriptions in words, and a generator that learns to paint images by itself, as the
published Sana has. Every arm goes on from there with the questions of the last stage and its own target beside them.
"""

from __future__ import annotations

from dataclasses import replace

from gemvlm.experiments.experiment import Contrast, Experiment, TestSet
from gemvlm.recipes.debug import DEBUG
from gemvlm.recipes.quickstart import QUICKSTART
from gemvlm.recipes.recipe import DEVELOPMENT_SEED, TEST_SEED, Recipe
from gemvlm.recipes.small import FAMILY_WEIGHTS, RGB_WEIGHT

PRIMARY = ("closer", "nearer_to", "larger", "left_right", "above_below")
UNTAUGHT = ("perspective", "point_relation", "box")
METRIC = ("object_depth", "distance")
TAUGHT = tuple(name for name in FAMILY_WEIGHTS if name not in (*UNTAUGHT, *METRIC, "describe"))
CONTRASTS = (
    Contrast("depth", "text", "Generating depth helps"),
    Contrast("depth", "shuffled", "It is the depth of this scene that helps"),
    Contrast("depth", "rgb", "Depth helps more than painting the image"),
    Contrast("depth", "regression", "Generating helps more than regressing"),
)


def from_plain_parts(recipe: Recipe) -> Recipe:
    """`recipe` with a stage 0 that stands in for published parts without a word or a picture of depth."""
    first, *others = recipe.stages
    plain = replace(first, loss_weights={"text": 1.0, "rgb_prior": RGB_WEIGHT})
    last = others[-1]
    families = {name: weight for name, weight in FAMILY_WEIGHTS.items() if name not in UNTAUGHT}
    asked = replace(last, families=families, naming=False)
    return replace(recipe, stages=(plain, *others[:-1], asked))


VERDICT_NANO = Experiment(
    name="verdict_nano",
    base=from_plain_parts(replace(QUICKSTART, name="verdict_nano")),
    arms=("text", "depth", "shuffled", "rgb", "regression", "detached"),
    seeds=(0, 1, 2),
    contrasts=CONTRASTS,
    rates=(0.5, 1.0, 2.0),
    tuned=("text", "depth"),
    pilot_seed=100,
    primary=PRIMARY,
    taught=TAUGHT,
    untaught=UNTAUGHT,
    metric=METRIC,
    development=TestSet("in_distribution", 60, 40, DEVELOPMENT_SEED + 10_000),
    tests=(TestSet("in_distribution", 300, 200, TEST_SEED), TestSet("new_objects", 150, 100, TEST_SEED)),
    curve_every=100,
)

VERDICT_DEBUG = replace(
    VERDICT_NANO,
    name="verdict_debug",
    base=from_plain_parts(replace(DEBUG, name="verdict_debug")),
    arms=("text", "depth", "shuffled", "detached"),
    seeds=(0, 1),
    contrasts=CONTRASTS[:2],
    rates=(1.0,),
    development=TestSet("in_distribution", 4, 6, DEVELOPMENT_SEED + 10_000),
    tests=(TestSet("in_distribution", 6, 8, TEST_SEED),),
    curve_every=5,
    probe_scenes=8,
)
"""The whole of it in a minute, for tests."""
