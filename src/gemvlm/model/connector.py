"""From the language model's states to the generator's condition."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class Connector(nn.Sequential):
    """Linear, GELU (tanh), Linear, RMSNorm, in the published layout: keys `{0,2}.{weight,bias}` and `3.weight`."""

    def __init__(self, states: int, condition: int):
        super().__init__(
            nn.Linear(states, condition),
            nn.GELU(approximate="tanh"),
            nn.Linear(condition, condition),
            _WeightPrecisionNorm(condition, eps=1e-5),
        )

    def reset_parameters(self) -> None:
        """Draws new weights, by PyTorch's own rules."""
        for module in self:
            if isinstance(module, nn.Linear | nn.RMSNorm):
                module.reset_parameters()

    @property
    def enter(self) -> nn.Linear:
        return cast(nn.Linear, self[0])

    @property
    def width(self) -> int:
        """Width of the states that enter."""
        return self.enter.in_features


class _WeightPrecisionNorm(nn.RMSNorm):
    """RMSNorm in its weight's precision: autocast hands it half-precision inputs, which it would take only unfused."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))
