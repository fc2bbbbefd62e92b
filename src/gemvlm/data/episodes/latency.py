"""Recordings whose pictures come late and whose commands act late, put right.

A recording files at row t what arrived at that moment. A camera's picture was taken `camera` frames earlier, so the one
that shows the world at row t lies at row t + camera. A command moves an arm `arm` frames after it is given, so what has
to be commanded at row t is where the arm is wanted `arm` frames after the recorded target of that row; a gripper has a
latency of its own. The released GEM-VLA converter moves pictures only; its keys for arm and gripper are read by nothing
(zhaorw02/GEM, commit 5500948, `GEM-VLA/data/generate_hdf5.py` and `GEM-VLA/train/dataset.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

GRIPPERS = {7: (6,), 14: (6, 13)}
"""Numbers of an action → those that are grippers, of one arm with a wrist of six and of two."""


@dataclass(frozen=True)
class Latency:
    """Delays in whole frames. `gripper_columns` are the actions' numbers that have the gripper's delay.

    By default the last one of each arm where an action has 7 or 14 numbers; for others they must be said.
    """

    camera: int = 0
    arm: int = 0
    gripper: int = 0
    gripper_columns: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if min(self.camera, self.arm, self.gripper) < 0:
            raise ValueError(f"latency: {self} has frames below 0; a picture or command can't come before its cause")

    def length(self, rows: int, pictures: int) -> int:
        """Rows that keep their state, picture and whole action, of so many recorded; 0 if none does."""
        return max(0, min(rows - max(self.arm, self.gripper), pictures - self.camera))

    def picture(self, index: int) -> int:
        """The recorded row whose picture shows the world at row `index`."""
        return index + self.camera

    def actions(self, recorded: Float32[np.ndarray, "N A"], start: int, stop: int) -> Float32[np.ndarray, "T A"]:
        """What has to be commanded at rows `start` <= t < `stop`, of the recorded targets of all rows."""
        columns = recorded.shape[1]
        grippers = GRIPPERS.get(columns) if self.gripper_columns is None else self.gripper_columns
        if grippers is None and self.arm != self.gripper:
            raise ValueError(
                f"latency: an action has {columns} numbers; say which are grippers (gripper_columns, [] for none)"
            )
        if outside := [column for column in grippers or () if not 0 <= column < columns]:
            raise ValueError(f"latency: gripper columns {outside} are not among the {columns} numbers of an action")
        delays = np.full(columns, self.arm)
        delays[list(grippers or ())] = self.gripper
        rows = np.arange(start, stop)[:, None] + delays
        return np.take_along_axis(recorded, rows, axis=0)


NO_LATENCY = Latency()
