"""Condition → latents: a flow generator and a plain regression head behind one interface.

The published Sana runs the other way than `flow.py`: its σ is 1 − t, its timestep 1000·σ, its output noise − data. This
file is the one place that knows. States, noise and loss of the flow are float32 whatever the network computes in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gemvlm.flow import SigmaTable, Steps, evaluation_times, integrate, interpolate, velocity
from gemvlm.model.attention import kernel_for
from gemvlm.model.sana_steps import SanaSteps


@dataclass(frozen=True)
class Condition:
    """What M pictures are generated from: connector outputs, right-padded.

    `mask` is True at real tokens, None if all are. `grid` holds the rows and columns of each picture's tokens, None if
    the tokens are alike (the null condition) and so have no arrangement.
    """

    states: Float[Tensor, "M L C"]
    mask: Bool[Tensor, "M L"] | None = None
    grid: Int64[Tensor, "M 2"] | None = None


@dataclass(frozen=True)
class Draw:
    """The random numbers of one target: a function of its key alone, the same on any rank and device.

    From one CPU stream, in this order: the flow time's uniform, the dropout's uniform, the noise (float32, contiguous).
    """

    time: float
    dropout: float
    stream: torch.Generator

    @classmethod
    def of(cls, key: int) -> Draw:
        # The generator looks at 32 bits only; the multiplication carries all 64 bits of the key into them.
        mixed = (key * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 32
        stream = torch.Generator().manual_seed(mixed)
        time, dropout = torch.rand(2, generator=stream).tolist()
        return cls(time, dropout, stream)

    def noise(self, shape: Sequence[int]) -> Float32[Tensor, "..."]:
        return torch.randn(tuple(shape), generator=self.stream)


class Generator(nn.Module, ABC):
    """Paints latents from a condition."""

    condition_width: int
    """Width of the condition's states."""
    prefix: str
    """Name of its tensors in a checkpoint, and of the attribute that holds them."""

    @abstractmethod
    def checkpoint_activations(self, on: bool = True) -> None:
        """Keep only the inputs of repeated blocks, and recompute the rest backwards."""

    @abstractmethod
    def losses(
        self,
        condition: Condition,
        null: Condition,
        latents: Float32[Tensor, "M C h w"],
        weight: Float32[Tensor, "M h w"],
        draws: Sequence[Draw],
    ) -> Float32[Tensor, "M"]:
        """The loss of each target: mean over channels, weighted mean over places; 0 where the weights are all 0.

        `null` is one condition: what stands for any picture's in the unconditional branch.
        """

    @abstractmethod
    def sample(
        self,
        condition: Condition,
        null: Condition,
        noise: Float32[Tensor, "P C h w"],
        *,
        steps: int | Steps,
        guidance: float,
        rows: Int64[Tensor, "P"] | None = None,
    ) -> Float32[Tensor, "P C h w"]:
        """Latents for each noise, painted from the condition of number `rows[i]`; from its own, if not given.

        `null` is the condition of the unconditional branch, one for all or one for each noise.
        """


class OnePass(Generator):
    """Predicts the latents at once, by regression: it paints the mean of what may be."""

    @abstractmethod
    def predict(self, condition: Condition, height: int, width: int) -> Float32[Tensor, "M C h w"]:
        """Latents of `height` x `width` for each condition."""

    def losses(
        self,
        condition: Condition,
        null: Condition,
        latents: Float32[Tensor, "M C h w"],
        weight: Float32[Tensor, "M h w"],
        draws: Sequence[Draw],
    ) -> Float32[Tensor, "M"]:
        return _weighted_mean((self.predict(condition, *latents.shape[-2:]) - latents).square(), weight)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        null: Condition,
        noise: Float32[Tensor, "P C h w"],
        *,
        steps: int | Steps,
        guidance: float,
        rows: Int64[Tensor, "P"] | None = None,
    ) -> Float32[Tensor, "P C h w"]:
        """The prediction, once for each condition; steps, guidance and noise don't matter."""
        painted = self.predict(condition, *noise.shape[-2:])
        return painted if rows is None else painted[rows.to(painted.device)]


class SanaFlow(Generator):
    """A stock Sana transformer trained by flow matching."""

    prefix = "sana"

    def __init__(self, config: Mapping[str, Any], table: SigmaTable):
        super().__init__()
        from diffusers import SanaTransformer2DModel

        sana: Any = SanaTransformer2DModel(**config)
        self.sana = sana
        self.table = table
        self.condition_width = self.sana.config.caption_channels

    def checkpoint_activations(self, on: bool = True) -> None:
        if on:
            self.sana.enable_gradient_checkpointing(_recomputed)
        else:
            self.sana.disable_gradient_checkpointing()

    def velocity(
        self, state: Float32[Tensor, "M C h w"], sigma: Float32[Tensor, "M"], condition: Condition
    ) -> Float32[Tensor, "M C h w"]:
        """The estimate of data − noise at noise level `sigma` in [0, 1]: Sana says noise − data, at timestep 1000·σ."""
        with kernel_for(condition.states):
            predicted = self.sana(
                state.to(self.sana.dtype),
                encoder_hidden_states=condition.states.to(self.sana.dtype),
                timestep=self.table.steps * sigma,
                encoder_attention_mask=condition.mask,
                return_dict=False,
            )[0]
        return -predicted.float()

    def losses(
        self,
        condition: Condition,
        null: Condition,
        latents: Float32[Tensor, "M C h w"],
        weight: Float32[Tensor, "M h w"],
        draws: Sequence[Draw],
    ) -> Float32[Tensor, "M"]:
        noise = torch.stack([draw.noise(latents.shape[1:]) for draw in draws]).to(latents.device)
        time = torch.tensor([draw.time for draw in draws])
        return self.flow_losses(condition, latents, weight, noise, time)

    def flow_losses(
        self,
        condition: Condition,
        latents: Float32[Tensor, "M C h w"],
        weight: Float32[Tensor, "M h w"],
        noise: Float32[Tensor, "M C h w"],
        time: Float32[Tensor, "M"],
    ) -> Float32[Tensor, "M"]:
        """`losses` for given noise and uniform numbers `time` in [0, 1), which choose the entry of the schedule."""
        sigma = self.table.training(time)[1].to(latents.device)
        predicted = self.velocity(interpolate(noise, latents, 1 - sigma), sigma, condition)
        return _weighted_mean((predicted - velocity(noise, latents)).square(), weight)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        null: Condition,
        noise: Float32[Tensor, "P C h w"],
        *,
        steps: int | Steps,
        guidance: float,
        rows: Int64[Tensor, "P"] | None = None,
    ) -> Float32[Tensor, "P C h w"]:
        """From noise to data; at guidance 1 the unconditional branch isn't computed.

        What the cross-attentions read of a condition is computed once, for all steps, all noises and both branches, and
        what depends on time alone once for all steps and pictures (`SanaSteps`).
        """
        steps = Steps.of(steps)
        times = self.table.times(steps)
        asked = self.table.steps * (1 - evaluation_times(times, steps.solver).to(noise))
        sana = SanaSteps(self.sana)
        with kernel_for(condition.states):
            seen = sana.look(condition.states, condition.mask)
            seen = seen if rows is None else seen.picked(rows)
            without = None if guidance == 1 else sana.look(null.states, null.mask)
            modulations = iter(sana.modulations(asked))
            positions = sana.positions(*noise.shape[-2:])

            def velocity_at(state: Tensor, time: Tensor) -> Tensor:
                if without is None:
                    return -sana(state, next(modulations), positions, (seen,)).float()
                both = -sana(torch.cat([state, state]), next(modulations), positions, (without, seen)).float()
                free, given = both.chunk(2)
                return free + guidance * (given - free)

            return integrate(velocity_at, noise, times, steps.solver)


class GuidedSanaFlow(SanaFlow):
    """A Sana whose one branch gives the velocity that guidance would extrapolate from two: half the work of a step.

    Trained towards (data − noise) + (1 − 1/g) (own − own without the image), both without gradient: at rest its
    velocity is u + g (v − u), with v the plain and u the unconditional one. No teacher is kept; where the condition is
    dropped both are equal, so the unconditional branch learns as ever.

        Tang et al., Diffusion Models without Classifier-free Guidance, 2025 (arXiv 2502.12154)
    """

    def __init__(self, config: Mapping[str, Any], table: SigmaTable, guidance: float):
        if not guidance >= 1:
            raise ValueError(f"guidance={guidance} to be folded into a generator must be at least 1")
        super().__init__(config, table)
        self.guidance = guidance

    def losses(
        self,
        condition: Condition,
        null: Condition,
        latents: Float32[Tensor, "M C h w"],
        weight: Float32[Tensor, "M h w"],
        draws: Sequence[Draw],
    ) -> Float32[Tensor, "M"]:
        noise = torch.stack([draw.noise(latents.shape[1:]) for draw in draws]).to(latents.device)
        sigma = self.table.training(torch.tensor([draw.time for draw in draws]))[1].to(latents.device)
        state = interpolate(noise, latents, 1 - sigma)
        predicted = self.velocity(state, sigma, condition)
        with torch.no_grad():
            everyones = Condition(null.states.expand(len(latents), -1, -1), null.mask)
            free = self.velocity(state, sigma, everyones)
            wanted = velocity(noise, latents) + (1 - 1 / self.guidance) * (predicted - free)
        return _weighted_mean((predicted - wanted).square(), weight)

    def sample(
        self,
        condition: Condition,
        null: Condition,
        noise: Float32[Tensor, "P C h w"],
        *,
        steps: int | Steps,
        guidance: float,
        rows: Int64[Tensor, "P"] | None = None,
    ) -> Float32[Tensor, "P C h w"]:
        """As any flow by one branch; `guidance` doesn't matter, it is in the weights."""
        return super().sample(condition, null, noise, steps=steps, guidance=1.0, rows=rows)


class OneStepSana(OnePass, SanaFlow):
    """A Sana that paints in one pass: the velocity at the noise level 1 from a noise of zeros is the picture itself.

    Trained by regression, so it paints the mean of what may be, from the same zeros each time: there is nothing to
    guide and no ensemble to draw. It begins with the weights of a flow.

        Martin Garcia et al., Fine-Tuning Image-Conditional Diffusion Models is Easier than You Think, 2024
        (arXiv 2409.11355)
    """

    def predict(self, condition: Condition, height: int, width: int) -> Float32[Tensor, "M C h w"]:
        channels = self.sana.config.in_channels
        zeros = condition.states.new_zeros(len(condition.states), channels, height, width, dtype=torch.float32)
        return self.velocity(zeros, zeros.new_ones(len(zeros)), condition)


def _recomputed(block: nn.Module, *inputs: Any) -> Any:
    """Keeps a block's inputs only; the second time it runs by the same attention kernels as the first."""
    kernel = kernel_for(inputs[0])
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), kernel))


@dataclass(frozen=True)
class RegressionConfig:
    """Widths of the condition's states, of the convolutions and of the latents (`channels`); `depth` counts blocks."""

    condition_width: int
    width: int
    depth: int
    channels: int


class RegressionHead(OnePass):
    """Predicts the latents in one pass: the plain alternative that a flow must beat.

    The condition's tokens are laid out as the image, resampled bilinearly to the latent grid, and refined by residual
    3x3 convolutions. Trained with the mean squared error, so it paints the mean of what may be.
    """

    prefix = "head"

    def __init__(self, config: RegressionConfig):
        super().__init__()
        self.condition_width = config.condition_width
        blocks = [_Residual(config.width) for _ in range(config.depth)]
        enter, leave = nn.Conv2d(config.condition_width, config.width, 1), nn.Conv2d(config.width, config.channels, 1)
        self.head = nn.Sequential(enter, *blocks, leave)

    def checkpoint_activations(self, on: bool = True) -> None:
        """Its few convolutions keep what they need."""

    def predict(self, condition: Condition, height: int, width: int) -> Float32[Tensor, "M C h w"]:
        dtype = next(self.head.parameters()).dtype
        return self.head(_as_map(condition, height, width).to(dtype)).float()


class _Residual(nn.Sequential):
    """x + convolutions(x)."""

    def __init__(self, width: int):
        convolutions = [nn.Conv2d(width, width, 3, padding=1) for _ in range(2)]
        super().__init__(nn.GroupNorm(1, width), convolutions[0], nn.GELU(), convolutions[1])

    def forward(self, hidden: Float[Tensor, "M C h w"]) -> Float[Tensor, "M C h w"]:
        return hidden + super().forward(hidden)


def _as_map(condition: Condition, height: int, width: int) -> Float[Tensor, "M C h w"]:
    """Each condition's tokens as a picture of `height` x `width`."""
    if condition.grid is None:
        return condition.states[:, :1].mT[..., None].expand(-1, -1, height, width)
    maps = [
        F.interpolate(states[: rows * columns].T.reshape(1, -1, rows, columns), (height, width), mode="bilinear")
        for states, (rows, columns) in zip(condition.states, condition.grid.tolist(), strict=True)
    ]
    return torch.cat(maps)


def _weighted_mean(error: Float32[Tensor, "M C h w"], weight: Float32[Tensor, "M h w"]) -> Float32[Tensor, "M"]:
    total = weight.sum((1, 2))
    return (error.mean(1) * weight).sum((1, 2)) / torch.where(total > 0, total, 1.0)


def build_generator(config: Mapping[str, Any], table: SigmaTable) -> Generator:
    """The generator of `GemConfig.generator`."""
    options = {key: value for key, value in config.items() if key != "kind"}
    if config["kind"] == "regression":
        return RegressionHead(RegressionConfig(**options))
    if config["kind"] == "sana_guided":
        guidance = options.pop("guidance")
        return GuidedSanaFlow(options, table, guidance)
    return (OneStepSana if config["kind"] == "sana_one_step" else SanaFlow)(options, table)
