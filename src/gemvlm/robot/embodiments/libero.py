"""LIBERO's Panda: the state that its official evaluation gives to policies, and its seven actions.

State: gripper position (metres), its turn as a rotation vector, both fingers (metres). Actions in [-1, 1] for the
operational-space controller at 20 Hz: a full step is 5 cm and 0.5 rad (ARISE-Initiative/robosuite,
`controllers/config/osc_pose.json`); a high grip closes. The gripper points down, so its turn is near pi, where rotation
vectors jump to their opposite: the model sees the 6-D form, which does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from gemvlm.robot.contract import ActionContract
from gemvlm.robot.embodiments.embodiment import check_sizes
from gemvlm.robot.rotations import axis_angle_of_quaternion, convert

CONTRACT = ActionContract(
    embodiment="libero",
    state_names=("x", "y", "z", "rx", "ry", "rz", "finger_left", "finger_right"),
    action_names=("dx", "dy", "dz", "drx", "dry", "drz", "grip"),
    control="delta",
    rotation="axis_angle",
    gripper="high_closes",
    rate_hz=20.0,
    cameras=("agentview", "robot0_eye_in_hand"),
)
_SIGNS = np.array([1, 1, 1, 1, 1, 1, -1], np.float32)


@dataclass(frozen=True)
class LiberoPanda:
    """8 numbers of state become 11 (position, 6-D rotation, fingers); 7 actions, with the grip's sign turned."""

    contract: ActionContract = CONTRACT
    state_size: int = 11
    action_size: int = 7
    relative: bool = False

    def to_model(
        self, state: Float[np.ndarray, "*batch S"], actions: Float[np.ndarray, "*batch H A"] | None = None
    ) -> tuple[Float32[np.ndarray, "*batch 11"], Float32[np.ndarray, "*batch H 7"] | None]:
        check_sizes(self.contract, state, actions)
        turn = convert(state[..., 3:6], "axis_angle", "rotation_6d")
        seen = np.concatenate([state[..., :3], turn, state[..., 6:]], axis=-1).astype(np.float32)
        return seen, None if actions is None else (actions * _SIGNS).astype(np.float32)

    def to_robot(
        self, actions: Float[np.ndarray, "*batch H 7"], state: Float[np.ndarray, "*batch 8"]
    ) -> Float32[np.ndarray, "*batch H 7"]:
        return (actions * _SIGNS).astype(np.float32)


def official_state(
    position: Float[np.ndarray, "3"], quaternion: Float[np.ndarray, "4"], fingers: Float[np.ndarray, "2"]
) -> Float32[np.ndarray, "8"]:
    """The state as evaluations of published policies compute it from robosuite's observations.

    `quaternion` (xyzw) keeps the sign that the simulator gives it, so that the rotation vector passes pi smoothly:
    `rotations.axis_angle_of_quaternion`.
    """
    return np.concatenate([position, axis_angle_of_quaternion(quaternion), fingers]).astype(np.float32)
