"""vla_debug: a policy of random weights in seconds, for tests; first the expert alone, then everything, with depth.

gemvlm vla train vla_debug --data EPISODES --out out/vla-debug
"""

from __future__ import annotations

from gemvlm.data.actions import Augmentation
from gemvlm.model.action_expert import ExpertConfig
from gemvlm.recipes.debug import DEBUG
from gemvlm.recipes.vla import on
from gemvlm.training.stage import OptimizerConfig, Schedule, Stage

ADAMW = OptimizerConfig("adamw", betas=(0.9, 0.95), weight_decay=0.01)

EXPERT = Stage(
    name="1-expert",
    steps=10,
    batch_size=4,
    learning_rates={"expert": 1e-3},
    loss_weights={"action": 1.0},
    schedule=Schedule(warmup=2, shape="constant"),
    optimizer=ADAMW,
    turns_per_sample=0,
)
EVERYTHING = Stage(
    name="2-everything",
    steps=10,
    batch_size=4,
    learning_rates=dict.fromkeys(("vision", "merger", "language", "connector", "generator"), 3e-4) | {"expert": 1e-3},
    loss_weights={"action": 1.0, "depth": 0.1},
    schedule=Schedule(warmup=2, shape="cosine"),
    optimizer=ADAMW,
    turns_per_sample=0,
    targets=("depth",),
    ema=0.9,
)

VLA_DEBUG = on(
    DEBUG,
    name="vla_debug",
    stages=(EXPERT, EVERYTHING),
    expert=ExpertConfig(
        action=4, state=4, horizon=8, width=64, depth=2, heads=2, kv_heads=1, registers=2,
        conditioning="layer_inputs", layers=(0, 1), time_scale=1000.0, ffn_multiple_of=32,
    ),
    backbone_gradient=1.0,
    embodiment="metaworld",
    normalisation="quantiles",
    flow_steps=4,
    executed=4,
    held_out=0.2,
    state_noise=0.02,
    augmentation=Augmentation(share=0.5, shift=0.05, brightness=0.2),
)  # fmt: skip
