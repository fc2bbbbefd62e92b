"""Images as vision patches, and where the tokens of a sample stand in M-RoPE's three axes.

The arithmetic is that of transformers' Pillow image processor for Qwen3-VL, to the last bit, without torchvision and
without a processor object: bicubic resize to a multiple of `patch_size · merge_size`, x/255, (x - 0.5)/0.5, and patches
ordered so that the `merge_size`² patches of one token are neighbours. A still image is repeated along time to fill a
temporal patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from PIL import Image
from torch import Tensor

LARGEST_ASPECT_RATIO = 200


@dataclass(frozen=True)
class ImageConfig:
    """Sizes of the vision tower's patches and the pixel budget of one image. The defaults are Qwen3-VL's."""

    patch_size: int = 16
    merge_size: int = 2
    temporal_patch_size: int = 2
    min_pixels: int = 256 * 256
    max_pixels: int = 4096 * 4096

    @property
    def token_size(self) -> int:
        """Side in pixels of the square that one language token stands for; an image's sides are multiples of it."""
        return self.patch_size * self.merge_size

    @property
    def patch_values(self) -> int:
        """Numbers in one row of `pixel_values`."""
        return 3 * self.temporal_patch_size * self.patch_size**2

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of this size is resampled to: its aspect as multiples of `token_size` allow."""
        if max(height, width) > LARGEST_ASPECT_RATIO * min(height, width):
            raise ValueError(
                f"image of {height}x{width} (height x width): the long side is more than {LARGEST_ASPECT_RATIO} times "
                "the short one; crop it"
            )
        unit = self.token_size
        rows, columns = round(height / unit), round(width / unit)
        if rows * columns * unit**2 > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            rows = max(1, math.floor(height / shrink / unit))
            columns = max(1, math.floor(width / shrink / unit))
        elif rows * columns * unit**2 < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            rows, columns = math.ceil(height * grow / unit), math.ceil(width * grow / unit)
        return rows * unit, columns * unit

    def grid(self, height: int, width: int) -> tuple[int, int, int]:
        """(1, rows, columns) of vision patches for an image of this size."""
        new_height, new_width = self.resized(height, width)
        return 1, new_height // self.patch_size, new_width // self.patch_size

    def tokens(self, grid: tuple[int, int, int]) -> int:
        """Language tokens of an image with this patch grid."""
        return math.prod(grid) // self.merge_size**2


def patches(
    image: UInt8[np.ndarray, "H W 3"], config: ImageConfig, out: Float32[np.ndarray, "P patch"] | None = None
) -> tuple[Float32[Tensor, "P patch"], tuple[int, int, int]]:
    """An RGB image to rows of `pixel_values` (in `out`, contiguous, if given) and its (1, rows, columns) patch grid."""
    height, width = config.resized(image.shape[0], image.shape[1])
    if (height, width) != image.shape[:2]:
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    size, merge = config.patch_size, config.merge_size
    rows, columns = height // size, width // size
    tiles = image.reshape(rows // merge, merge, size, columns // merge, merge, size, 3)
    tiles = tiles.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3, 1, size * size)
    levels = tiles.astype(np.float32)
    levels /= 127.5  # for each of the 256 values what the published x/255, (x - 0.5)/0.5 gives, in half the steps
    if out is None:
        out = np.empty((rows * columns, config.patch_values), np.float32)
    np.subtract(levels, 1, out=out.reshape(rows * columns, 3, config.temporal_patch_size, size * size))
    return torch.from_numpy(out), (1, rows, columns)


def position_ids(
    length: int, spans: Int64[Tensor, "N 2"], grids: Int64[Tensor, "N 3"], merge_size: int
) -> Int64[Tensor, "3 T"]:
    """M-RoPE positions (time, row, column) of one sample of `length` tokens, from 0.

    `spans[n]` is the half-open range of image n's tokens and `grids[n]` its (1, rows, columns) of patches. Text
    advances all axes by 1; an image that follows position s - 1 takes (s, s + row, s + column), and text resumes at
    s + max(rows, columns), rows and columns counted in tokens. Equal to `get_rope_index` of Qwen3-VL for images.
    """
    positions = torch.empty(3, length, dtype=torch.int64)
    token, position = 0, 0
    for (start, stop), (frames, patch_rows, patch_columns) in zip(spans.tolist(), grids.tolist(), strict=True):
        rows, columns = patch_rows // merge_size, patch_columns // merge_size
        if frames != 1 or stop - start != rows * columns:
            raise ValueError(
                f"tokens {start}..{stop} are {stop - start} but the image's grid {(frames, patch_rows, patch_columns)} "
                f"needs {frames * rows * columns}; each frame of a video is an image with grid (1, rows, columns)"
            )
        positions[:, token:start] = torch.arange(position, position + start - token)
        position += start - token
        positions[0, start:stop] = position
        positions[1, start:stop] = position + torch.arange(rows).repeat_interleave(columns)
        positions[2, start:stop] = position + torch.arange(columns).repeat(rows)
        position += max(rows, columns)
        token = stop
    positions[:, token:] = torch.arange(position, position + length - token)
    return positions
