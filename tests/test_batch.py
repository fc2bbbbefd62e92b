"""A batch moves as a whole and counts its samples."""

from __future__ import annotations

from dataclasses import fields

import torch

from gemvlm.batch import Batch, Target


def batch() -> Batch:
    targets = (
        Target("depth", 0, torch.zeros(3, 2, 2), torch.ones(2, 2, dtype=torch.bool), 5),
        Target("rgb", 0, torch.zeros(3, 2, 2), torch.ones(2, 2, dtype=torch.bool), 6, latent=torch.ones(4, 1, 1)),
    )
    return Batch(
        input_ids=torch.arange(5),
        segment_ids=torch.tensor([0, 0, 0, 1, 1]),
        position_ids=torch.zeros(3, 5, dtype=torch.int64),
        labels=torch.full((5,), -100),
        pixel_values=torch.zeros(4, 6),
        image_grid_thw=torch.tensor([[1, 2, 2]]),
        spans=torch.tensor([[1, 2]]),
        targets=targets,
        sample_ids=("a", "b"),
    )


def test_lengths_count_the_tokens_of_each_sample() -> None:
    assert batch().lengths.tolist() == [3, 2]


def test_to_moves_every_tensor_and_keeps_the_rest() -> None:
    moved = batch().to("meta")
    tensors = [value for field in fields(moved) if isinstance(value := getattr(moved, field.name), torch.Tensor)]
    assert len(tensors) == 7 and all(tensor.is_meta for tensor in tensors)
    assert all(target.picture.is_meta and target.valid.is_meta for target in moved.targets)
    assert moved.targets[0].latent is None and moved.targets[1].latent is not None
    assert moved.targets[1].latent.is_meta
    assert [target.key for target in moved.targets] == [5, 6] and moved.sample_ids == ("a", "b")


def test_to_the_same_device_changes_nothing() -> None:
    same = batch().to("cpu")
    assert torch.equal(same.input_ids, batch().input_ids) and len(same.targets) == 2
