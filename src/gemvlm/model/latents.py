"""Pictures ⇄ latents: the space in which the generator works. Neither codec is ever trained here.

`DcAeLatents` is the published autoencoder, frozen. `PatchLatents` is a fixed orthonormal transform for small models: it
has no parameters and needs no training, and what it keeps it keeps exactly.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Latents(nn.Module, ABC):
    """What every codec offers. Latents come out scaled: about unit variance, as the generator takes them."""

    factor: int
    """Pixels per latent, along each side."""
    channels: int

    @abstractmethod
    def encode(self, picture: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B C hl wl"]:
        """Pictures in [-1, 1], both sides multiples of `factor`, to float32 latents."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "B C hl wl"]) -> Float[Tensor, "B 3 h w"]:
        """Back to float32 pictures, not clamped."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the latents of a picture. ValueError if a side is no multiple of `factor`."""
        if height % self.factor or width % self.factor:
            raise ValueError(f"a picture of {height}x{width} pixels: both sides must be multiples of {self.factor}")
        return height // self.factor, width // self.factor


class DcAeLatents(Latents):
    """diffusers' AutoencoderDC, frozen and always in eval mode."""

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        from diffusers import AutoencoderDC

        vae: Any = AutoencoderDC(**config)
        self.vae = vae.requires_grad_(False).eval()
        self.factor = 2 ** (len(self.vae.config.encoder_block_out_channels) - 1)
        self.channels = self.vae.config.latent_channels
        self.scale = self.vae.config.scaling_factor
        self.shift = getattr(self.vae.config, "shift_factor", None) or 0.0

    def train(self, mode: bool = True) -> DcAeLatents:
        """Stays in eval mode whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, picture: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B C hl wl"]:
        self.grid(*picture.shape[-2:])
        return (self.vae.encode(picture.to(self.vae.dtype)).latent.float() - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "B C hl wl"]) -> Float[Tensor, "B 3 h w"]:
        return self.vae.decode((latents / self.scale + self.shift).to(self.vae.dtype)).sample.float()


class PatchLatents(Latents):
    """An orthonormal colour rotation, then an orthonormal cosine transform of each patch, of which a part is kept.

    The rotation takes (r, g, b) to grey (r+g+b)/√3 and the chroma (r-b)/√2, (r-2g+b)/√6. Kept are the first `luma`
    coefficients of the grey and the first `chroma` of each chroma channel, in zigzag order. Coefficient (u, v) is
    divided by `coefficient_scale`, a fixed spectrum, so that latents have about unit variance, and multiplied by
    `gain`: more than 1 for pictures of little contrast, such as depth in a wide fixed range.
    """

    def __init__(self, patch: int, luma: int, chroma: int, gain: float = 1.0):
        super().__init__()
        if gain <= 0:
            raise ValueError(f"gain of the patch codec must be positive, got {gain}")
        if not (0 < luma <= patch**2 and 0 <= chroma <= patch**2):
            raise ValueError(
                f"a patch of {patch}x{patch} has {patch**2} coefficients; luma={luma}, chroma={chroma} ask for others"
            )
        self.factor, self.channels = patch, luma + 2 * chroma
        # One convolution is rotation, transform and selection at once. No buffers: there is nothing to save, and a
        # model cast to half precision must not round its codec.
        self.basis, scale = _kept_basis(patch, luma, chroma)
        self.scale = scale[:, None, None] / gain

    def encode(self, picture: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B C hl wl"]:
        self.grid(*picture.shape[-2:])
        latents = F.conv2d(picture.float(), self.basis.to(picture.device), stride=self.factor)
        return latents / self.scale.to(picture.device)

    def decode(self, latents: Float[Tensor, "B C hl wl"]) -> Float[Tensor, "B 3 h w"]:
        coefficients = latents.float() * self.scale.to(latents.device)
        return F.conv_transpose2d(coefficients, self.basis.to(latents.device), stride=self.factor)


def coefficient_scale(patch: int, u: int, v: int, chroma: bool) -> float:
    """What cosine coefficient (u, v) of a picture in [-1, 1] is divided by: patch·√3·0.25/(1 + 1.5·√(u²+v²)), for
    chroma a third.

    Pictures' spectra fall faster than this, on purpose: on rendered scenes and their depth the mean keeps a spread of 1
    to 2, the first frequencies 0.6 to 0.9, the highest 0.3 to 0.5, so that what carries most of the picture is also
    learned most precisely.
    """
    grey = patch * math.sqrt(3) * 0.25 / (1 + 1.5 * math.hypot(u, v))
    return grey / 3 if chroma else grey


def _kept_basis(patch: int, luma: int, chroma: int) -> tuple[Float[Tensor, "C 3 p p"], Float[Tensor, "C"]]:
    """The kept, orthonormal basis pictures and their scales."""
    at = torch.arange(patch, dtype=torch.float64)
    cosine = torch.cos(math.pi * (at[None] + 0.5) * at[:, None] / patch) * math.sqrt(2 / patch)
    cosine[0] /= math.sqrt(2)
    colours = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    colours /= colours.norm(dim=1, keepdim=True)
    order = sorted(((u, v) for u in range(patch) for v in range(patch)), key=_zigzag)
    kept = [(0, uv) for uv in order[:luma]] + [(c, uv) for c in (1, 2) for uv in order[:chroma]]
    pictures = [colours[c, :, None, None] * cosine[u, None, :, None] * cosine[v, None, None, :] for c, (u, v) in kept]
    scales = [coefficient_scale(patch, u, v, c > 0) for c, (u, v) in kept]
    return torch.stack(pictures).float(), torch.tensor(scales)


def _zigzag(uv: tuple[int, int]) -> tuple[int, int]:
    """Along antidiagonals, in alternating direction."""
    u, v = uv
    return u + v, u if (u + v) % 2 else v


def build_latents(config: Mapping[str, Any]) -> Latents:
    """The codec of `GemConfig.latents`."""
    options = {key: value for key, value in config.items() if key != "kind"}
    return DcAeLatents(options) if config["kind"] == "dc_ae" else PatchLatents(**options)
