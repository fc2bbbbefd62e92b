"""The policy that a careful developer writes with stock classes; `policy_latency.py` measures ours against it.

Frozen: it only changes when the libraries that it stands on change their names. As in the authors' release every layer
of the backbone runs, pictures go through the vision tower one at a time, and each step of the flow computes all
modulations and all keys and values of the expert's cross-attention again, with key heads repeated for their queries.
The stock class computes logits of the whole prompt, too, unless it is told not to (`with_logits`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration


@dataclass(frozen=True)
class Seen:
    """What a robot shows: L tokens, and the patches of each picture with their grid."""

    input_ids: Tensor  # 1 L
    position_ids: Tensor  # 3 1 L
    is_image: Tensor  # 1 L
    pictures: list[tuple[Tensor, Tensor]]  # (patches, patch), (1, 3)
    state: Tensor  # 1 state


@dataclass(frozen=True)
class Sizes:
    """Of the expert; `layers[i]` is the layer input that block i looks at."""

    width: int
    depth: int
    heads: int
    kv_heads: int
    horizon: int
    norm_eps: float
    time_scale: float
    layers: tuple[int, ...]


class StraightforwardPolicy(nn.Module):
    """`qwen` and the expert's weights by their published names (`model.*`, `lang_adaptor.*`, ...)."""

    def __init__(self, qwen: Mapping[str, Any], sizes: Sizes, expert: Mapping[str, Tensor]):
        super().__init__()
        self.qwen = Qwen3VLForConditionalGeneration._from_config(Qwen3VLConfig(**qwen), attn_implementation="sdpa")
        self.sizes, self.weights = sizes, expert

    @torch.no_grad()
    def act(self, seen: Seen, noise: Tensor, steps: int, with_logits: bool = True) -> Tensor:
        """(1, H, action) from noise of that shape, by equal Euler steps in float32."""
        tokens = [self.adaptor("lang_adaptor", states) for states in self.layer_inputs(seen, with_logits)]
        state = self.adaptor("state_adaptor", seen.state) + self.weights["model.state_pos_emb"][:, 0]
        action = noise
        for step in range(steps):
            time = torch.full((1,), step / steps, device=noise.device)
            action = action + self.velocity(action, time, tokens, state).float() / steps
        return action

    def layer_inputs(self, seen: Seen, with_logits: bool) -> list[Tensor]:
        """What the decoder layers that the expert looks at receive."""
        model = self.qwen.model
        features = [model.visual(patches.to(model.visual.dtype), grid_thw=grid) for patches, grid in seen.pictures]
        embeds = model.language_model.embed_tokens(seen.input_ids)
        embeds = embeds.masked_scatter(
            seen.is_image[..., None], torch.cat([f.pooler_output for f in features]).to(embeds.dtype)
        )
        deepstack = [torch.cat(parts) for parts in zip(*(f.deepstack_features for f in features), strict=True)]
        found: dict[int, Tensor] = {}
        hooks = [
            layer.register_forward_pre_hook(lambda module, args, i=i: found.__setitem__(i, args[0]))
            for i, layer in enumerate(model.language_model.layers)
        ]
        out = model.language_model(
            inputs_embeds=embeds,
            position_ids=seen.position_ids,
            visual_pos_masks=seen.is_image,
            deepstack_visual_embeds=deepstack,
            use_cache=False,
        )
        for hook in hooks:
            hook.remove()
        if with_logits:
            self.qwen.lm_head(out.last_hidden_state)
        return [found[i] for i in self.sizes.layers]

    def velocity(self, action: Tensor, time: Tensor, tokens: list[Tensor], state: Tensor) -> Tensor:
        weights, dtype = self.weights, self.weights["model.x_pos_emb"].dtype
        frequencies = torch.exp(-torch.log(torch.tensor(1e4)) * torch.arange(128) / 128).to(time.device)
        angles = self.sizes.time_scale * time[:, None] * frequencies
        embedded = self.linear("model.t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], -1).to(dtype))
        embedded = self.linear("model.t_embedder.mlp.2", F.silu(embedded))
        driver = F.silu(torch.cat([embedded, state], -1))
        x = self.adaptor("act_adaptor", action.to(dtype))
        x = torch.cat([x, weights["model.register_tokens"]], 1) + weights["model.x_pos_emb"]
        for i in range(self.sizes.depth):
            x = self.block(f"model.blocks.{i}", x, driver, tokens[i % len(tokens)])
        shift, scale = self.linear("model.final_layer.adaLN_modulation.1", driver)[:, None].chunk(2, -1)
        x = self.norm("model.final_layer.ffn_norm", x) * (1 + scale) + shift
        x = self.linear("model.final_layer.ffn.fc2", F.silu(self.linear("model.final_layer.ffn.fc1", x)))
        return x[:, : self.sizes.horizon]

    def block(self, name: str, x: Tensor, driver: Tensor, tokens: Tensor) -> Tensor:
        parts = self.linear(f"{name}.adaLN_modulation.1", driver)[:, None].chunk(9, -1)
        h = self.norm(f"{name}.attn_norm", x) * (1 + parts[1]) + parts[0]
        x = x + parts[2] * self.attention(f"{name}.attn", h, h)
        h = self.norm(f"{name}.cross_norm", x) * (1 + parts[4]) + parts[3]
        x = x + parts[5] * self.attention(f"{name}.cross_attn", h, self.norm(f"{name}.cond_norm", tokens))
        h = self.norm(f"{name}.ffn_norm", x) * (1 + parts[7]) + parts[6]
        gated = F.silu(self.linear(f"{name}.ffn.w1", h)) * self.linear(f"{name}.ffn.w3", h)
        return x + parts[8] * self.linear(f"{name}.ffn.w2", gated)

    def attention(self, name: str, x: Tensor, context: Tensor) -> Tensor:
        heads, kv_heads = self.sizes.heads, self.sizes.kv_heads
        query = self.linear(f"{name}.wq", x).unflatten(-1, (heads, -1))
        keys, values = self.linear(f"{name}.wkv", context).unflatten(-1, (kv_heads, -1, 2)).unbind(-1)
        query, keys = self.norm(f"{name}.norm_q", query), self.norm(f"{name}.norm_k", keys)
        keys, values = (t.repeat_interleave(heads // kv_heads, dim=2) for t in (keys, values))
        out = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (query, keys, values)))
        return self.linear(f"{name}.wo", out.transpose(1, 2).flatten(2))

    def adaptor(self, name: str, x: Tensor) -> Tensor:
        x = self.linear(f"{name}.0", x.to(self.weights[f"{name}.0.weight"].dtype))
        for i in (2, 4):
            if f"{name}.{i}.weight" in self.weights:
                x = self.linear(f"{name}.{i}", F.silu(x))
        return x

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.sizes.norm_eps)
