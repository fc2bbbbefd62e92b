"""What a generator can be asked to paint for a frame: one file per kind, each a `TargetKind`."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Bool, Float32
from torch import Tensor

from gemvlm.data.targets.depth import DepthTarget
from gemvlm.data.targets.rgb import RgbTarget
from gemvlm.sample import Frame


class TargetKind(Protocol):
    """Makes one kind of target. `kind` names it in a `batch.Target` and in the names of losses."""

    @property
    def kind(self) -> str: ...

    def make(self, frame: Frame) -> tuple[Float32[Tensor, "3 h w"], Bool[Tensor, "h w"]] | None:
        """A picture in [-1, 1] and the mask of pixels that count; None if the frame has nothing of this kind."""
        ...


__all__ = ["DepthTarget", "RgbTarget", "TargetKind"]
