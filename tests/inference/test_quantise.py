"""Linear layers in 8 and 4 bits: as exact as their counts allow, smaller, and only where a kernel takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gemvlm.inference import load
from gemvlm.inference.quantise import GROUP, Int4Linear, Int8Linear, _dynamic, quantise, quantise_policy, quantise_text
from gemvlm.model.action_expert import ExpertConfig
from gemvlm.model.gem_vla import GemVla, GemVlaConfig

SCHEMES = ["int8", "int8_dynamic", "int4"]


def linear_of(inputs: int = 64, outputs: int = 48, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("make", "levels"), [(Int8Linear, 127), (Int4Linear, 7.5), (_dynamic, 60)])
def test_products_are_within_the_counts_rounding(make, levels, bias) -> None:
    """An error of half a count in each weight, uniform and independent, and bfloat16's of a product."""
    linear = linear_of(bias=bias)
    x = torch.randn(2, 5, 64)
    error = (make(linear)(x) - linear(x)).detach()
    largest = linear.weight.abs().amax()
    expected = float(largest.detach()) / levels / np.sqrt(12) * 64**0.5
    assert error.shape == (2, 5, 48)
    rounding = 2**-8 * float(linear(x).detach().square().mean().sqrt())
    assert float(error.square().mean().sqrt()) < 1.5 * expected + rounding
    assert float(error.abs().max()) > 0


def test_weights_on_the_grid_are_as_exact_as_bfloat16() -> None:
    linear = linear_of(bias=False)
    draw = torch.Generator().manual_seed(1)
    counts = torch.randint(-127, 128, (48, 64), generator=draw)
    counts[:, 0] = 127
    linear.weight.data = counts * 0.01
    x = torch.randn(3, 64)
    close = {"atol": 2**-7 * float(linear(x).detach().abs().max()), "rtol": 0.0}
    torch.testing.assert_close(Int8Linear(linear)(x), linear(x), **close)
    few = torch.randint(0, 16, (48, 64 // GROUP, GROUP), generator=draw)
    few[..., 0], few[..., 1] = 0, 15
    linear.weight.data = (few * 0.1 - 0.3).flatten(1)
    close = {"atol": 2**-7 * float(linear(x).detach().abs().max()), "rtol": 0.0}
    torch.testing.assert_close(Int4Linear(linear)(x), linear(x), **close)


def test_what_a_kernel_does_not_take_is_left_and_named() -> None:
    module = nn.ModuleDict({"fits": linear_of(), "narrow": linear_of(40, 48), "odd": linear_of(64, 20)})
    done = quantise(module, "int4")
    assert (done.layers, done.left) == (1, ("narrow", "odd"))
    assert isinstance(module["fits"], Int4Linear) and isinstance(module["odd"], nn.Linear)
    assert done.bytes_before == 4 * (64 * 48 + 40 * 48 + 64 * 20)
    assert done.bytes_before - done.bytes_after == 64 * 48 * 4 - (64 * 48 // 2 + 2 * 2 * 48 * 2)
    with pytest.raises(ValueError, match="once"):
        quantise(nn.Sequential(Int8Linear(linear_of())), "int8")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_pipeline_still_answers_much_alike(checkpoint: Path, image: np.ndarray, scheme) -> None:
    exact, smaller, loaded = load(checkpoint, "cpu"), load(checkpoint, "cpu"), load(checkpoint, "cpu", quantised=scheme)
    done = quantise_text(smaller.gem.backbone, scheme)
    assert done.layers > 0 and done.bytes_after < done.bytes_before
    asked = [(image, "Describe the scene.")]
    assert len(smaller.ask_batch(asked, max_new_tokens=4)) == 1
    states = [p.gem.backbone(p._prompts(asked)).states.detach() for p in (exact, smaller, loaded)]
    assert torch.equal(states[1], states[2])
    similar = torch.nn.functional.cosine_similarity(states[0].flatten(), states[1].flatten(), dim=0)
    assert float(similar) > (0.97 if scheme == "int4" else 0.998)
    assert smaller.depth(image, steps=1).depth.values.shape == image.shape[:2]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_expert_keeps_its_modulations(scheme) -> None:
    text = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True},
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 8, "out_hidden_size": 32,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    expert = ExpertConfig(3, 4, 5, 32, 2, 4, 2, 1, "layer_inputs", (0, 1), 1.0, ffn_multiple_of=32)
    policy = GemVla(GemVlaConfig({"text_config": text, "vision_config": vision}, expert, None, 1.0))
    done = quantise_policy(policy, scheme)
    kept = [name for name, module in policy.expert.named_modules() if isinstance(module, nn.Linear)]
    assert done.layers > 20 and all("adaLN" in name or "expert.model.blocks" not in f"expert.{name}" for name in kept)
    assert policy.expert.dtype == torch.float32
