"""The whole model, loaded from the official checkpoint names, gives the authors' numbers."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from gemvlm.batch import Batch
from gemvlm.depth_map import Encoding
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem
from gemvlm.model.generator import Condition
from gemvlm.model.weights import load_weights, named_tensors, save_weights


def config_of(fixture) -> GemConfig:
    config = fixture.config
    ids = {name: value for name, value in config.items() if name.endswith("_token_id")}
    backbone = {"text_config": config["text_config"], "vision_config": config["vision_config"], **ids}
    return GemConfig(
        backbone=backbone | {"tie_word_embeddings": config["tie_word_embeddings"]},
        generator={"kind": "sana", **config["sana"]},
        latents={"kind": "dc_ae", **config["vae"]},
        encoding=Encoding("spectral"),
        shift=config["shift"],
        condition_dropout=0.1,
    )


@pytest.fixture(scope="module")
def fixture(numbers):
    return numbers("gem")


@pytest.fixture(scope="module")
def gem(fixture, tmp_path_factory) -> Gem:
    folder = tmp_path_factory.mktemp("official")
    save_file(fixture.part("w."), folder / "model.safetensors")
    gem = Gem(config_of(fixture))
    load_weights(gem, folder)
    return gem.eval()


def batch_of(fixture, source: str, position_ids: torch.Tensor) -> Batch:
    ids = fixture[f"{source}.input_ids"]
    labels = fixture[f"{source}.labels"][0] if source == "in" else torch.full_like(ids[0], -100)
    return Batch(
        input_ids=ids[0],
        segment_ids=torch.zeros_like(ids[0]),
        position_ids=position_ids,
        labels=labels,
        pixel_values=fixture[f"{source}.pixel_values"],
        image_grid_thw=fixture[f"{source}.image_grid_thw"],
        spans=fixture.spans(ids),
    )


def position_ids(gem: Gem, ids: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """By the stock algorithm."""
    model = gem.backbone.qwen.model
    types = (ids == model.config.image_token_id).int()
    return model.get_rope_index(ids, types, image_grid_thw=grids)[0][:, 0]


@pytest.fixture(scope="module")
def batch(fixture) -> Batch:
    return batch_of(fixture, "in", fixture["out.position_ids"][:, 0])


def test_vision_features(fixture, gem, batch, assert_close):
    with torch.no_grad():
        _, deepstack = gem.backbone._embed(batch)
        embeds = gem.backbone._embed(batch)[0]
    assert_close(embeds[deepstack[0][0]], fixture["out.image_embeds"], fixture.atol["hidden"])
    for i, (_, features) in enumerate(deepstack):
        assert_close(features, fixture[f"out.deepstack.{i}"], fixture.atol["hidden"])


def test_states_are_after_the_final_norm(fixture, gem, batch, assert_close):
    """A1: the depth head reads states after the final norm, in every stage."""
    with torch.no_grad():
        out = gem.backbone(batch)
    assert_close(out.states, fixture["out.last_hidden"][0], fixture.atol["hidden"])
    assert_close(gem.backbone.logits(out.states), fixture["out.logits"][0], fixture.atol["hidden"])
    for i, (start, end) in enumerate(batch.spans.tolist()):
        assert_close(out.states[start:end], fixture[f"out.span.{i}"], fixture.atol["hidden"])


def test_layer_inputs_hold_the_deepstack_addition(fixture, gem, batch, assert_close):
    with torch.no_grad():
        inputs = gem.backbone(batch, layer_inputs=range(5)).layer_inputs
        stopped = gem.backbone(batch, layer_inputs=[2], stop_after=2)
    for i in range(5):
        assert_close(inputs[i], fixture[f"out.hidden_states.{i}"][0], fixture.atol["hidden"])
    assert stopped.states is None
    assert torch.equal(stopped.layer_inputs[2], inputs[2])


def test_losses_and_gradients(fixture, gem, batch, assert_close):
    supervision, latents = gem.supervision, gem.supervision.latents.encode(fixture["in.input_images"])
    assert_close(latents, fixture["out.vae_latents"] * fixture.config["vae"]["scaling_factor"], fixture.atol["losses"])
    states = gem.backbone(batch).states
    condition = supervision.condition(states, batch.spans, gem.token_grids(batch), range(2))
    weight = torch.ones(2, *latents.shape[2:])
    text = gem.backbone.text_loss(states, batch)
    depth = supervision.generator.flow_losses(condition, latents, weight, fixture["in.noise"], fixture["in.u"])
    loss = text + 0.1 * depth.mean()
    assert_close(text, fixture["out.lm_loss"], fixture.atol["losses"])
    assert_close(depth, fixture["out.loss_per_image"], fixture.atol["losses"])
    assert_close(loss, fixture["out.loss"], fixture.atol["losses"])

    loss.backward()
    tensors = named_tensors(gem)
    for name, expected in fixture.part("grad.").items():
        assert_close(tensors[name].grad, expected, fixture.atol["hidden"])
    gem.zero_grad()


def test_condition_dropout(fixture, gem, batch, assert_close):
    supervision = gem.supervision
    kept = (fixture["drop.mask"] == 0).tolist()
    with torch.no_grad():
        states = gem.backbone(batch).states
        latents = supervision.latents.encode(fixture["in.input_images"])
        condition = supervision.condition(states, batch.spans, gem.token_grids(batch), range(2), kept)
        weight = torch.ones(2, *latents.shape[2:])
        losses = supervision.generator.flow_losses(condition, latents, weight, fixture["drop.noise"], fixture["drop.u"])
    assert_close(losses.mean(), fixture["drop.dit_loss"], fixture.atol["losses"])


def test_sampled_pictures(fixture, gem, assert_close):
    ids, grids = fixture["sample.input_ids"], fixture["sample.image_grid_thw"]
    batch = batch_of(fixture, "sample", position_ids(gem, ids, grids))
    supervision = gem.supervision
    with torch.no_grad():
        condition = supervision.condition(gem.backbone(batch).states, batch.spans, gem.token_grids(batch), range(2))
        latents = supervision.generator.sample(
            condition,
            supervision.null(2),
            fixture["sample.noise"],
            steps=fixture.config["sample_steps"],
            guidance=fixture.config["sample_cfg"],
        )
        pictures = (supervision.latents.decode(latents) / 2 + 0.5).clamp(0, 1)
    assert_close(latents, fixture["sample.final_latents"], fixture.atol["sample"])
    assert_close(pictures, fixture["sample.images"], fixture.atol["sample"])


def test_stock_position_ids(fixture, gem, assert_close):
    found = position_ids(gem, fixture["in.input_ids"], fixture["in.image_grid_thw"])
    assert torch.equal(found, fixture["out.position_ids"][:, 0])


def test_saved_names_are_the_official_ones(fixture, gem, tmp_path):
    from safetensors import safe_open

    save_weights(gem, tmp_path, torch.float32)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(fixture.part("w."))
        assert all(torch.equal(file.get_tensor(name), fixture[f"w.{name}"]) for name in file.keys())  # noqa: SIM118


def test_full_size_names_and_shapes(full_size_keys):
    config = full_size_keys["config"]
    backbone = {"text_config": config["text"], "vision_config": config["vision"], "tie_word_embeddings": True}
    with torch.device("meta"):
        gem = Gem(
            GemConfig(
                backbone,
                {"kind": "sana", **config["sana"]},
                {"kind": "dc_ae", **config["vae"]},
                Encoding("spectral"),
                3.0,
                0.1,
            )
        )
    found = {name: list(tensor.shape) for name, tensor in named_tensors(gem).items()}
    assert len(found) == 1482
    assert found == {name: list(shape) for name, shape in full_size_keys["keys"].items()}


def test_condition_without_a_mask_equals_one_that_is_all_true(fixture, gem):
    states = torch.randn(2, 6, fixture.config["connector_dim"])
    with torch.no_grad():
        args = torch.randn(2, 4, 2, 3), torch.tensor([0.3, 0.8])
        plain = gem.supervision.generator.velocity(*args, Condition(states))
        masked = gem.supervision.generator.velocity(*args, Condition(states, torch.ones(2, 6, dtype=torch.bool)))
    torch.testing.assert_close(plain, masked, atol=1e-6, rtol=0)
