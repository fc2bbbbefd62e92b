"""Named losses of a batch: what they need, what they touch, what they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gemvlm.batch import IGNORE
from gemvlm.model.gem import Gem


def without_labels(batch):
    return replace(batch, labels=torch.full_like(batch.labels, IGNORE))


def test_every_loss_trains_every_part_that_it_needs(gem, make_batch):
    batch = make_batch()
    losses = gem(batch)
    assert set(losses) == {"text", "depth"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in gem.parameters())


def test_depth_of_every_sample_and_every_size_counts(gem, make_batch):
    """A13: targets of all samples of a batch are used, whatever their sizes."""
    batch = make_batch((([(32, 32)], 4), ([(64, 32), (32, 32)], 4), ([], 4), ([(32, 64)], 4)))
    gem.eval()
    together = gem(batch, losses=("depth",))["depth"]
    each = [gem(replace(batch, targets=(target,)), losses=("depth",))["depth"] for target in batch.targets]
    assert len(each) == 4
    torch.testing.assert_close(together, torch.stack(each).mean(), atol=1e-5, rtol=0)


def test_depth_needs_no_labels_and_no_equal_spans(gem, make_batch):
    """C14: without labels the depth loss stands alone, and spans may differ in length in training and in sampling."""
    batch = without_labels(make_batch((([(32, 32)], 4), ([(64, 64)], 4))))
    losses = gem(batch)
    assert set(losses) == {"depth"}
    assert losses["depth"].isfinite()
    assert gem.paint(batch, 32, 48, steps=2, guidance=2.0, seed=0).shape == (2, 3, 32, 48)


def test_text_alone_without_images(gem, make_batch):
    assert set(gem(make_batch((([], 6), ([], 8))))) == {"text"}


def test_kinds_are_losses_of_their_own(gem, make_batch):
    batch = make_batch(kinds=("depth", "rgb"))
    assert set(gem(batch, losses=("depth", "rgb", "text"))) == {"depth", "rgb", "text"}
    assert set(gem(batch, losses=("rgb",))) == {"rgb"}


def test_the_prior_runs_no_backbone(gem, make_batch):
    gem.backbone.forward = None
    loss = gem(make_batch(kinds=("rgb",)), losses=("rgb_prior",))["rgb_prior"]
    loss.backward()
    assert all(p.grad is not None for p in gem.supervision.generator.parameters())


def test_a_frozen_backbone_builds_no_graph(gem, make_batch):
    gem.backbone.requires_grad_(False)
    assert not gem.backbone(make_batch()).states.requires_grad
    gem(make_batch(), losses=("depth",))["depth"].backward()


def test_parameter_groups_hold_every_parameter_once(gem):
    """B11: the DeepStack mergers belong to the merger."""
    groups = gem.parameter_groups()
    assert list(groups) == ["vision", "merger", "language", "connector", "generator", "latents"]
    names = [name for group in groups.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in gem.named_parameters())
    assert sum("deepstack_merger_list" in name for name in groups["merger"]) == 2 * 6
    assert not any("merger" in name for name in groups["vision"])
    assert any("embed_tokens" in name for name in groups["language"])
    assert groups["latents"] == {}


def test_sampling_leaves_the_training_loss_alone(gem, make_batch):
    """A15: painting uses its own schedule and changes nothing that training reads."""
    batch = make_batch()
    before = gem(batch, losses=("depth",))["depth"]
    gem.paint(batch, 32, 32, steps=3, guidance=5.0, seed=0)
    assert torch.equal(gem(batch, losses=("depth",))["depth"], before)


def test_the_flow_is_float32_under_autocast(gem, make_batch):
    """B2, B18: states, noise levels and loss of the flow stay float32 when the network computes in bfloat16."""
    entered = []
    gem.supervision.generator.sana.register_forward_pre_hook(
        lambda module, args, kwargs: entered.append((args[0].dtype, kwargs["timestep"])), with_kwargs=True
    )
    batch = make_batch()
    exact = gem(batch, losses=("depth",))["depth"]
    with torch.autocast("cpu", torch.bfloat16):
        loss = gem(batch, losses=("depth",))["depth"]
    assert loss.dtype == torch.float32
    assert [dtype for dtype, _ in entered] == [torch.float32] * len(entered)
    for (_, with_autocast), (_, without) in zip(entered[2:], entered[:2], strict=True):
        assert with_autocast.dtype == torch.float32
        assert torch.equal(with_autocast, without)
    torch.testing.assert_close(loss, exact, atol=0.05, rtol=0.05)


def test_a_bfloat16_model_keeps_the_flow_in_float32(gem, make_batch):
    """B2: casting the weights casts neither the noise schedule nor the loss."""
    gem.to(torch.bfloat16)
    assert gem(make_batch(), losses=("depth",))["depth"].dtype == torch.float32
    assert gem.paint(make_batch(), 32, 32, steps=2, guidance=2.0, seed=0).dtype == torch.float32


def test_a_regression_head_behind_the_same_interface(regression_config, make_batch):
    torch.manual_seed(0)
    gem = Gem(regression_config)
    sum(gem(make_batch()).values()).backward()
    assert all(p.grad is not None for p in gem.parameters())
    assert gem.paint(make_batch(), 32, 48, steps=1, guidance=1.0, seed=0).shape == (2, 3, 32, 48)
    assert gem.paint(make_batch(), 32, 48, steps=1, guidance=1.0, seed=0, unconditional=True).shape == (2, 3, 32, 48)


def test_painting_without_an_image_is_refused(gem, make_batch):
    with pytest.raises(ValueError, match="none of the 2 samples of the batch has an image"):
        gem.paint(make_batch((([], 6), ([], 8))), 32, 32, steps=1, guidance=1.0)


def test_autocast_gives_no_warning(gem, make_batch, recwarn):
    """The connector's norm takes half-precision states in its weight's precision, by the fused kernel."""
    torch.set_warn_always(True)  # it comes once per process otherwise
    try:
        with torch.autocast("cpu", torch.bfloat16):
            gem(make_batch())
    finally:
        torch.set_warn_always(False)
    assert not [str(w.message) for w in recwarn if "Mismatch dtype" in str(w.message)]


@pytest.mark.parametrize("kind", ["sana", "regression"])
def test_training_paints_each_image_its_own_picture(config, regression_config, make_batch, kind):
    """The direction of the flow, the pairing and the condition agree between training and sampling."""
    torch.manual_seed(0)
    gem = Gem(config if kind == "sana" else regression_config)
    batch = make_batch((([(32, 32)], 3), ([(32, 32)], 3)))
    rows, columns = torch.meshgrid(torch.linspace(-0.8, 0.8, 32), torch.linspace(-0.8, 0.8, 32), indexing="ij")
    pictures = [columns.expand(3, -1, -1), -rows.expand(3, -1, -1)]
    optimizer = torch.optim.Adam(gem.parameters(), 5e-3)
    for step in range(120):
        targets = [
            replace(t, picture=pictures[t.image], key=8 * step + t.image + 2 * i)
            for i in range(4)
            for t in batch.targets
        ]
        loss = gem(replace(batch, targets=tuple(targets)), losses=("depth",))["depth"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    painted = gem.eval().paint(batch, 32, 32, steps=8, guidance=1.0, seed=0)
    errors = torch.tensor([[(own - picture).abs().mean() for picture in pictures] for own in painted])
    assert errors[0, 0] < 0.6 * errors[0, 1]
    assert errors[1, 1] < 0.6 * errors[1, 0]


@pytest.mark.parametrize("half", [False, True])
def test_recomputed_activations_change_no_gradient_and_are_not_kept(gem, make_batch, half):
    """Saved between the passes: at least three times fewer numbers."""

    def step() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], int]:
        kept: list[int] = []
        gem.zero_grad()
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=half):
            losses = gem(batch)
        (losses["text"] + losses["depth"]).backward()
        found = {name: p.grad.clone() for name, p in gem.named_parameters() if p.grad is not None}
        return losses, found, sum(kept)

    batch = make_batch()
    gem.train()
    losses, gradients, kept = step()
    gem.checkpoint_activations()
    again, recomputed, fewer = step()
    assert fewer < kept / 3
    torch.testing.assert_close(again, losses, rtol=0, atol=0)
    assert recomputed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="keys and values"):
        gem.backbone(batch, keys_values=True)
    gem.checkpoint_activations(False)
    assert step()[2] == kept
