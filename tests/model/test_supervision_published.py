"""Supervision from the published folders of its parts, for a model of any width."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel
from safetensors.torch import load_file, save_file

from gemvlm.batch import Target
from gemvlm.model.weights import published_supervision
from gemvlm.runtime import deterministic

FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Sana's layout with tiny tensors."""
    place = tmp_path_factory.mktemp("sana")
    torch.manual_seed(0)
    SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=8,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=24,
        mlp_ratio=2.0, qk_norm="rms_norm_across_heads", sample_size=4, patch_size=1,
    ).save_pretrained(place / "transformer")  # fmt: skip
    AutoencoderDC(
        latent_channels=4, attention_head_dim=4,
        encoder_block_types=("ResBlock", "EfficientViTBlock"), decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)), scaling_factor=0.41407,
    ).save_pretrained(place / "vae")  # fmt: skip
    return place


def test_every_tensor_is_as_published(folder):
    """A6: nothing is re-initialised; the connector alone is new."""
    with deterministic(0):
        supervision = published_supervision(20, folder, shift=3.0, condition_dropout=0.1)
    for part, module in (("transformer", supervision.generator.sana), ("vae", supervision.latents.vae)):
        published = load_file(folder / part / FILE)
        assert module.state_dict().keys() == published.keys()
        assert all(torch.equal(tensor, published[name]) for name, tensor in module.state_dict().items())
    assert (supervision.connector.width, supervision.generator.condition_width) == (20, 24)
    assert 0 < supervision.connector.enter.weight.std().item() < 1
    assert not any(parameter.requires_grad for parameter in supervision.latents.parameters())
    picture, valid = torch.rand(3, 32, 32) * 2 - 1, torch.ones(32, 32, dtype=torch.bool)
    spans, grids = torch.tensor([[0, 4]]), torch.tensor([[2, 2]])
    losses = supervision(torch.randn(4, 20), spans, grids, [Target("depth", 0, picture, valid, key=1)])
    losses["depth"].backward()
    assert torch.isfinite(losses["depth"]) and supervision.connector.enter.weight.grad.any()


def test_a_folder_that_lacks_a_tensor_is_refused(folder, tmp_path):
    for part in ("transformer", "vae"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text((folder / part / "config.json").read_text())
        save_file(load_file(folder / part / FILE), tmp_path / part / FILE)
    tensors = load_file(folder / "vae" / FILE)
    save_file(
        {name: tensor for name, tensor in tensors.items() if name != "encoder.conv_in.bias"}, tmp_path / "vae" / FILE
    )
    with pytest.raises(ValueError, match=r"1 missing \(encoder.conv_in.bias\)"):
        published_supervision(20, tmp_path, shift=3.0, condition_dropout=0.1)
