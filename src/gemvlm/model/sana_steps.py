"""A stock Sana's forward pass, split by what changes while a picture is painted.

    look         what the cross-attentions read of a condition (keys and values): once for each picture
    modulations  what flow time does to every block: once for all steps and pictures
    call         the rest, at each step: equal to the stock forward pass but for rounding

Whatever queries ask of a condition of a single token, such as the null condition, they get its value: no query, no
score is computed. The stock modules stay as they are; `SanaTransformer2DModel.forward` of diffusers is what is followed
here.

    diffusers, src/diffusers/models/transformers/sana_transformer.py, version 0.42.1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

LEFT_OUT = -10_000.0
"""What stock Sana adds to the scores of padded tokens."""


@dataclass(frozen=True)
class Seen:
    """Keys and values (M, heads, L, d) of M conditions for each block; `bias` is added to the scores, None if 0."""

    keys: tuple[Float[Tensor, "M heads L d"], ...]
    values: tuple[Float[Tensor, "M heads L d"], ...]
    bias: Float[Tensor, "M 1 1 L"] | None

    def picked(self, rows: Int64[Tensor, "P"]) -> Seen:
        """Those of the given numbers, in that order."""
        rows = rows.to(self.keys[0].device)
        bias = None if self.bias is None else self.bias[rows]
        return Seen(tuple(k[rows] for k in self.keys), tuple(v[rows] for v in self.values), bias)


@dataclass(frozen=True)
class Modulation:
    """What one flow time does to all blocks, and to the last norm."""

    blocks: Float[Tensor, "1 6 W"]
    last: Float[Tensor, "1 W"]


class SanaSteps:
    """The parts of a `SanaTransformer2DModel`."""

    def __init__(self, sana: Any):
        self.sana = sana

    def look(self, states: Float[Tensor, "M L C"], mask: Bool[Tensor, "M L"] | None = None) -> Seen:
        """Keys and values of conditions; `mask` is True at real tokens, None if all are."""
        sana = self.sana
        tokens = sana.caption_norm(sana.caption_projection(states.to(sana.dtype)))
        keys, values = [], []
        for block in sana.transformer_blocks:
            attention = block.attn2
            key, value = attention.to_k(tokens), attention.to_v(tokens)
            key = key if attention.norm_k is None else attention.norm_k(key)
            keys.append(key.unflatten(-1, (attention.heads, -1)).transpose(1, 2))
            values.append(value.unflatten(-1, (attention.heads, -1)).transpose(1, 2))
        bias = None if mask is None else ((1 - mask.to(sana.dtype)) * LEFT_OUT)[:, None, None]
        return Seen(tuple(keys), tuple(values), bias)

    def modulations(self, timesteps: Float[Tensor, "K"]) -> list[Modulation]:
        """For each timestep (1000 · sigma)."""
        blocks, last = self.sana.time_embed(timesteps, batch_size=len(timesteps), hidden_dtype=self.sana.dtype)
        pairs = zip(blocks.unflatten(1, (6, -1)).split(1), last.split(1), strict=True)
        return [Modulation(own, end) for own, end in pairs]

    def positions(self, height: int, width: int) -> Float[Tensor, "1 n W"] | None:
        """What is added to the patches of latents of that size; None if nothing is."""
        embed = self.sana.patch_embed
        if embed.pos_embed is None:
            return None
        if (height, width) == (embed.height * embed.patch_size, embed.width * embed.patch_size):
            return embed.pos_embed
        weight = embed.proj.weight
        zeros = torch.zeros(1, weight.shape[1], height, width, dtype=weight.dtype, device=weight.device)
        return embed(zeros) - embed.proj(zeros).flatten(2).mT

    def __call__(
        self,
        state: Float[Tensor, "N C h w"],
        modulation: Modulation,
        positions: Float[Tensor, "1 n W"] | None,
        seen: Sequence[Seen],
    ) -> Float[Tensor, "N C h w"]:
        """Sana's output (noise − data). Equal shares of the rows see each of `seen`, of as many rows or of one."""
        sana = self.sana
        patch = sana.config.patch_size
        height, width = state.shape[-2] // patch, state.shape[-1] // patch
        x = sana.patch_embed.proj(state.to(sana.dtype)).flatten(2).mT
        x = x if positions is None else (x + positions).to(x.dtype)
        for number, block in enumerate(sana.transformer_blocks):
            table = block.scale_shift_table[None] + modulation.blocks
            shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = table.chunk(6, dim=1)
            x = x + gate_a * block.attn1((block.norm1(x) * (1 + scale_a) + shift_a).to(x.dtype))
            if len(seen) == 1:  # apart, as an exported graph must not know how many rows there are
                x = x + _cross(block.attn2, x, seen[0], number)
            else:
                shares = zip(x.chunk(len(seen)), seen, strict=True)
                x = torch.cat([own + _cross(block.attn2, own, of, number) for own, of in shares])
            grid = (block.norm2(x) * (1 + scale_f) + shift_f).unflatten(1, (height, width)).permute(0, 3, 1, 2)
            x = x + gate_f * block.ff(grid).flatten(2).mT
        x = sana.proj_out(sana.norm_out(x, modulation.last, sana.scale_shift_table))
        cells = x.unflatten(-1, (patch, patch, -1)).unflatten(1, (height, width))
        return cells.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def _cross(attention: Any, x: Float[Tensor, "N n W"], seen: Seen, number: int) -> Tensor:
    """What block `number` adds: to each cell, or one vector for all."""
    keys, values = seen.keys[number], seen.values[number]
    if keys.shape[2] == 1:
        out = values
    else:
        query = attention.to_q(x)
        query = query if attention.norm_q is None else attention.norm_q(query)
        query = query.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        out = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen.bias)
    out = out.transpose(1, 2).flatten(2).to(x.dtype)
    for layer in attention.to_out:
        out = layer(out)
    return out / attention.rescale_output_factor
