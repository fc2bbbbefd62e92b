"""A running average of the weights that a stage trains, which often ends better than the last step's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gemvlm.training.parallel import local


class Average:
    """w̄ ← d·w̄ + (1 − d)·w after every step, each process what it holds.

    At step n, d = min(decay, (1 + n)/(10 + n)), so that it forgets where it began.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float):
        self.decay = decay
        self._parameters = dict(parameters)
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self._parameters.items():
            local(self.tensors[name]).lerp_(local(parameter.detach()), 1 - decay)

    @torch.no_grad()
    def take_over(self) -> None:
        """The averages become the weights."""
        for name, parameter in self._parameters.items():
            local(parameter.detach()).copy_(local(self.tensors[name]))
