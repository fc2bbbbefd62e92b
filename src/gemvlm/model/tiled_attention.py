"""Causal attention on a CPU within the segments of a packed axis, as products over what is seen and little more.

PyTorch's fused CPU kernel is slow in bfloat16 (thrice as slow as products, where there is no matrix unit), and products
of whole rows compute padding, the half of the square that nobody sees, and a float32 copy of every score. Here segments
are rows sorted from long to short and queries are taken in blocks. A tile is what one block sees: the rows that reach
it, and their keys before its end; the only mask is on its last square.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 48
"""Queries to a tile: measured, 32 to 64 cost about the same."""


class _Tile(NamedTuple):
    """Queries `start` to `end` of the first `rows` rows, which see the keys before `end`."""

    rows: int
    start: int
    end: int


class Tiles:
    """How a packed axis of `sum(lengths)` tokens is regrouped, once for all layers. Lengths are positive."""

    def __init__(self, lengths: Sequence[int]):
        given = torch.tensor(lengths)
        order = given.argsort(descending=True, stable=True)
        starts, ordered = (given.cumsum(0) - given)[order], given[order]
        self.tiles = [
            _Tile(int((ordered > start).sum()), start, start + BLOCK) for start in range(0, max(lengths), BLOCK)
        ]
        column = torch.arange(self.tiles[-1].end)
        real = column < ordered[:, None]
        # A padded place repeats its row's last token: a real number that no query of the row sees.
        self.index = starts[:, None] + torch.minimum(column, ordered[:, None] - 1)
        self.restore = torch.empty(sum(lengths), dtype=torch.int64)
        self.restore[self.index[real]] = real.flatten().nonzero()[:, 0]
        self.padded = ~real
        self.future = torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu(1)

    @staticmethod
    def scores(lengths: Sequence[int]) -> int:
        """About how many scores a head computes, and keeps for the backward pass."""
        return sum(length * (length + BLOCK) // 2 for length in lengths)

    def rows(self, packed: Float[Tensor, "T heads d"]) -> Float[Tensor, "S heads L d"]:
        return packed[self.index.flatten()].unflatten(0, self.index.shape).transpose(1, 2).contiguous()

    def packed(self, rows: Float[Tensor, "S heads L d"]) -> Float[Tensor, "T heads d"]:
        return rows.transpose(1, 2).flatten(0, 1)[self.restore]


class TiledAttention(torch.autograd.Function):
    """`apply(query, key, value, tiles, scale)` over (T, heads, d) in the type of `value`, scores included.

    A softmax sums in float32 whatever its type.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "T heads d"],
        key: Float[Tensor, "T kv d"],
        value: Float[Tensor, "T kv d"],
        tiles: Tiles,
        scale: float,
    ) -> Float[Tensor, "T heads d"]:
        with torch.autocast("cpu", enabled=False):
            q = tiles.rows((query * scale).to(value.dtype))
            k, v = tiles.rows(key.to(value.dtype)), tiles.rows(value)
            out, kept = torch.empty_like(q), []
            for tile in tiles.tiles:
                scores = _of_queries(q, tile, k.shape[1]) @ _of_keys(k, tile).mT
                scores.unflatten(1, (-1, BLOCK))[..., -BLOCK:].masked_fill_(tiles.future, -torch.inf)
                weights = scores.softmax(-1)
                _queries(out, tile).copy_((weights @ _of_keys(v, tile)).view_as(_queries(out, tile)))
                kept += [weights] if any(ctx.needs_input_grad) else []
            ctx.save_for_backward(q, k, v, *kept)
            ctx.tiles, ctx.scale, ctx.types = tiles, scale, (query.dtype, key.dtype)
            return tiles.packed(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "T heads d"]) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, *kept = ctx.saved_tensors
        tiles, kv = ctx.tiles, k.shape[1]
        with torch.autocast("cpu", enabled=False):
            g = tiles.rows(gradient).masked_fill_(tiles.padded[:, None, :, None], 0)
            to_q, to_k, to_v = torch.empty_like(q), torch.zeros(k.shape), torch.zeros(v.shape)
            for tile, weights in zip(tiles.tiles, kept, strict=True):
                out = _of_queries(g, tile, kv)
                to_scores = torch._softmax_backward_data(out @ _of_keys(v, tile).mT, weights, -1, weights.dtype)
                _queries(to_q, tile).copy_((to_scores @ _of_keys(k, tile)).view_as(_queries(to_q, tile)))
                # sums over tiles in float32
                _keys(to_k, tile).add_((to_scores.mT @ _of_queries(q, tile, kv)).view_as(_keys(to_k, tile)))
                _keys(to_v, tile).add_((weights.mT @ out).view_as(_keys(to_v, tile)))
            to_query = tiles.packed(to_q).to(ctx.types[0]) * ctx.scale
            return to_query, tiles.packed(to_k).to(ctx.types[1]), tiles.packed(to_v).to(v.dtype), None, None


def _queries(rows: Float[Tensor, "S heads L d"], tile: _Tile) -> Float[Tensor, "n heads b d"]:
    return rows[: tile.rows, :, tile.start : tile.end]


def _keys(rows: Float[Tensor, "S kv L d"], tile: _Tile) -> Float[Tensor, "n kv e d"]:
    return rows[: tile.rows, :, : tile.end]


def _of_queries(rows: Float[Tensor, "S heads L d"], tile: _Tile, kv: int) -> Float[Tensor, "b m d"]:
    """A tile's queries as one batch of matrices: the heads that share a key head stand below one another."""
    return _queries(rows, tile).unflatten(1, (kv, -1)).flatten(2, 3).flatten(0, 1)


def _of_keys(rows: Float[Tensor, "S kv L d"], tile: _Tile) -> Float[Tensor, "b e d"]:
    return _keys(rows, tile).flatten(0, 1)
