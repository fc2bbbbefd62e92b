"""What would happen if: one step of interaction simulated on a copy of a scene's state."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float

AFTERMATH_S = 1.0
PUSH_SPEED_M_S = 0.25
FAR_AWAY_M = np.array([100.0, 0.0, 50.0])
"""Where a body that is taken away goes: it falls there for a second without meeting anything."""


def settle(model: Any, data: Any, least_s: float, most_s: float, rest_speed: float) -> None:
    """Steps at least `least_s` seconds, then until every velocity is below `rest_speed` or `most_s` have passed."""
    while data.time < most_s:
        mujoco.mj_step(model, data)
        if data.time >= least_s and (model.nv == 0 or np.abs(data.qvel).max() < rest_speed):
            break
    data.qvel[:] = 0
    mujoco.mj_forward(model, data)


def take_away(model: Any, data: Any, body: int, others: Sequence[int]) -> dict[int, float]:
    """Displacement in metres of the centres of `others` one second after `body` has gone."""
    after = copy.copy(data)
    start = data.xpos.copy()
    if model.body_jntnum[body]:
        address = model.jnt_qposadr[model.body_jntadr[body]]
        after.qpos[address : address + 3] = FAR_AWAY_M
    _run(model, after, AFTERMATH_S)
    return _displacements(after, start, others)


def push(
    model: Any, data: Any, body: int, direction_xy: Float[np.ndarray, "2"], distance_m: float, others: Sequence[int]
) -> dict[int, float]:
    """Moves `body` at a steady speed over `distance_m` along a unit direction, then lets everything rest."""
    after = copy.copy(data)
    start = data.xpos.copy()
    joint = model.body_jntadr[body]
    velocity = model.jnt_dofadr[joint]
    for _ in range(round(distance_m / PUSH_SPEED_M_S / model.opt.timestep)):
        after.qvel[velocity : velocity + 2] = direction_xy * PUSH_SPEED_M_S
        mujoco.mj_step(model, after)
    after.qvel[velocity : velocity + 6] = 0
    _run(model, after, AFTERMATH_S)
    return _displacements(after, start, others)


def _run(model: Any, data: Any, seconds: float) -> None:
    for _ in range(round(seconds / model.opt.timestep)):
        mujoco.mj_step(model, data)


def _displacements(data: Any, start: np.ndarray, bodies: Sequence[int]) -> dict[int, float]:
    return {body: float(np.linalg.norm(data.xpos[body] - start[body])) for body in bodies}
