"""Attention over a packed token axis, given to transformers as an attention function of the name `packed`.

The stock layers stay as they are: tokens of all samples (or patches of all images) lie on one axis of a batch of one,
so every linear layer and norm runs once over exactly the tokens there are. Only the attention itself knows segments.
Its kernels give equal results, and each device has its own (`Packing.kernel`):

* `tiles` (text on a CPU, `tiled_attention.py`): products over what causal attention sees, with a backward pass;
* `flash`, `flex` (GPUs, `fused_attention.py`): kernels that take segments as they lie; FlashAttention in half
  precision, FlexAttention in any other;
* `rows` (everything else, and text of one length in float32 of which nothing is learnt): segments as rows of
  PyTorch's attention. Causal: one group of rows, right-padded to the longest, where no mask is needed because a query
  never sees what stands to its right. Bidirectional (vision): one group per distinct length, so that nothing is padded.
  The stock code loops over images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface

from gemvlm.model.fused_attention import Segments, flash, flex
from gemvlm.model.tiled_attention import TiledAttention, Tiles

NAME = "packed"

LARGEST_SCORES = 2**26
"""Scores (of all heads) that tiles may keep for each layer; beyond, PyTorch's kernel computes them twice instead."""

Kernel = Literal["tiles", "rows", "flash", "flex"]
_forced: Kernel | None = None


@contextmanager
def using(kernel: Kernel) -> Iterator[None]:
    """Inside, all attention over segments runs by one kernel: to compare them."""
    global _forced
    before, _forced = _forced, kernel
    try:
        yield
    finally:
        _forced = before


def is_half_on_cpu(tensor: Tensor) -> bool:
    """Whether attention would run in bfloat16 on a CPU, where the fused kernel is thrice as slow as products."""
    return tensor.device.type == "cpu" and (tensor.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu"))


def kernel_for(tensor: Tensor) -> AbstractContextManager[None]:
    """The same choice for stock modules that call PyTorch's attention themselves."""
    return sdpa_kernel(SDPBackend.MATH) if is_half_on_cpu(tensor) else nullcontext()


class Packing:
    """The segments of a packed axis of `sum(lengths)` tokens, as each kernel wants them, once for all layers."""

    def __init__(self, lengths: Sequence[int], *, causal: bool, device: torch.device | str):
        self.lengths = [length for length in lengths if length > 0]
        self.causal = causal
        self.device = torch.device(device)

    @cached_property
    def tiles(self) -> Tiles:
        return Tiles(self.lengths)

    @cached_property
    def segments(self) -> Segments:
        return Segments(self.lengths, causal=self.causal, device=self.device)

    @cached_property
    def rows(self) -> tuple[list[Tensor], Tensor]:
        """Groups (row → token indices), and for each token its place in the concatenated rows."""
        groups = []
        lengths = torch.tensor(self.lengths)
        starts = lengths.cumsum(0) - lengths
        widths = [int(lengths.max())] if self.causal else sorted(set(self.lengths))
        restore, offset = torch.empty(int(lengths.sum()), dtype=torch.int64), 0
        for width in widths:
            rows = torch.arange(len(lengths)) if self.causal else (lengths == width).nonzero()[:, 0]
            column = torch.arange(width)
            # A padded place repeats its row's last token: a real number that no query of the row sees.
            within = torch.minimum(column, lengths[rows, None] - 1)
            groups.append((starts[rows, None] + within).to(self.device))
            kept = column < lengths[rows, None]
            places = offset + torch.arange(len(rows) * width).view(len(rows), width)
            restore[(starts[rows, None] + column)[kept]] = places[kept]
            offset += len(rows) * width
        return groups, restore.to(self.device)

    def attend(
        self,
        query: Float[Tensor, "1 heads T d"],
        key: Float[Tensor, "1 kv T d"],
        value: Float[Tensor, "1 kv T d"],
        scale: float | None,
    ) -> Float[Tensor, "1 T heads d"]:
        """Attention within each segment; grouped-query if there are fewer key heads than query heads."""
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        kernel = _forced or self.kernel(query, value)
        if kernel == "tiles":
            packed = (t[0].transpose(0, 1) for t in (query, key, value))
            return TiledAttention.apply(*packed, self.tiles, scale)[None]
        if kernel == "rows":
            return self._in_rows(query, key, value, scale)
        return (flash if kernel == "flash" else flex)(query, key, value, self.segments, scale)

    def kernel(self, query: Tensor, value: Tensor) -> Kernel:
        """Which kernel is used, by device, precision and size."""
        if self.device.type == "cuda":
            return "flash" if value.dtype in (torch.bfloat16, torch.float16) else "flex"
        if not self.causal or self.device.type != "cpu":
            return "rows"
        if not torch.is_grad_enabled() and len(set(self.lengths)) == 1 and not is_half_on_cpu(value):
            return "rows"
        return "tiles" if query.shape[1] * Tiles.scores(self.lengths) <= LARGEST_SCORES else "rows"

    def _in_rows(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Float[Tensor, "1 T heads d"]:
        if len(set(self.lengths)) == 1:
            rows = [t[0].unflatten(1, (len(self.lengths), -1)).transpose(0, 1) for t in (query, key, value)]
            return self._dense(rows, scale).transpose(1, 2).flatten(0, 1)[None]
        groups, restore = self.rows
        outputs = []
        for index in groups:
            rows = [
                t[0].transpose(0, 1)[index.flatten()].unflatten(0, index.shape).transpose(1, 2)
                for t in (query, key, value)
            ]
            outputs.append(self._dense(rows, scale).transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs)[restore][None]

    def _dense(self, rows: Sequence[Tensor], scale: float) -> Tensor:
        """Attention of query, key and value rows (G, heads, L, d)."""
        query, key, value = rows
        grouped = query.shape[1] != key.shape[1]
        if self.causal or not is_half_on_cpu(value):
            return F.scaled_dot_product_attention(
                query, key, value, is_causal=self.causal, scale=scale, enable_gqa=grouped
            )
        scores = (query * scale) @ key.mT
        return scores.softmax(-1) @ value


class Decoding:
    """Attention of one new token per sample to that sample's cached keys and values (rows of a right-padded cache)."""

    def __init__(self, lengths: Tensor):
        self.lengths = lengths
        """Tokens of each row that may be seen, the new one included."""

    def attend(
        self,
        query: Float[Tensor, "1 heads S d"],
        key: Float[Tensor, "S kv L d"],
        value: Float[Tensor, "S kv L d"],
        scale: float | None,
    ) -> Float[Tensor, "1 S heads d"]:
        seen = torch.arange(key.shape[2], device=key.device) < self.lengths[:, None]
        # With a mask the fused kernels refuse grouped queries, so the query heads of one key head become its queries.
        grouped = query[0].transpose(0, 1).unflatten(1, (key.shape[1], -1))
        out = F.scaled_dot_product_attention(grouped, key, value, attn_mask=seen[:, None, None], scale=scale)
        return out.flatten(1, 2)[None]


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing | Decoding,
    scaling: float | None = None,
    dropout: float = 0.0,
    **ignored: object,
) -> tuple[Tensor, None]:
    """The signature that transformers asks for. ValueError for a mask or dropout: neither exists in this model."""
    if attention_mask is not None or dropout:
        raise ValueError("packed attention knows no mask and no dropout; say which tokens belong together by `packing`")
    return packing.attend(query, key, value, scaling), None


AttentionInterface.register(NAME, packed_attention)
