"""Checkpoints and published folders: every tensor arrives, nothing else is accepted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from gemvlm.depth_map import Encoding
from gemvlm.model.gem import Gem
from gemvlm.model.weights import from_pretrained_parts, load_weights, named_tensors, save_weights, uninitialised


def test_round_trip(gem, config, tmp_path):
    save_weights(gem, tmp_path, torch.float32)
    loaded = uninitialised(config)
    load_weights(loaded, tmp_path)
    wanted, found = named_tensors(gem), named_tensors(loaded)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


def test_a_model_built_without_drawing_computes_the_same(gem, config, make_batch, tmp_path):
    save_weights(gem, tmp_path, torch.float32)
    loaded = uninitialised(config)
    load_weights(loaded, tmp_path)
    assert torch.equal(loaded(make_batch())["text"], gem(make_batch())["text"])
    assert torch.equal(loaded(make_batch())["depth"], gem(make_batch())["depth"])


def test_half_precision_files_load_into_float32(gem, config, tmp_path):
    save_weights(gem, tmp_path, torch.bfloat16)
    loaded = Gem(config)
    load_weights(loaded, tmp_path)
    name, tensor = next(iter(named_tensors(loaded).items()))
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor, named_tensors(gem)[name].bfloat16().float())


def test_shards_with_an_index(gem, config, tmp_path):
    save_weights(gem, tmp_path, torch.float32)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {"model-1.safetensors": names[:40], "model-2.safetensors": names[40:]}
    for file, members in files.items():
        save_file({name: tensors[name] for name in members}, tmp_path / file)
    weight_map = {name: file for file, members in files.items() for name in members}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    loaded = Gem(config)
    load_weights(loaded, tmp_path)
    assert torch.equal(loaded.supervision.connector[0].weight, gem.supervision.connector[0].weight)


def test_tensors_that_do_not_fit_are_named(gem, config, tmp_path):
    save_weights(gem, tmp_path, torch.float32)
    tensors = load_file(tmp_path / "model.safetensors")
    bias = tensors.pop("diffusion_connector.0.bias")
    tensors["diffusion_connector.9.bias"] = bias
    tensors["sana.proj_out.bias"] = torch.zeros(3)
    save_file(tensors, tmp_path / "model.safetensors")
    before = gem.supervision.connector[0].weight.clone()
    with pytest.raises(ValueError) as caught:
        load_weights(gem, tmp_path)
    message = str(caught.value)
    assert "1 missing (diffusion_connector.0.bias)" in message
    assert "1 unexpected (diffusion_connector.9.bias)" in message
    assert "1 mis-shaped (sana.proj_out.bias (3,) for (8,))" in message
    assert torch.equal(gem.supervision.connector[0].weight, before)


def test_a_tied_head_must_equal_the_embedding(gem, config, tmp_path):
    save_weights(gem, tmp_path, torch.float32)
    tensors = load_file(tmp_path / "model.safetensors")
    embedding = tensors["model.language_model.embed_tokens.weight"]
    save_file(tensors | {"lm_head.weight": embedding.clone()}, tmp_path / "model.safetensors")
    load_weights(gem, tmp_path)
    save_file(tensors | {"lm_head.weight": embedding + 1}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="tie_word_embeddings"):
        load_weights(gem, tmp_path)


def test_an_untied_head_is_saved(config, tmp_path):
    text = config.backbone["text_config"] | {"tie_word_embeddings": False}
    untied = Gem(replace(config, backbone=dict(config.backbone) | {"tie_word_embeddings": False, "text_config": text}))
    save_weights(untied, tmp_path, torch.float32)
    tensors = load_file(tmp_path / "model.safetensors")
    assert not torch.equal(tensors["lm_head.weight"], tensors["model.language_model.embed_tokens.weight"])


def test_folders_without_weights_are_named(gem, tmp_path):
    with pytest.raises(ValueError, match="holds none of"):
        load_weights(gem, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: not a readable safetensors file"):
        load_weights(gem, tmp_path)


@pytest.fixture
def published(gem, tmp_path):
    """Plain folders as Qwen3-VL and Sana publish them, with weights from the libraries' own writers."""
    from diffusers import AutoencoderDC

    vae = AutoencoderDC(
        latent_channels=8,
        attention_head_dim=8,
        encoder_block_types=("ResBlock", "ResBlock"),
        decoder_block_types=("ResBlock", "ResBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        upsample_block_type="interpolate",
        downsample_block_type="Conv",
        scaling_factor=0.4,
    )
    gem.backbone.qwen.save_pretrained(tmp_path / "qwen")
    gem.supervision.generator.sana.save_pretrained(tmp_path / "sana/transformer")
    vae.save_pretrained(tmp_path / "sana/vae")
    return tmp_path


def test_published_parts_arrive_as_their_files_have_them(published, make_batch):
    """A6: no tensor of the language model, Sana or the autoencoder is re-initialised."""
    options = {"encoding": Encoding("spectral"), "shift": 3.0, "condition_dropout": 0.1}
    gem = from_pretrained_parts(published / "qwen", published / "sana", **options)
    tensors = named_tensors(gem)
    sources = {"": "qwen/model.safetensors"}
    sources |= {
        f"{p}.": f"sana/{f}/diffusion_pytorch_model.safetensors" for p, f in (("sana", "transformer"), ("vae", "vae"))
    }
    compared = set()
    for prefix, file in sources.items():
        for name, expected in load_file(published / file).items():
            assert torch.equal(tensors[prefix + name], expected), name
            compared.add(prefix + name)
    new = {name for name in tensors if name.startswith("diffusion_connector.")}
    assert compared | new | {"lm_head.weight"} == set(tensors)
    assert all(tensors[name].isfinite().all() for name in new)
    assert 0 < tensors["diffusion_connector.0.weight"].std() < 1
    assert gem.config.shift == 3.0
    assert set(gem(make_batch())) == {"text", "depth"}


def test_a_wrong_folder_is_named(published):
    options = {"encoding": Encoding("spectral"), "shift": 3.0, "condition_dropout": 0.1}
    with pytest.raises(ValueError, match=r"sana/config\.json|sana/transformer/transformer/config\.json"):
        from_pretrained_parts(published / "qwen", published / "sana/transformer", **options)
    with pytest.raises(ValueError, match=r"sana/transformer"):
        from_pretrained_parts(published / "sana/transformer", published / "sana", **options)
