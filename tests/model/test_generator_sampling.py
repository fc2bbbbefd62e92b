"""Sampling with everything computed once equals sampling with nothing kept; few steps; folded guidance; one step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gemvlm.flow import SigmaTable, Steps, evaluation_times, integrate
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem
from gemvlm.model.generator import Condition, Draw, GuidedSanaFlow, OneStepSana, RegressionHead, SanaFlow

OPTIONS = {
    "in_channels": 6,
    "out_channels": 6,
    "num_layers": 3,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_cross_attention_heads": 4,
    "cross_attention_head_dim": 4,
    "cross_attention_dim": 16,
    "caption_channels": 12,
    "mlp_ratio": 2.0,
    "qk_norm": "rms_norm_across_heads",
    "sample_size": 4,
    "patch_size": 1,
    "interpolation_scale": 1.0,
}


def flow_of(kind: type[SanaFlow] = SanaFlow, *more: float, **changed: object) -> SanaFlow:
    torch.manual_seed(0)
    return kind({**OPTIONS, **changed}, SigmaTable(3.0), *more).eval()


def conditions(padded: bool = False) -> tuple[Condition, Condition]:
    draw = torch.Generator().manual_seed(1)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]]) if padded else None
    states = torch.randn(2, 5, 12, generator=draw)
    return Condition(states, mask), Condition(torch.randn(1, 1, 12, generator=draw))


def noise_of(count: int = 2, height: int = 4, width: int = 4) -> torch.Tensor:
    return torch.randn(count, 6, height, width, generator=torch.Generator().manual_seed(2))


def uncached(flow: SanaFlow, condition: Condition, null: Condition, noise: torch.Tensor, steps: Steps, guidance: float):
    """The stock forward pass at every step, for each branch alone."""
    free = Condition(null.states.expand_as(condition.states), condition.mask)

    def velocity_at(state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        without, given = (flow.velocity(state, 1 - time, c) for c in (free, condition))
        return without + guidance * (given - without)

    with torch.no_grad():
        return integrate(velocity_at, noise, flow.table.times(steps), steps.solver)


@pytest.mark.parametrize("steps", [Steps(3), Steps(2, "heun"), Steps(2, "midpoint", shift=1.0)], ids=str)
@pytest.mark.parametrize(("guidance", "padded"), [(1.0, False), (5.0, True)])
def test_what_is_kept_changes_nothing(steps, guidance, padded):
    flow, (condition, null), noise = flow_of(), conditions(padded), noise_of()
    kept = flow.sample(condition, null, noise, steps=steps, guidance=guidance)
    torch.testing.assert_close(kept, uncached(flow, condition, null, noise, steps, guidance), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "changed", [{"qk_norm": None}, {"patch_size": 2, "sample_size": 6}, {"interpolation_scale": None}]
)
def test_other_sanas_and_sizes(changed):
    """Without norms of keys, with patches of two, without positions, and at a size other than the model's."""
    flow, (condition, null), noise = flow_of(**changed), conditions(), noise_of(2, 8, 4)
    kept = flow.sample(condition, null, noise, steps=2, guidance=2.0)
    torch.testing.assert_close(kept, uncached(flow, condition, null, noise, Steps(2), 2.0), atol=2e-5, rtol=1e-5)


def test_a_condition_is_looked_at_once_and_no_branch_is_computed_in_vain():
    flow, (condition, null), noise = flow_of(), conditions(), noise_of(6)
    looked, passed = [], []
    flow.sana.caption_projection.register_forward_hook(lambda module, args, out: looked.append(len(args[0])))
    flow.sana.transformer_blocks[0].norm1.register_forward_hook(lambda module, args, out: passed.append(len(args[0])))
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    many = flow.sample(condition, null, noise, steps=4, guidance=1.0, rows=rows)
    assert (looked, passed) == ([2], [6] * 4)
    looked.clear(), passed.clear()
    flow.sample(condition, null, noise, steps=Steps(2, "heun"), guidance=3.0, rows=rows)
    assert (looked, passed) == ([2, 1], [12] * 3)
    alone = [None if part is None else part[1:2] for part in (condition.states, condition.mask, condition.grid)]
    one = flow.sample(Condition(*alone), null, noise[4:5], steps=4, guidance=1.0)
    torch.testing.assert_close(many[4:5], one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_solvers_have_their_order(solver, order):
    """dx/dt = cos(t) x has the solution exp(sin t): halving the steps divides the error by 2 to the order."""
    times = torch.linspace(0, 1, 33, dtype=torch.float64)
    asked: list[float] = []

    def velocity_at(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(float(t))
        return t.cos()[:, None] * x

    def error(step: int) -> float:
        asked.clear()
        end = integrate(velocity_at, torch.ones(1, 1, dtype=torch.float64), times[::step], solver)
        torch.testing.assert_close(torch.tensor(asked, dtype=torch.float64), evaluation_times(times[::step], solver))
        assert len(asked) == Steps(32 // step, solver).evaluations
        return abs(float(end) - float(torch.exp(torch.sin(torch.tensor(1.0, dtype=torch.float64)))))

    # Heun's last step is Euler's, whose own error is of second order.
    assert error(2) / error(1) == pytest.approx(2**order, rel=0.2)


def test_steps_are_data():
    table = SigmaTable(3.0)
    assert Steps.of(4) == Steps(4) and Steps.of(Steps(4, "heun")) == Steps(4, "heun")
    torch.testing.assert_close(table.times(Steps(4)), table.sampling_times(4))
    torch.testing.assert_close(table.times(Steps(4, shift=1.0)), torch.linspace(0, 1, 5, dtype=torch.float64))
    for wrong in ({"count": 0}, {"count": 2, "shift": 0.0}):
        with pytest.raises(ValueError, match="steps"):
            Steps(**wrong)


class _Told(GuidedSanaFlow):
    """A generator whose two velocities are given."""

    def velocity(self, state, sigma, condition):
        return self.told[condition.states.shape[1] == 1].clone()


def test_folded_guidance_rests_at_the_guided_velocity():
    """With v the truth and u the unconditional velocity, the loss is 0 at u + g (v - u), and only there."""
    flow = flow_of(_Told, 4.0)
    condition, null = conditions()
    latents = noise_of(2, 4, 4)
    truth = latents - torch.stack([Draw.of(key).noise(latents.shape[1:]) for key in (5, 6)])
    free = torch.randn_like(latents)

    def loss(given: torch.Tensor, unconditional: torch.Tensor) -> torch.Tensor:
        flow.told = {True: unconditional, False: given}
        return flow.losses(condition, null, latents, torch.ones(2, 4, 4), [Draw.of(5), Draw.of(6)])

    torch.testing.assert_close(loss(free + 4.0 * (truth - free), free), torch.zeros(2), atol=1e-9, rtol=0)
    assert bool((loss(truth, free) > 0.1).all())
    # With a dropped condition both are one, and it learns the plain velocity as ever.
    torch.testing.assert_close(loss(truth, truth), torch.zeros(2), atol=1e-9, rtol=0)
    torch.testing.assert_close(loss(free, free), (free - truth).square().mean((1, 2, 3)))


def test_folded_guidance_asks_one_branch_only():
    guided, plain, (condition, null), noise = flow_of(GuidedSanaFlow, 4.0), flow_of(), conditions(), noise_of()
    assert torch.equal(
        guided.sample(condition, null, noise, steps=2, guidance=5.0),
        plain.sample(condition, null, noise, steps=2, guidance=1.0),
    )
    with pytest.raises(ValueError, match=r"guidance=0\.5"):
        GuidedSanaFlow(OPTIONS, SigmaTable(1.0), 0.5)


def test_one_step_starts_from_zeros_and_learns_what_it_paints():
    """A few updates bring what `sample` gives, in one pass, to the target: training and sampling are one function."""
    flow, (condition, null) = flow_of(OneStepSana).train(), conditions()
    latents, weight, draws = noise_of(), torch.ones(2, 4, 4), [Draw.of(1), Draw.of(2)]
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(60):
        loss = flow.losses(condition, null, latents, weight, draws).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    passes = []
    flow.sana.register_forward_hook(lambda *_: passes.append(1))
    painted = flow.sample(condition, null, 9 * noise_of(2), steps=30, guidance=5.0)
    assert len(passes) == 1
    assert float((painted - latents).square().mean()) < 0.2 * float(latents.square().mean())
    swapped = flow.sample(condition, null, noise_of(3), steps=1, guidance=1.0, rows=torch.tensor([1, 0, 1]))
    torch.testing.assert_close(swapped, painted[[1, 0, 1]])


def test_kinds_that_share_sanas_weights(config: GemConfig):
    plain = Gem(config)
    for kind, what in (("sana_one_step", OneStepSana), ("sana_guided", GuidedSanaFlow)):
        more = {"guidance": 2.0} if kind == "sana_guided" else {}
        other = Gem(replace(config, generator={**config.generator, "kind": kind, **more}))
        assert type(other.supervision.generator) is what
        other.load_state_dict(plain.state_dict())
        assert GemConfig.from_dict(other.config.to_dict()) == other.config
    with pytest.raises(ValueError, match="guidance"):
        replace(config, generator={**config.generator, "kind": "sana_guided"})


def test_regression_paints_from_the_rows_asked_for(regression_config: GemConfig):
    torch.manual_seed(0)
    head = Gem(regression_config).supervision.generator
    assert isinstance(head, RegressionHead)
    condition = Condition(torch.randn(2, 4, 24), None, torch.tensor([[2, 2], [2, 2]]))
    null, noise = Condition(torch.zeros(1, 1, 24)), torch.zeros(3, 8, 4, 4)
    painted = head.sample(condition, null, noise, steps=1, guidance=1.0, rows=torch.tensor([1, 0, 1]))
    assert torch.equal(painted[0], painted[2]) and not torch.equal(painted[0], painted[1])
