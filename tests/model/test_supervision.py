"""Generative supervision on any backbone's states: pairing, dropout, validity, sizes, keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gemvlm.batch import Target
from gemvlm.flow import SigmaTable
from gemvlm.model.connector import Connector
from gemvlm.model.generator import Draw, SanaFlow
from gemvlm.model.latents import PatchLatents
from gemvlm.model.supervision import GenerativeSupervision

SPANS = torch.tensor([[1, 5], [7, 13], [15, 19]])
GRIDS = torch.tensor([[2, 2], [2, 3], [2, 2]])


@pytest.fixture
def supervision(config) -> GenerativeSupervision:
    """Built without a Gem: a stranger's model, whose states are 20 wide."""
    torch.manual_seed(0)
    sana = {key: value for key, value in config.generator.items() if key != "kind"}
    module = GenerativeSupervision(Connector(20, 24), SanaFlow(sana, SigmaTable(1.0)), PatchLatents(8, 6, 1), 0.5)
    return module.eval()


@pytest.fixture
def states() -> torch.Tensor:
    return torch.randn(20, 20, generator=torch.Generator().manual_seed(1))


def target(image: int, key: int = 5, height: int = 32, width: int = 32, kind: str = "depth") -> Target:
    picture = torch.rand(3, height, width, generator=torch.Generator().manual_seed(image)) * 2 - 1
    return Target(kind, image, picture, torch.ones(height, width, dtype=torch.bool), key)


def loss(supervision, states, *targets) -> torch.Tensor:
    return supervision(states, SPANS, GRIDS, targets)["depth"]


def test_a_target_meets_its_own_span_in_any_order(supervision, states):
    """A2: pairing is by the span index that the target carries, not by place in a list."""
    first, last = target(0, key=1), target(2, key=2)
    torch.testing.assert_close(loss(supervision, states, first, last), loss(supervision, states, last, first))
    states.requires_grad_()
    loss(supervision, states, last).backward()
    touched = states.grad.abs().sum(1) > 0
    assert touched.nonzero()[:, 0].tolist() == list(range(15, 19))


def test_targets_of_different_sizes_and_spans_share_a_batch(supervision, states):
    """A13: the loss is the mean over targets, as if each were computed alone."""
    targets = [target(0, 1), target(1, 2, 32, 48), target(2, 3, 16, 64)]
    alone = torch.stack([loss(supervision, states, t) for t in targets]).mean()
    torch.testing.assert_close(loss(supervision, states, *targets), alone, atol=1e-6, rtol=1e-5)


def test_conditions_of_about_equal_length_are_painted_together(supervision, monkeypatch):
    """Cross-attention over nearly true lengths: no group is padded by a quarter, equal lengths have no mask at all."""
    lengths = [4, 4, 6, 100, 115, 128, 300, 300]
    ends = torch.tensor(lengths).cumsum(0)
    spans = torch.stack([ends - torch.tensor(lengths), ends], dim=1)
    grids = torch.stack([torch.ones(8, dtype=torch.int64), torch.tensor(lengths)], dim=1)
    states = torch.randn(sum(lengths), 20)
    targets = [target(image, key=image) for image in range(8)]
    alone = torch.stack([supervision(states, spans, grids, [one])["depth"] for one in targets]).mean()
    seen: list[tuple[list[int], bool]] = []
    losses = supervision.generator.losses

    def watched(condition, *args):
        rows, padded = condition.states.shape[:2]
        real = [padded] * rows if condition.mask is None else condition.mask.sum(1).tolist()
        assert padded < 1.25 * min(real)
        seen.append((real, condition.mask is None))
        return losses(condition, *args)

    monkeypatch.setattr(supervision.generator, "losses", watched)
    together = supervision(states, spans, grids, targets)["depth"]
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    assert sorted(seen) == [([4, 4], True), ([6], True), ([100], True), ([115, 128], False), ([300, 300], True)]


def test_each_kind_has_its_mean_and_an_absent_kind_has_none(supervision, states):
    losses = supervision(states, SPANS, GRIDS, [target(0), target(1, kind="rgb")])
    assert set(losses) == {"depth", "rgb"}
    torch.testing.assert_close(losses["depth"], loss(supervision, states, target(0)))
    assert supervision(states, SPANS, GRIDS, []) == {}


def test_keys_give_each_target_its_own_draws(supervision, states):
    """B5: noise, time and dropout come from the key alone: any rank draws the same for a key and ranks differ."""
    draws = [Draw.of(key) for key in range(200)]
    assert len({draw.time for draw in draws}) == 200
    assert 0.4 < sum(draw.time for draw in draws) / 200 < 0.6
    torch.manual_seed(1)
    first = loss(supervision, states, target(0, key=3))
    torch.manual_seed(2)
    assert torch.equal(loss(supervision, states, target(0, key=3)), first)
    assert not torch.equal(loss(supervision, states, target(0, key=4)), first)


def test_draws_see_all_bits_of_a_key():
    """torch's CPU generator keeps 32 bits of its seed; keys that differ above them must not collide."""
    assert len({Draw.of((high << 32) + 7).time for high in range(100)}) == 100
    assert Draw.of(-3).time != Draw.of(3).time


def test_time_and_dropout_are_independent():
    pairs = torch.tensor([[draw.time, draw.dropout] for draw in map(Draw.of, range(2000))])
    assert abs(float(torch.corrcoef(pairs.T)[0, 1])) < 0.07


def test_conditions_are_dropped_in_training_only(supervision, states):
    """B16: no dropout in eval mode; in training a dropped target's loss doesn't depend on the states."""
    dropped = next(key for key in range(100) if Draw.of(key).dropout < 0.5)
    kept = next(key for key in range(100) if Draw.of(key).dropout >= 0.5)
    other = torch.randn_like(states)
    for key, training, depends in ((dropped, True, False), (kept, True, True), (dropped, False, True)):
        supervision.train(training)
        pair = [loss(supervision, s, target(0, key)) for s in (states, other)]
        assert torch.equal(*pair) != depends


def test_the_null_condition_is_the_connector_of_zeros(supervision, states):
    """Dropped states are zeroed before the connector, and one such token stands for many."""
    supervision.train()
    supervision.condition_dropout = 1.0
    targets = [target(0), target(1)]
    dropped = supervision(states, SPANS, GRIDS, targets)["depth"]
    torch.testing.assert_close(dropped, supervision.prior(targets)["depth"], atol=1e-6, rtol=0)


def test_invalid_places_do_not_count(supervision, states):
    """The error at latents without a valid pixel is left out; half valid latents count half."""
    whole = target(0)
    valid = whole.valid.clone()
    valid[:, 16:] = False
    painted = whole.picture.clone()
    half = loss(supervision, states, replace(whole, valid=valid))
    assert not torch.isclose(half, loss(supervision, states, whole))
    error = _errors(supervision, states, whole)
    torch.testing.assert_close(half, error[:, :2].mean(), atol=1e-6, rtol=1e-5)
    assert torch.equal(painted, whole.picture)


def _errors(supervision, states, one: Target) -> torch.Tensor:
    """Squared error per latent place, by masks of one place each."""
    rows = []
    for row in range(4):
        for column in range(4):
            valid = torch.zeros_like(one.valid)
            valid[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = True
            rows.append(loss(supervision, states, replace(one, valid=valid)))
    return torch.stack(rows).view(4, 4)


def test_a_target_without_a_valid_pixel_is_left_out(supervision, states):
    empty = replace(target(1), valid=torch.zeros(32, 32, dtype=torch.bool))
    assert supervision(states, SPANS, GRIDS, [empty]) == {}
    torch.testing.assert_close(loss(supervision, states, target(0), empty), loss(supervision, states, target(0)))


def test_a_cached_latent_replaces_the_picture(supervision, states):
    plain = target(0)
    latent = supervision.latents.encode(plain.picture[None])[0]
    cached = replace(plain, picture=torch.zeros_like(plain.picture), latent=latent)
    assert torch.equal(loss(supervision, states, cached, target(1)), loss(supervision, states, plain, target(1)))


def test_sampling_from_states_of_other_images(supervision, states):
    options = {"height": 32, "width": 32, "steps": 3, "guidance": 2.0, "seed": 4}
    own = supervision.sample(states, SPANS, GRIDS, **options)
    assert own.shape == (3, 3, 32, 32)
    assert own.abs().max() <= 1
    assert torch.equal(supervision.sample(states, SPANS, GRIDS, **options), own)
    swapped = supervision.sample(states, SPANS, GRIDS, **options, condition_on=[2, 1, 0])
    torch.testing.assert_close(swapped[1], own[1])
    assert not torch.allclose(swapped[0], own[0], atol=1e-4)
    free = supervision.sample(states, SPANS, GRIDS, **options, unconditional=True)
    assert torch.equal(supervision.sample(0 * states, SPANS, GRIDS, **options, unconditional=True), free)
    torch.testing.assert_close(
        supervision.sample(states, SPANS, GRIDS, **options | {"guidance": 0.0}), free, atol=1e-5, rtol=0
    )


def test_a_picture_follows_its_key_and_not_its_place(supervision, states):
    options = {"height": 32, "width": 32, "steps": 2, "guidance": 2.0}
    together = supervision.sample(states, SPANS, GRIDS, **options, keys=[7, 8, 9])
    reordered = supervision.sample(states, SPANS, GRIDS, **options, keys=[9, 7], condition_on=[2, 0])
    torch.testing.assert_close(reordered, together[[2, 0]], atol=1e-5, rtol=0)
    other = supervision.sample(states, SPANS, GRIDS, **options, keys=[8, 8, 9])
    assert not torch.allclose(other[0], together[0], atol=1e-3)
    with pytest.raises(ValueError, match=r"3 pictures .* 2 keys"):
        supervision.sample(states, SPANS, GRIDS, **options, keys=[1, 2])


def test_sampling_no_images(supervision, states):
    none = torch.zeros(0, 2, dtype=torch.int64)
    assert supervision.sample(states, none, none, 32, 32, steps=1, guidance=1.0, seed=0).shape == (0, 3, 32, 32)
