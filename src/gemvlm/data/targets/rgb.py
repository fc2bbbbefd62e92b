"""The frame's own image as a target: the paper's control, and what small generators are pretrained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float32
from PIL import Image
from torch import Tensor

from gemvlm.depth_map import target_size
from gemvlm.sample import Frame


@dataclass(frozen=True)
class RgbTarget:
    """The image, resized to `height` x `width` with an antialiased bilinear filter, in [-1, 1]; every pixel counts.

    Without a size it follows the published rule for each image: long side 448, both sides multiples of 32.
    """

    height: int | None = None
    width: int | None = None
    kind: ClassVar[str] = "rgb"

    def make(self, frame: Frame) -> tuple[Float32[Tensor, "3 h w"], Bool[Tensor, "h w"]] | None:
        height, width = target_size(*frame.image.shape[:2])
        size = self.width or width, self.height or height
        image = Image.fromarray(frame.image).resize(size, Image.Resampling.BILINEAR)
        picture = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 127.5 - 1
        return picture, torch.ones(picture.shape[1:], dtype=torch.bool)
