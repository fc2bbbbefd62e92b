"""Packed runs equal the stock model run on each sample alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from gemvlm.batch import IGNORE, Batch
from gemvlm.model import backbone as backbone_module
from gemvlm.model.backbone import supervised_tokens, until_last_image

SAMPLES = (([(32, 32)], 6), ([(32, 48), (64, 32)], 9), ([], 5), ([(32, 32)], 4))


def alone(batch: Batch, segment: int, length: int | None = None) -> Batch:
    """One sample of a batch as a batch of its own, its first `length` tokens if given."""
    tokens = (batch.segment_ids == segment).nonzero()[:length, 0]
    first, owner = int(tokens[0]), batch.segment_ids[batch.spans[:, 0]]
    counts = batch.image_grid_thw.prod(-1).tolist()
    pixels = [p for p, s in zip(batch.pixel_values.split(counts), owner.tolist(), strict=True) if s == segment]
    return Batch(
        batch.input_ids[tokens],
        torch.zeros_like(tokens),
        batch.position_ids[:, tokens],
        batch.labels[tokens],
        torch.cat(pixels) if pixels else batch.pixel_values[:0],
        batch.image_grid_thw[owner == segment],
        batch.spans[owner == segment] - first,
    )


@pytest.fixture
def stock(gem, config) -> Qwen3VLForConditionalGeneration:
    options = dict(config.backbone) | {"image_token_id": 1}
    model = Qwen3VLForConditionalGeneration._from_config(Qwen3VLConfig(**options), attn_implementation="eager")
    model.load_state_dict(gem.backbone.qwen.state_dict())
    return model.eval()


def test_packed_states_equal_the_stock_model_on_each_sample(gem, stock, make_batch):
    batch = make_batch(SAMPLES)
    out = gem.backbone(batch, layer_inputs=range(4), keys_values=True)
    for segment in range(len(SAMPLES)):
        one = alone(batch, segment)
        images = {"pixel_values": one.pixel_values, "image_grid_thw": one.image_grid_thw} if len(one.spans) else {}
        expected = stock.model(
            input_ids=one.input_ids[None], position_ids=one.position_ids[:, None], use_cache=True, **images
        )
        of_segment = batch.segment_ids == segment
        torch.testing.assert_close(out.states[of_segment], expected.last_hidden_state[0], atol=2e-5, rtol=0)
        for (keys, values), layer in zip(out.keys_values, expected.past_key_values.layers, strict=True):
            torch.testing.assert_close(keys[of_segment].transpose(0, 1), layer.keys[0], atol=2e-5, rtol=0)
            torch.testing.assert_close(values[of_segment].transpose(0, 1), layer.values[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("uniform", [True, False])
def test_half_precision_on_cpu_takes_another_path_to_the_same_states(gem, make_batch, uniform):
    batch = make_batch(SAMPLES if not uniform else (([(32, 32)], 6), ([(32, 32)], 6)))
    exact = gem.backbone(batch).states
    with torch.autocast("cpu", torch.bfloat16):
        half = gem.backbone(batch).states
    assert (half - exact).abs().max() < 0.15
    assert (half - exact).abs().mean() < 0.02


def test_packing_changes_no_gradient(gem, make_batch):
    batch = make_batch(SAMPLES)
    gem.backbone.text_loss(gem.backbone(batch).states, batch).backward()
    packed = {n: p.grad.clone() for n, p in gem.backbone.named_parameters()}
    gem.zero_grad()
    count = len(supervised_tokens(batch))
    for segment in range(len(SAMPLES)):
        one = alone(batch, segment)
        share = len(supervised_tokens(one)) / count
        (share * gem.backbone.text_loss(gem.backbone(one).states, one)).backward()
    for name, parameter in gem.backbone.named_parameters():
        torch.testing.assert_close(parameter.grad, packed[name], atol=2e-6, rtol=1e-4)


def test_stopping_early_gives_the_same_layer_inputs(gem, make_batch):
    batch = make_batch(SAMPLES)
    whole = gem.backbone(batch, layer_inputs=[0, 1, 2, 3])
    part = gem.backbone(batch, layer_inputs=[1, 2], stop_after=2)
    assert part.states is None
    assert torch.equal(part.layer_inputs[2], whole.layer_inputs[2])
    norm = gem.backbone.qwen.model.language_model.norm
    assert torch.equal(norm(whole.layer_inputs[3]), whole.states)
    with pytest.raises(ValueError, match="3 layers"):
        gem.backbone(batch, layer_inputs=[3], stop_after=2)


def test_text_loss_supervises_labels_within_samples_only(gem, make_batch):
    """A label on a sample's first token would be predicted by another sample's last state: it is not used."""
    batch = make_batch(SAMPLES)
    first = (batch.segment_ids == 1).nonzero()[0, 0]
    labels = batch.labels.clone()
    labels[first] = 7
    states = gem.backbone(batch).states
    loss = gem.backbone.text_loss(states, replace(batch, labels=labels))
    logits = gem.backbone.logits(states)
    expected = F.cross_entropy(logits[:-1], batch.labels[1:], ignore_index=IGNORE)
    torch.testing.assert_close(loss, expected)


def test_the_head_sees_supervised_positions_only(gem, make_batch):
    seen = []
    gem.backbone.qwen.lm_head.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    batch = make_batch(SAMPLES)
    gem(batch, losses=("text",))
    assert seen == [int((batch.labels != IGNORE).sum())]
    gem(batch, losses=("depth",))
    assert len(seen) == 1


def test_logits_in_chunks_give_the_same_loss_and_gradients(gem, make_batch, monkeypatch):
    batch = make_batch(SAMPLES)
    whole = gem.backbone.text_loss(gem.backbone(batch).states, batch)
    whole.backward()
    gradients = {n: p.grad.clone() for n, p in gem.backbone.named_parameters()}
    gem.zero_grad()
    monkeypatch.setattr(backbone_module, "LARGEST_LOGITS", 64 * 5)
    chunked = gem.backbone.text_loss(gem.backbone(batch).states, batch)
    chunked.backward()
    torch.testing.assert_close(chunked, whole)
    for name, parameter in gem.backbone.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-6, rtol=1e-5)


def test_cutting_after_the_last_image_leaves_the_span_states_alone(gem, make_batch):
    batch = make_batch(SAMPLES)
    short = until_last_image(batch)
    assert len(short.input_ids) == int(batch.spans[2, 1] - batch.spans[1, 0]) + 3 + 7 + 7
    states, cut = gem.backbone(batch).states, gem.backbone(short).states
    for (start, end), (new_start, new_end) in zip(batch.spans.tolist(), short.spans.tolist(), strict=True):
        torch.testing.assert_close(cut[new_start:new_end], states[start:end], atol=1e-6, rtol=0)


def test_batched_generation_equals_recomputing_each_sample_from_scratch(gem, make_batch):
    batch = make_batch(SAMPLES)
    together = gem.backbone.generate(batch, max_new_tokens=6, eos_ids=[])
    for segment, tokens in enumerate(together):
        one, grown = alone(batch, segment), []
        position = int(one.position_ids.max())
        for _ in range(6):
            with torch.no_grad():
                token = gem.backbone.logits(gem.backbone(one).states[-1:]).argmax(-1)
            grown.append(int(token))
            position += 1
            one = replace(
                one,
                input_ids=torch.cat([one.input_ids, token]),
                segment_ids=F.pad(one.segment_ids, (0, 1)),
                position_ids=torch.cat([one.position_ids, torch.full((3, 1), position)], dim=1),
                labels=F.pad(one.labels, (0, 1), value=IGNORE),
            )
        assert tokens.tolist() == grown


def test_generation_ends_at_an_end_token(gem, make_batch):
    batch = make_batch(SAMPLES)
    free = [row.tolist() for row in gem.backbone.generate(batch, 6, eos_ids=[])]
    stop = free[0][2]
    ended = gem.backbone.generate(batch, 6, eos_ids=[stop])
    for row, tokens in zip(ended, free, strict=True):
        assert row.tolist() == (tokens[: tokens.index(stop)] if stop in tokens else tokens)


def test_sampled_generation_follows_its_generator(gem, make_batch):
    def draw(seed: int) -> list[list[int]]:
        stream = torch.Generator().manual_seed(seed)
        return [row.tolist() for row in gem.backbone.generate(make_batch(), 5, [], temperature=1.0, generator=stream)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_spans_must_hold_the_images_tokens(gem, make_batch):
    batch = make_batch()
    spans = batch.spans.clone()
    spans[0, 1] -= 1
    with pytest.raises(ValueError, match="spans hold 9 tokens but the images have 10"):
        gem.backbone(replace(batch, spans=spans))
