"""Targets that `gemvlm encode` has taken through the autoencoder, in the place of the maker that would make them again.

A member is a safetensors file: `latent` (C, hl, wl), `size` (height, width of the picture in pixels), and `valid`, the
mask's bits in rows (numpy's `packbits`) compressed by zlib, left out where every pixel counts.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gemvlm.data.collate import Cached
from gemvlm.sample import Frame
from gemvlm.shards import Derived, StoredFrame
from gemvlm.shards.derived import Stamp
from gemvlm.shards.files import Location

SUFFIX = ".safetensors"


class LatentCache:
    """Encoded targets of one kind, found by the frame's `media`. Give it to a `Collator` as a maker of targets.

    StampError unless everything that went into the latents is as `stamp` says. The pictures that it gives are NaN: they
    have a size and nothing else, and whoever looks at one will notice.
    """

    def __init__(self, folder: Location, kind: str, stamp: Stamp) -> None:
        self.kind = kind
        self._derived = Derived(folder, stamp)

    def make(self, frame: Frame) -> Cached | None:
        """None if the frame has nothing of this kind. ValueError if it was not encoded, or changed after reading."""
        if not isinstance(frame, StoredFrame) or not frame.media:
            raise ValueError(
                f"{self._derived.folder}: latents fit frames as they are stored, this one was made or changed; read it "
                "from its shards, or make targets from depth"
            )
        content = self._derived.get(frame.media)
        return from_member(content) if content else None


def to_member(latent: Float[Tensor, "C hl wl"], valid: Bool[Tensor, "h w"], dtype: torch.dtype) -> bytes:
    """ValueError if a value is not finite in `dtype`."""
    from safetensors.torch import save

    stored = latent.to("cpu", dtype).contiguous()
    if not stored.isfinite().all():
        raise ValueError(
            f"latents up to {float(latent.abs().max()):g} are not finite in {dtype}; store them as float32"
        )
    tensors = {"latent": stored, "size": torch.tensor(valid.shape, dtype=torch.int32)}
    if not valid.all():
        bits = zlib.compress(np.packbits(valid.cpu().numpy()).tobytes(), 6)
        tensors["valid"] = torch.frombuffer(bytearray(bits), dtype=torch.uint8)
    return save(tensors)


def from_member(content: bytes) -> Cached:
    """Undoes `to_member`; latents come back as float32."""
    from safetensors.torch import load

    tensors = load(content)
    height, width = tensors["size"].tolist()
    valid = torch.ones((), dtype=torch.bool).expand(height, width)
    if "valid" in tensors:
        bits = np.frombuffer(zlib.decompress(tensors["valid"].numpy().tobytes()), np.uint8)
        valid = torch.from_numpy(np.unpackbits(bits, count=height * width).view(bool).reshape(height, width))
    picture = torch.tensor(math.nan).expand(3, height, width)
    return picture, valid, tensors["latent"].float()
