"""RDT2's two hands: a pose relative to where the hand is, for the right arm and then the left, and no state.

Position in metres, 6-D rotation (`rotation_6d`: its matrix's first column, then the second), gripper width in metres
(thu-ml/RDT2, `README.md`, commit 0147166a, and `data/umi/pose_util.py`, commit 29317900). The model sees the numbers as
they are, and a state of one zero.

Two steps remain between these numbers and a robot, both in RDT2's own deployment and neither here: poses are in the
frame of RDT2's policy, and become those of the tool by `convert_policy_to_tcp_space`
(`deploy/umi/real_world/real_inference_util.py`, commit bf0e85cb); and widths of [0, 0.088] m become [0, 0.1] m
(`README.md`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from gemvlm.robot.contract import ActionContract
from gemvlm.robot.embodiments.embodiment import check_sizes

PARTS = ("x", "y", "z", *(f"r{row}{column}" for column in "01" for row in "012"), "gripper")
ACTION_NAMES = tuple(f"{arm}_{part}" for arm in ("right", "left") for part in PARTS)
CONTRACT = ActionContract(
    embodiment="rdt2",
    state_names=(),
    action_names=ACTION_NAMES,
    control="delta",
    rotation="rotation_6d",
    gripper="width_m",
    rate_hz=30.0,
    cameras=("left", "right"),
)


@dataclass(frozen=True)
class Rdt2Hands:
    """20 numbers of action; each chunk's are relative to the hands' poses at its beginning already."""

    contract: ActionContract = CONTRACT
    state_size: int = 1
    action_size: int = 20
    relative: bool = False

    def to_model(
        self, state: Float[np.ndarray, "*batch S"], actions: Float[np.ndarray, "*batch H A"] | None = None
    ) -> tuple[Float32[np.ndarray, "*batch 1"], Float32[np.ndarray, "*batch H 20"] | None]:
        check_sizes(self.contract, state, actions)
        nothing = np.zeros((*state.shape[:-1], 1), np.float32)
        return nothing, None if actions is None else actions.astype(np.float32)

    def to_robot(
        self, actions: Float[np.ndarray, "*batch H 20"], state: Float[np.ndarray, "*batch S"]
    ) -> Float32[np.ndarray, "*batch H 20"]:
        return actions.astype(np.float32)
