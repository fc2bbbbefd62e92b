"""Bridge's WidowX arm, as BridgeData V2 comes as a LeRobot set (`bridge_orig_lerobot`).

State: gripper position (metres), roll, pitch and yaw (radians), a number that is always 0 (`pad`), and how far the
gripper is open (0 to 1). The angles are those of the gripper against its pose with the fingers down, not against the
base: the robot's controller records R @ DOWN.T (rail-berkeley/bridge_data_robot, `widowx_controller.py`, commit
b841131e). Actions at 5 Hz: a step in metres, a turn as roll, pitch and yaw, and a grip that opens at 1. The set's
camera over the shoulder is `image_0`: --camera primary=image_0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from gemvlm.robot.contract import ActionContract
from gemvlm.robot.embodiments.embodiment import check_sizes
from gemvlm.robot.rotations import convert, from_matrix, to_matrix

CONTRACT = ActionContract(
    embodiment="bridge",
    state_names=("x", "y", "z", "roll", "pitch", "yaw", "pad", "gripper"),
    action_names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
    control="delta",
    rotation="euler_xyz",
    gripper="high_opens",
    rate_hz=5.0,
    cameras=("primary",),
)
DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""The gripper's turn in the base's frame when its fingers point down and all of the set's angles are 0."""


@dataclass(frozen=True)
class BridgeWidowX:
    """8 numbers of state become 10 (position, 6-D rotation, opening); 7 actions stay as they are."""

    contract: ActionContract = CONTRACT
    state_size: int = 10
    action_size: int = 7
    relative: bool = False

    def to_model(
        self, state: Float[np.ndarray, "*batch S"], actions: Float[np.ndarray, "*batch H A"] | None = None
    ) -> tuple[Float32[np.ndarray, "*batch 10"], Float32[np.ndarray, "*batch H 7"] | None]:
        check_sizes(self.contract, state, actions)
        turn = convert(state[..., 3:6], "euler_xyz", "rotation_6d")
        seen = np.concatenate([state[..., :3], turn, state[..., 7:]], axis=-1).astype(np.float32)
        return seen, None if actions is None else actions.astype(np.float32)

    def to_robot(
        self, actions: Float[np.ndarray, "*batch H 7"], state: Float[np.ndarray, "*batch 8"]
    ) -> Float32[np.ndarray, "*batch H 7"]:
        return actions.astype(np.float32)


def recorded_state(
    position: Float[np.ndarray, "3"], quaternion: Float[np.ndarray, "4"], opening: float
) -> Float32[np.ndarray, "8"]:
    """The state as the set records it, of a gripper at `position` (metres), turned by `quaternion` (wxyz), both in the
    base's frame. ValueError for a quaternion of length 0."""
    turn = to_matrix(quaternion, "quaternion_wxyz") @ DOWN.T
    return np.concatenate([position, from_matrix(turn, "euler_xyz"), [0.0, opening]]).astype(np.float32)
