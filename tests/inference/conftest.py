"""A checkpoint with random weights, small enough to answer in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gemvlm.data.tokenizer import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, train_tokenizer
from gemvlm.depth_map import Encoding
from gemvlm.inference import GemPipeline, load
from gemvlm.model.card import CheckpointCard
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem
from gemvlm.model.weights import save_weights

WORDS = ["Describe the scene.", "Point at the red mug.", "Which is closer, the red mug or the blue bowl?", "(340, 670)"]


def write_checkpoint(folder: Path, encoding: Encoding) -> Path:
    tokenizer = train_tokenizer(WORDS, vocab_size=420, integers=range(0, 1001, 10))
    names = {"image": IMAGE_PAD, "video": VIDEO_PAD, "vision_start": VISION_START, "vision_end": VISION_END}
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "tie_word_embeddings": False,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True},
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "patch_size": 8,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    sana = {
        "kind": "sana",
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 8,
        "cross_attention_dim": 16,
        "caption_channels": 24,
        "patch_size": 1,
        "mlp_ratio": 2.0,
    }
    config = GemConfig(
        backbone={"text_config": text, "vision_config": vision, "tie_word_embeddings": False, **ids},
        generator=sana,
        latents={"kind": "patch", "patch": 8, "luma": 10, "chroma": 3},
        encoding=encoding,
        shift=1.0,
        condition_dropout=0.1,
    )
    torch.manual_seed(0)
    folder.mkdir()
    save_weights(Gem(config), folder, torch.float32)
    tokenizer.save_pretrained(str(folder))
    CheckpointCard(
        model=config,
        coordinates={"scale": 1000, "step": 10},
        image={"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 1024, "max_pixels": 2304},
        target={"height": 32, "width": 32},
        recipe="tiny",
        stage="final",
        step=7,
        versions={},
        trained_groups=(),
    ).write(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny", Encoding("log", 0.25, 4.0))


@pytest.fixture(scope="session")
def pipeline(checkpoint: Path) -> GemPipeline:
    return load(checkpoint, device="cpu")


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
