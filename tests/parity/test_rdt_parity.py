"""The action expert, loaded from the published names, gives the authors' numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gemvlm.flow import data_estimate, interpolate, logit_normal, uniform_times, velocity
from gemvlm.model.action_expert import ActionExpert, Context, ExpertConfig

IDLE = ("lang_adaptor.", ".cond_norm.", ".cross_attn.wkv.", ".cross_attn.norm_k.")


def config_of(fixture, layers: tuple[int, ...], conditioning="layer_inputs") -> ExpertConfig:
    config, rdt = fixture.config, fixture.config["model"]["rdt"]
    return ExpertConfig(
        action=config["action_dim"],
        state=config["state_dim"],
        horizon=config["pred_horizon"],
        width=rdt["hidden_size"],
        depth=rdt["depth"],
        heads=rdt["num_heads"],
        kv_heads=rdt["num_kv_heads"],
        registers=rdt["num_register_tokens"],
        conditioning=conditioning,
        layers=layers,
        time_scale=1.0,
        ffn_multiple_of=rdt["multiple_of"],
        norm_eps=rdt["norm_eps"],
    )


@pytest.fixture(scope="module")
def fixture(numbers):
    return numbers("rdt")


def expert_of(fixture, layers=(0, 1, 2, 3), conditioning="layer_inputs") -> ActionExpert:
    expert = ActionExpert(config_of(fixture, layers, conditioning), fixture.config["model"]["lang_token_dim"])
    weights = fixture.part("w.")
    if conditioning == "keys_values":
        weights = {name: t for name, t in weights.items() if not any(part in f".{name}" for part in IDLE)}
    expert.load_state_dict(weights, strict=True)
    return expert.eval()


@pytest.fixture(scope="module")
def expert(fixture) -> ActionExpert:
    return expert_of(fixture)


def states_of(fixture, masked=True) -> Context:
    return Context(states=tuple(fixture["in.lang"].unbind(1)), mask=fixture["in.mask"] if masked else None)


def keys_values_of(fixture, masked=True, count=4) -> Context:
    pairs = zip(fixture["in.kv_k"], fixture["in.kv_v"], strict=True)
    return Context(keys_values=tuple(pairs)[:count], mask=fixture["in.mask"] if masked else None)


def velocity_of(fixture, expert: ActionExpert, context: Context) -> torch.Tensor:
    observed = expert.observe(context, fixture["in.state"][:, 0].to(expert.dtype))
    return expert.velocity(fixture["in.action"], fixture["in.timestep"], observed)


def test_initial_positions(fixture, assert_close):
    fresh = ActionExpert(config_of(fixture, (0,)), 40)
    assert_close(fresh.model.x_pos_emb, fixture["init.x_pos_emb"], 1e-6)
    assert_close(fresh.model.state_pos_emb, fixture["init.state_pos_emb"], 0)


def test_adaptors_and_blocks(fixture, expert, assert_close):
    found = {}
    for i, block in enumerate(expert.model.blocks):
        block.register_forward_hook(lambda module, args, out, i=i: found.__setitem__(f"block{i}", out))
    with torch.no_grad():
        velocity_of(fixture, expert, states_of(fixture))
        assert_close(expert.act_adaptor(fixture["in.action"]), fixture["mid.action_tokens"], fixture.atol)
        assert_close(expert.state_adaptor(fixture["in.state"]), fixture["mid.state_tokens"], fixture.atol)
        assert_close(expert.lang_adaptor(fixture["in.lang"]), fixture["mid.lang_tokens"], fixture.atol)
        assert_close(expert.model.t_embedder(fixture["in.timestep"]), fixture["mid.t_emb"], fixture.atol)
    for name, out in found.items():
        assert_close(out, fixture[f"mid.{name}"], fixture.atol)
    assert len(found) == 4


@pytest.mark.parametrize(
    ("name", "layers", "conditioning", "masked"),
    [
        ("velocity", (0, 1, 2, 3), "layer_inputs", True),
        ("velocity_nomask", (0, 1, 2, 3), "layer_inputs", False),
        ("velocity_single", (0,), "layer_inputs", True),
        ("velocity_kv", (0, 1, 2, 3), "keys_values", True),
        ("velocity_kv_nomask", (0, 1, 2, 3), "keys_values", False),
        ("velocity_kv_cycled", (0, 1), "keys_values", True),
    ],
)
def test_velocity(fixture, assert_close, name, layers, conditioning, masked):
    """A11: with and without a mask, in every mode; there is no second attention whose masked branch nobody ran."""
    expert = expert_of(fixture, layers, conditioning)
    if name == "velocity_single":
        context = Context(states=(fixture["in.lang_single"],), mask=fixture["in.mask"])
    elif conditioning == "keys_values":
        context = keys_values_of(fixture, masked, len(layers))
    else:
        context = states_of(fixture, masked)
    with torch.no_grad():
        assert_close(velocity_of(fixture, expert, context), fixture[f"out.{name}"], fixture.atol)


@pytest.mark.parametrize("name", ["action", "action_single", "action_kv"])
def test_sampling(fixture, assert_close, name):
    layers = (0,) if name == "action_single" else (0, 1, 2, 3)
    expert = expert_of(fixture, layers, "keys_values" if name == "action_kv" else "layer_inputs")
    context = keys_values_of(fixture) if name == "action_kv" else states_of(fixture)
    if name == "action_single":
        context = Context(states=(fixture["in.lang_single"],), mask=fixture["in.mask"])
    with torch.no_grad():
        observed = expert.observe(context, fixture["in.state"][:, 0])
    assert_close(uniform_times(5)[:-1].float(), fixture["out.euler_timesteps"], 1e-6)
    found = expert.sample(observed, fixture["in.action"], uniform_times(5))
    assert_close(found, fixture[f"out.{name}"], fixture.atol)


def test_loss_and_gradients(fixture, assert_close):
    expert = expert_of(fixture)
    action, noise = fixture["in.action"], fixture["in.noise"]
    u = torch.special.ndtr(fixture["in.loss_normal"].double())
    time = logit_normal(u).float().flatten()
    assert_close(time, fixture["in.loss_timesteps"].flatten(), 1e-6)
    noisy, target = interpolate(noise, action, time), velocity(noise, action)
    assert_close(noisy, fixture["out.noisy_action"], 1e-6)
    assert_close(target, fixture["out.loss_target"], 1e-6)
    observed = expert.observe(states_of(fixture), fixture["in.state"][:, 0])
    predicted = expert.velocity(noisy, time, observed)
    assert_close(predicted, fixture["out.loss_pred"], fixture.atol)
    assert_close(data_estimate(noisy, predicted, time), noisy + (1 - time[:, None, None]) * predicted, 0)
    loss = (predicted - target).square().mean()
    assert_close(loss, fixture["out.loss"], fixture.atol)
    loss.backward()
    for name, expected in fixture.part("grad.").items():
        assert_close(expert.get_parameter(name).grad, expected, fixture.atol)


def test_loss_with_keys_and_values(fixture, assert_close):
    expert = expert_of(fixture, conditioning="keys_values")
    with torch.no_grad():
        observed = expert.observe(keys_values_of(fixture), fixture["in.state"][:, 0])
        time = fixture["in.loss_timesteps"].flatten()
        predicted = expert.velocity(interpolate(fixture["in.noise"], fixture["in.action"], time), time, observed)
    loss = (predicted - velocity(fixture["in.noise"], fixture["in.action"])).square().mean()
    assert_close(loss, fixture["out.loss_kv"], fixture.atol)


def test_published_names(fixture):
    assert set(expert_of(fixture).state_dict()) == set(fixture.part("w."))


def test_double_precision(fixture, assert_close):
    expert = expert_of(fixture).double()
    context = Context(states=tuple(t.double() for t in fixture["in.lang"].unbind(1)), mask=fixture["in.mask"])
    with torch.no_grad():
        assert_close(velocity_of(fixture, expert, context), fixture["out.velocity_f64"].float(), 1e-5)


def test_published_time_scale_is_a_choice(fixture):
    """B4: the published scale is kept for published weights; another is one field."""
    changed = replace(config_of(fixture, (0,)), time_scale=1000.0)
    assert ActionExpert(changed, 40).model.t_embedder.scale == 1000.0
