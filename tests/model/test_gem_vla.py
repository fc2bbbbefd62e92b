"""A policy: what its losses need and touch, what it looks at, how it acts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from gemvlm.batch import IGNORE, Actions, Batch
from gemvlm.flow import interpolate, logit_normal, velocity
from gemvlm.model.action_expert import Context, ExpertConfig
from gemvlm.model.gem_vla import GemVla, GemVlaConfig, SupervisionConfig, visible_rows
from gemvlm.model.generator import Draw

EXPERT = ExpertConfig(
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


def with_actions(batch: Batch, samples: tuple[int, ...] = (0, 1), tail: int = 2) -> Batch:
    """Robot samples whose last `tail` steps of the last chunk lie after the episode's end."""
    draw = torch.Generator().manual_seed(0)
    rows = len(samples)
    valid = torch.ones(rows, 5, dtype=torch.bool)
    valid[-1, 5 - tail :] = False
    return replace(
        batch,
        actions=Actions(
            samples=torch.tensor(samples),
            state=torch.randn(rows, 4, generator=draw),
            chunk=torch.randn(rows, 5, 3, generator=draw),
            valid=valid,
            keys=tuple(range(7, 7 + rows)),
        ),
    )


@pytest.fixture
def vla_config(config) -> GemVlaConfig:
    return GemVlaConfig(config.backbone, EXPERT, SupervisionConfig.of(config), backbone_gradient=1.0)


@pytest.fixture
def make_policy(vla_config):
    def build(expert: dict | None = None, stir: bool = True, **changes) -> GemVla:
        torch.manual_seed(0)
        policy = GemVla(replace(vla_config, expert=replace(EXPERT, **(expert or {})), **changes))
        if stir:
            with torch.no_grad():
                for parameter in policy.expert.parameters():
                    if not parameter.any():
                        parameter.normal_(std=0.2)
        return policy

    return build


@pytest.fixture
def batch(make_batch) -> Batch:
    return with_actions(make_batch())


def test_all_losses_come_from_one_run_and_train_everything(make_policy, batch):
    policy, runs = make_policy(), []
    policy.backbone.register_forward_hook(lambda *_: runs.append(1))
    losses = policy(batch)
    assert list(losses) == ["action", "text", "depth"]
    assert len(runs) == 1
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.parameters())


@pytest.mark.parametrize("name", ["action", "text", "depth"])
def test_a_loss_alone_equals_the_same_loss_among_others(make_policy, batch, name):
    policy = make_policy().eval()
    together, alone = policy(batch), policy(batch, losses=(name,))
    assert list(alone) == [name]
    torch.testing.assert_close(alone[name], together[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("conditioning", ["layer_inputs", "keys_values"])
def test_the_backbone_stops_after_the_last_layer_used(make_policy, batch, conditioning):
    """B1: for actions alone, later layers and the language head aren't computed, get no gradient and don't decay."""
    layers = (0, 1) if conditioning == "keys_values" else (1, 2)
    policy = make_policy({"conditioning": conditioning, "layers": layers})
    qwen = policy.backbone.qwen
    last, norm = qwen.model.language_model.layers[2], qwen.model.language_model.norm
    for module in (last, norm):
        module.forward = None
    before = {name: p.detach().clone() for name, p in last.named_parameters()}
    optimizer = torch.optim.AdamW(policy.parameters(), 1e-2, weight_decay=0.5)
    policy(batch, losses=("action",))["action"].backward()
    optimizer.step()
    assert all(torch.equal(p, before[name]) for name, p in last.named_parameters())
    assert all(p.grad is not None for p in qwen.model.language_model.layers[0].parameters())
    assert policy.act(batch, 2).shape == (2, 5, 3)


def test_an_index_means_what_it_means_in_the_published_code(make_policy, batch):
    """Index 0 is the embeddings, i the output of the i-th layer, with what DeepStack adds to it."""
    policy, seen = make_policy({"layers": (0, 1)}), []
    policy.expert.lang_adaptor.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    added, decoder = [], policy.backbone.qwen.model.language_model
    decoder.layers[0].register_forward_hook(lambda module, args, out: added.append(out[0]))
    with torch.no_grad():
        policy.observe(batch)
        embeds, deepstack = policy.backbone._embed(batch)
    rows, mask = visible_rows(batch, batch.actions.samples)
    assert mask is not None
    assert torch.equal(seen[0], embeds[rows])
    places, features = deepstack[0]
    torch.testing.assert_close(seen[1], added[0].index_add(0, places, features)[rows])


def test_padded_tails_are_outside_the_loss(make_policy, batch):
    """B8: what stands after an episode's end changes nothing, and doesn't count in the mean."""
    policy = make_policy().eval()
    loss = policy(batch, losses=("action",))["action"]
    chunk = batch.actions.chunk.clone()
    chunk[1, 3:] = 50.0
    # The tail enters the noisy chunk, so it is filled alike at training time; the error there is not counted.
    context = Context(tuple(torch.randn(2, 6, 32) for _ in range(2)))
    draws = [Draw.of(key) for key in batch.actions.keys]
    noise = torch.stack([draw.noise((5, 3)) for draw in draws])
    time = logit_normal(torch.tensor([draw.time for draw in draws]))
    with torch.no_grad():
        observed = policy.expert.observe(context, batch.actions.state)
        predicted = policy.expert.velocity(interpolate(noise, batch.actions.chunk, time), time, observed)
        error = (predicted - velocity(noise, batch.actions.chunk)).square()
        expected = torch.cat([error[0], error[1, :3]]).mean()
        torch.testing.assert_close(policy.action_loss(context, batch.actions), expected, atol=1e-6, rtol=0)
    nothing = replace(batch, actions=replace(batch.actions, valid=torch.zeros(2, 5, dtype=torch.bool)))
    assert policy(nothing, losses=("action",)) == {}
    assert loss.isfinite()


@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0])
def test_the_gradient_into_the_backbone_is_off_on_or_scaled(make_policy, batch, factor):
    def gradient(policy: GemVla) -> tuple[torch.Tensor | None, torch.Tensor]:
        policy(batch, losses=("action",))["action"].backward()
        mlp = policy.backbone.qwen.model.language_model.layers[0].mlp.up_proj.weight
        return mlp.grad, policy.expert.lang_adaptor[0].weight.grad

    into, own = gradient(make_policy(backbone_gradient=factor))
    full, same = gradient(make_policy())
    torch.testing.assert_close(own, same)
    if factor == 0:
        assert into is None
    else:
        torch.testing.assert_close(into, factor * full)


def test_without_gradient_the_other_losses_still_train_the_backbone(make_policy, batch):
    policy = make_policy(backbone_gradient=0.0)
    losses = policy(batch)
    expert_only = torch.autograd.grad(losses["action"], list(policy.parameters()), allow_unused=True, retain_graph=True)
    touched = {name for (name, _), g in zip(policy.named_parameters(), expert_only, strict=True) if g is not None}
    assert touched == {name for name, _ in policy.named_parameters() if name.startswith("expert.")}
    losses["text"].backward()
    assert policy.backbone.qwen.model.language_model.layers[0].mlp.up_proj.weight.grad is not None


def test_actions_are_a_function_of_their_key_and_independent_of_neighbours(make_policy, batch, make_batch):
    policy = make_policy().eval()
    both = policy.act(batch, 4)
    assert both.dtype == torch.float32
    assert torch.equal(both, policy.act(batch, 4))
    actions = batch.actions
    one = replace(
        make_batch((([(32, 32)], 6), ([], 4))),
        actions=Actions(torch.tensor([0]), actions.state[:1], actions.chunk[:1], actions.valid[:1], actions.keys[:1]),
    )
    first = make_batch((([(32, 32)], 6),))
    alone = replace(first, actions=one.actions)
    torch.testing.assert_close(policy.act(alone, 4), both[:1], atol=1e-5, rtol=0)
    other_key = replace(batch, actions=replace(actions, keys=(1, 2)))
    assert not torch.allclose(policy.act(other_key, 4), both)
    other_chunk = replace(batch, actions=replace(actions, chunk=torch.zeros_like(actions.chunk)))
    assert torch.equal(policy.act(other_chunk, 4), both)


def test_steps_are_data(make_policy, batch):
    policy = make_policy().eval()
    torch.testing.assert_close(policy.act(batch, [0.0, 0.25, 0.5, 0.75, 1.0]), policy.act(batch, 4))
    assert not torch.allclose(policy.act(batch, [0.0, 0.1, 1.0]), policy.act(batch, 2))
    with pytest.raises(ValueError, match="times must increase"):
        policy.act(batch, [0.5, 0.2])


def test_robot_samples_among_others(make_policy, make_batch):
    """Only the robot samples are looked at, wherever they stand in the batch."""
    policy = make_policy().eval()
    mixed = make_batch((([], 7), ([(32, 32)], 6), ([(32, 48)], 9)))
    found = policy.act(with_actions(mixed, (2,)), 3)
    alone = make_batch((([(32, 48)], 9),))
    own = slice(*[int(v) for v in (mixed.lengths[:2].sum(), mixed.lengths.sum())])
    alone = replace(alone, input_ids=mixed.input_ids[own], pixel_values=mixed.pixel_values[-len(alone.pixel_values) :])
    torch.testing.assert_close(policy.act(with_actions(alone, (0,)), 3), found, atol=1e-5, rtol=0)


def test_the_expert_sees_no_answer(make_policy, batch):
    """Text that a sample is taught isn't there when robots act: the context ends before it."""
    policy = make_policy().eval()
    answered = replace(batch, input_ids=batch.input_ids.clone())
    taught = batch.labels != IGNORE
    answered.input_ids[taught] = (batch.input_ids[taught] + 5) % 60
    assert torch.equal(policy.act(answered, 2), policy.act(batch, 2))
    rows, mask = visible_rows(batch, batch.actions.samples)
    assert not taught[rows[mask]].any()
    assert int(mask.sum()) == len(batch.input_ids) - int(taught.sum())


def test_labelled_image_tokens_stay_visible(batch):
    named = replace(batch, labels=torch.where(torch.arange(len(batch.labels)) == int(batch.spans[0, 0]), 5, -100))
    _, mask = visible_rows(named, named.actions.samples)
    assert int(mask.sum()) == len(batch.input_ids)


def test_several_draws_share_one_run(make_policy, batch):
    policy = make_policy(draws=3).eval()
    once = make_policy().eval()
    keyed = [replace(batch.actions, keys=tuple(k + i for k in batch.actions.keys)) for i in range(3)]
    expected = torch.stack([once(replace(batch, actions=a), losses=("action",))["action"] for a in keyed]).mean()
    torch.testing.assert_close(policy(batch, losses=("action",))["action"], expected, atol=1e-5, rtol=0)


def test_hidden_observations_keep_their_layout_and_are_used(make_policy, batch):
    """B6: dropping blanks the observation and moves no token; guidance uses what was learned so."""
    policy = make_policy(condition_dropout=0.999)
    shapes = []
    policy.expert.lang_adaptor.register_forward_pre_hook(
        lambda module, args: shapes.append((args[0].shape, bool(args[0].any())))
    )
    policy.train()(batch, losses=("action",))
    policy.eval()(batch, losses=("action",))
    assert [shape for shape, _ in shapes[:2]] == [shape for shape, _ in shapes[2:]]
    assert [shown for _, shown in shapes] == [False, False, True, True]
    assert not torch.allclose(policy.act(batch, 2, guidance=3.0), policy.act(batch, 2))


def test_committed_actions_begin_the_chunk(make_policy, batch):
    policy = make_policy().eval()
    free = policy.act(batch, 5)
    committed = torch.randn(2, 2, 3)
    found = policy.act(batch, 5, committed=committed)
    assert torch.equal(found[:, :2], committed)
    assert not torch.allclose(found[:, 2:], free[:, 2:], atol=1e-3)
    weights = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    mixed = policy.act(batch, 5, committed=committed, committed_weights=weights)
    torch.testing.assert_close(mixed[0], free[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed[1], found[1], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"committed has shape \(2, 6, 3\)"):
        policy.act(batch, 5, committed=torch.zeros(2, 6, 3))
    with pytest.raises(ValueError, match="numbers from 0 to 1"):
        policy.act(batch, 5, committed=committed, committed_weights=torch.full((2, 2), 1.5))


def test_training_steers_by_what_is_seen(make_policy, make_batch):
    """Two observations, two chunks: after some steps each gets its own."""
    policy = make_policy(supervision=None, stir=False, draws=8)
    batch = with_actions(make_batch(kinds=()), tail=0)
    chunk = torch.stack([torch.full((5, 3), 0.8), torch.full((5, 3), -0.8)])
    state = torch.zeros(2, 4)
    optimizer = torch.optim.Adam(policy.parameters(), 6e-3)
    for step in range(80):
        actions = replace(batch.actions, chunk=chunk, state=state, keys=(1000 * step, 1000 * step + 500))
        loss = policy(replace(batch, actions=actions), losses=("action",))["action"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = policy.eval().act(replace(batch, actions=replace(batch.actions, state=state)), 5)
    assert (found - chunk).abs().mean() < 0.25


def test_autocast_keeps_the_loss_in_float32(make_policy, batch):
    """B2: half precision is for matrix products only."""
    policy = make_policy().eval()
    exact = policy(batch, losses=("action",))["action"]
    with torch.autocast("cpu", torch.bfloat16):
        loss = policy(batch, losses=("action",))["action"]
        acted = policy.act(batch, 3)
    assert loss.dtype == acted.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.05)


def test_groups_and_recomputation(make_policy, batch):
    policy = make_policy()
    groups = policy.parameter_groups()
    assert list(groups) == ["vision", "merger", "language", "connector", "generator", "latents", "expert"]
    assert sorted(n for g in groups.values() for n in g) == sorted(n for n, _ in policy.named_parameters())
    plain = policy(batch)
    policy.checkpoint_activations()
    torch.testing.assert_close(policy(batch), plain)


def test_without_supervision(make_policy, batch):
    policy = make_policy(supervision=None)
    assert policy.supervision is None
    assert set(policy(batch, losses=("action", "text"))) == {"action", "text"}
    with pytest.raises(ValueError, match="carries no supervision"):
        policy(batch)


def test_without_robots(make_policy, make_batch):
    policy = make_policy()
    assert set(policy(make_batch())) == {"text", "depth"}
    with pytest.raises(ValueError, match="none of the 2 samples of the batch is a robot's"):
        policy.act(make_batch(), 2)


def test_configuration_round_trip(vla_config):
    for config in (vla_config, replace(vla_config, supervision=None, draws=4)):
        assert GemVlaConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match=r"missing fields \['expert'\]"):
        GemVlaConfig.from_dict({k: v for k, v in vla_config.to_dict().items() if k != "expert"})
    with pytest.raises(ValueError, match="backbone_gradient=-1"):
        replace(vla_config, backbone_gradient=-1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": (4,)}, r"layers=\(4,\): the backbone has 3 layers"),
        ({"layers": (3,), "conditioning": "keys_values"}, "keys_values go up to 2"),
        ({"kv_heads": 4, "conditioning": "keys_values"}, "expert.kv_heads=4 of size 8 .* num_key_value_heads=2"),
        ({"width": 64, "conditioning": "keys_values"}, "of size 16 .* head_dim=8"),
    ],
)
def test_an_expert_that_does_not_fit_is_refused_by_name(make_policy, change, message):
    with pytest.raises(ValueError, match=message):
        make_policy(change)


def test_keys_and_values_are_the_backbones_own(make_policy, batch):
    """After norm and rotation, with nothing of the expert's in between."""
    policy = make_policy({"conditioning": "keys_values", "layers": (0, 2)}).eval()
    with torch.no_grad():
        observed = policy.observe(batch)
        own = policy.backbone(batch, keys_values=True).keys_values
    rows, _ = visible_rows(batch, batch.actions.samples)
    assert torch.equal(observed.keys_values[1][0], own[2][0][rows].transpose(1, 2))
    assert not any("wkv" in n for n, _ in policy.expert.named_parameters() if "cross_attn" in n)
