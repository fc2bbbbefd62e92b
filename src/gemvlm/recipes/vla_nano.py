"""vla_nano: a policy on the shipped gem_nano, for Meta-World or any robot whose episodes fit its pictures of 96 x 96.

    gemvlm vla record metaworld/reach-v3 --demonstrations 25 --out sets/reach
    gemvlm vla train vla_nano --data sets/reach --out out/vla-reach      # resumes where it stopped, with --resume

One CPU core is enough. Every number is ours: the paper has no policy of this size. Variants, for a comparison of what
depth is worth: `vla_nano_action` learns from actions alone on the same weights, `vla_nano_expert` leaves the backbone
as it is, `vla_nano_text` goes on answering questions (--text SET).
"""

from __future__ import annotations

from dataclasses import replace

from gemvlm.data.actions import Augmentation
from gemvlm.model.action_expert import ExpertConfig
from gemvlm.recipes.gem_nano import GEM_NANO
from gemvlm.recipes.recipe import Start
from gemvlm.recipes.small import DEPTH_WEIGHT, FAMILY_WEIGHTS
from gemvlm.recipes.vla import VlaRecipe, on
from gemvlm.training.stage import OptimizerConfig, Schedule, Stage

RATE = 2e-3
PRETRAINED_RATE = 1e-3
"""Of the expert, which begins with random weights, and of what the shipped model has learned."""
PRETRAINED = ("vision", "merger", "language", "connector", "generator")

JOINT = Stage(
    name="joint",
    steps=2000,
    batch_size=16,
    learning_rates={"expert": RATE} | dict.fromkeys(PRETRAINED, PRETRAINED_RATE),
    loss_weights={"action": 1.0, "depth": DEPTH_WEIGHT},
    schedule=Schedule(warmup=50, shape="linear", final=0.02, hold=0.4),
    optimizer=OptimizerConfig("muon", betas=(0.9, 0.95), weight_decay=0.01),
    turns_per_sample=0,
    targets=("depth",),
    ema=0.999,
)
ALONE = replace(
    JOINT,
    name="action",
    learning_rates={"expert": RATE} | dict.fromkeys(PRETRAINED[:3], PRETRAINED_RATE),
    loss_weights={"action": 1.0},
    targets=(),
)

VLA_NANO = on(
    GEM_NANO,
    name="vla_nano",
    start=Start(checkpoint="nano"),
    stages=(JOINT,),
    expert=ExpertConfig(
        action=4, state=4, horizon=16, width=192, depth=6, heads=6, kv_heads=3, registers=4,
        conditioning="layer_inputs", layers=(0, 1, 2, 3, 4, 5), time_scale=1000.0, ffn_multiple_of=64,
    ),
    backbone_gradient=1.0,
    embodiment="metaworld",
    normalisation="quantiles",
    flow_steps=5,
    executed=8,
    draws=4,
    state_noise=0.02,
    augmentation=Augmentation(share=0.8, shift=0.04, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02),
    precision="bfloat16",
)  # fmt: skip
VLA_NANO_ACTION = replace(VLA_NANO, name="vla_nano_action", stages=(ALONE,))
VLA_NANO_EXPERT = replace(
    VLA_NANO,
    name="vla_nano_expert",
    stages=(replace(ALONE, name="expert", learning_rates={"expert": RATE}),),
    backbone_gradient=0.0,
)
VLA_NANO_TEXT = replace(
    VLA_NANO,
    name="vla_nano_text",
    stages=(
        replace(
            JOINT,
            name="joint-text",
            loss_weights={"action": 1.0, "text": 0.1, "depth": DEPTH_WEIGHT},
            turns_per_sample=8,
            families=FAMILY_WEIGHTS,
        ),
    ),
    text_share=0.25,
)

RECIPES: tuple[VlaRecipe, ...] = (VLA_NANO, VLA_NANO_ACTION, VLA_NANO_EXPERT, VLA_NANO_TEXT)
