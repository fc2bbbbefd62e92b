"""The patch codec is an orthonormal projection with the spread of natural pictures."""

from __future__ import annotations

import pytest
import torch

from gemvlm.model.latents import DcAeLatents, PatchLatents, build_latents

DC_AE = {
    "in_channels": 3,
    "latent_channels": 4,
    "attention_head_dim": 8,
    "scaling_factor": 0.5,
    "encoder_block_types": ["ResBlock", "ResBlock"],
    "decoder_block_types": ["ResBlock", "ResBlock"],
    "encoder_block_out_channels": [8, 8],
    "decoder_block_out_channels": [8, 8],
    "encoder_layers_per_block": [1, 1],
    "decoder_layers_per_block": [1, 1],
    "encoder_qkv_multiscales": [[], []],
    "decoder_qkv_multiscales": [[], []],
    "upsample_block_type": "interpolate",
    "downsample_block_type": "Conv",
    "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu",
}


@pytest.mark.parametrize(("patch", "luma", "chroma"), [(8, 24, 4), (8, 64, 0), (4, 5, 16)])
def test_the_kept_basis_is_orthonormal(patch, luma, chroma):
    basis = PatchLatents(patch, luma, chroma).basis.flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(luma + 2 * chroma), atol=1e-5, rtol=0)


def test_decode_undoes_encode_on_what_is_kept():
    codec = PatchLatents(8, 24, 4)
    latents = torch.randn(2, 32, 3, 5)
    torch.testing.assert_close(codec.encode(codec.decode(latents)), latents, atol=1e-5, rtol=0)


def test_all_coefficients_give_back_every_picture():
    codec, picture = PatchLatents(4, 16, 16), torch.rand(2, 3, 16, 24) * 2 - 1
    torch.testing.assert_close(codec.decode(codec.encode(picture)), picture, atol=1e-6, rtol=0)


def test_a_grey_plane_survives_and_a_flat_colour_is_exact():
    codec = PatchLatents(8, 24, 4)
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    assert (codec.decode(codec.encode(ramp)) - ramp).abs().max() < 0.002
    flat = torch.tensor([0.3, -0.9, 0.8]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    torch.testing.assert_close(codec.decode(codec.encode(flat)), flat, atol=1e-5, rtol=0)


def test_casting_the_model_leaves_the_codec_exact():
    codec = PatchLatents(8, 24, 4)
    picture = torch.rand(1, 3, 16, 16)
    expected = codec.encode(picture)
    assert torch.equal(codec.to(torch.bfloat16).encode(picture), expected)


def test_gain_scales_latents_and_nothing_else():
    picture = torch.rand(1, 3, 16, 16)
    once, twice = PatchLatents(8, 24, 4), PatchLatents(8, 24, 4, gain=2.0)
    torch.testing.assert_close(twice.encode(picture), 2 * once.encode(picture))
    torch.testing.assert_close(twice.decode(twice.encode(picture)), once.decode(once.encode(picture)))


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="30x32 pixels: both sides must be multiples of 8"):
        PatchLatents(8, 24, 4).encode(torch.zeros(1, 3, 30, 32))
    with pytest.raises(ValueError, match="gain"):
        PatchLatents(8, 24, 4, gain=0.0)
    with pytest.raises(ValueError, match="luma=65"):
        PatchLatents(8, 65, 0)


def test_the_autoencoder_is_frozen_and_stays_in_eval_mode():
    codec = build_latents({"kind": "dc_ae", **DC_AE})
    assert isinstance(codec, DcAeLatents)
    codec.train()
    assert not any(module.training for module in codec.modules())
    assert not any(parameter.requires_grad for parameter in codec.parameters())
    picture = torch.rand(1, 3, 32, 16) * 2 - 1
    latents = codec.encode(picture)
    assert latents.shape == (1, 4, *codec.grid(32, 16))
    torch.testing.assert_close(latents, codec.vae.encode(picture).latent * 0.5)
    assert codec.decode(latents).shape == picture.shape
