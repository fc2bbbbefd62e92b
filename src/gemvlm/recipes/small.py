"""What small recipes share: published architectures at small sizes, and stage 0 before the paper's three stages."""

from __future__ import annotations

from typing import Any

from gemvlm.curation.questions import CORE_FAMILIES
from gemvlm.data.frames import ImageConfig
from gemvlm.training.stage import OptimizerConfig, Schedule, Stage

LESSONS = (*CORE_FAMILIES, "places")
"""What small models learn from; the test asks the core families alone."""

FAMILY_WEIGHTS = {
    "describe": 3.0,
    **dict.fromkeys(("colour", "shape", "object_at", "point", "object_depth"), 3.0),
    **dict.fromkeys(("left_right", "above_below", "closer", "larger", "nearer_to", "perspective"), 2.0),
    **dict.fromkeys(("box", "point_relation", "point_extremum", "free_space", "count", "exists", "occluded"), 1.0),
    **dict.fromkeys(("nearest_of", "distance", "support", "removal_order", "can_lift", "consequence", "fits"), 1.0),
}
"""How often each family is drawn in stage 3; descriptions go on, so that nothing of stage 0 is forgotten."""

RGB_WEIGHT = 0.5
"""Weight of painting the image in stage 0, which has no depth."""

IMAGES_8 = ImageConfig(patch_size=8, merge_size=2, temporal_patch_size=2, min_pixels=96 * 96, max_pixels=96 * 96)
"""Vision patches of 8 pixels, 16 pixels to a token, every image resampled to about 96 x 96."""

DEPTH_WEIGHT = 0.1
"""Weight of the depth loss beside the text loss. [paper]"""


def small_backbone(
    *,
    vocabulary: int,
    width: int,
    layers: int,
    vision_width: int,
    vision_layers: int,
    deepstack: list[int],
    positions: int,
) -> dict[str, Any]:
    """Qwen3-VL's architecture at a small size: patches of 8 pixels, 4 of them to a token, heads of 32."""
    return {
        "text_config": {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 32,
            "num_key_value_heads": width // 64,
            "head_dim": 32,
            "hidden_act": "silu",
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
        },
        "vision_config": {
            "depth": vision_layers,
            "hidden_size": vision_width,
            "intermediate_size": 3 * vision_width,
            "num_heads": vision_width // 32,
            "in_channels": 3,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": width,
            "num_position_embeddings": positions,
            "deepstack_visual_indexes": deepstack,
            "hidden_act": "gelu_pytorch_tanh",
        },
        "tie_word_embeddings": True,
    }


def small_generator(*, channels: int, heads: int, layers: int) -> dict[str, Any]:
    """Sana's architecture at a small size: heads of 32, the connector as wide as the generator."""
    width = 32 * heads
    return {
        "kind": "sana",
        "in_channels": channels,
        "out_channels": channels,
        "num_attention_heads": heads,
        "attention_head_dim": 32,
        "num_layers": layers,
        "num_cross_attention_heads": heads,
        "cross_attention_head_dim": 32,
        "cross_attention_dim": width,
        "caption_channels": width,
        "mlp_ratio": 2.5,
        "attention_bias": False,
        "sample_size": 12,
        "patch_size": 1,
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "interpolation_scale": 1.0,
        "guidance_embeds": False,
        "qk_norm": "rms_norm_across_heads",
    }


def small_stages(
    *,
    pretraining: int,
    connector: int,
    generator: int,
    everything: int,
    batch_size: int,
    rate: float,
    warmup: int = 0,
    turns: int = 8,
) -> tuple[Stage, ...]:
    """Stage 0, which stands in for the pretraining of the published parts, then the paper's stages 1 to 3; in steps.

    In stage 0 the backbone describes scenes while the generator paints the image itself from the backbone's states.
    Image tokens are labelled with what they show (`data/naming.py`), there and in stage 3.

    `rate` is the peak learning rate of what starts from random weights. [ours, but for which modules train: paper]
    """
    muon = OptimizerConfig("muon", betas=(0.9, 0.95), weight_decay=0.05)
    falling = Schedule(warmup=warmup, shape="linear", final=0.05, hold=0.5)
    everything_learns = dict.fromkeys(("vision", "merger", "language", "connector", "generator"), rate)
    return (
        Stage(
            name="0-pretraining",
            steps=pretraining,
            batch_size=batch_size,
            learning_rates=everything_learns,
            loss_weights={"text": 1.0, "rgb": RGB_WEIGHT},
            schedule=Schedule(warmup=warmup, shape="constant"),
            optimizer=muon,
            turns_per_sample=1,
            families={"describe": 1.0},
            targets=("rgb",),
            naming=True,
        ),
        Stage(
            name="1-connector",
            steps=connector,
            batch_size=batch_size,
            learning_rates={"connector": rate},
            loss_weights={"depth": 1.0},
            schedule=Schedule(warmup=0, shape="constant"),
            optimizer=muon,
            turns_per_sample=0,
            targets=("depth",),
        ),
        Stage(
            name="2-generator",
            steps=generator,
            batch_size=batch_size,
            learning_rates={"connector": rate, "generator": rate},
            loss_weights={"depth": 1.0},
            schedule=Schedule(warmup=0, shape="constant"),
            optimizer=muon,
            turns_per_sample=0,
            targets=("depth",),
        ),
        Stage(
            name="3-everything",
            steps=everything,
            batch_size=batch_size,
            learning_rates=everything_learns,
            loss_weights={"text": 1.0, "depth": DEPTH_WEIGHT},
            schedule=falling,
            optimizer=muon,
            turns_per_sample=turns,
            families=FAMILY_WEIGHTS,
            targets=("depth",),
            naming=True,
        ),
    )
