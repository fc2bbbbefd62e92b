"""What enters a model: one packed token axis, images, and the targets that belong to them.

The legend of letters, used in every shape of `data/` and `model/`:

    T  tokens of the whole batch, samples one after another      S  samples (segments of the token axis)
    N  images                                                    P  vision patches of all images
    M  targets (at most one of each kind per image)              D  width of the language model's states
    h, w  rows and columns of a target picture, in pixels
    R  robot samples, of S                                       H  steps of an action chunk
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

IGNORE = -100
"""The label of a token that no loss supervises."""


@dataclass(frozen=True)
class Target:
    """What one image's generator must paint.

    `image` is the index into the batch's images: a target without its own span can't be expressed. `key` seeds the
    noise, the flow time and the dropout of this target; it is a function of (seed, epoch, sample id, image, kind) only.
    `latent`, when cached, replaces the encoding of `picture`.
    """

    kind: str
    image: int
    picture: Float[Tensor, "3 h w"]
    valid: Bool[Tensor, "h w"]
    key: int
    latent: Float[Tensor, "C hl wl"] | None = None

    def to(self, device: torch.device | str) -> Target:
        tensors = {"picture": self.picture, "valid": self.valid}
        if self.latent is not None:
            tensors["latent"] = self.latent
        return replace(self, **_moved(tensors, device))


@dataclass(frozen=True)
class Actions:
    """What the robot samples of a batch did, normalised: what an action expert must learn, or answer.

    `samples[r]` is the segment of robot sample r. `state` is normalised too. `valid` is False after an episode's end.
    `keys[r]` seeds the flow time and the noise of a sample, as `Target.key` does. At inference `chunk` is all zero.
    """

    samples: Int64[Tensor, "R"]
    state: Float32[Tensor, "R state"]
    chunk: Float32[Tensor, "R H action"]
    valid: Bool[Tensor, "R H"]
    keys: tuple[int, ...]

    def to(self, device: torch.device | str) -> Actions:
        tensors = {name: getattr(self, name) for name in ("samples", "state", "chunk", "valid")}
        return replace(self, **_moved(tensors, device))


@dataclass(frozen=True)
class Batch:
    """Samples packed along one token axis; padding is what a module does inside, if it must.

    `segment_ids` counts samples from 0 and never decreases. `labels[t]` is the id that the *state before* t must
    predict: labels stand at the token's own place, models shift, never across two segments. `spans[n]` is the half-open
    token range of image n strictly between its vision-start and vision-end markers.
    """

    input_ids: Int64[Tensor, "T"]
    segment_ids: Int64[Tensor, "T"]
    position_ids: Int64[Tensor, "3 T"]
    labels: Int64[Tensor, "T"]
    pixel_values: Float[Tensor, "P patch"]
    image_grid_thw: Int64[Tensor, "N 3"]
    spans: Int64[Tensor, "N 2"]
    targets: tuple[Target, ...] = ()
    sample_ids: tuple[str, ...] = ()
    actions: Actions | None = None

    def to(self, device: torch.device | str) -> Batch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        targets = tuple(target.to(device) for target in self.targets)
        actions = None if self.actions is None else self.actions.to(device)
        return replace(self, targets=targets, actions=actions, **_moved(tensors, device))

    @property
    def lengths(self) -> Int64[Tensor, "S"]:
        """Tokens of each sample."""
        return torch.bincount(self.segment_ids)


def _moved(tensors: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Any]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
