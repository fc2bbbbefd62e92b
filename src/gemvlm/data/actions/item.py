"""One moment of an episode, as a policy learns from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from gemvlm.sample import Frame


@dataclass(frozen=True)
class RobotItem:
    """What the cameras saw and the robot was told at one moment, and the actions from then on, in the robot's units.

    `wordings` are the ways in which the task is said, of which one is shown. `frames` are in the contract's order of
    cameras. Where `valid` is False the episode was over, and the action is its last one.
    """

    id: str
    wordings: tuple[str, ...]
    frames: Mapping[str, Frame]
    state: Float32[np.ndarray, "S"]
    actions: Float32[np.ndarray, "H A"]
    valid: Bool[np.ndarray, "H"]
