"""Two arms of seven numbers each: position, rotation vector, gripper; actions say where to be. The paper's 14 numbers.

`BimanualArms` gives them to the model as they are, which published weights need. `relative` gives the model, for each
arm, the pose in the frame of the hand at the chunk's beginning (R0' (p - p0), R0' R as 6-D) and the gripper's width as
it is: 20 numbers, in the layout of RDT2 but for the order of the arms (the left one first here, the right one there).
It has no jump at half turns, and means the same wherever the table stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from gemvlm.robot.contract import ActionContract
from gemvlm.robot.embodiments.embodiment import check_sizes
from gemvlm.robot.rotations import from_matrix, to_matrix

ARMS = ("left", "right")
PARTS = ("x", "y", "z", "rx", "ry", "rz", "gripper")
NAMES = tuple(f"{arm}_{part}" for arm in ARMS for part in PARTS)
CONTRACT = ActionContract(
    embodiment="bimanual",
    state_names=NAMES,
    action_names=NAMES,
    control="absolute",
    rotation="axis_angle",
    gripper="width_m",
    rate_hz=30.0,
    cameras=("front", "top"),
)


@dataclass(frozen=True)
class BimanualArms:
    """Poses of the hands in the world's frame (metres, radians) and gripper widths (metres), left arm first."""

    contract: ActionContract = CONTRACT
    relative: bool = False

    @property
    def state_size(self) -> int:
        return self.action_size

    @property
    def action_size(self) -> int:
        return 20 if self.relative else 14

    def to_model(
        self, state: Float[np.ndarray, "*batch S"], actions: Float[np.ndarray, "*batch H A"] | None = None
    ) -> tuple[Float32[np.ndarray, "*batch s"], Float32[np.ndarray, "*batch H a"] | None]:
        check_sizes(self.contract, state, actions)
        if not self.relative:
            return state.astype(np.float32), None if actions is None else actions.astype(np.float32)
        place, turn, width = _parts(state)
        seen = _joined(place, from_matrix(turn, "rotation_6d"), width)
        if actions is None:
            return seen, None
        to_place, to_turn, to_width = _parts(actions)
        back = np.swapaxes(turn, -1, -2)[..., None, :, :, :]
        moved = (back @ (to_place - place[..., None, :, :])[..., None])[..., 0]
        return seen, _joined(moved, from_matrix(back @ to_turn, "rotation_6d"), to_width)

    def to_robot(
        self, actions: Float[np.ndarray, "*batch H a"], state: Float[np.ndarray, "*batch 14"]
    ) -> Float32[np.ndarray, "*batch H 14"]:
        if not self.relative:
            return actions.astype(np.float32)
        place, turn, _ = _parts(state)
        arms = actions.reshape(*actions.shape[:-1], 2, 10).astype(np.float64)
        here = turn[..., None, :, :, :]
        to_place = place[..., None, :, :] + (here @ arms[..., :3, None])[..., 0]
        to_turn = here @ to_matrix(arms[..., 3:9], "rotation_6d")
        return _joined(to_place, from_matrix(to_turn, "axis_angle"), arms[..., 9:])


def _parts(
    values: Float[np.ndarray, "*batch 14"],
) -> tuple[Float[np.ndarray, "*batch 2 3"], Float[np.ndarray, "*batch 2 3 3"], Float[np.ndarray, "*batch 2 1"]]:
    """Places, rotation matrices and widths of both arms."""
    arms = values.reshape(*values.shape[:-1], 2, 7).astype(np.float64)
    return arms[..., :3], to_matrix(arms[..., 3:6], "axis_angle"), arms[..., 6:]


def _joined(*parts: Float[np.ndarray, "*batch 2 _"]) -> Float32[np.ndarray, "*batch m"]:
    """The numbers of both arms in one row."""
    arms = np.concatenate(parts, axis=-1).astype(np.float32)
    return arms.reshape(*arms.shape[:-2], -1)
