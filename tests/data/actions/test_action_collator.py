"""Moments to batches: the prompt, the numbers, the targets, and what is changed at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from gemvlm.batch import IGNORE, Batch
from gemvlm.data.actions import ActionCollator, Augmentation, EpisodeDataset
from gemvlm.data.collate import Collator
from gemvlm.data.episodes import Episode
from gemvlm.data.loader import BatchStream
from gemvlm.data.wire import from_bytes, to_bytes
from gemvlm.robot import RobotObservation
from gemvlm.robot.codec import ActionCodec
from gemvlm.robot.embodiments import EMBODIMENTS
from gemvlm.robot.statistics import Normalisation, Statistics
from gemvlm.sample import Sample

CONTRACT = EMBODIMENTS["metaworld"].contract


@pytest.fixture
def make(make_collator: Callable[..., Collator], codec: ActionCodec) -> Callable[..., ActionCollator]:
    def collator(**options: object) -> ActionCollator:
        return ActionCollator(make_collator(), codec, **options)  # type: ignore[arg-type]

    return collator


def _observation(dataset: EpisodeDataset, index: int) -> RobotObservation:
    item = dataset[index]
    return RobotObservation({name: frame.image for name, frame in item.frames.items()}, item.state, item.wordings[0])


def test_training_and_inference_ask_alike(dataset: EpisodeDataset, make: Callable[..., ActionCollator]) -> None:
    """A5: one prompt builder; every camera an image of its own, in the same order, with the same numbers."""
    collator = make()
    trained = collator([dataset[3], dataset[20]])
    asked = collator.observe([_observation(dataset, i) for i in (3, 20)], keys=[7, 8], horizon=5)
    for name in ("input_ids", "position_ids", "segment_ids", "labels", "pixel_values", "image_grid_thw", "spans"):
        assert torch.equal(getattr(trained, name), getattr(asked, name)), name
    assert trained.actions is not None and asked.actions is not None
    assert torch.equal(trained.actions.state, asked.actions.state)
    assert torch.equal(trained.actions.samples, asked.actions.samples)
    assert (asked.actions.keys, tuple(asked.actions.chunk.shape)) == ((7, 8), (2, 5, 4))
    assert not asked.actions.chunk.any() and not asked.targets


def test_the_prompt_is_the_published_one(
    dataset: EpisodeDataset, make: Callable[..., ActionCollator], tokenizer: PreTrainedTokenizerFast
) -> None:
    """All cameras' images, then the instruction, in a user's turn; no system text, no answer asked for."""
    batch = make()([dataset[3]])
    images = [{"type": "image"}] * 2
    content = [*images, {"type": "text", "text": "push the red button"}]
    messages: list[Any] = [{"role": "user", "content": content}]
    text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    counts = [prod(grid) // 4 for grid in batch.image_grid_thw.tolist()]
    pieces = text.split("<|image_pad|>")
    wanted = "".join(p + "<|image_pad|>" * n for p, n in zip(pieces, [*counts, 0], strict=True))
    assert tokenizer.decode(batch.input_ids) == wanted
    assert (batch.labels == IGNORE).all()


def test_numbers_are_the_codecs_and_come_back(
    dataset: EpisodeDataset, make: Callable[..., ActionCollator], codec: ActionCodec
) -> None:
    items = [dataset[i] for i in (0, 11, 18)]
    actions = make()(items).actions
    assert actions is not None
    for row, item in enumerate(items):
        back = codec.decode(actions.chunk[row].numpy(), item.state)
        np.testing.assert_allclose(back, item.actions, atol=1e-5)
        np.testing.assert_array_equal(actions.valid[row].numpy(), item.valid)
    assert actions.chunk.abs().max() <= 1 + 1e-6
    assert len(set(actions.keys)) == 3


def test_a_missing_statistic_stops_at_once(codec: ActionCodec) -> None:
    only = Normalisation("min_max", {"action": codec.normalisation.fields["action"]})
    with pytest.raises(ValueError, match=r"no statistics of 'state'; there are \['action'\]"):
        ActionCodec(codec.embodiment, only)
    narrow = Normalisation("min_max", dict(codec.normalisation.fields) | {"state": Statistics.of([np.zeros((2, 3))])})
    with pytest.raises(ValueError, match="3 numbers, the model sees 4"):
        ActionCodec(codec.embodiment, narrow)


def test_every_camera_has_its_own_target(dataset: EpisodeDataset, make: Callable[..., ActionCollator]) -> None:
    """A2: a depth target names its own image, for every camera of every item, with pictures hidden among them."""
    items = list(dataset)[:20]
    for collator in (make(), make(hidden_images=0.4)):
        batch = collator(items)
        seen = set()
        for target in batch.targets:
            item, camera = divmod(target.image, 2)
            expected = 1 + camera + dataset.moment(item)[1] / 100
            np.testing.assert_allclose(target.picture.numpy(), expected, rtol=1e-6)
            seen.add(target.image)
        grey = {n for n in range(40) if batch.pixel_values.split(_patches(batch))[n].std() == 0}
        assert seen == set(range(40)) - grey
        assert len(grey) == 0 if collator.hidden_images == 0 else 5 < len(grey) < 28


def _patches(batch: Batch) -> list[int]:
    return [prod(grid) for grid in batch.image_grid_thw.tolist()]


def test_hiding_keeps_every_token_in_place(dataset: EpisodeDataset, make: Callable[..., ActionCollator]) -> None:
    """B6: what is hidden is hidden in place; no image is dropped and no token moves."""
    items = list(dataset)
    plain, hidden = make()(items), make(hidden_images=0.5, hidden_words=0.5)(items)
    for name in ("position_ids", "segment_ids", "spans", "image_grid_thw"):
        assert torch.equal(getattr(plain, name), getattr(hidden, name)), name
    changed = plain.input_ids != hidden.input_ids
    per_item = torch.zeros(len(items)).index_add(0, plain.segment_ids, changed.float())
    words = int(per_item.max())
    assert set(per_item.tolist()) == {0.0, float(words)} and words >= 4
    assert hidden.input_ids[changed].unique().numel() == 1


def test_state_noise_is_noise(dataset: EpisodeDataset, make: Callable[..., ActionCollator]) -> None:
    """B3: its deviation is what was asked for, it differs by item and epoch, and actions have none of it."""
    items = list(dataset)[::2]
    quiet, noisy = make(), make(state_noise=0.25)
    draws = []
    for epoch in range(15):
        clean, batch = quiet(items, epoch).actions, noisy(items, epoch).actions
        assert clean is not None and batch is not None
        assert torch.equal(clean.chunk, batch.chunk)
        draws.append((batch.state - clean.state).numpy())
    noise = np.stack(draws)
    assert abs(noise.std() - 0.25) < 0.03 and abs(noise.mean()) < 0.04
    assert len(np.unique(noise)) > 0.99 * noise.size


def test_draws_depend_on_seed_epoch_and_item_only(dataset: EpisodeDataset, make: Callable[..., ActionCollator]) -> None:
    """B17: every worker and process draws the same for an item, and no two items the same."""
    options = {"augmentation": replace(Augmentation.published(), share=1.0, shift=0.1), "state_noise": 0.1}
    options |= {"hidden_images": 0.2, "hidden_words": 0.2}
    together = make(**options)([dataset[i] for i in range(6)], epoch=2)
    for index in range(6):
        alone = make(**options)([dataset[index]], epoch=2)
        own = slice(2 * index, 2 * index + 2)
        images = torch.cat(together.pixel_values.split(_patches(together))[own])
        assert torch.equal(images, alone.pixel_values)
        assert together.actions is not None and alone.actions is not None
        assert torch.equal(together.actions.state[index : index + 1], alone.actions.state)
        assert together.actions.keys[index] == alone.actions.keys[0]
        for other in (make(**options)([dataset[index]], epoch=3), make(seed=1, **options)([dataset[index]], epoch=2)):
            assert not torch.equal(other.pixel_values, alone.pixel_values)


def test_one_of_all_wordings_is_shown(
    make_episode: Callable[..., Episode], make: Callable[..., ActionCollator], tokenizer: PreTrainedTokenizerFast
) -> None:
    """B14: no wording is forgotten, and which is shown changes with the epoch."""
    wordings = ("where is the red mug", "what colour is the box", "yes")
    item = EpisodeDataset([[make_episode("a", wordings=wordings)]], CONTRACT, 3)[4]
    shown = [tokenizer.decode(make()([item], epoch).input_ids) for epoch in range(30)]
    for wording in wordings:
        assert 3 < sum(wording in text for text in shown) < 20


def test_samples_with_answers_may_stand_among_items(
    dataset: EpisodeDataset, make: Callable[..., ActionCollator], make_sample: Callable[..., Sample]
) -> None:
    """C10: one collator and one batch for actions alone, with text and with depth, not a copy of the loop for each."""
    collator = make()
    sample = make_sample("text", frames=1)
    batch = collator([sample, dataset[2], sample, dataset[9]])
    assert batch.actions is not None and batch.actions.samples.tolist() == [1, 3]
    alone = collator.collator([sample])
    supervised = batch.labels != IGNORE
    assert set(batch.segment_ids[supervised].tolist()) == {0, 2}
    assert int(supervised.sum()) == 2 * int((alone.labels != IGNORE).sum())
    assert sorted(target.image for target in batch.targets) == [0, 1, 2, 3, 4, 5]
    assert collator([sample]).actions is None


def test_actions_cross_processes_unchanged(dataset: EpisodeDataset, make: Callable[..., ActionCollator]) -> None:
    batch = make(state_noise=0.1)([dataset[0], dataset[11]])
    again = from_bytes(to_bytes(batch))
    assert batch.actions is not None and again.actions is not None
    for name in ("samples", "state", "chunk", "valid"):
        ours, theirs = getattr(again.actions, name), getattr(batch.actions, name)
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), name
    assert again.actions.keys == batch.actions.keys


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_streams_episodes(
    dataset: EpisodeDataset, make: Callable[..., ActionCollator], workers: int
) -> None:
    stream = BatchStream(dataset, make(state_noise=0.1), batch_size=4, seed=5, workers=workers)
    drawn = [next(stream) for _ in range(7)]
    assert sorted(name for batch in drawn for name in batch.sample_ids) == sorted(item.id for item in dataset)
    assert all(batch.actions is not None and batch.actions.state.shape == (4, 4) for batch in drawn)


def test_what_an_observation_lacks_is_said(dataset: EpisodeDataset, make: Callable[..., ActionCollator]) -> None:
    good = _observation(dataset, 0)
    with pytest.raises(ValueError, match=r"no camera 'left'; it has \['right'\]"):
        make().observe([replace(good, images={"right": good.images["right"]})], [1], 5)
    with pytest.raises(ValueError, match="3 numbers of state"):
        make().observe([replace(good, state=good.state[:3])], [1], 5)
    with pytest.raises(ValueError, match="more than 16384"):
        make().observe([replace(good, instruction="mug " * 20_000)], [1], 5)


def test_chunks_of_one_batch_have_one_length(dataset: EpisodeDataset, make: Callable[..., ActionCollator]) -> None:
    other = EpisodeDataset([dataset.episodes], CONTRACT, 3)
    with pytest.raises(ValueError, match=r"chunks of \[3, 5\] steps"):
        make()([dataset[0], other[0]])
