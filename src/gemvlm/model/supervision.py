"""Generative supervision: states inside an image's span → a loss on painting that image's target.

A module of its own, carried by any vision-language backbone while it trains and dropped afterwards: it asks only for
states (T, D), the token spans of the images, and targets that say which image they belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from gemvlm.batch import Target
from gemvlm.flow import SigmaTable, Steps
from gemvlm.model.connector import Connector
from gemvlm.model.generator import Condition, Draw, Generator, build_generator
from gemvlm.model.latents import Latents, build_latents


class GenerativeSupervision(nn.Module):
    """`connector` reads the states, `generator` paints, `latents` is the frozen space it paints in.

    In training mode a share `condition_dropout` of the targets loses its image's states: they are zeroed before the
    connector, so the null condition is connector(0) at every token. Whether a target loses them is drawn from its key.
    """

    def __init__(self, connector: Connector, generator: Generator, latents: Latents, condition_dropout: float):
        super().__init__()
        self.connector = connector
        self.generator = generator
        self.latents = latents
        self.condition_dropout = condition_dropout

    @classmethod
    def build(
        cls,
        states: int,
        generator: Mapping[str, Any],
        latents: Mapping[str, Any],
        *,
        shift: float,
        condition_dropout: float,
        training_steps: int = 1000,
    ) -> GenerativeSupervision:
        """With random weights, for states of width `states`; the other arguments are those of `GemConfig`."""
        painter, space = build_generator(generator, SigmaTable(shift, training_steps)), build_latents(latents)
        return cls(Connector(states, painter.condition_width), painter, space, condition_dropout)

    def forward(
        self,
        states: Float[Tensor, "T D"],
        spans: Int64[Tensor, "N 2"],
        grids: Int64[Tensor, "N 2"],
        targets: Sequence[Target],
    ) -> dict[str, Float32[Tensor, ""]]:
        """The mean loss over the targets of each kind.

        `spans` are half-open token ranges, `grids` the rows and columns of each image's tokens. A kind without a target
        that has any valid place is left out. Targets may differ in size, and in the length of their spans.
        """
        lengths = (spans[:, 1] - spans[:, 0]).tolist()
        return self._losses(
            targets,
            [_about(lengths[target.image]) for target in targets],
            lambda group, draws: self._condition(states, spans, grids, group, draws),
        )

    def prior(self, targets: Sequence[Target]) -> dict[str, Float32[Tensor, ""]]:
        """The same losses under the null condition alone: what a generator learns before any backbone speaks to it."""
        return self._losses(targets, [0] * len(targets), lambda group, draws: self.null(len(group)))

    def _losses(
        self,
        targets: Sequence[Target],
        lengths: Sequence[int],
        condition_of: Callable[[Sequence[Target], Sequence[Draw]], Condition],
    ) -> dict[str, Float32[Tensor, ""]]:
        """Targets of one size whose conditions are about as long (`lengths`) are painted together."""
        found: dict[str, list[Tensor]] = {}
        alike = [(*target.picture.shape, length) for target, length in zip(targets, lengths, strict=True)]
        by_size = sorted(zip(alike, targets, strict=True), key=lambda pair: pair[0])
        for _, members in groupby(by_size, key=lambda pair: pair[0]):
            group = [target for _, target in members]
            draws = [Draw.of(target.key) for target in group]
            weight = torch.stack([self._weight(target) for target in group])
            each = self.generator.losses(condition_of(group, draws), self.null(1), self._latents(group), weight, draws)
            for target, loss, counts in zip(group, each, (weight > 0).flatten(1).any(1).tolist(), strict=True):
                if counts:
                    found.setdefault(target.kind, []).append(loss)
        return {kind: torch.stack(losses).mean() for kind, losses in found.items()}

    def _latents(self, group: Sequence[Target]) -> Float32[Tensor, "M C h w"]:
        """Cached latents where a target has them, else the encoded picture."""
        missing = [target.picture for target in group if target.latent is None]
        encoded = iter(self.latents.encode(torch.stack(missing))) if missing else iter(())
        return torch.stack([(next(encoded) if t.latent is None else t.latent).float() for t in group])

    def _weight(self, target: Target) -> Float32[Tensor, "h w"]:
        """The share of each latent's pixels that are valid."""
        return F.avg_pool2d(target.valid[None].float(), self.latents.factor)[0]

    def _condition(
        self, states: Tensor, spans: Tensor, grids: Tensor, group: Sequence[Target], draws: Sequence[Draw]
    ) -> Condition:
        kept = [not (self.training and draw.dropout < self.condition_dropout) for draw in draws]
        return self.condition(states, spans, grids, [target.image for target in group], kept)

    def condition(
        self,
        states: Float[Tensor, "T D"],
        spans: Int64[Tensor, "N 2"],
        grids: Int64[Tensor, "N 2"],
        images: Sequence[int],
        kept: Sequence[bool] | None = None,
    ) -> Condition:
        """The condition that each of `images` gives; unless `kept`, its states are zeroed before the connector."""
        index = torch.tensor(list(images), device=spans.device)
        starts, lengths = spans[index, 0], spans[index, 1] - spans[index, 0]
        longest, shortest = int(lengths.max()), int(lengths.min())
        column = torch.arange(longest, device=spans.device)
        real = column < lengths[:, None]
        tokens = (starts[:, None] + column).where(real, 0)
        if kept is not None:
            real = real & torch.tensor(list(kept), device=real.device)[:, None]
        gathered = states[tokens] * real[..., None].to(states.dtype)
        mask = None if shortest == longest else column < lengths[:, None]
        return Condition(self.connector(gathered), mask, grids[index])

    def null(self, count: int) -> Condition:
        """connector(0) as the only token: attending to many equal tokens gives the same."""
        zeros = self.connector.enter.weight.new_zeros(count, 1, self.connector.width)
        return Condition(self.connector(zeros))

    @torch.no_grad()
    def sample(
        self,
        states: Float[Tensor, "T D"],
        spans: Int64[Tensor, "N 2"],
        grids: Int64[Tensor, "N 2"],
        height: int,
        width: int,
        *,
        steps: int | Steps,
        guidance: float,
        seed: int = 0,
        keys: Sequence[int] | None = None,
        condition_on: Sequence[int] | None = None,
        unconditional: bool = False,
    ) -> Float32[Tensor, "M 3 h w"]:
        """Paints one picture in [-1, 1] per image, `height` x `width` pixels.

        `condition_on` names the image whose states each picture is painted from (default: its own, 0..N-1): give
        another's to see whether the states matter. `unconditional` paints from the null condition. Picture i starts
        from the noise of `keys[i]`, by default a key of (seed, i); a key of the picture's content instead makes it
        independent of its neighbours. An image's condition is computed once, however many pictures are painted from it.
        ValueError unless there are as many keys as pictures.
        """
        images = list(range(len(spans))) if condition_on is None else list(condition_on)
        keys = [(seed << 32) + i for i in range(len(images))] if keys is None else list(keys)
        if len(keys) != len(images):
            raise ValueError(f"{len(images)} pictures are painted but {len(keys)} keys are given; give one for each")
        if not images:
            return torch.zeros(0, 3, height, width, device=states.device)
        null, (asked, rows) = self.null(1), torch.unique(torch.tensor(images), return_inverse=True)
        if unconditional:
            condition, rows = null, torch.zeros_like(rows)
        else:
            condition = self.condition(states, spans, grids, asked.tolist())
        shape = (self.latents.channels, *self.latents.grid(height, width))
        noise = torch.stack([Draw.of(key).noise(shape) for key in keys]).to(condition.states.device)
        painted = self.generator.sample(
            condition, null, noise, steps=steps, guidance=1.0 if unconditional else guidance, rows=rows
        )
        return self.latents.decode(painted).clamp(-1, 1)


def _about(length: int) -> int:
    """`length` rounded up by less than a quarter: the padding of those that share the result is less than that."""
    step = max(1, 2 ** (length.bit_length() - 3))
    return -(-length // step) * step
