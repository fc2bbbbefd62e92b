"""Meta-World's Sawyer arm: the hand's place and opening in, a step of the hand and a grip out.

Actions lie in [-1, 1]; a full step moves the hand's target by 1 cm (Farama-Foundation/Metaworld, `SawyerXYZEnv`,
`action_scale` 1/100) at 80 Hz. A high grip closes. Nothing else of the 39 observed numbers is used: they hold the
places of the things, which a policy must see for itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from gemvlm.robot.contract import ActionContract
from gemvlm.robot.embodiments.embodiment import check_sizes

CONTRACT = ActionContract(
    embodiment="metaworld",
    state_names=("x", "y", "z", "gripper_opening"),
    action_names=("dx", "dy", "dz", "grip"),
    control="delta",
    rotation="none",
    gripper="high_closes",
    rate_hz=80.0,
    cameras=("right", "left"),
)
_SIGNS = np.array([1, 1, 1, -1], np.float32)


@dataclass(frozen=True)
class MetaWorldArm:
    """State (x, y, z in metres, opening 0 to 1); actions (dx, dy, dz, grip), the grip turned for the model."""

    contract: ActionContract = CONTRACT
    state_size: int = 4
    action_size: int = 4
    relative: bool = False

    def to_model(
        self, state: Float[np.ndarray, "*batch S"], actions: Float[np.ndarray, "*batch H A"] | None = None
    ) -> tuple[Float32[np.ndarray, "*batch 4"], Float32[np.ndarray, "*batch H 4"] | None]:
        check_sizes(self.contract, state, actions)
        return state.astype(np.float32), None if actions is None else (actions * _SIGNS).astype(np.float32)

    def to_robot(
        self, actions: Float[np.ndarray, "*batch H 4"], state: Float[np.ndarray, "*batch 4"]
    ) -> Float32[np.ndarray, "*batch H 4"]:
        return (actions * _SIGNS).astype(np.float32)
