"""What a world with a task promises: reset, step, observe. Data and policies see the same places through it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from gemvlm.camera import View
from gemvlm.worlds.observation import Observation


@runtime_checkable
class TaskWorld(Protocol):
    """One task in one simulated place. Everything is a function of what it was made with and of the actions taken.

    `instruction` is the task in English, `cameras` the names of the simulator's own views. `step` takes an action in
    the simulator's own convention (its length is `action_size`, its values are clipped to [-1, 1]) and says whether
    the task is done now. `state` is what the simulator tells a policy besides pictures.
    """

    name: str
    instruction: str
    action_size: int

    @property
    def cameras(self) -> tuple[str, ...]: ...

    @property
    def state(self) -> Float[np.ndarray, "N"]: ...

    def reset(self) -> None: ...

    def step(self, action: Float[np.ndarray, "A"]) -> bool: ...

    def succeeded(self) -> bool: ...

    def observe(self, camera: str | View, size: tuple[int, int] = (256, 256)) -> Observation: ...

    def close(self) -> None: ...
