"""A batch as one run of bytes: between processes, a hundred small tensors cost far more than their bytes.

An int64 with the length of a JSON header, the header (what is no tensor, and each tensor's type, shape and place), then
the tensors' values at multiples of 64 bytes. Reading copies nothing and executes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from gemvlm.batch import Actions, Batch, Target

ALIGNMENT = 64
ACTION_TENSORS = ("samples", "state", "chunk", "valid")


def to_bytes(batch: Batch) -> UInt8[Tensor, "bytes"]:
    """Undone by `from_bytes`. A tensor that repeats one value (`expand`) is sent as that value."""
    kept = {name: value for name, value in _values(batch).items() if isinstance(value, Tensor)}
    others = [{"kind": t.kind, "image": t.image, "key": t.key} for t in batch.targets]
    described: dict[str, tuple[str, list[int], bool, int]] = {}
    parts: dict[str, Tensor] = {}
    end = 0
    for name, tensor in kept.items():
        constant = tensor.numel() > 1 and not any(tensor.stride())
        parts[name] = (tensor.as_strided((1,), (1,)) if constant else tensor.contiguous().flatten()).view(torch.uint8)
        described[name] = (str(tensor.dtype).removeprefix("torch."), list(tensor.shape), constant, end)
        end += -(-len(parts[name]) // ALIGNMENT) * ALIGNMENT
    keys = None if batch.actions is None else batch.actions.keys
    header = {"tensors": described, "targets": others, "sample_ids": batch.sample_ids, "action_keys": keys}
    text = json.dumps(header).encode()
    start = -(-(8 + len(text)) // ALIGNMENT) * ALIGNMENT
    content = torch.zeros(start + end, dtype=torch.uint8)
    content[:8] = torch.tensor([len(text)]).view(torch.uint8)
    content[8 : 8 + len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    for name, part in parts.items():
        at = start + described[name][3]
        content[at : at + len(part)] = part
    return content


def from_bytes(content: UInt8[Tensor, "bytes"]) -> Batch:
    """The batch; its tensors share the memory of `content`."""
    length = int(content[:8].view(torch.int64))
    header = json.loads(content[8 : 8 + length].numpy().tobytes())
    start = -(-(8 + length) // ALIGNMENT) * ALIGNMENT
    tensors = {name: _tensor(content[start:], *place) for name, place in header["tensors"].items()}
    targets = tuple(
        Target(
            kind=own["kind"],
            image=own["image"],
            picture=tensors.pop(f"targets.{index}.picture"),
            valid=tensors.pop(f"targets.{index}.valid"),
            key=own["key"],
            latent=tensors.pop(f"targets.{index}.latent", None),
        )
        for index, own in enumerate(header["targets"])
    )
    keys = header["action_keys"]
    actions = None
    if keys is not None:
        actions = Actions(**{name: tensors.pop(f"actions.{name}") for name in ACTION_TENSORS}, keys=tuple(keys))
    return Batch(**tensors, targets=targets, sample_ids=tuple(header["sample_ids"]), actions=actions)


def _values(batch: Batch) -> Mapping[str, Any]:
    """Every field of the batch, its targets and its actions, by a name of its own."""
    own = {f.name: getattr(batch, f.name) for f in fields(batch)}
    of_actions = {f"actions.{name}": getattr(batch.actions, name, None) for name in ACTION_TENSORS}
    of_targets = {
        f"targets.{index}.{name}": getattr(target, name)
        for index, target in enumerate(batch.targets)
        for name in ("picture", "valid", "latent")
    }
    return {**own, **of_targets, **of_actions}


def _tensor(content: Tensor, dtype: str, shape: list[int], constant: bool, offset: int) -> Tensor:
    kind = getattr(torch, dtype)
    count = 1 if constant else torch.Size(shape).numel()
    values = content[offset : offset + count * kind.itemsize].view(kind)
    return values.expand(shape) if constant else values.reshape(shape)
