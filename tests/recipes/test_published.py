"""Recipes of the paper's size, in the published layouts with tiny tensors: start, every stage, save, export."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gemvlm.inference import load
from gemvlm.inference.export import export_model
from gemvlm.model.weights import named_tensors
from gemvlm.recipes import run as recipe_run
from gemvlm.recipes.data import published_codec
from gemvlm.recipes.gem_2b import GEM_2B
from gemvlm.recipes.gem_2b_continue import GEM_2B_CONTINUE
from gemvlm.recipes.gem_2b_lora import GEM_2B_LORA
from gemvlm.recipes.gem_8b import GEM_8B
from gemvlm.recipes.recipe import Recipe, Start
from gemvlm.recipes.run import train_recipe
from gemvlm.recipes.start import find_start
from gemvlm.training.loop import Run


def carry_out(
    monkeypatch: pytest.MonkeyPatch,
    recipe: Recipe,
    out: Path,
    data: Path,
    start: list[str],
    workers: int = 0,
    **options: Any,
) -> bool:
    monkeypatch.setattr(recipe_run, "get", lambda name: recipe)
    monkeypatch.setattr(recipe_run, "PREVIEWS", 1)
    monkeypatch.setattr(recipe_run, "PREVIEW_STEPS", 1)
    run = Run(out, show_progress=False, **options)
    return train_recipe(recipe.name, out, data=data, device="cpu", run=run, start=start, workers=workers)


@pytest.mark.parametrize("recipe, tied", [(GEM_2B, True), (GEM_8B, False)], ids=["gem_2b", "gem_8b"])
def test_from_published_folders_through_every_stage_to_stock_transformers(
    recipe: Recipe,
    tied: bool,
    publish: Callable[..., Any],
    learned_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published = publish(recipe, tied)
    out = tmp_path / "run"
    assert carry_out(monkeypatch, published.recipe, out, learned_set, published.words, keep=9)
    trained = load(out / "final", "cpu")
    assert trained.card.step == 6 and trained.card.target == {}
    tensors = named_tensors(trained.gem)
    vae = load_file(published.sana / "vae/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(tensors["vae." + name], tensor) for name, tensor in vae.items()), "the autoencoder learned"
    after_one = load_file(out / "step-2/model.safetensors")
    for prefix, file in (("", "qwen/model"), ("sana.", "sana/transformer/diffusion_pytorch_model")):
        before = load_file(published.qwen.parent / f"{file}.safetensors")
        assert all(torch.equal(after_one[prefix + name], tensor) for name, tensor in before.items()), file
        assert any(not torch.equal(tensors[prefix + name], tensor) for name, tensor in before.items()), file
    assert ("lm_head.weight" in after_one) is not tied

    plain = export_model(out / "final", tmp_path / "plain", "qwen3-vl", torch.float32)
    same_logits(plain, trained)
    whole = export_model(out / "final", tmp_path / "gem", "gem", torch.float32)
    assert {n.split(".")[0] for n in load_file(whole / "model.safetensors")} >= {"sana", "vae", "diffusion_connector"}
    carried_on = replace(published.recipe, stages=published.recipe.stages[-1:])
    assert carry_out(monkeypatch, carried_on, tmp_path / "more", learned_set, [str(whole)], workers=1)
    with pytest.raises(ValueError, match="exists already"):
        export_model(out / "final", plain, "qwen3-vl")


def same_logits(folder: Path, pipeline: Any) -> None:
    """Stock transformers loads the export strictly, its processor cuts images as ours, and the logits are equal."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    stock, told = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    image = torch.randint(0, 256, (80, 80, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    seen = AutoImageProcessor.from_pretrained(folder)(images=image, return_tensors="pt")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": "What colour is the mug?"}]
    message = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    count = int(seen.image_grid_thw.prod()) // 4
    ids = tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * count), return_tensors="pt").input_ids
    from gemvlm.data.collate import Prompt
    from gemvlm.sample import Frame

    batch = pipeline._collate.prompts([Prompt([Frame(image)], "What colour is the mug?")])
    assert torch.equal(batch.input_ids, ids[0]) and torch.equal(batch.image_grid_thw, seen.image_grid_thw)
    torch.testing.assert_close(batch.pixel_values, seen.pixel_values, atol=1e-6, rtol=0)
    with torch.no_grad():
        theirs = stock(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == stock.config.image_token_id).int(),
            pixel_values=seen.pixel_values,
            image_grid_thw=seen.image_grid_thw,
        ).logits[0]
        backbone = pipeline.gem.backbone
        ours = backbone.logits(backbone(batch).states)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_the_authors_continuation_leaves_connector_and_generator_alone(
    publish: Callable[..., Any], learned_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish(GEM_2B_CONTINUE)
    first = replace(published.recipe, start=Start(), stages=published.recipe.stages)
    with pytest.raises(ValueError, match=r"begins with given weights: add --start CHECKPOINT"):
        find_start(published.recipe, published.recipe.start)
    begun = find_start(first, Start().given(published.words))
    before = named_tensors(begun.load(begun.model, seed=0))
    assert carry_out(monkeypatch, first, tmp_path / "run", learned_set, published.words)
    after = load_file(tmp_path / "run/final/model.safetensors")
    moved = {
        name.split(".")[0] if "." in name else name for name, t in after.items() if not torch.equal(t, before[name])
    }
    assert moved == {"model"}
    assert any(".deepstack_merger_list." in n for n, t in after.items() if not torch.equal(t, before[n])), "B11"


def test_adapters_averages_and_cached_latents_by_the_command(
    publish: Callable[..., Any], learned_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters end in the weights of their layers; latents that lie beside the set are read, not made again."""
    pytest.importorskip("peft")
    from gemvlm.curation.encode import Codec, encode
    from gemvlm.model.latents import DcAeLatents

    published = publish(GEM_2B_LORA)
    first, *_, adapted = published.recipe.stages
    recipe = replace(published.recipe, stages=(replace(first, steps=1), replace(adapted, ema=0.5)))
    samples = shutil.copytree(learned_set, tmp_path / "set")
    begun = find_start(recipe, Start().given(published.words)).load
    latents = begun(recipe.model, 0).supervision.latents
    codec = published_codec(recipe, str(published.sana), "depth")
    assert codec.stamp == Codec.of(recipe.model, latents, "depth", (None, None)).stamp
    encode(samples, codec, show_progress=False)
    monkeypatch.setattr(recipe_run, "depth_preview", lambda *_: lambda *_: None)
    monkeypatch.setattr(DcAeLatents, "encode", lambda *_: pytest.fail("a target was encoded again"))
    assert not carry_out(monkeypatch, recipe, tmp_path / "run", samples, published.words, minutes=0.0)
    assert carry_out(monkeypatch, recipe, tmp_path / "run", samples, [])
    before = load_file(published.qwen / "model.safetensors")
    after = load_file(tmp_path / "run/final/model.safetensors")
    moved = {name.split(".")[-2] for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert moved == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert not list((tmp_path / "run/final").glob("adapter*"))
    assert not any("lora" in name for name in after)
