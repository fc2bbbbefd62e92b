"""One-step students against a distribution whose flow is known exactly, and as students of a small policy."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gemvlm.batch import Actions, Batch
from gemvlm.flow import integrate, uniform_times
from gemvlm.model.action_expert import ExpertConfig
from gemvlm.model.gem_vla import GemVla, GemVlaConfig
from gemvlm.runtime import Runtime
from gemvlm.training.distillation import (
    DistillationConfig,
    distil,
    flow_loss,
    matching_loss,
    one_step,
    regression_loss,
)

MEANS, SHARES, SPREAD = torch.tensor([[1.5, 0.0], [-1.5, 0.5], [0.0, -1.5]]), torch.tensor([0.5, 0.3, 0.2]), 0.25
CPU = Runtime(rank=0, world=1, device=torch.device("cpu"), precision="float32")


def mixture(count: int, draw: torch.Generator) -> Tensor:
    chosen = torch.multinomial(SHARES, count, replacement=True, generator=draw)
    return MEANS[chosen] + SPREAD * torch.randn(count, 2, generator=draw)


def exact(state: Tensor, time: Tensor, shift: float = 0.0) -> Tensor:
    """The velocity of the flow to the mixture (its first coordinate shifted), by Bayes' rule."""
    means = MEANS + torch.tensor([shift, 0.0])
    t = time.float()[:, None]
    variance = (t * SPREAD) ** 2 + (1 - t) ** 2
    away = state[:, None] - t[:, :, None] * means
    weight = (SHARES.log() - away.square().sum(-1) / (2 * variance)).softmax(-1)[..., None]
    data = means + (t * SPREAD**2 / variance)[:, :, None] * away
    noise = ((1 - t) / variance)[:, :, None] * away
    return (weight * (data - noise)).sum(1)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(10, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, state: Tensor, time: Tensor) -> Tensor:
        angles = time.float()[:, None] * torch.tensor([1.0, 2.0, 4.0, 8.0]) * math.pi / 2
        return self.layers(torch.cat([state, angles.sin(), angles.cos()], dim=-1))


def shares_and_strays(points: Tensor) -> tuple[Tensor, float]:
    """The share of points next to each mean, and of points further from all than four spreads."""
    distance = (points[:, None] - MEANS).norm(dim=-1)
    nearest, index = distance.min(1)
    return torch.bincount(index, minlength=3) / len(points), float((nearest > 4 * SPREAD).float().mean())


@pytest.fixture(scope="module")
def learned() -> Network:
    """A network that has learned the flow to the mixture from samples, as students and fakes begin."""
    torch.manual_seed(0)
    draw, network = torch.Generator().manual_seed(0), Network()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(300):
        noise, time = torch.randn(128, 2, generator=draw), torch.rand(128, generator=draw)
        update(optimizer, flow_loss(network, mixture(128, draw), noise, time))
    return network


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def test_the_known_flow_leads_to_the_mixture():
    draw = torch.Generator().manual_seed(0)
    shares, strays = shares_and_strays(integrate(exact, torch.randn(2000, 2, generator=draw), uniform_times(60)))
    assert (shares - SHARES).abs().max() < 0.04
    assert strays < 0.01


def test_one_step_of_a_flow_model_is_no_student(learned):
    """What makes the next two tests mean something: undistilled, a single step ends between the modes."""
    assert shares_and_strays(one_step(learned, torch.randn(2000, 2)).detach())[1] > 0.8


def test_regression_learns_the_teachers_path_noise_by_noise(learned):
    draw, student = torch.Generator().manual_seed(1), copy.deepcopy(learned)
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    for _ in range(250):
        update(optimizer, regression_loss(student, exact, torch.randn(128, 2, generator=draw), uniform_times(8)))
    noise = torch.randn(2000, 2, generator=draw)
    made, ends = one_step(student, noise).detach(), integrate(exact, noise, uniform_times(8))
    assert (made - ends).square().mean() < 0.05 * ends.square().mean()
    shares, strays = shares_and_strays(made)
    assert (shares - SHARES).abs().max() < 0.06
    assert strays < 0.2


def test_distribution_matching_finds_the_mixture_without_any_pair(learned):
    draw, student, fake = torch.Generator().manual_seed(2), copy.deepcopy(learned), copy.deepcopy(learned)
    student_optimizer = torch.optim.Adam(student.parameters(), 2e-3)
    fake_optimizer = torch.optim.Adam(fake.parameters(), 4e-3)

    def noise() -> Tensor:
        return torch.randn(128, 2, generator=draw)

    def time() -> Tensor:
        return 0.02 + 0.96 * torch.rand(128, generator=draw)

    for _ in range(150):
        for _ in range(3):
            update(fake_optimizer, flow_loss(fake, one_step(student, noise()).detach(), noise(), time()))
        update(student_optimizer, matching_loss(one_step(student, noise()), exact, fake, noise(), time()))
    shares, strays = shares_and_strays(one_step(student, torch.randn(2000, 2, generator=draw)).detach())
    assert (shares - SHARES).abs().max() < 0.1
    assert strays < 0.3


def test_the_matching_gradient_is_the_difference_of_estimates():
    """Nothing pulls where the distributions agree; a student shifted to the right is moved to the left."""
    draw = torch.Generator().manual_seed(3)
    noise, time = torch.randn(4000, 2, generator=draw), 0.1 + 0.8 * torch.rand(4000, generator=draw)
    same = mixture(4000, draw).requires_grad_()
    matching_loss(same, exact, exact, noise, time).backward()
    assert same.grad.abs().max() == 0
    shifted = (mixture(4000, draw) + torch.tensor([0.2, 0.0])).requires_grad_()
    matching_loss(shifted, exact, lambda x, t: exact(x, t, 0.2), noise, time).backward()
    pull = -shifted.grad.mean(0)
    assert pull[0] < 0
    assert pull[0].abs() > 5 * pull[1].abs()


def test_one_step_is_eulers_method(learned):
    noise = torch.randn(8, 2)
    torch.testing.assert_close(one_step(learned, noise).detach(), integrate(learned, noise, uniform_times(1)))


# ---- students of a policy ----

TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True},
}
VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": 8,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
}
EXPERT = ExpertConfig(
    action=2,
    state=2,
    horizon=3,
    width=32,
    depth=1,
    heads=2,
    kv_heads=2,
    registers=1,
    conditioning="layer_inputs",
    layers=(1,),
    time_scale=1000.0,
    ffn_multiple_of=16,
)


@pytest.fixture
def policy() -> GemVla:
    torch.manual_seed(0)
    policy = GemVla(GemVlaConfig({"text_config": TEXT, "vision_config": VISION}, EXPERT, None, backbone_gradient=1.0))
    with torch.no_grad():
        for parameter in policy.expert.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
        # Paths that bend: one step of the teacher ends elsewhere than many.
        policy.expert.act_adaptor[4].weight.mul_(4)
        policy.expert.model.final_layer.ffn["fc2"].weight.mul_(2)
    return policy


def observations(step: int) -> Batch:
    """Two robots before a blank wall: text alone."""
    ids = torch.tensor([5, 6, 7, 8, 5, 9])
    return Batch(
        input_ids=ids,
        segment_ids=torch.tensor([0, 0, 0, 0, 1, 1]),
        position_ids=torch.tensor([0, 1, 2, 3, 0, 1]).expand(3, -1),
        labels=torch.full((6,), -100),
        pixel_values=torch.zeros(0, 3 * 2 * 64),
        image_grid_thw=torch.zeros(0, 3, dtype=torch.int64),
        spans=torch.zeros(0, 2, dtype=torch.int64),
        actions=Actions(
            samples=torch.tensor([0, 1]),
            state=torch.tensor([[0.5, -0.5], [0.1, 0.2]]),
            chunk=torch.zeros(2, 3, 2),
            valid=torch.ones(2, 3, dtype=torch.bool),
            keys=(1000 * step, 1000 * step + 500),
        ),
    )


@pytest.mark.parametrize(("method", "weight"), [("regression", 0.0), ("distribution_matching", 0.5)])
def test_distillation_runs_and_freezes_all_that_the_teacher_is(policy, method, weight):
    """A4: it starts. B19: teacher and backbone don't move, the fake doesn't stay, the student alone is returned."""
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    reported: list[dict[str, float]] = []
    config = DistillationConfig(method, steps=3, learning_rate=1e-2, draws=2, fake_updates=2, regression_weight=weight)
    student = distil(policy, map(observations, range(9)), config, CPU, lambda step, found: reported.append(found))
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    assert all(parameter.grad is None for parameter in policy.parameters())
    assert len(reported) == 3
    assert set(reported[0]) == ({"student"} if method == "regression" else {"student", "fake"})
    assert student.state_dict().keys() == policy.expert.state_dict().keys()
    assert any(not torch.equal(t, before[f"expert.{n}"]) for n, t in student.state_dict().items())
    again = distil(policy, map(observations, range(9)), config, CPU)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in student.state_dict().items())


def test_a_regression_student_acts_in_one_step_as_its_teacher_in_many(policy):
    batch = observations(-1)
    many, single = policy.eval().act(batch, 4), policy.act(batch, 1)
    config = DistillationConfig("regression", steps=40, learning_rate=3e-3, teacher_steps=4, draws=12)
    policy.expert = distil(policy, map(observations, range(40)), config, CPU)
    assert (policy.act(batch, 1) - many).abs().mean() < 0.5 * (single - many).abs().mean()


def test_refusals(policy):
    config = DistillationConfig("regression", steps=5, learning_rate=1e-3)
    with pytest.raises(ValueError, match="ended after 2 of 5 steps"):
        distil(policy, map(observations, range(2)), config, CPU)
    with pytest.raises(ValueError, match="must be positive"):
        replace(config, draws=0)
    with pytest.raises(ValueError, match="earliest=0"):
        replace(config, earliest=0.9, latest=0.1)
