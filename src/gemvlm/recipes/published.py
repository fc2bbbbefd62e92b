"""What recipes at the paper's size share: published architectures, conventions, and the paper's three stages.

Configurations are those of Qwen3-VL-2B-Instruct, Qwen3-VL-8B-Instruct and SANA1.5_1.6B_1024px_diffusers with its DC-AE
f32c32, as their publishers' files have them; a training reads the folders themselves and refuses others than these.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gemvlm.data.conversation import CoordinateFormat
from gemvlm.data.frames import ImageConfig
from gemvlm.data.packing import Budget
from gemvlm.depth_map import Encoding
from gemvlm.model.config import GemConfig
from gemvlm.recipes.recipe import Recipe, Start
from gemvlm.training.stage import OptimizerConfig, Schedule, Stage

QWEN_2B, QWEN_8B = "Qwen/Qwen3-VL-2B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"
SANA = "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers"
"""Hub ids of the published parts. [paper: Qwen3-VL, SANA 1.5 1.6B; code: the ids]"""

VOCABULARY = 151_936
PAPER_SAMPLES = 4_000_000
"""GEM-4M, of which stage 3 sees one epoch. [paper]"""
DEPTH_WEIGHT = 0.1
"""Of the depth loss beside the text loss. [paper]"""
PACK = Budget(tokens=16_384, patches=65_536, targets=32)
"""What a process computes at once: a context of 16,384 tokens [code], and at most so much besides. [ours]"""
PACKS_PER_STEP = 32
"""Of all processes: one on each of the paper's 32 GPUs, several in turn on fewer. [ours: it states no batch]"""
SAMPLES_PER_PACK = 32
"""About how many samples of one image fill a pack: only for the steps that a plan foresees. [ours]"""
RATE = 1e-5
"""Of pretrained weights. [code]"""

IMAGES = ImageConfig(min_pixels=28 * 28 * 32, max_pixels=1536 * 1536)
"""25,088 to 2,359,296 pixels, at most 2,304 tokens to an image. [code]"""

SANA_CONFIG: dict[str, Any] = {
    "kind": "sana",
    "in_channels": 32,
    "out_channels": 32,
    "num_attention_heads": 70,
    "attention_head_dim": 32,
    "num_layers": 20,
    "num_cross_attention_heads": 20,
    "cross_attention_head_dim": 112,
    "cross_attention_dim": 2240,
    "caption_channels": 2304,
    "mlp_ratio": 2.5,
    "dropout": 0.0,
    "attention_bias": False,
    "sample_size": 32,
    "patch_size": 1,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "interpolation_scale": None,
    "guidance_embeds": False,
    "qk_norm": "rms_norm_across_heads",
}

DC_AE_CONFIG: dict[str, Any] = {
    "kind": "dc_ae",
    "in_channels": 3,
    "latent_channels": 32,
    "attention_head_dim": 32,
    "encoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
    "decoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
    "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
    "decoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
    "encoder_layers_per_block": [2, 2, 2, 3, 3, 3],
    "decoder_layers_per_block": [3, 3, 3, 3, 3, 3],
    "encoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
    "decoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
    "upsample_block_type": "interpolate",
    "downsample_block_type": "Conv",
    "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu",
    "scaling_factor": 0.41407,
}


def published_model(
    *,
    width: int,
    inner: int,
    layers: int,
    heads: int,
    vision_width: int,
    vision_inner: int,
    vision_layers: int,
    deepstack: list[int],
    tied: bool,
) -> GemConfig:
    """A Qwen3-VL of these sizes with Sana 1.5 1.6B and DC-AE f32c32."""
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "hidden_act": "silu",
        "max_position_embeddings": 262_144,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5_000_000,
        "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True},
        "attention_bias": False,
        "tie_word_embeddings": tied,
    }
    vision = {
        "depth": vision_layers,
        "hidden_size": vision_width,
        "intermediate_size": vision_inner,
        "num_heads": 16,
        "in_channels": 3,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "out_hidden_size": width,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": deepstack,
        "hidden_act": "gelu_pytorch_tanh",
    }
    return GemConfig(
        backbone={"text_config": text, "vision_config": vision, "tie_word_embeddings": tied},
        generator=SANA_CONFIG,
        latents=DC_AE_CONFIG,
        encoding=Encoding("spectral"),  # relative inverse depth in Spectral colours [code]
        shift=3.0,  # [ours: of SANA's own scheduler file; which one the paper's training took is not known]
        condition_dropout=0.1,  # [code]
    )


MODEL_2B = published_model(
    width=2048,
    inner=6144,
    layers=28,
    heads=16,
    vision_width=1024,
    vision_inner=4096,
    vision_layers=24,
    deepstack=[5, 11, 17],
    tied=True,
)
MODEL_8B = published_model(
    width=4096,
    inner=12_288,
    layers=36,
    heads=32,
    vision_width=1152,
    vision_inner=4304,
    vision_layers=27,
    deepstack=[8, 16, 24],
    tied=False,
)

ADAMW = OptimizerConfig("adamw", betas=(0.9, 0.999), weight_decay=0.0)
"""[code]"""


def paper_stages() -> tuple[Stage, ...]:
    """The paper's three stages.

    Which modules learn in which stage, from which loss, for how long: [paper]. Warm-up and rates of stages 1 and 2 are
    [ours], as the paper states none: 1e-4 for what begins with random weights, a fifth of it for the generator.
    """
    connector = Stage(
        name="1-connector",
        steps=500,  # [paper]
        batch_size=PACKS_PER_STEP,
        budget=PACK,
        recompute=True,  # [code: gradient checkpointing]
        learning_rates={"connector": 1e-4},
        loss_weights={"depth": 1.0},
        schedule=Schedule(warmup=50, shape="constant"),
        optimizer=ADAMW,
        turns_per_sample=0,
        targets=("depth",),
        clip=1.0,  # [code]
    )
    generator = replace(
        connector,
        name="2-generator",
        steps=4000,  # [paper]
        learning_rates={"connector": 1e-4, "generator": 2e-5},
        schedule=Schedule(warmup=120, shape="constant"),
    )
    steps = PAPER_SAMPLES // (PACKS_PER_STEP * SAMPLES_PER_PACK)
    everything = Stage(
        name="3-everything",
        steps=steps,
        batch_size=PACKS_PER_STEP,
        budget=PACK,
        recompute=True,  # [code]
        learning_rates=dict.fromkeys(("vision", "merger", "language", "connector", "generator"), RATE),
        loss_weights={"text": 1.0, "depth": DEPTH_WEIGHT},
        schedule=Schedule(warmup=round(0.03 * steps), shape="cosine"),  # [code]
        optimizer=ADAMW,
        turns_per_sample=32,  # [ours: all that a sample has, but for records of hundreds]
        targets=("depth",),
        clip=1.0,  # [code]
    )
    return connector, generator, everything


def published_recipe(name: str, model: GemConfig, stages: tuple[Stage, ...], start: Start) -> Recipe:
    """A recipe at the paper's size: one epoch of a curated set, a context of 16,384 tokens. [paper, code]"""
    return Recipe(
        name=name,
        model=model,
        image=IMAGES,
        coordinates=CoordinateFormat(scale=1000, step=1),  # Qwen3-VL's own
        target=None,
        vocabulary=VOCABULARY,
        data=None,
        stages=stages,
        seed=0,
        precision="bfloat16",  # [code]
        start=start,
        epochs=1.0,  # [paper]
        max_tokens=16_384,  # [code]
    )
