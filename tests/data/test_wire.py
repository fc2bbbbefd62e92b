"""A batch crosses processes unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from gemvlm.batch import Batch
from gemvlm.data.collate import Collator
from gemvlm.data.wire import from_bytes, to_bytes
from gemvlm.sample import Sample


def same(ours: Tensor | None, theirs: Tensor | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def assert_same(ours: Batch, theirs: Batch) -> None:
    for field in fields(Batch):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        assert same(a, b) if isinstance(a, Tensor) else field.name == "targets" or a == b, field.name
    for a, b in zip(ours.targets, theirs.targets, strict=True):
        assert (a.kind, a.image, a.key) == (b.kind, b.image, b.key)
        assert same(a.picture, b.picture) and same(a.valid, b.valid) and same(a.latent, b.latent)


def test_a_batch_comes_back(make_sample: Callable[..., Sample], make_collator: Callable[..., Collator]) -> None:
    batch = make_collator()([make_sample("a", frames=2), make_sample("ü", depth=None)])
    targets = [replace(target, key=(1 << 63) - 1 - i) for i, target in enumerate(batch.targets)]
    targets[0] = replace(targets[0], latent=torch.randn(2, 1, 1), valid=torch.ones((), dtype=torch.bool).expand(4, 4))
    batch = replace(batch, targets=tuple(targets))
    assert_same(from_bytes(to_bytes(batch)), batch)


def test_a_batch_without_images_comes_back(
    make_sample: Callable[..., Sample], make_collator: Callable[..., Collator]
) -> None:
    batch = make_collator()([make_sample("a", frames=0)])
    assert_same(from_bytes(to_bytes(batch)), batch)


def test_a_repeated_value_is_sent_once(
    make_sample: Callable[..., Sample], make_collator: Callable[..., Collator]
) -> None:
    batch = make_collator()([make_sample("a")])
    target = replace(batch.targets[0], picture=torch.tensor(0.5).expand(3, 1000, 4), valid=torch.ones(1000, 4).bool())
    content = to_bytes(replace(batch, targets=(target,)))
    assert len(content) < len(to_bytes(batch)) + 1000 * 4 + 1000
    assert torch.equal(from_bytes(content).targets[0].picture, target.picture)
