"""A robot's numbers ⇄ those that a network sees: the embodiment's transform, then normalisation; and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from gemvlm.robot.embodiments import Embodiment
from gemvlm.robot.statistics import Normalisation


@dataclass(frozen=True)
class ActionCodec:
    """Used by training and inference alike; ValueError at once if statistics are missing or of another robot."""

    embodiment: Embodiment
    normalisation: Normalisation

    def __post_init__(self) -> None:
        sizes = {"state": self.embodiment.state_size, "action": self.embodiment.action_size}
        for field, size in sizes.items():
            found = len(self.normalisation[field].statistics)
            if found != size:
                raise ValueError(
                    f"{self.embodiment.contract.embodiment}: the statistics of {field} have {found} numbers, the model "
                    f"sees {size}; compute them with this embodiment"
                )

    def state(self, state: Float[np.ndarray, "*batch S"]) -> Float32[np.ndarray, "*batch s"]:
        return self.normalisation["state"].normalise(self.embodiment.to_model(state)[0])

    def encode(
        self, state: Float[np.ndarray, "*batch S"], actions: Float[np.ndarray, "*batch H A"]
    ) -> Float32[np.ndarray, "*batch H a"]:
        """Actions of a chunk that begins at `state`; those committed earlier are seen from the new state, too."""
        seen = self.embodiment.to_model(state, actions)[1]
        assert seen is not None
        return self.normalisation["action"].normalise(seen)

    def decode(
        self, actions: Float[np.ndarray, "*batch H a"], state: Float[np.ndarray, "*batch S"]
    ) -> Float32[np.ndarray, "*batch H A"]:
        """Undoes `encode`."""
        return self.embodiment.to_robot(self.normalisation["action"].denormalise(actions), state)
