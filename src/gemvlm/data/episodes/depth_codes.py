"""Metres ⇄ the 12-bit codes of LeRobot's depth videos.

Stated in huggingface/lerobot, `src/lerobot/datasets/depth_utils.py` (commit 006ca66a) and
`src/lerobot/configs/video.py`: code = round(4095 · (f(d) - f(min)) / (f(max) - f(min))) clipped to 0..4095, with
f(d) = log(d + shift) or, if `use_log` is false, f(d) = d. The parameters stand in a feature's `info` as
`video.depth_min`, `video.depth_max`, `video.shift`, `video.use_log` (older files: without the prefix), all in metres.

Codes 0 and 4095 are where everything beyond the range was clipped to, a missing measurement (0) among it: here both
mean "no value". The step is 1.1 mm at 0.3 m and 2.9 mm at 5 m with the default parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt16

from gemvlm.depth_map import DepthMap

LARGEST_CODE = 4095


@dataclass(frozen=True)
class DepthCodes:
    """Which depths, in metres, the codes 0 and 4095 stand for, and how they are spaced in between."""

    depth_min: float = 0.01
    depth_max: float = 10.0
    shift: float = 3.5
    use_log: bool = True

    def __post_init__(self) -> None:
        numbers = (self.depth_min, self.depth_max, self.shift)
        bounded = all(math.isfinite(number) for number in numbers) and 0 <= self.depth_min < self.depth_max
        if not bounded or (self.use_log and self.depth_min + self.shift <= 0):
            raise ValueError(
                f"depth codes: min {self.depth_min}, max {self.depth_max}, shift {self.shift} (metres) need "
                "0 <= min < max, and min + shift > 0 for logarithms; see the feature's info in meta/info.json"
            )

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> DepthCodes:
        """From a feature's `info`; what it leaves out is LeRobot's default. TypeError or ValueError if not numbers."""
        default = asdict(cls())
        found = {key: info.get(f"video.{key}", info.get(key, value)) for key, value in default.items()}
        if not isinstance(found["use_log"], bool):
            raise ValueError(f"depth codes: use_log is {found['use_log']!r}, not true or false")
        return cls(float(found["depth_min"]), float(found["depth_max"]), float(found["shift"]), found["use_log"])

    def to_info(self) -> dict[str, Any]:
        return {"is_depth_map": True, **{f"video.{key}": value for key, value in asdict(self).items()}}

    @property
    def _ends(self) -> tuple[float, float]:
        ends = (self.depth_min, self.depth_max)
        return tuple(math.log(end + self.shift) for end in ends) if self.use_log else ends  # type: ignore[return-value]

    def encode(self, depth: DepthMap) -> UInt16[np.ndarray, "H W"]:
        """Codes of a metric map of z-depth, 0 where it is invalid. ValueError if valid depths are out of range."""
        if depth.kind != "metric_z":
            raise ValueError(f"depth from {depth.source!r} is {depth.kind}: LeRobot holds z-depth")
        metres = np.where(depth.valid, depth.values, self.depth_min).astype(np.float64)
        low, high = self._ends
        scalar = np.log(metres + self.shift) if self.use_log else metres
        codes = np.rint((scalar - low) / (high - low) * LARGEST_CODE)
        lost = int(np.count_nonzero(depth.valid & ((codes < 1) | (codes > LARGEST_CODE - 1))))
        if lost:
            known = depth.values[depth.valid]
            raise ValueError(
                f"depth from {depth.source!r}: {lost} pixels lie outside {self.depth_min}..{self.depth_max} m (it has "
                f"{known.min():.3f}..{known.max():.3f} m); write with a wider range"
            )
        return np.where(depth.valid, codes, 0).astype(np.uint16)

    def metres(self) -> Float64[np.ndarray, "4096"]:
        """What each code stands for; NaN at both ends, which say that nothing is known."""
        low, high = self._ends
        scalar = low + np.arange(LARGEST_CODE + 1) / LARGEST_CODE * (high - low)
        found = np.exp(scalar) - self.shift if self.use_log else scalar
        found[[0, LARGEST_CODE]] = np.nan
        return found

    def decode(self, codes: UInt16[np.ndarray, "H W"], source: str = "") -> DepthMap:
        """Undoes `encode`, up to half a step."""
        if codes.size and int(codes.max()) > LARGEST_CODE:
            raise ValueError(f"{source}: depth code {int(codes.max())} is more than 12 bits; is this depth?")
        values = self.metres().astype(np.float32)[codes]
        valid = np.isfinite(values)
        return DepthMap(np.where(valid, values, np.float32(0)), valid, "metric_z", "m", source)
