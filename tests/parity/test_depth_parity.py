"""Connector, depth loss and sampling give the authors' numbers."""

from __future__ import annotations

import pytest
import torch

from gemvlm.flow import SigmaTable, interpolate
from gemvlm.model.connector import Connector
from gemvlm.model.generator import SanaFlow
from gemvlm.model.latents import PatchLatents
from gemvlm.model.supervision import GenerativeSupervision


def supervision_of(fixture, shift: float) -> GenerativeSupervision:
    flow = SanaFlow(fixture.config["sana"], SigmaTable(shift))
    weights = fixture.part("w.")
    width = weights["diffusion_connector.0.weight"].shape[1]
    module = GenerativeSupervision(Connector(width, fixture.config["connector_dim"]), flow, PatchLatents(8, 4, 0), 0.1)
    flow.sana.load_state_dict(fixture.part("w.sana."))
    module.connector.load_state_dict(fixture.part("w.diffusion_connector."))
    return module


def loss_of(fixture, module, states, latents, kept=None):
    spans = fixture.spans(fixture["in.input_ids"])
    grids = torch.ones(2, 2, dtype=torch.int64)
    condition = module.condition(states, spans, grids, range(2), kept)
    weight = torch.ones(latents.shape[0], *latents.shape[2:])
    return condition, module.generator.flow_losses(condition, latents, weight, fixture["in.noise"], fixture["in.u"])


def test_depth_loss(numbers, assert_close):
    fixture = numbers("depth_loss")
    module = supervision_of(fixture, shift=1.0)
    states = fixture["in.hidden_states"][0].requires_grad_()
    latents = fixture["in.vae_latents"] * fixture.config["scaling_factor"]

    condition, losses = loss_of(fixture, module, states, latents)

    assert_close(latents, fixture["out.latents"], fixture.atol)
    real = fixture["out.cond_mask"].bool()
    assert torch.equal(condition.mask, real)
    assert_close(condition.states, fixture["out.cond"], fixture.atol)
    timesteps, sigmas = module.generator.table.training(fixture["in.u"])
    assert_close(timesteps, fixture["out.timesteps"], fixture.atol)
    assert_close(sigmas, fixture["out.sigmas"], fixture.atol)
    assert_close(interpolate(fixture["in.noise"], latents, 1 - sigmas), fixture["out.noisy_latents"], fixture.atol)
    assert_close(losses, fixture["out.loss_per_image"], fixture.atol)
    assert_close(losses.mean(), fixture["out.dit_loss"], fixture.atol)

    losses.mean().backward()
    gradients = {"hidden_states": states.grad[None]}
    gradients |= {f"sana.{n}": p.grad for n, p in module.generator.sana.named_parameters()}
    gradients |= {f"diffusion_connector.{n}": p.grad for n, p in module.connector.named_parameters()}
    for name, expected in fixture.part("grad.").items():
        assert_close(gradients[name], expected, fixture.atol)


def test_dropped_conditions_and_the_null_token(numbers, assert_close):
    fixture = numbers("depth_loss")
    module = supervision_of(fixture, shift=1.0)
    states = fixture["in.hidden_states"][0]
    with torch.no_grad():
        _, losses = loss_of(fixture, module, states, fixture["out.latents"], kept=[False, False])
        null = module.null(2)
        weight = torch.ones(2, *fixture["out.latents"].shape[2:])
        short = module.generator.flow_losses(null, fixture["out.latents"], weight, fixture["in.noise"], fixture["in.u"])
    assert_close(null.states[0, 0], fixture["out.null_vector"], fixture.atol)
    assert_close(losses.mean(), fixture["out.dit_loss_all_dropped"], fixture.atol)
    assert_close(short.mean(), fixture["out.dit_loss_all_dropped"], fixture.atol)


def test_shifted_schedule(numbers, assert_close):
    fixture = numbers("depth_loss")
    module = supervision_of(fixture, shift=3.0)
    with torch.no_grad():
        _, losses = loss_of(fixture, module, fixture["in.hidden_states"][0], fixture["out.latents"])
    assert_close(module.generator.table.training(fixture["in.u"])[0], fixture["out.shift3.timesteps"], 1e-4)
    assert_close(losses.mean(), fixture["out.shift3.dit_loss"], fixture.atol)


@pytest.mark.parametrize(("shift", "guidance"), [(1.0, 5.0), (1.0, 1.0), (3.0, 5.0)])
def test_sampling(numbers, assert_close, shift, guidance):
    fixture = numbers("depth_sampling")
    module = supervision_of(fixture, shift)
    expected = fixture.part(f"shift{shift:.0f}.cfg{guidance:.0f}.")
    spans = fixture.spans(fixture["in.input_ids"])
    with torch.no_grad():
        condition = module.condition(
            fixture["in.hidden_states"][0], spans, torch.ones(2, 2, dtype=torch.int64), range(2)
        )
        null = module.null(2)
        final = module.generator.sample(condition, null, fixture["in.noise"], steps=4, guidance=guidance)
        first = expected["latents_before_step"][0]
        given = module.generator.velocity(first, torch.ones(2), condition)

    assert condition.mask is None
    assert_close(
        torch.cat([null.states.expand_as(condition.states), condition.states]), fixture["out.cond_pair"], fixture.atol
    )
    assert_close(module.generator.table.sampling(4)[1], expected["sigmas"].double(), 1e-6)
    assert_close(-given, expected["velocity_cond"][0], fixture.atol)
    assert_close(final, expected["latents"], fixture.atol)
