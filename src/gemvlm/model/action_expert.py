"""The action expert: a transformer that turns noise into a chunk of actions, looking at the backbone's layers.

RDT as the authors publish it, under their names for the weights: every block attends to itself, then to one layer of
the backbone, and is modulated (adaLN) by flow time and robot state, which enter nowhere else. Registers stand after the
actions and are cut off at the end. A new expert's velocity is exactly 0.

What doesn't change during the flow is computed once for each observation (`observe`): the keys and values of all
cross-attentions and the state's part of all modulations; the time's part once for all steps.

    Liu et al., RDT-1B: a Diffusion Foundation Model for Bimanual Manipulation, 2024 (arXiv 2410.07864)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gemvlm.flow import integrate, towards
from gemvlm.model.attention import kernel_for
from gemvlm.model.config import fields_of

TIME_CHANNELS = 256

Conditioning = Literal["layer_inputs", "keys_values"]
KeysValues = tuple[Float[Tensor, "R kv L d"], Float[Tensor, "R kv L d"]]


@dataclass(frozen=True)
class ExpertConfig:
    """Sizes of an expert and what it looks at.

    `action` and `state` count numbers, `horizon` steps of a chunk. Block i looks at `layers[i % len(layers)]`, so that
    one layer may serve all. With `conditioning` "layer_inputs" an index means what it means in the published code: 0 is
    the embeddings, i the output of decoder layer i counted from 1, DeepStack included. With "keys_values" index i is
    decoder layer i counted from 0, whose keys and values are used as they are; `kv_heads` and width / heads must then
    be the backbone's.

    Time enters a sinusoid of periods 1 to 10,000 after multiplication by `time_scale`: the published 1 leaves 212 of
    its 256 channels nearly constant (B4), 1000 uses them all.
    """

    action: int
    state: int
    horizon: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    registers: int
    conditioning: Conditioning
    layers: tuple[int, ...]
    time_scale: float
    ffn_multiple_of: int = 256
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        sizes = (self.action, self.state, self.horizon, self.width, self.depth, self.heads, self.kv_heads)
        if min(sizes) < 1 or self.registers < 0 or self.ffn_multiple_of < 1 or self.time_scale <= 0:
            raise ValueError(f"sizes and time_scale of an expert must be positive, got {self}")
        if self.width % (2 * self.heads) or self.heads % self.kv_heads:
            raise ValueError(
                f"width={self.width} must be a multiple of twice heads={self.heads}, and heads one of "
                f"kv_heads={self.kv_heads}"
            )
        if self.conditioning not in ("layer_inputs", "keys_values"):
            raise ValueError(f"conditioning={self.conditioning!r} must be 'layer_inputs' or 'keys_values'")
        if not 1 <= len(self.layers) <= self.depth or min(self.layers) < 0:
            raise ValueError(
                f"layers={self.layers}: name 1 to {self.depth} layers of the backbone, for {self.depth} blocks"
            )

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def ffn_width(self) -> int:
        """Two thirds of four times the width, rounded up."""
        multiple = self.ffn_multiple_of
        return -(-int(8 * self.width / 3) // multiple) * multiple

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; undone by `from_dict`."""
        return {**dataclasses.asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExpertConfig:
        """ValueError for missing or unexpected fields, by name."""
        fields = fields_of(cls, values)
        return cls(**fields | {"layers": tuple(fields["layers"])})


@dataclass(frozen=True)
class Context:
    """What R observations show an expert, right-padded: `states` or `keys_values` for each entry of
    `ExpertConfig.layers`. `mask` is True at real tokens, None if all are."""

    states: tuple[Float[Tensor, "R L D"], ...] = ()
    keys_values: tuple[KeysValues, ...] = ()
    mask: Bool[Tensor, "R L"] | None = None


@dataclass(frozen=True)
class Observed:
    """All that the flow needs of R observations: computed once, read at every step.

    `keys_values` are those of each block's cross-attention, `state` the robots' adapted states.
    """

    keys_values: tuple[KeysValues, ...]
    mask: Bool[Tensor, "R 1 1 L"] | None
    state: Float[Tensor, "R E"]

    def repeated(self, times: int) -> Observed:
        """Every observation `times` times, one copy after the other."""
        if times == 1:
            return self
        pairs = [tuple(t.repeat_interleave(times, 0) for t in pair) for pair in self.keys_values]
        mask = None if self.mask is None else self.mask.repeat_interleave(times, 0)
        return Observed(tuple((k, v) for k, v in pairs), mask, self.state.repeat_interleave(times, 0))


class _Norm(nn.RMSNorm):
    """In its weight's precision: autocast hands it half-precision inputs, which it would take only unfused."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class _Attention(nn.Module):
    """Grouped-query attention with normalised queries and keys; to keys and values of others unless `own`.

    The published rows of `wkv` interleave: (kv head, channel, key or value).
    """

    def __init__(self, config: ExpertConfig, own: bool):
        super().__init__()
        self.kv_heads, self.size = config.kv_heads, config.head_size
        self.wq = nn.Linear(config.width, config.width, bias=False)
        self.wo = nn.Linear(config.width, config.width, bias=False)
        self.norm_q = _Norm(self.size, eps=config.norm_eps)
        if own:
            self.wkv = nn.Linear(config.width, 2 * self.kv_heads * self.size, bias=False)
            self.norm_k = _Norm(self.size, eps=config.norm_eps)

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


class _FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) w3 x)."""

    def __init__(self, config: ExpertConfig):
        super().__init__()
        self.w1 = nn.Linear(config.width, config.ffn_width, bias=False)
        self.w2 = nn.Linear(config.ffn_width, config.width, bias=False)
        self.w3 = nn.Linear(config.width, config.ffn_width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class _Modulation(nn.Sequential):
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
    return x * (1 + scale) + shift


class _Block(nn.Module):
    """Self-attention, cross-attention and feed-forward, each shifted, scaled and gated."""

    def __init__(self, config: ExpertConfig):
        super().__init__()
        projects = config.conditioning == "layer_inputs"
        self.attn_norm = _Norm(config.width, eps=config.norm_eps)
        self.attn = _Attention(config, own=True)
        self.cross_norm = _Norm(config.width, eps=config.norm_eps)
        if projects:
            self.cond_norm = _Norm(config.width, eps=config.norm_eps)
        self.cross_attn = _Attention(config, own=projects)
        self.ffn_norm = _Norm(config.width, eps=config.norm_eps)
        self.ffn = _FeedForward(config)
        self.adaLN_modulation = _Modulation(config.width, 9)

    def keys_values(self, tokens: Float[Tensor, "R L E"]) -> KeysValues:
        """What the cross-attention reads of adapted states."""
        return self.cross_attn.keys_values(self.cond_norm(tokens))

    def forward(
        self, x: Float[Tensor, "R n E"], modulation: Float[Tensor, "R E9"], context: KeysValues, mask: Tensor | None
    ) -> Float[Tensor, "R n E"]:
        shift_s, scale_s, gate_s, shift_c, scale_c, gate_c, shift_f, scale_f, gate_f = modulation[:, None].chunk(9, -1)
        own = _modulated(self.attn_norm(x), shift_s, scale_s)
        x = x + gate_s * self.attn(own, self.attn.keys_values(own), None)
        x = x + gate_c * self.cross_attn(_modulated(self.cross_norm(x), shift_c, scale_c), context, mask)
        return x + gate_f * self.ffn(_modulated(self.ffn_norm(x), shift_f, scale_f))


class _FinalLayer(nn.Module):
    """From the width to the numbers of an action, shifted and scaled."""

    def __init__(self, config: ExpertConfig):
        super().__init__()
        self.ffn_norm = _Norm(config.width, eps=config.norm_eps)
        self.ffn = nn.ModuleDict(
            {"fc1": nn.Linear(config.width, 4 * config.width), "fc2": nn.Linear(4 * config.width, config.action)}
        )
        self.adaLN_modulation = _Modulation(config.width, 2)

    def forward(self, x: Float[Tensor, "R n E"], modulation: Float[Tensor, "R E2"]) -> Float[Tensor, "R n action"]:
        x = _modulated(self.ffn_norm(x), *modulation[:, None].chunk(2, -1))
        return self.ffn["fc2"](F.silu(self.ffn["fc1"](x)))


class _TimeEmbedder(nn.Module):
    """Sinusoids of the scaled time, then two layers."""

    def __init__(self, config: ExpertConfig):
        super().__init__()
        self.scale = config.time_scale
        self.mlp = _adaptor(TIME_CHANNELS, config.width, 2)

    def forward(self, time: Float[Tensor, "K"]) -> Float[Tensor, "K E"]:
        return self.mlp(time_channels(self.scale * time).to(_dtype(self.mlp)))


def time_channels(time: Float[Tensor, "K"]) -> Float32[Tensor, "K 256"]:
    """Cosines, then sines, of the time at 128 frequencies from 1 down to almost 1/10,000."""
    half = TIME_CHANNELS // 2
    frequencies = torch.exp(torch.arange(half, device=time.device) * (-math.log(1e4) / half))
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class _Transformer(nn.Module):
    """The published `model.*`."""

    def __init__(self, config: ExpertConfig):
        super().__init__()
        self.config = config
        self.recompute = False
        tokens = config.horizon + config.registers
        self.t_embedder = _TimeEmbedder(config)
        self.register_tokens = nn.Parameter(torch.empty(1, config.registers, config.width))
        self.x_pos_emb = nn.Parameter(torch.empty(1, tokens, config.width))
        self.state_pos_emb = nn.Parameter(torch.empty(1, 1, config.width))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.final_layer = _FinalLayer(config)

    @property
    def modulations(self) -> list[_Modulation]:
        """Of all blocks, then of the final layer."""
        return [cast(_Modulation, module.adaLN_modulation) for module in (*self.blocks, self.final_layer)]

    def forward(
        self, x: Float[Tensor, "R H E"], modulations: Sequence[Tensor], observed: Observed
    ) -> Float[Tensor, "R H action"]:
        x = torch.cat([x, self.register_tokens.expand(x.shape[0], -1, -1)], dim=1) + self.x_pos_emb
        for block, modulation, context in zip(self.blocks, modulations, observed.keys_values, strict=False):
            arguments = (x, modulation, context, observed.mask)
            if self.recompute and self.training:
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)
        return self.final_layer(x, modulations[-1])[:, : self.config.horizon]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As published: Xavier for linear layers, small times, and nothing comes out."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.RMSNorm):
                module.reset_parameters()
        for layer in self.t_embedder.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        for last in (*(modulation.linear for modulation in self.modulations), self.final_layer.ffn["fc2"]):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        nn.init.normal_(self.register_tokens)
        nn.init.zeros_(self.state_pos_emb)
        self.x_pos_emb.copy_(_positions(self.config.horizon, self.config.registers, self.config.width))


def _positions(actions: int, registers: int, width: int) -> Float32[Tensor, "1 n E"]:
    """Sine and cosine of the place among its like, plus those of its kind (0 action, 1 register)."""
    place = torch.cat([torch.arange(actions), torch.arange(registers)])
    kind = torch.cat([torch.zeros(actions), torch.ones(registers)])
    frequencies = 1e4 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    place, kind = (n[:, None] * frequencies for n in (place, kind))
    both = torch.cat([place.sin(), place.cos()], -1) + torch.cat([kind.sin(), kind.cos()], -1)
    return both.float()[None]


def _adaptor(inputs: int, outputs: int, layers: int) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Linear(inputs, outputs)]
    for _ in range(layers - 1):
        modules += [nn.SiLU(), nn.Linear(outputs, outputs)]
    return nn.Sequential(*modules)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


class ActionExpert(nn.Module):
    """Velocities of noisy action chunks, given observations; `context_width` is the width of the backbone's states.

    With keys and values as context, the parts that would have projected states aren't there.
    """

    def __init__(self, config: ExpertConfig, context_width: int):
        super().__init__()
        self.config = config
        self.model = _Transformer(config)
        if config.conditioning == "layer_inputs":
            self.lang_adaptor = _adaptor(context_width, config.width, 2)
        self.act_adaptor = _adaptor(config.action, config.width, 3)
        self.state_adaptor = _adaptor(config.state, config.width, 3)
        self.model.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights: adaptors as their library does, the rest as published; the velocity is 0."""
        for name, adaptor in self.named_children():
            if name != "model":
                for layer in adaptor.children():
                    if isinstance(layer, nn.Linear):
                        layer.reset_parameters()
        self.model.reset_parameters()

    @property
    def dtype(self) -> torch.dtype:
        return _dtype(self.act_adaptor)

    def checkpoint_activations(self, on: bool = True) -> None:
        """In training, keep only the inputs of blocks and recompute the rest backwards."""
        self.model.recompute = on

    def observe(self, context: Context, state: Float[Tensor, "R state"]) -> Observed:
        """What the flow needs of these observations, whatever the noise and the time."""
        adapted = self.state_adaptor(state.to(self.dtype)) + self.model.state_pos_emb[:, 0]
        mask = None if context.mask is None else context.mask[:, None, None]
        return Observed(self._keys_values(context), mask, adapted)

    def _keys_values(self, context: Context) -> tuple[KeysValues, ...]:
        number = len(self.config.layers)
        if self.config.conditioning == "keys_values":
            return tuple(context.keys_values[i % number] for i in range(self.config.depth))
        tokens = [self.lang_adaptor(states.to(self.dtype)) for states in context.states]
        blocks = (cast(_Block, block) for block in self.model.blocks)
        return tuple(block.keys_values(tokens[i % number]) for i, block in enumerate(blocks))

    def velocity(
        self, noisy: Float[Tensor, "R H action"], time: Float[Tensor, "R"], observed: Observed
    ) -> Float32[Tensor, "R H action"]:
        """The estimate of data − noise at x_t, each item at its own time in [0, 1]."""
        driver = torch.cat([self.model.t_embedder(time), observed.state], dim=-1)
        return self._at(noisy, [modulation(driver) for modulation in self.model.modulations], observed)

    def _at(self, noisy: Tensor, modulations: Sequence[Tensor], observed: Observed) -> Float32[Tensor, "R H action"]:
        return self.model(self.act_adaptor(noisy.to(self.dtype)), modulations, observed).float()

    @torch.no_grad()
    def sample(
        self,
        observed: Observed,
        noise: Float32[Tensor, "R H action"],
        times: Float[Tensor, "K_plus_1"],
        *,
        unseen: Observed | None = None,
        guidance: float = 1.0,
        known: Float32[Tensor, "R H action"] | None = None,
        known_weight: Float32[Tensor, "R H action"] | None = None,
    ) -> Float32[Tensor, "R H action"]:
        """Euler steps from noise along `times`, all items at the same time.

        With `guidance` other than 1 the velocity is extrapolated from that of `unseen` observations. `known` actions
        are inpainted where `known_weight` is 1 and drawn towards where it is less (`flow.towards`).
        """
        both = observed if unseen is None or guidance == 1 else _stacked(unseen, observed)
        steps = iter(self._modulations(times[:-1].to(noise), both.state))

        def velocity_at(x: Tensor, time: Tensor) -> Tensor:
            if both is observed:
                return self._at(x, next(steps), observed)
            without, given = self._at(torch.cat([x, x]), next(steps), both).chunk(2)
            return without + guidance * (given - without)

        if known is None or known_weight is None:
            return integrate(velocity_at, noise, times)
        found = integrate(towards(velocity_at, known, known_weight), noise, times)
        return torch.where(known_weight == 1, known, found)

    def _modulations(self, times: Float[Tensor, "K"], state: Float[Tensor, "R E"]) -> list[list[Tensor]]:
        """For each time, all blocks' modulations: each weight is read once, whatever the number of steps."""
        embedded = self.model.t_embedder(times)
        parts = [(module.of_time(embedded), module.of_state(state)) for module in self.model.modulations]
        return [[time[k] + state for time, state in parts] for k in range(len(times))]


def _stacked(first: Observed, second: Observed) -> Observed:
    """Both as one batch; `first` needs no mask where `second` has one, since it is as long."""
    pairs = zip(first.keys_values, second.keys_values, strict=True)
    joined = tuple((torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])) for a, b in pairs)
    mask = None if second.mask is None else torch.cat([second.mask, second.mask])
    return Observed(joined, mask, torch.cat([first.state, second.state]))
