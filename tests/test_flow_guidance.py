"""Times by their quantiles, data estimates, and inpainting against a distribution that is known exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from gemvlm.flow import data_estimate, integrate, interpolate, logit_normal, towards, uniform_times, velocity

STEPS = 8
TIMES = torch.arange(STEPS, dtype=torch.float32)
COVARIANCE = torch.exp(-0.5 * ((TIMES[:, None] - TIMES) / 3) ** 2) + 0.02 * torch.eye(STEPS)
"""Smooth chunks: neighbours are alike."""


def exact(state: Tensor, t: Tensor) -> Tensor:
    """The velocity of the flow to N(0, COVARIANCE), for states (N, 8, 1) that share their time."""
    time = float(t[0])
    spread = time**2 * COVARIANCE + (1 - time) ** 2 * torch.eye(STEPS)
    gain = (time * COVARIANCE - (1 - time) * torch.eye(STEPS)) @ torch.linalg.inv(spread)
    return gain @ state


def test_logits_of_times_are_standard_normal():
    t = logit_normal((torch.arange(4000) + 0.5) / 4000)
    logits = torch.logit(t)
    assert abs(float(logits.mean())) < 1e-3
    assert abs(float(logits.std()) - 1) < 1e-2
    assert t.dtype == torch.float32
    assert torch.equal(logit_normal(torch.tensor([0.0, 0.5])), torch.tensor([0.0, 0.5]))


def test_the_data_estimate_of_the_true_velocity_is_the_data():
    noise, data, t = torch.randn(5, 3, 2), torch.randn(5, 3, 2), torch.rand(5)
    state = interpolate(noise, data, t)
    torch.testing.assert_close(data_estimate(state, velocity(noise, data), t), data, atol=1e-5, rtol=0)


def chunks(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, chunks drawn from the distribution, and weights that commit their first three steps."""
    draw = torch.Generator().manual_seed(0)
    real = torch.linalg.cholesky(COVARIANCE) @ torch.randn(count, STEPS, 1, generator=draw)
    weight = torch.zeros(count, STEPS, 1)
    weight[:, :3] = 1
    return torch.randn(count, STEPS, 1, generator=draw), real, weight


def test_inpainting_finds_the_conditional_distribution():
    """Of what follows three known steps of a Gaussian: nearer to its true mean than pasting the steps in at the end."""
    noise, known, weight = chunks(400)
    free = integrate(exact, noise, uniform_times(20))
    guided = integrate(towards(exact, known, weight), noise, uniform_times(20))
    expected = COVARIANCE[3:, :3] @ torch.linalg.inv(COVARIANCE[:3, :3]) @ known[:, :3]
    assert (guided[:, :3] - known[:, :3]).abs().mean() < 0.1 * (free[:, :3] - known[:, :3]).abs().mean()
    # The step that follows the known ones hangs on them most.
    assert (guided[:, 3] - expected[:, 0]).abs().mean() < 0.5 * (free[:, 3] - expected[:, 0]).abs().mean()
    jump = (guided[:, 3] - known[:, 2]).abs().mean()
    assert jump < 1.3 * (known[:, 3] - known[:, 2]).abs().mean()
    assert (free[:, 3] - known[:, 2]).abs().mean() > 2 * jump


def test_items_without_weight_are_left_alone():
    noise, known, weight = chunks(6)
    weight[:3] = 0
    guided = integrate(towards(exact, known, weight), noise, uniform_times(5))
    free = integrate(exact, noise, uniform_times(5))
    assert torch.equal(guided[:3], free[:3])
    assert not torch.allclose(guided[3:], free[3:])


def test_guidance_leaves_no_graph_and_is_bounded_at_the_ends():
    noise, known, weight = chunks(2)
    guided = towards(exact, known, weight, strongest=5.0)
    with torch.no_grad():
        start, near_end = guided(noise, torch.zeros(2)), guided(noise, torch.full((2,), 0.999))
    assert not start.requires_grad
    assert start.isfinite().all()
    assert near_end.isfinite().all()
