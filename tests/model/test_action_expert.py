"""What an expert promises beside the authors' numbers: caches that change nothing, masks, types, refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from gemvlm.flow import integrate, uniform_times
from gemvlm.model.action_expert import ActionExpert, Context, ExpertConfig, Observed, time_channels

CONFIG = ExpertConfig(
    action=3,
    state=4,
    horizon=5,
    width=32,
    depth=2,
    heads=4,
    kv_heads=2,
    registers=2,
    conditioning="layer_inputs",
    layers=(1, 2),
    time_scale=1000.0,
    ffn_multiple_of=16,
)
WIDTH = 12


def stirred(expert: ActionExpert, seed: int = 0) -> ActionExpert:
    """Random numbers in place of the zeros that silence a new expert."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in expert.parameters():
            if not parameter.any():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
    return expert.eval()


@pytest.fixture
def expert() -> ActionExpert:
    torch.manual_seed(0)
    return stirred(ActionExpert(CONFIG, WIDTH))


def context(rows: int = 2, length: int = 6, mask: torch.Tensor | None = None, layers: int = 2) -> Context:
    draw = torch.Generator().manual_seed(1)
    return Context(tuple(torch.randn(rows, length, WIDTH, generator=draw) for _ in range(layers)), (), mask)


def test_a_new_expert_answers_exactly_zero():
    observed = ActionExpert(CONFIG, WIDTH).observe(context(), torch.randn(2, 4))
    expert = ActionExpert(CONFIG, WIDTH)
    out = expert.velocity(torch.randn(2, 5, 3), torch.rand(2), observed)
    assert torch.equal(out, torch.zeros(2, 5, 3))


def test_sampling_from_the_cache_equals_recomputing_everything_at_each_step(expert):
    state, noise = torch.randn(2, 4), torch.randn(2, 5, 3)
    seen = context(mask=torch.tensor([[True] * 6, [True] * 4 + [False] * 2]))

    def recomputed(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return expert.velocity(x, time, expert.observe(seen, state))

    with torch.no_grad():
        plain = integrate(recomputed, noise, uniform_times(7))
        cached = expert.sample(expert.observe(seen, state), noise, uniform_times(7))
    torch.testing.assert_close(cached, plain, atol=1e-5, rtol=0)


def test_masked_tokens_change_nothing_and_real_ones_do(expert):
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    noisy, time, state = torch.randn(2, 5, 3), torch.rand(2), torch.randn(2, 4)

    def out(states: Context) -> torch.Tensor:
        with torch.no_grad():
            return expert.velocity(noisy, time, expert.observe(states, state))

    plain = context(mask=mask)
    hidden, shown = (Context(tuple(s.clone() for s in plain.states), (), mask) for _ in range(2))
    for states in hidden.states:
        states[1, 4:] = 1e3
    for states in shown.states:
        states[1, 3] = -states[1, 3]
    assert torch.equal(out(hidden), out(plain))
    assert torch.equal(out(shown)[0], out(plain)[0])
    assert (out(shown)[1] - out(plain)[1]).abs().max() > 1e-4
    alone = Context(tuple(s[1:, :4] for s in plain.states))
    with torch.no_grad():
        single = expert.velocity(noisy[1:], time[1:], expert.observe(alone, state[1:]))
    torch.testing.assert_close(out(plain)[1:], single, atol=1e-5, rtol=0)


def test_one_layer_may_serve_all_blocks():
    torch.manual_seed(0)
    shared = stirred(ActionExpert(replace(CONFIG, layers=(2,)), WIDTH))
    repeated = ActionExpert(CONFIG, WIDTH).eval()
    repeated.load_state_dict(shared.state_dict())
    one, state = context(layers=1), torch.randn(2, 4)
    arguments = torch.randn(2, 5, 3), torch.rand(2)
    with torch.no_grad():
        first = shared.velocity(*arguments, shared.observe(one, state))
        second = repeated.velocity(*arguments, repeated.observe(Context(one.states * 2), state))
    assert torch.equal(first, second)


def test_the_flow_stays_in_float32(expert):
    """B2: state, times and velocities of the flow are float32 when the weights are bfloat16."""
    expert.to(torch.bfloat16)
    observed = expert.observe(context(), torch.randn(2, 4))
    noise = torch.randn(2, 5, 3)
    assert observed.state.dtype == torch.bfloat16
    assert expert.velocity(noise, torch.tensor([0.5, 0.501]), observed).dtype == torch.float32
    fine = expert.sample(observed, noise, uniform_times(50))
    assert fine.dtype == torch.float32
    assert not torch.equal(fine, fine.to(torch.bfloat16).float())
    near = expert.model.t_embedder(torch.tensor([0.9000, 0.9005]))
    assert not torch.equal(near[0], near[1]), "times closer than bfloat16 can tell apart are embedded alike"


def test_time_is_told_apart():
    """B4: at the published scale most channels of the time embedding stand still over [0, 1]; at 1000 few do."""
    times = torch.linspace(0, 1, 101)

    def moving(scale: float) -> int:
        channels = time_channels(scale * times)
        return int((channels.amax(0) - channels.amin(0) > 0.1).sum())

    assert moving(1.0) == 44
    assert moving(1000.0) > 180


def test_recomputed_blocks_change_no_gradient(expert):
    arguments, state = (torch.randn(2, 5, 3), torch.rand(2)), torch.randn(2, 4)

    def gradients() -> dict[str, torch.Tensor]:
        expert.zero_grad()
        expert.velocity(*arguments, expert.observe(context(), state)).square().sum().backward()
        return {name: p.grad.clone() for name, p in expert.named_parameters()}

    expert.train()
    plain = gradients()
    expert.checkpoint_activations()
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-5, atol=1e-6)


def test_every_parameter_learns(expert):
    observed = expert.observe(context(), torch.randn(2, 4))
    expert.velocity(torch.randn(2, 5, 3), torch.rand(2), observed).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in expert.parameters())


def test_guidance_extrapolates_from_unseen_observations(expert):
    state, noise = torch.randn(2, 4), torch.randn(2, 5, 3)
    seen = expert.observe(context(), state)
    nothing = expert.observe(Context(tuple(torch.zeros_like(s) for s in context().states)), state)

    def sampled(**options) -> torch.Tensor:
        return expert.sample(seen, noise, uniform_times(1), **options)

    with_nothing = expert.sample(nothing, noise, uniform_times(1))
    expected = with_nothing + 3.0 * (sampled() - with_nothing)
    torch.testing.assert_close(sampled(unseen=nothing, guidance=3.0), expected, atol=1e-5, rtol=0)
    assert torch.equal(sampled(unseen=nothing, guidance=1.0), sampled())


def test_repeated_observations(expert):
    observed = expert.observe(context(mask=torch.ones(2, 6, dtype=torch.bool)), torch.randn(2, 4))
    twice = observed.repeated(2)
    assert isinstance(twice, Observed)
    assert torch.equal(twice.state[1], observed.state[0])
    assert twice.keys_values[0][0].shape[0] == 4
    assert observed.repeated(1) is observed


def test_configuration_round_trip():
    assert ExpertConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG
    with pytest.raises(ValueError, match=r"unexpected fields \['size'\], missing fields \['width'\]"):
        ExpertConfig.from_dict({"size": 3, **{k: v for k, v in CONFIG.to_dict().items() if k != "width"}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 36, "heads": 8}, "multiple of twice heads"),
        ({"kv_heads": 3}, "kv_heads=3"),
        ({"conditioning": "words"}, "conditioning"),
        ({"layers": ()}, "name 1 to 2 layers"),
        ({"layers": (1, 2, 3)}, "for 2 blocks"),
        ({"horizon": 0}, "must be positive"),
        ({"time_scale": 0.0}, "must be positive"),
    ],
)
def test_refused_configurations(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        replace(CONFIG, **change)
