"""The stock Sana behind our adapter gives the authors' numbers."""

from __future__ import annotations

import torch

from gemvlm.flow import SigmaTable
from gemvlm.model.generator import Condition, SanaFlow


def test_velocity_and_gradients(numbers, assert_close):
    fixture = numbers("sana")
    flow = SanaFlow(fixture.config, SigmaTable(shift=1.0))
    flow.sana.load_state_dict(fixture.part("w."))
    latents = fixture["in.latents"].requires_grad_()
    cond = fixture["in.cond"].requires_grad_()
    sigma = fixture["in.timestep"] / 1000

    unmasked = flow.velocity(latents, sigma, Condition(cond))
    masked = flow.velocity(latents, sigma, Condition(cond, fixture["in.mask"].bool()))

    # Ours points from noise to data, Sana's from data to noise.
    assert_close(-unmasked, fixture["out.unmasked"], fixture.atol)
    assert_close(-masked, fixture["out.masked"], fixture.atol)
    masked.square().mean().backward()
    gradients = {"latents": latents.grad, "cond": cond.grad, **{n: p.grad for n, p in flow.sana.named_parameters()}}
    for name, expected in fixture.part("grad.").items():
        assert_close(gradients[name], expected, fixture.atol)


def test_padding_does_not_reach_the_output(numbers, assert_close):
    fixture = numbers("sana")
    flow = SanaFlow(fixture.config, SigmaTable(shift=1.0))
    flow.sana.load_state_dict(fixture.part("w."))
    length = int(fixture["in.mask"][1].sum())
    sigma = fixture["in.timestep"][1:] / 1000
    with torch.no_grad():
        alone = flow.velocity(fixture["in.latents"][1:], sigma, Condition(fixture["in.cond"][1:, :length]))
    assert_close(-alone, fixture["out.masked"][1:], fixture.atol)
