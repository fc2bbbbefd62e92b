"""One arm of seven joints and a gripper, commanded by joint angles: Franka and the like, as in DROID's recordings.

The robot's actions say where each joint is to be (radians) and its gripper closes at 1; the model's say how far each
joint is to be from where it was when the chunk began, and its gripper opens at 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from gemvlm.robot.contract import ActionContract
from gemvlm.robot.embodiments.embodiment import check_sizes

NAMES = (*(f"joint_{number}" for number in range(1, 8)), "gripper")
CONTRACT = ActionContract(
    embodiment="joint_arm",
    state_names=NAMES,
    action_names=NAMES,
    control="absolute",
    rotation="joints",
    gripper="high_closes",
    rate_hz=15.0,
    cameras=("base", "wrist"),
)


@dataclass(frozen=True)
class JointArm:
    """State and actions: seven joint angles (radians) and a gripper from 0 (open) to 1 (closed)."""

    contract: ActionContract = CONTRACT
    state_size: int = 8
    action_size: int = 8
    relative: bool = True

    def to_model(
        self, state: Float[np.ndarray, "*batch S"], actions: Float[np.ndarray, "*batch H A"] | None = None
    ) -> tuple[Float32[np.ndarray, "*batch 8"], Float32[np.ndarray, "*batch H 8"] | None]:
        check_sizes(self.contract, state, actions)
        seen = _opening(state.astype(np.float64))
        if actions is None:
            return seen.astype(np.float32), None
        wanted = _opening(actions.astype(np.float64))
        wanted[..., :7] -= seen[..., None, :7]
        return seen.astype(np.float32), wanted.astype(np.float32)

    def to_robot(
        self, actions: Float[np.ndarray, "*batch H 8"], state: Float[np.ndarray, "*batch 8"]
    ) -> Float32[np.ndarray, "*batch H 8"]:
        wanted = _opening(actions.astype(np.float64))
        wanted[..., :7] += state[..., None, :7]
        return wanted.astype(np.float32)


def _opening(values: Float[np.ndarray, "*batch 8"]) -> Float[np.ndarray, "*batch 8"]:
    """With the gripper's closing as opening, or the reverse."""
    return np.concatenate([values[..., :7], 1 - values[..., 7:]], axis=-1)
