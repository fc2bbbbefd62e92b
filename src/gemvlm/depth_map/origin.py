"""Who made a depth map, by what means, and on what terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

DepthProvenance = Literal["simulator", "sensor", "stereo", "teacher", "unknown"]


@dataclass(frozen=True)
class Alignment:
    """A relative map brought to metric truth: `scale` * x + `shift` in the space of the map's kind.

    `inliers` is the share of the `pixels` with truth that agree within 10 % afterwards.
    """

    scale: float
    shift: float
    inliers: float
    pixels: int


@dataclass(frozen=True)
class DepthOrigin:
    """How a map came about. A teacher is named with its `model`, the hash or revision of its `weights` and its licence.

    `quality` holds the scores that accepted it: "flip_consistency", "valid_fraction", "agreement", each in 0..1.
    """

    provenance: DepthProvenance
    model: str = ""
    weights: str = ""
    licence: str = "unknown"
    alignment: Alignment | None = None
    quality: Mapping[str, float] = field(default_factory=dict)
