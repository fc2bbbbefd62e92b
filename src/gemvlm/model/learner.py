"""What a training asks of a model: there is one loop, and Gem and GemVla are both this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from gemvlm.batch import Batch
from gemvlm.model.backbone import Backbone
from gemvlm.model.supervision import GenerativeSupervision


class Learner(nn.Module, ABC):
    """A backbone, the generative supervision that it may carry, and whatever else learns, as named losses of a batch.

    Every weight lies in `backbone`, in `supervision` or in a third submodule of the class's own: checkpoints are named
    by these (`model/weights.py`).
    """

    config: Any
    """What the model is built from; its `to_dict` goes into checkpoints."""
    backbone: Backbone
    supervision: GenerativeSupervision | None

    @abstractmethod
    def forward(self, batch: Batch, losses: Sequence[str]) -> dict[str, Tensor]:
        """The named losses that the batch has something for, each a mean over what it supervises."""

    @abstractmethod
    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """Named parameters by the module group that a stage trains or freezes. "latents" are never trained."""

    @abstractmethod
    def checkpoint_activations(self, on: bool = True) -> None:
        """Less memory for about a third more work: the inputs of repeated blocks are kept, all else is recomputed."""
