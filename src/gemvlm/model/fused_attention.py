"""Attention within the segments of a packed axis by the kernels that GPUs have for it: nothing is regrouped or padded.

`flash` is FlashAttention's kernel for sequences of unequal length, in half precision: that of the package `flash-attn`
where it is installed, else the one inside PyTorch. `flex` is PyTorch's FlexAttention, compiled, in any precision: of
the squares of 128 by 128 scores it visits those that hold something to see, and masks those that also hold something
else. Which squares they are follows from the lengths alone, so no mask over all pairs is ever made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

SQUARE = 128


class Segments:
    """The segments of a packed axis as these kernels want them, made once for all layers. Lengths are positive."""

    def __init__(self, lengths: Sequence[int], *, causal: bool, device: torch.device):
        self.lengths, self.causal, self.device = lengths, causal, device

    @cached_property
    def edges(self) -> Tensor:
        """Where segments begin, and where the last ends."""
        ends = torch.tensor([0, *self.lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return ends.to(self.device, non_blocking=True)

    @cached_property
    def blocks(self) -> BlockMask:
        total = sum(self.lengths)
        segment = torch.arange(len(self.lengths)).repeat_interleave(torch.tensor(self.lengths))
        first, last = segment[::SQUARE], segment[[*range(SQUARE - 1, total - 1, SQUARE), total - 1]]
        row = torch.arange(len(first))
        seen = (first[:, None] <= last) & (first <= last[:, None])
        whole = (first == last)[:, None] & (first == last) & seen
        if self.causal:
            seen, whole = seen & (row <= row[:, None]), whole & (row < row[:, None])
        whole[:, -1] &= total % SQUARE == 0
        segment = segment.to(self.device)
        # lambdas, which PyTorch traces and type checkers of tests leave alone
        sees = lambda batch, head, query, key: segment[query] == segment[key]  # noqa: E731
        if self.causal:
            sees = lambda batch, head, query, key: (segment[query] == segment[key]) & (query >= key)  # noqa: E731
        masked, free = _listed(seen & ~whole, self.device), _listed(whole, self.device)
        return BlockMask.from_kv_blocks(*masked, *free, SQUARE, mask_mod=sees, seq_lengths=(total, total))


def _listed(squares: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """How many of each row are True, and their columns before the others."""
    order = squares.int().argsort(dim=-1, descending=True, stable=True)
    counts = squares.sum(-1)
    return counts[None, None].int().to(device), order[None, None].int().to(device)


def flash(
    query: Float[Tensor, "1 heads T d"],
    key: Float[Tensor, "1 kv T d"],
    value: Float[Tensor, "1 kv T d"],
    segments: Segments,
    scale: float,
) -> Float[Tensor, "1 T heads d"]:
    """In the type of `value`, which must be half precision."""
    q, k, v = (t[0].transpose(0, 1).to(value.dtype) for t in (query, key, value))
    longest, edges = max(segments.lengths), segments.edges
    package = _flash_attn()
    if package is not None:
        options = {"softmax_scale": scale, "causal": segments.causal}
        return package.flash_attn_varlen_func(q, k, v, edges, edges, longest, longest, **options)[None]
    from torch.nn.attention.varlen import varlen_attn

    window = (-1, 0) if segments.causal else (-1, -1)
    grouped = q.shape[1] != k.shape[1]
    out = varlen_attn(q, k, v, edges, edges, longest, longest, scale=scale, window_size=window, enable_gqa=grouped)
    assert isinstance(out, Tensor)
    return out[None]


def flex(
    query: Float[Tensor, "1 heads T d"],
    key: Float[Tensor, "1 kv T d"],
    value: Float[Tensor, "1 kv T d"],
    segments: Segments,
    scale: float,
) -> Float[Tensor, "1 T heads d"]:
    """In the type of `value`. Compiled on a GPU; on a CPU PyTorch's plain version, slow and without a backward pass."""
    kernel = _compiled() if value.device.type == "cuda" else flex_attention
    query, key = query.to(value.dtype), key.to(value.dtype)
    grouped = query.shape[1] != key.shape[1]
    return kernel(query, key, value, block_mask=segments.blocks, scale=scale, enable_gqa=grouped).transpose(1, 2)


@cache
def _flash_attn() -> Any:
    """The package, None where it is not installed."""
    try:
        import flash_attn
    except ImportError:
        return None
    return flash_attn


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)
