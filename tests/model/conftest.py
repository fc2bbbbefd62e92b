"""A tiny Gem and batches for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from gemvlm.batch import IGNORE, Batch, Target
from gemvlm.depth_map import Encoding
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem

WIDTH, VOCABULARY, PATCH, BEFORE = 32, 64, 8, 3

TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True},
}
VISION = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": PATCH,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": WIDTH,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0, 1],
}
SANA = {
    "kind": "sana",
    "in_channels": 8,
    "out_channels": 8,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 16,
    "caption_channels": 24,
    "mlp_ratio": 2.5,
    "qk_norm": "rms_norm_across_heads",
    "sample_size": 4,
    "patch_size": 1,
}
REGRESSION = {"kind": "regression", "condition_width": 24, "width": 16, "depth": 1, "channels": 8}

CONFIG = GemConfig(
    backbone={"text_config": TEXT, "vision_config": VISION, "tie_word_embeddings": True},
    generator=SANA,
    latents={"kind": "patch", "patch": 8, "luma": 6, "chroma": 1},
    encoding=Encoding("log"),
    shift=1.0,
    condition_dropout=0.5,
)


@pytest.fixture
def config() -> GemConfig:
    return CONFIG


@pytest.fixture
def regression_config() -> GemConfig:
    return replace(CONFIG, generator=REGRESSION)


@pytest.fixture
def gem() -> Gem:
    torch.manual_seed(0)
    return Gem(CONFIG)


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    return make_packed


def make_packed(
    samples: Sequence[tuple[Sequence[tuple[int, int]], int]] = (([(32, 32)], 6), ([(32, 48)], 9)),
    kinds: Sequence[str] = ("depth",),
    seed: int = 0,
) -> Batch:
    """One sample per entry: the sizes of its images (height, width; pixels), then its number of text tokens, the last 3
    labelled.

    Each image stands between two marker tokens and has a target of each kind, as large as itself.
    """
    draw = torch.Generator().manual_seed(seed)
    ids, segments, positions, labels, spans, pixels, grids, targets = [], [], [], [], [], [], [], []
    total = 0
    for segment, (sizes, text) in enumerate(samples):
        position, start = 0, total
        for height, width in sizes:
            rows, columns = height // PATCH // 2, width // PATCH // 2
            ids.append(torch.randint(4, VOCABULARY, (BEFORE,), generator=draw))
            positions.append((torch.arange(BEFORE) + position).expand(3, -1))
            position, total = position + BEFORE, total + BEFORE
            ids.append(torch.ones(rows * columns, dtype=torch.int64))
            grid = torch.stack(
                [torch.zeros(rows, columns), *torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")]
            )
            positions.append(grid.flatten(1).long() + position)
            spans.append((total, total + rows * columns))
            position, total = position + max(rows, columns), total + rows * columns
            grids.append((1, 2 * rows, 2 * columns))
            pixels.append(torch.randn(4 * rows * columns, 3 * 2 * PATCH**2, generator=draw))
            for kind in kinds:
                picture = torch.rand(3, height, width, generator=draw) * 2 - 1
                valid = torch.ones(height, width, dtype=torch.bool)
                targets.append(Target(kind, len(spans) - 1, picture, valid, key=1000 * segment + len(spans)))
        ids.append(torch.randint(4, VOCABULARY, (text,), generator=draw))
        positions.append((torch.arange(text) + position).expand(3, -1))
        total += text
        segments.append(torch.full((total - start,), segment))
        labels.append(torch.full((total - start,), IGNORE))
        labels[-1][-3:] = ids[-1][-3:] if text >= 3 else IGNORE
    return Batch(
        input_ids=torch.cat(ids),
        segment_ids=torch.cat(segments),
        position_ids=torch.cat(positions, dim=1),
        labels=torch.cat(labels),
        pixel_values=torch.cat(pixels) if pixels else torch.zeros(0, 3 * 2 * PATCH**2),
        image_grid_thw=torch.tensor(grids, dtype=torch.int64).reshape(-1, 3),
        spans=torch.tensor(spans, dtype=torch.int64).reshape(-1, 2),
        targets=tuple(targets),
        sample_ids=tuple(str(i) for i in range(len(samples))),
    )
