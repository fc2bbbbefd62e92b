"""vla_2b: the paper's policy, GEM-VLA, from a GEM-2B (`--start GEM-2B`) with an RDT expert of 483 M parameters.

    gemvlm vla train vla_2b --plan --gpus 8 --gpu a800-80gb         # memory, operations, time; nothing is loaded
    torchrun --nproc-per-node 8 -m gemvlm vla train vla_2b --data EPISODES --start GEM-2B --out out/vla-2b

Numbers are marked [paper], [code] (the authors' released code) or [ours]. `vla_2b_depth` adds the joint depth loss;
`vla_2b_qwen` begins with a plain Qwen3-VL-2B instead, the paper's control. They are a plan: nobody has trained a policy
of this size with this code.
"""

from __future__ import annotations

from dataclasses import replace

from gemvlm.data.actions import Augmentation
from gemvlm.model.action_expert import ExpertConfig
from gemvlm.recipes.gem_2b import GEM_2B
from gemvlm.recipes.published import DEPTH_WEIGHT, QWEN_2B
from gemvlm.recipes.recipe import Start
from gemvlm.recipes.vla import VlaRecipe, on
from gemvlm.training.stage import OptimizerConfig, Schedule, Stage

RATE = 1e-5
"""Of the pretrained backbone. [code]"""
EXPERT_RATE = 1e-4
"""Of the expert, which begins with random weights. [ours: the release gives it the backbone's, B10]"""
STEPS = 1_000_000
"""[code]: of its script; nobody says how many the paper's policies took."""

ALONE = Stage(
    name="action",
    steps=STEPS,
    batch_size=128,  # 16 on each of 8 GPUs [code]
    at_once=8,  # [ours]
    learning_rates={"expert": EXPERT_RATE} | dict.fromkeys(("vision", "merger", "language"), RATE),
    loss_weights={"action": 1.0},
    schedule=Schedule(warmup=500, shape="constant"),  # [code: 500 were given, and ignored]
    optimizer=OptimizerConfig("adamw", betas=(0.9, 0.999), weight_decay=0.01),  # [code]; matrices alone [ours]
    turns_per_sample=0,
    clip=1.0,  # [code], of each module group [ours]
    recompute=True,  # [ours]
    ema=0.999,  # [ours]
)
JOINT = replace(
    ALONE,
    name="joint",
    learning_rates={**ALONE.learning_rates, "connector": RATE, "generator": RATE},
    loss_weights={"action": 1.0, "depth": DEPTH_WEIGHT},  # 0.1 [code]
    targets=("depth",),
)

VLA_2B = on(
    GEM_2B,
    name="vla_2b",
    start=Start(),  # GEM-2B, by --start [paper]
    stages=(ALONE,),
    expert=ExpertConfig(
        action=14, state=14, horizon=32, width=1024, depth=14, heads=8, kv_heads=4, registers=4,  # [code]
        conditioning="layer_inputs", layers=tuple(range(14)),  # [code]
        time_scale=1.0,  # [code]; published weights need it
    ),
    backbone_gradient=1.0,  # [code]
    embodiment="bimanual",  # two arms of 7 numbers [code]
    normalisation="min_max",  # [code], of the state too [ours], but not for a published expert, which saw it raw
    flow_steps=5,  # [code]
    executed=16,  # [ours]
    state_noise=0.01,  # [ours: the release's 40 dB, of the normalised state; there it was ineffective, B3]
    augmentation=Augmentation.published(),  # [code]
    hidden_images=0.1,  # [code], in place [ours, B6]
    hidden_words=0.1,  # [code]
)  # fmt: skip
VLA_2B_DEPTH = replace(VLA_2B, name="vla_2b_depth", stages=(JOINT,))
VLA_2B_QWEN = replace(VLA_2B, name="vla_2b_qwen", start=Start(qwen=QWEN_2B))

RECIPES: tuple[VlaRecipe, ...] = (VLA_2B, VLA_2B_DEPTH, VLA_2B_QWEN)
