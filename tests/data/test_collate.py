"""Samples of every shape share one batch, and targets stay with their images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from gemvlm.batch import IGNORE, Batch
from gemvlm.data.collate import Collator, Prompt, TurnSampler, keyed
from gemvlm.sample import Sample

Make = Callable[..., Sample]


def spans_are_between_markers(batch: Batch, tokenizer: PreTrainedTokenizerFast) -> bool:
    start, pad, end = tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"])
    ids = batch.input_ids
    return all(
        ids[a - 1] == start and ids[b] == end and bool((ids[a:b] == pad).all()) for a, b in batch.spans.tolist()
    ) and int((ids == pad).sum()) == int((batch.spans[:, 1] - batch.spans[:, 0]).sum())


def test_one_batch_holds_samples_of_every_shape(
    make_sample: Make, make_collator: Callable[..., Collator], tokenizer: PreTrainedTokenizerFast
) -> None:
    """A7: several images, a video's frames, text alone and an image without depth, all in one batch."""
    samples = [
        make_sample("one"),
        make_sample("two", frames=2, depth=1.0),
        make_sample("video", frames=8, depth=2.0, size=48),
        make_sample("text", frames=0),
        make_sample("flat", depth=None),
    ]
    batch = make_collator()(samples)
    assert batch.sample_ids == ("one", "two", "video", "text", "flat")
    assert len(batch.spans) == len(batch.image_grid_thw) == 12
    assert len(batch.pixel_values) == int(batch.image_grid_thw.prod(1).sum())
    assert batch.lengths.sum() == len(batch.input_ids) and len(batch.lengths) == 5
    assert spans_are_between_markers(batch, tokenizer)
    assert [target.image for target in batch.targets] == list(range(11))
    depths = [0.5, 1.0, 1.01, *(2 + 0.01 * index for index in range(8))]
    assert [float(target.picture.mean()) for target in batch.targets] == pytest.approx(depths)


def test_two_videos_or_images_and_a_video_keep_all_their_frames(
    make_sample: Make, make_collator: Callable[..., Collator], tokenizer: PreTrainedTokenizerFast
) -> None:
    """A18: nothing but the frames counts; two videos of 4 and 3 frames and an image are 8 images."""
    batch = make_collator()([make_sample("a", frames=8, question=" ".join(["<image>"] * 4), turns=2)])
    assert len(batch.spans) == len(batch.targets) == 8
    assert spans_are_between_markers(batch, tokenizer)


def test_packing_keeps_every_target_on_its_own_image(make_sample: Make, make_collator: Callable[..., Collator]) -> None:
    """A12: a packed sample has the targets, patches and positions that it has alone, shifted by what stands before."""
    samples = [make_sample("a", frames=2), make_sample("b", frames=0), make_sample("c", frames=1, depth=3.0)]
    collator = make_collator()
    packed, alone = collator(samples), [collator([sample]) for sample in samples]
    assert torch.equal(packed.input_ids, torch.cat([batch.input_ids for batch in alone]))
    assert torch.equal(packed.labels, torch.cat([batch.labels for batch in alone]))
    assert torch.equal(packed.position_ids, torch.cat([batch.position_ids for batch in alone], dim=1))
    assert torch.equal(packed.pixel_values, torch.cat([batch.pixel_values for batch in alone]))
    offset = len(alone[0].input_ids) + len(alone[1].input_ids)
    assert torch.equal(packed.spans[2:], alone[2].spans + offset)
    assert [(t.image, t.key) for t in packed.targets] == [(0, alone[0].targets[0].key), (1, alone[0].targets[1].key),
                                                         (2, alone[2].targets[0].key)]  # fmt: skip
    assert torch.equal(packed.targets[2].picture, alone[2].targets[0].picture)


def test_a_long_sample_loses_whole_turns_from_its_end(
    make_sample: Make, make_collator: Callable[..., Collator], tokenizer: PreTrainedTokenizerFast
) -> None:
    """A14: fitting never cuts a span, an answer or the alignment of patches and targets."""
    sample = make_sample("a", frames=2, turns=6)
    whole = make_collator()([sample])
    batch = make_collator(max_tokens=len(whole.input_ids) - 1)([sample])
    assert torch.equal(batch.input_ids, whole.input_ids[: len(batch.input_ids)])
    assert tokenizer.decode(batch.input_ids).endswith("<|im_end|>\n")
    assert int((batch.labels == tokenizer.eos_token_id).sum()) == 5
    assert len(batch.targets) == 2 and torch.equal(batch.pixel_values, whole.pixel_values)


def test_a_sample_that_cannot_fit_is_refused_with_the_counts(
    make_sample: Make, make_collator: Callable[..., Collator]
) -> None:
    """A14: images are never cut."""
    with pytest.raises(ValueError, match=r"sample 'a': \d+ tokens \(12 of 3 images\) with 1 turns .* max_tokens 20"):
        make_collator(max_tokens=20)([make_sample("a", frames=3)])


def test_keys_depend_on_seed_epoch_sample_image_and_kind_alone(
    make_sample: Make, make_collator: Callable[..., Collator]
) -> None:
    """B5: no rank, worker or neighbour enters a key, so ranks differ and any process count draws the same."""
    a, b = make_sample("a", frames=2), make_sample("b")
    keys = {target.key for epoch in (0, 1) for target in make_collator(seed=1)([a, b], epoch).targets}
    assert len(keys) == 6 and all(0 <= key < 2**63 for key in keys)
    assert make_collator(seed=1)([b, a]).targets[0].key == make_collator(seed=1)([a, b]).targets[2].key
    assert make_collator(seed=2)([b]).targets[0].key != make_collator(seed=1)([b]).targets[0].key
    assert keyed(1, 0, "a", 0, "depth") == 5685743462762533013  # for ever: checkpoints resume with it


def test_turns_are_drawn_anew_each_epoch_and_alike_everywhere(
    make_sample: Make, make_collator: Callable[..., Collator]
) -> None:
    sample = make_sample("a", turns=20)
    first, second = make_collator(turns=TurnSampler(3)), make_collator(turns=TurnSampler(3))
    alone, beside = first([sample], 4).input_ids, second([sample, make_sample("b")], 4).input_ids
    assert torch.equal(alone, beside[: len(alone)])
    shown = {tuple(TurnSampler(3)(sample.turns, keyed(0, epoch, "a", "turns"))) for epoch in range(20)}
    assert len(shown) > 15 and all(len(set(turns)) == 3 for turns in shown)


def test_family_weights_steer_the_draw(make_sample: Make) -> None:
    turns = make_sample("a", turns=20).turns
    never = TurnSampler(20, {"point": 1.0, "absent": 2.0})
    assert {turns[index].family for index in never(turns, 5)} == {"point"}
    often = TurnSampler(1, {"other": 3.0, "point": 1.0})
    drawn = [turns[often(turns, keyed(draw))[0]].family for draw in range(2000)]
    assert drawn.count("other") / 2000 == pytest.approx(0.75, abs=0.04)


def test_no_turns_leaves_the_images_and_their_targets(
    make_sample: Make, make_collator: Callable[..., Collator]
) -> None:
    batch = make_collator(turns=TurnSampler(0))([make_sample("a")])
    assert (batch.labels == IGNORE).all() and len(batch.targets) == 1


def test_a_placeholder_mismatch_is_refused_with_the_counts(
    make_sample: Make, make_collator: Callable[..., Collator]
) -> None:
    with pytest.raises(ValueError, match="sample 'a': questions hold 4 <image> but the sample has 3 frames"):
        make_collator()([make_sample("a", frames=3, question="<image><image>?")])


def test_text_alone_makes_a_batch_without_images(make_sample: Make, make_collator: Callable[..., Collator]) -> None:
    batch = make_collator()([make_sample("a", frames=0)])
    assert batch.pixel_values.shape == (0, 3 * 2 * 64)
    assert batch.spans.shape == (0, 2) and batch.image_grid_thw.shape == (0, 3) and batch.targets == ()


def test_prompts_are_packed_and_unsupervised(
    make_sample: Make, make_collator: Callable[..., Collator], tokenizer: PreTrainedTokenizerFast
) -> None:
    frames = make_sample("a").frames
    batch = make_collator().prompts([Prompt(frames, "Where is the mug?", [("What?", "a mug")]), Prompt((), "What?")])
    assert (batch.labels == IGNORE).all() and len(batch.lengths) == 2 and spans_are_between_markers(batch, tokenizer)
    assert tokenizer.decode(batch.input_ids).endswith("user\nWhat?<|im_end|>\n<|im_start|>assistant\n")


def test_remembered_pictures_are_those_made(make_sample: Make, make_collator: Callable[..., Collator]) -> None:
    collator, sample = make_collator(cache=True), make_sample("a")
    assert collator([sample], 0).targets[0].picture is collator([sample], 1).targets[0].picture


def texts(batch: Batch, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return [tokenizer.decode(ids) for ids in batch.input_ids.split(batch.lengths.tolist())]


def test_a_dialogue_is_shown_whole_and_in_order(
    make_sample: Make, make_collator: Callable[..., Collator], tokenizer: PreTrainedTokenizerFast
) -> None:
    talk = replace(make_sample("talk", turns=6), dialogue=True)
    collator = make_collator(turns=TurnSampler(2))
    for epoch in range(5):
        (text,) = texts(collator([talk], epoch), tokenizer)
        at = [text.index(f"mug {index}?") for index in range(6)]
        assert at == sorted(at)
    loose = [texts(collator([replace(talk, dialogue=False)], epoch), tokenizer)[0].count("mug") for epoch in range(5)]
    assert set(loose) == {2}
    whole, rest = collator([talk]), make_collator(turns=TurnSampler(2), max_tokens=120)([talk])
    assert len(whole.input_ids) > 120
    assert torch.equal(rest.input_ids, whole.input_ids[: len(rest.input_ids)])  # it loses its end, never its middle


def test_a_dialogue_stays_away_where_no_turn_of_it_is_wanted(
    make_sample: Make, make_collator: Callable[..., Collator], tokenizer: PreTrainedTokenizerFast
) -> None:
    talk = replace(make_sample("talk", turns=4), dialogue=True)
    for sampler in (TurnSampler(0), TurnSampler(2, {"absent": 1.0})):
        batch = make_collator(turns=sampler)([talk])
        assert "mug" not in texts(batch, tokenizer)[0] and len(batch.targets) == 1
    one_family = make_collator(turns=TurnSampler(1, {"point": 1.0}))([talk])
    assert texts(one_family, tokenizer)[0].count("mug") == 4


def test_a_samples_own_system_text_goes_first(
    make_sample: Make, make_collator: Callable[..., Collator], tokenizer: PreTrainedTokenizerFast
) -> None:
    samples = [replace(make_sample("a"), system="the red box"), make_sample("b"), replace(make_sample("c"), system="")]
    own, common, none = texts(make_collator(system="a mug")(samples), tokenizer)
    assert "system\nthe red box" in own and "a mug" not in own
    assert "system\na mug" in common and "a mug" not in none
