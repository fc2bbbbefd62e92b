"""The depth of a frame as a picture: the target of generative supervision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from gemvlm.depth_map import Encoding, encode, target_size
from gemvlm.sample import Frame


@dataclass(frozen=True)
class DepthTarget:
    """Depth in the one encoding that every stage and inference share, resized as a scalar to `height` x `width`.

    Without a size it follows the published rule for each image: long side 448, both sides multiples of 32.
    """

    encoding: Encoding
    height: int | None = None
    width: int | None = None
    kind: ClassVar[str] = "depth"

    def make(self, frame: Frame) -> tuple[Float32[Tensor, "3 h w"], Bool[Tensor, "h w"]] | None:
        """None if the frame has no depth, or not one valid pixel. Distances along the ray become z-depth first."""
        depth = frame.depth
        if depth is None or not depth.valid.any():
            return None
        if depth.kind == "ray_distance":
            if frame.view is None:
                raise ValueError(f"depth from {depth.source!r} runs along the ray but its frame has no view; give one")
            depth = depth.to_z(frame.view.camera)
        height, width = target_size(*depth.values.shape)
        made = encode(depth, self.encoding, self.height or height, self.width or width)
        return torch.from_numpy(made.picture), torch.from_numpy(made.valid)
