"""What an action expert is made of, under the authors' names for its weights.

Shapes: R observations, n tokens of a chunk and its registers, L tokens of an observation, E the expert's width.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from gemvlm.model.attention import kernel_for
from gemvlm.model.expert_config import ExpertConfig

TIME_CHANNELS = 256

KeysValues = tuple[Float[Tensor, "R kv L d"], Float[Tensor, "R kv L d"]]


class Norm(nn.RMSNorm):
    """In its weight's precision: autocast hands it half-precision inputs, which it would take only unfused."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Attention(nn.Module):
    """Grouped-query attention with normalised queries and keys; to keys and values of others unless `own`.

    The published rows of `wkv` interleave: (kv head, channel, key or value).
    """

    def __init__(self, config: ExpertConfig, own: bool):
        super().__init__()
        self.kv_heads, self.size = config.kv_heads, config.head_size
        self.wq = nn.Linear(config.width, config.width, bias=False)
        self.wo = nn.Linear(config.width, config.width, bias=False)
        self.norm_q = Norm(self.size, eps=config.norm_eps)
        if own:
            self.wkv = nn.Linear(config.width, 2 * self.kv_heads * self.size, bias=False)
            self.norm_k = Norm(self.size, eps=config.norm_eps)

    def keys_values(self, x: Float[Tensor, "R L E"]) -> KeysValues:
        keys, values = self.wkv(x).unflatten(-1, (self.kv_heads, self.size, 2)).unbind(-1)
        return self.norm_k(keys).to(values.dtype).transpose(1, 2), values.transpose(1, 2).contiguous()

    def forward(self, x: Float[Tensor, "R n E"], keys_values: KeysValues, mask: Tensor | None) -> Tensor:
        # The query heads of one key head become its queries: nothing is repeated, and any mask is allowed.
        projected = self.wq(x)
        query = self.norm_q(projected.unflatten(-1, (self.kv_heads, -1, self.size))).to(projected.dtype)
        query = query.permute(0, 2, 3, 1, 4)
        keys, values = (t.to(query.dtype) for t in keys_values)
        with kernel_for(query):
            out = F.scaled_dot_product_attention(query.flatten(2, 3), keys, values, attn_mask=mask)
        return self.wo(out.unflatten(2, query.shape[2:4]).permute(0, 3, 1, 2, 4).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) w3 x)."""

    def __init__(self, config: ExpertConfig):
        super().__init__()
        self.w1 = nn.Linear(config.width, config.ffn_width, bias=False)
        self.w2 = nn.Linear(config.ffn_width, config.width, bias=False)
        self.w3 = nn.Linear(config.width, config.ffn_width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Modulation(nn.Sequential):
    """What time and state do to a block: linear in SiLU of both, so that their parts may be computed apart."""

    def __init__(self, width: int, outputs: int):
        super().__init__(nn.SiLU(), nn.Linear(2 * width, outputs * width))

    @property
    def linear(self) -> nn.Linear:
        return cast(nn.Linear, self[1])

    def of_time(self, time: Float[Tensor, "K E"]) -> Tensor:
        return F.linear(F.silu(time), self.linear.weight[:, : time.shape[-1]])

    def of_state(self, state: Float[Tensor, "R E"]) -> Tensor:
        return F.linear(F.silu(state), self.linear.weight[:, -state.shape[-1] :], self.linear.bias)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward, each shifted, scaled and gated."""

    def __init__(self, config: ExpertConfig):
        super().__init__()
        projects = config.conditioning == "layer_inputs"
        self.attn_norm = Norm(config.width, eps=config.norm_eps)
        self.attn = Attention(config, own=True)
        self.cross_norm = Norm(config.width, eps=config.norm_eps)
        if projects:
            self.cond_norm = Norm(config.width, eps=config.norm_eps)
        self.cross_attn = Attention(config, own=projects)
        self.ffn_norm = Norm(config.width, eps=config.norm_eps)
        self.ffn = FeedForward(config)
        self.adaLN_modulation = Modulation(config.width, 9)

    def keys_values(self, tokens: Float[Tensor, "R L E"]) -> KeysValues:
        """What the cross-attention reads of adapted states."""
        return self.cross_attn.keys_values(self.cond_norm(tokens))

    def forward(
        self, x: Float[Tensor, "R n E"], modulation: Float[Tensor, "R E9"], context: KeysValues, mask: Tensor | None
    ) -> Float[Tensor, "R n E"]:
        shift_s, scale_s, gate_s, shift_c, scale_c, gate_c, shift_f, scale_f, gate_f = modulation[:, None].chunk(9, -1)
        own = _modulated(self.attn_norm(x), shift_s, scale_s)
        x = torch.addcmul(x, gate_s, self.attn(own, self.attn.keys_values(own), None))
        x = torch.addcmul(x, gate_c, self.cross_attn(_modulated(self.cross_norm(x), shift_c, scale_c), context, mask))
        return torch.addcmul(x, gate_f, self.ffn(_modulated(self.ffn_norm(x), shift_f, scale_f)))


class FinalLayer(nn.Module):
    """From the width to the numbers of an action, shifted and scaled."""

    def __init__(self, config: ExpertConfig):
        super().__init__()
        self.ffn_norm = Norm(config.width, eps=config.norm_eps)
        self.ffn = nn.ModuleDict(
            {"fc1": nn.Linear(config.width, 4 * config.width), "fc2": nn.Linear(4 * config.width, config.action)}
        )
        self.adaLN_modulation = Modulation(config.width, 2)

    def forward(self, x: Float[Tensor, "R n E"], modulation: Float[Tensor, "R E2"]) -> Float[Tensor, "R n action"]:
        x = _modulated(self.ffn_norm(x), *modulation[:, None].chunk(2, -1))
        return self.ffn["fc2"](F.silu(self.ffn["fc1"](x)))


class TimeEmbedder(nn.Module):
    """Sinusoids of the scaled time, then two layers."""

    def __init__(self, config: ExpertConfig):
        super().__init__()
        self.scale = config.time_scale
        self.mlp = adaptor(TIME_CHANNELS, config.width, 2)

    def forward(self, time: Float[Tensor, "K"]) -> Float[Tensor, "K E"]:
        return self.mlp(time_channels(self.scale * time).to(dtype_of(self.mlp)))


def time_channels(time: Float[Tensor, "K"]) -> Float32[Tensor, "K 256"]:
    """Cosines, then sines, of the time at 128 frequencies from 1 down to almost 1/10,000."""
    half = TIME_CHANNELS // 2
    frequencies = torch.exp(torch.arange(half, device=time.device) * (-math.log(1e4) / half))
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def adaptor(inputs: int, outputs: int, layers: int) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Linear(inputs, outputs)]
    for _ in range(layers - 1):
        modules += [nn.SiLU(), nn.Linear(outputs, outputs)]
    return nn.Sequential(*modules)


def dtype_of(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
