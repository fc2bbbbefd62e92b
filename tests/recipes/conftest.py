"""Tiny tensors in the exact layouts of the published folders, and a set to learn from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel

from gemvlm.data.tokenizer import SpecialIds, train_tokenizer
from gemvlm.depth_map import DepthMap
from gemvlm.model.backbone import Backbone
from gemvlm.model.config import GemConfig
from gemvlm.recipes.recipe import Recipe
from gemvlm.sample import Frame, Sample, Turn
from gemvlm.shards import write_shards

sys.path.insert(0, str(Path(__file__).parent))

VOCABULARY = 700
TEXTS = ["Describe the scene.", "What colour is the mug? red green blue (340, 670) [1, 2]"]


def tiny(recipe: Recipe, tied: bool = True) -> Recipe:
    """The recipe with every width and depth of its model made small, and stages of two steps."""
    published = recipe.model
    text = {
        **published.backbone["text_config"],
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True},
        "tie_word_embeddings": tied,
    }
    vision = {
        **published.backbone["vision_config"],
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1],
    }
    sana = {
        **published.generator,
        "in_channels": 8,
        "out_channels": 8,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_layers": 2,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 8,
        "cross_attention_dim": 16,
        "caption_channels": 24,
    }
    latents = {
        **published.latents,
        "latent_channels": 8,
        "attention_head_dim": 8,
        "encoder_block_out_channels": [8, 8, 8, 8, 16, 16],
        "decoder_block_out_channels": [8, 8, 8, 8, 16, 16],
        "encoder_layers_per_block": [1] * 6,
        "decoder_layers_per_block": [1] * 6,
    }
    backbone = {"text_config": text, "vision_config": vision, "tie_word_embeddings": tied}
    stages = tuple(replace(stage, steps=2, batch_size=2) for stage in recipe.stages)
    image = replace(recipe.image, min_pixels=64 * 64, max_pixels=96 * 96)
    model = replace(published, backbone=backbone, generator=sana, latents=latents)
    return replace(
        recipe, model=model, stages=stages, image=image, vocabulary=VOCABULARY, epochs=None, precision="float32"
    )


def write_parts(folder: Path, model: GemConfig) -> tuple[Path, Path]:
    """Folders as Qwen and the makers of Sana publish them, with weights from the libraries' own writers."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, VOCABULARY, range(101))
    ids = SpecialIds.of(tokenizer)
    special = {
        "image_token_id": ids.image_pad,
        "vision_start_token_id": ids.vision_start,
        "vision_end_token_id": ids.vision_end,
    }
    qwen, sana = folder / "qwen", folder / "sana"
    Backbone({**model.backbone, **special}).qwen.save_pretrained(qwen)
    as_published(qwen)
    tokenizer.save_pretrained(str(qwen))
    SanaTransformer2DModel(**_options(model.generator)).save_pretrained(sana / "transformer")
    AutoencoderDC(**_options(model.latents)).save_pretrained(sana / "vae")
    return qwen, sana


def as_published(qwen: Path) -> None:
    """`config.json` as transformers 4 wrote it, which is what the hub holds."""
    path = qwen / "config.json"
    config = json.loads(path.read_text())
    rope = config["text_config"].pop("rope_parameters")
    config["text_config"] |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    path.write_text(json.dumps(config))


def _options(values) -> dict:
    return {name: value for name, value in values.items() if name != "kind"}


@dataclass(frozen=True)
class Published:
    """A recipe at tiny size, and the folders that it begins with."""

    recipe: Recipe
    qwen: Path
    sana: Path

    @property
    def words(self) -> list[str]:
        """What the command line says after --start."""
        return [f"qwen={self.qwen}", f"sana={self.sana}"]


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Published]:
    def make(recipe: Recipe, tied: bool = True) -> Published:
        small = tiny(recipe, tied)
        return Published(small, *write_parts(tmp_path / "published", small.model))

    return make


@pytest.fixture(scope="session")
def learned_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples with and without depth, of two sizes."""
    folder = tmp_path_factory.mktemp("sets") / "mine"
    write_shards([learned_sample(number) for number in range(12)], folder)
    return folder


def learned_sample(number: int) -> Sample:
    rng = np.random.default_rng(number)
    height, width = (64, 96) if number % 3 else (80, 80)
    depth = DepthMap.from_values(rng.uniform(0.5, 3, (height, width)).astype(np.float32))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    turns = (
        Turn("Describe the scene.", "a red mug", "describe", "description", "text"),
        Turn("What colour is the mug?", "red", "colour", "reasoning", "text"),
    )
    return Sample(f"s{number}", (Frame(image, depth if number % 4 else None),), turns, f"scene-{number}", "test")
