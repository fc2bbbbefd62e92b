"""Patches equal the published processor's bits; positions equal the published model's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3VLConfig, Qwen3VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gemvlm.data.frames import ImageConfig, patches, position_ids

FIXTURES = Path(__file__).parents[2] / "../shared/fixtures/a"
CONFIGS = [
    ImageConfig(),
    ImageConfig(patch_size=8, min_pixels=32 * 32, max_pixels=96 * 96),
    ImageConfig(min_pixels=1, max_pixels=10**9),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("height", "width"), [(96, 96), (97, 131), (240, 320), (33, 200), (500, 31), (9, 9)])
def test_patches_equal_the_published_processor_to_the_last_bit(config: ImageConfig, height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": config.min_pixels, "longest_edge": config.max_pixels},
        patch_size=config.patch_size,
        merge_size=config.merge_size,
        temporal_patch_size=config.temporal_patch_size,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    if min(height, width) < config.token_size / 2 and config.min_pixels == 1:
        assert config.resized(height, width) == (32, 32)  # the published processor rounds to nothing and fails
        return
    expected = processor(image, return_tensors="pt", input_data_format="channels_last")
    values, grid = patches(image, config)
    assert torch.equal(values, expected["pixel_values"])
    assert [list(grid)] == expected["image_grid_thw"].tolist()
    assert values.shape == (np.prod(grid), config.patch_values)


def test_a_sliver_of_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1x300 .*crop it"):
        ImageConfig().resized(1, 300)


def _published(input_ids: torch.Tensor, grids: torch.Tensor, image_token: int) -> torch.Tensor:
    with torch.device("meta"):
        tiny = {
            "num_hidden_layers": 1,
            "hidden_size": 16,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "head_dim": 16,
        }
        vision = {"depth": 1, "hidden_size": 16, "num_heads": 1, "out_hidden_size": 16, "deepstack_visual_indexes": []}
        model = Qwen3VLModel(Qwen3VLConfig(text_config={**tiny, "vocab_size": 8}, vision_config=vision))
    kinds = (input_ids == image_token).int()
    return model.get_rope_index(input_ids, kinds, image_grid_thw=grids)[0][:, 0]


@pytest.mark.parametrize("grids", [[], [(1, 4, 6)], [(1, 4, 6), (1, 8, 2), (1, 2, 2)]])
def test_positions_equal_the_published_model(grids: list[tuple[int, int, int]]) -> None:
    ids, spans = [1, 2], []
    for _, rows, columns in grids:
        spans.append((len(ids), len(ids) + rows * columns // 4))
        ids += [7] * (rows * columns // 4) + [3, 4]
    grid, span = (
        torch.tensor(grids, dtype=torch.int64).reshape(-1, 3),
        torch.tensor(spans, dtype=torch.int64).reshape(-1, 2),
    )
    ours = position_ids(len(ids), span, grid, 2)
    assert torch.equal(ours, _published(torch.tensor([ids]), grid if len(grids) else None, 7))


def test_positions_equal_the_authors_fixture() -> None:
    if not FIXTURES.is_dir():
        pytest.skip("shared fixtures are not beside this checkout")
    config = json.loads((FIXTURES / "gem.json").read_text())["config"]
    tensors = load_file(FIXTURES / "gem.safetensors")
    ids = tensors["in.input_ids"][0]
    starts = (ids == config["vision_start_token_id"]).nonzero()[:, 0] + 1
    stops = (ids == config["vision_end_token_id"]).nonzero()[:, 0]
    ours = position_ids(len(ids), torch.stack([starts, stops], 1), tensors["in.image_grid_thw"].long(), 2)
    assert torch.equal(ours, tensors["out.position_ids"][:, 0].long())


def test_a_span_of_other_length_than_its_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"are 5 but .* needs 6"):
        position_ids(9, torch.tensor([[1, 6]]), torch.tensor([[1, 4, 6]]), 2)
