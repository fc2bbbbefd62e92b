"""The action expert: a transformer that turns noise into a chunk of actions, looking at the backbone's layers.

RDT as the authors publish it, under their names for the weights: every block attends to itself, then to one layer of
the backbone, and is modulated (adaLN) by flow time and robot state, which enter nowhere else. Registers stand after the
actions and are cut off at the end. A new expert's velocity is exactly 0.

What doesn't change during the flow is computed once for each observation (`observe`): the keys and values of all
cross-attentions and the state's part of all modulations; the time's part once for all steps.

    Liu et al., RDT-1B: a Diffusion Foundation Model for Bimanual Manipulation, 2024 (arXiv 2410.07864)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gemvlm.flow import integrate, towards
from gemvlm.model.expert_blocks import (
    Block,
    FinalLayer,
    KeysValues,
    Modulation,
    TimeEmbedder,
    adaptor,
    dtype_of,
    time_channels,
)
from gemvlm.model.expert_config import ExpertConfig

__all__ = ["ActionExpert", "Context", "ExpertConfig", "Observed", "time_channels"]


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


class _Transformer(nn.Module):
    """The published `model.*`."""

    def __init__(self, config: ExpertConfig):
        super().__init__()
        self.config = config
        self.recompute = False
        tokens = config.horizon + config.registers
        self.t_embedder = TimeEmbedder(config)
        self.register_tokens = nn.Parameter(torch.empty(1, config.registers, config.width))
        self.x_pos_emb = nn.Parameter(torch.empty(1, tokens, config.width))
        self.state_pos_emb = nn.Parameter(torch.empty(1, 1, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config)

    @property
    def modulations(self) -> list[Modulation]:
        """Of all blocks, then of the final layer."""
        return [cast(Modulation, module.adaLN_modulation) for module in (*self.blocks, self.final_layer)]

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


class ActionExpert(nn.Module):
    """Velocities of noisy action chunks, given observations; `context_width` is the width of the backbone's states.

    With keys and values as context, the parts that would have projected states aren't there.
    """

    def __init__(self, config: ExpertConfig, context_width: int):
        super().__init__()
        self.config = config
        self.model = _Transformer(config)
        if config.conditioning == "layer_inputs":
            self.lang_adaptor = adaptor(context_width, config.width, 2)
        self.act_adaptor = adaptor(config.action, config.width, 3)
        self.state_adaptor = adaptor(config.state, config.width, 3)
        self.model.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights: adaptors as their library does, the rest as published; the velocity is 0."""
        for name, child in self.named_children():
            if name != "model":
                for layer in child.children():
                    if isinstance(layer, nn.Linear):
                        layer.reset_parameters()
        self.model.reset_parameters()

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.act_adaptor)

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
        blocks = (cast(Block, block) for block in self.model.blocks)
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
