"""What a robot sends, what a policy answers, and the contract that says what an action value means.

A checkpoint whose contract differs from the robot's moves it wrongly without any error: a gripper's sign, a rotation's
form or a frame's turn costs tens of points or a wrist. So both sides state theirs, and `differences` compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

Control = Literal["absolute", "delta"]
Rotation = Literal["none", "axis_angle", "euler_xyz", "quaternion_xyzw", "rotation_6d", "joints"]
Gripper = Literal["none", "high_opens", "high_closes", "width_m"]
ImageTurn = Literal["none", "half"]


@dataclass(frozen=True)
class RobotObservation:
    """One moment as a robot tells it.

    `images` maps cameras to RGB pictures (height, width, 3), first row at the top. `state` is in the robot's own units,
    in the order of `ActionContract.state_names`. `step` counts actions since the episode began; `time_s` is when the
    pictures were taken, on the robot's clock.
    """

    images: Mapping[str, UInt8[np.ndarray, "H W 3"]]
    state: Float32[np.ndarray, "S"]
    instruction: str
    step: int = 0
    time_s: float = 0.0


@dataclass(frozen=True)
class ActionChunk:
    """Actions (time, dimension) in the robot's own units, `rate_hz` of them a second, the first one for now."""

    actions: Float32[np.ndarray, "T A"]
    rate_hz: float


@dataclass(frozen=True)
class Committed:
    """What a robot goes on doing while its next chunk is computed: the rest of the chunk before, from now on.

    The first `fixed` of `actions` (time, dimension) will have been executed when the next chunk arrives; the others are
    only what the robot had in mind. ValueError if `fixed` is not between 1 and their number.
    """

    actions: Float32[np.ndarray, "K A"]
    fixed: int

    def __post_init__(self) -> None:
        if not 1 <= self.fixed <= len(self.actions):
            raise ValueError(f"fixed: {self.fixed} of {len(self.actions)} actions; give at least 1 and at most all")

    @property
    def weights(self) -> Float32[np.ndarray, "K"]:
        """How firmly each action stands: 1 where fixed, then falling to the last (arXiv 2506.07339, equation 5)."""
        count = len(self.actions)
        left = np.minimum((count - np.arange(count)) / (count - self.fixed + 1), 1)
        return (left * np.expm1(left) / np.expm1(1)).astype(np.float32)


@dataclass(frozen=True)
class ActionContract:
    """What the numbers of states and actions mean on one robot.

    `control` says whether an action is where to be or how far to move, `rotation` the form of its orientation part,
    `gripper` what a high value of its gripper part does. `image_turn` "half" says that pictures are as published LIBERO
    data have them: those of robosuite, whose rows run upwards, turned by 180 degrees, so left and right are exchanged.
    """

    embodiment: str
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    control: Control
    rotation: Rotation
    gripper: Gripper
    rate_hz: float
    cameras: tuple[str, ...]
    image_turn: ImageTurn = "none"

    def differences(self, other: ActionContract) -> list[str]:
        """One line for each field in which they differ; nothing if a policy of one may drive a robot of the other."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return [f"{name}: {ours!r} here, {theirs!r} there" for name, ours, theirs in pairs if ours != theirs]


@runtime_checkable
class Policy(Protocol):
    """Whoever answers observations with actions: a trained model, a blind baseline, a server's client.

    `act` answers several robots at once, each with a chunk of `horizon` actions, and is a deterministic function of the
    observations, `seeds` (one for each) and `committed`: what each robot goes on doing until the new chunk arrives, to
    be continued smoothly (None: nothing).
    """

    contract: ActionContract
    horizon: int

    def act(
        self,
        observations: Sequence[RobotObservation],
        seeds: Sequence[int],
        committed: Sequence[Committed | None] | None = None,
    ) -> list[ActionChunk]: ...
