"""Smaller weights on a CPU: linear layers of the language model, or of an action expert, in 8 or 4 bits.

    int8          weights only, one scale for each output; products in bfloat16
    int8_dynamic  weights once, activations anew at each call; 8-bit products. Float32 models only
    int4          weights only, a scale and a zero for each 32 inputs of an output; products in bfloat16

By PyTorch's own kernels, without a further package. They exist on CPUs alone: on a GPU bfloat16 is the choice here. The
weight-only ones take float32 activations too, but by a plain loop up to sixty times as slow, so activations are rounded
for them; they are made for one token at a time. Not every layer is made smaller: the vision tower, embeddings, norms
and the language head stay, as does any layer whose sizes a kernel does not take. An expert's modulations stay too,
since only parts of their weights are used at a time. What it brings on a machine, and what it costs in score,
`benchmarks/quantised.py` measures.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gemvlm.model.backbone import Backbone
from gemvlm.model.gem_vla import GemVla

Scheme = Literal["int8", "int8_dynamic", "int4"]
GROUP = 32
"""Inputs that share a scale in 4 bits."""
TILES = 2
"""An argument of the packing that shapes GPU layouts alone; a CPU's does not depend on it."""


@dataclass(frozen=True)
class Quantised:
    """What was done: how many layers got smaller, which were left, and the bytes of all these layers' weights."""

    scheme: Scheme
    layers: int
    left: tuple[str, ...]
    bytes_before: int
    bytes_after: int


def quantise(module: nn.Module, scheme: Scheme, wanted: Callable[[str], bool] = lambda name: True) -> Quantised:
    """Replaces, in place, the linear layers of a module whose names are `wanted`. ValueError off a CPU, or twice."""
    if scheme not in get_args(Scheme):
        raise ValueError(f"scheme {scheme!r} is unknown; choose one of {', '.join(get_args(Scheme))}")
    found = list(_linears(module, wanted))
    where = {linear.weight.device.type for _, _, _, linear in found}
    if where != {"cpu"}:
        raise ValueError(
            f"quantise: {len(found)} linear layers, on {', '.join(sorted(where)) or 'no device'}; these kernels need "
            "float layers on a CPU, and layers are made smaller once: load the checkpoint anew with device='cpu'"
        )
    before = after = done = 0
    left = []
    for name, parent, leaf, linear in found:
        size = linear.weight.nbytes
        before += size
        if not _fits(linear, scheme):
            left.append(name)
            after += size
            continue
        setattr(parent, leaf, _MAKERS[scheme](linear))
        done += 1
        numbers = linear.weight.numel()
        if scheme == "int4":
            after += numbers // 2 + 4 * numbers // GROUP
        else:
            after += numbers + (2 if scheme == "int8" else 4) * linear.out_features
    return Quantised(scheme, done, tuple(left), before, after)


def quantise_text(backbone: Backbone, scheme: Scheme) -> Quantised:
    """Replaces the language model's linear layers in place. ValueError off a CPU, or twice."""
    return quantise(backbone.qwen.model.language_model.layers, scheme)


def quantise_policy(policy: GemVla, scheme: Scheme) -> Quantised:
    """Replaces, in place, the linear layers that the backbone's language model and the expert's blocks run through."""
    text = quantise_text(policy.backbone, scheme)
    expert = quantise(policy.expert.model.blocks, scheme, lambda name: "adaLN_modulation" not in name)
    return Quantised(
        scheme,
        text.layers + expert.layers,
        (*text.left, *(f"expert.{name}" for name in expert.left)),
        text.bytes_before + expert.bytes_before,
        text.bytes_after + expert.bytes_after,
    )


class Int8Linear(nn.Module):
    """y = (x · q) scale + bias, with q in [-127, 127]."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        largest = linear.weight.detach().abs().amax(dim=1).clamp(min=1e-12)
        scale = (largest / 127).bfloat16().float()  # as it will be multiplied with
        counts = (linear.weight.detach().float() / scale[:, None]).round().clamp(-127, 127)
        self.register_buffer("weight", counts.to(torch.int8))
        self.register_buffer("scale", scale.bfloat16())
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*N i"]) -> Float[Tensor, "*N o"]:
        y = torch._weight_int8pack_mm(x.flatten(0, -2).bfloat16(), self.weight, self.scale)
        y = y.to(x.dtype).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


class Int4Linear(nn.Module):
    """y = x · (scale (q - 8) + zero) + bias, with q in [0, 15] packed two to a byte."""

    weight: Tensor
    scale_and_zero: Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        groups = linear.weight.detach().float().unflatten(1, (-1, GROUP))
        low, high = groups.amin(dim=2), groups.amax(dim=2)
        scale = ((high - low) / 15).clamp(min=1e-12)
        counts = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15).flatten(1).to(torch.int32)
        self.register_buffer("weight", torch._convert_weight_to_int4pack_for_cpu(counts, TILES))
        pairs = torch.stack([scale, low + 8 * scale], dim=-1).transpose(0, 1).contiguous()
        self.register_buffer("scale_and_zero", pairs.bfloat16())
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*N i"]) -> Float[Tensor, "*N o"]:
        rows = x.flatten(0, -2).bfloat16().contiguous()
        y = torch._weight_int4pack_mm_for_cpu(rows, self.weight, GROUP, self.scale_and_zero)
        y = y.to(x.dtype).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


def _dynamic(linear: nn.Linear) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its deprecation in favour of a package that isn't needed here
        from torch.ao.quantization import quantize_dynamic

        return quantize_dynamic(nn.Sequential(linear), {nn.Linear}, dtype=torch.qint8)[0]


_MAKERS: dict[Scheme, Callable[[nn.Linear], nn.Module]] = {
    "int8": Int8Linear,
    "int8_dynamic": _dynamic,
    "int4": Int4Linear,
}


def _fits(linear: nn.Linear, scheme: Scheme) -> bool:
    if scheme == "int4":
        return linear.in_features % GROUP == 0 and linear.out_features % 16 == 0
    return scheme == "int8" or linear.weight.dtype == torch.float32


def _linears(module: nn.Module, wanted: Callable[[str], bool]) -> Iterator[tuple[str, nn.Module, str, nn.Linear]]:
    for path, parent in list(module.named_modules()):
        for leaf, child in list(parent.named_children()):
            name = f"{path}.{leaf}".lstrip(".")
            if isinstance(child, nn.Linear) and wanted(name):
                yield name, parent, leaf, child
