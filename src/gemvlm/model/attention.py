"""Attention over a packed token axis, given to transformers as an attention function of the name `packed`.

The stock layers stay as they are: tokens of all samples (or patches of all images) lie on one axis of a batch of one,
so every linear layer and norm runs once over exactly the tokens there are. Only the attention itself regroups them,
into rows:

* causal (text): on a CPU tiles (`tiled_attention.py`); else one group of rows, right-padded to the longest. A causal
  query never sees what stands to its right, so no mask is needed and the fast kernels apply;
* bidirectional (vision): one group of rows per distinct length, so that nothing is padded. The stock code loops over
  images.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface

from gemvlm.model.tiled_attention import TiledAttention, Tiles

NAME = "packed"

LARGEST_SCORES = 2**26
"""Scores (of all heads) that tiles may keep for each layer; beyond, PyTorch's kernel computes them twice instead."""


def is_half_on_cpu(tensor: Tensor) -> bool:
    """Whether attention would run in bfloat16 on a CPU, where the fused kernel is thrice as slow as products."""
    return tensor.device.type == "cpu" and (tensor.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu"))


def kernel_for(tensor: Tensor) -> AbstractContextManager[None]:
    """The same choice for stock modules that call PyTorch's attention themselves."""
    return sdpa_kernel(SDPBackend.MATH) if is_half_on_cpu(tensor) else nullcontext()


class Packing:
    """How a packed axis of `sum(lengths)` tokens is regrouped into rows, once for all layers."""

    def __init__(self, lengths: Sequence[int], *, causal: bool, device: torch.device | str):
        self.lengths = [length for length in lengths if length > 0]
        self.causal = causal
        self.device = torch.device(device)

    @cached_property
    def tiles(self) -> Tiles:
        return Tiles(self.lengths)

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
        if self._fit_tiles(query.shape[1]):
            scale = query.shape[-1] ** -0.5 if scale is None else scale
            packed = (t[0].transpose(0, 1) for t in (query, key, value))
            return TiledAttention.apply(*packed, self.tiles, scale)[None]
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

    def _fit_tiles(self, heads: int) -> bool:
        return self.causal and self.device.type == "cpu" and heads * Tiles.scores(self.lengths) <= LARGEST_SCORES

    def _dense(self, rows: Sequence[Tensor], scale: float | None) -> Tensor:
        """Attention of query, key and value rows (G, heads, L, d)."""
        query, key, value = rows
        grouped = query.shape[1] != key.shape[1]
        if self.causal or not is_half_on_cpu(value):
            return F.scaled_dot_product_attention(
                query, key, value, is_causal=self.causal, scale=scale, enable_gqa=grouped
            )
        scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
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
