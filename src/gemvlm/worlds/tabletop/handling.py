"""A scene whose objects are handled: picked up, carried, put down, dropped, pushed, with physics after every act.

No gripper is drawn: what is carried moves through the air by itself, along the path of a careful hand (straight up,
across, straight down), and is let go. Whether it then stands, topples or brings down a stack is up to the simulation.
"""

from __future__ import annotations

import copy

import mujoco
import numpy as np
from jaxtyping import Float

from gemvlm.worlds.tabletop.interact import PUSH_SPEED_M_S
from gemvlm.worlds.tabletop.layout import DROP_M, GAP_M
from gemvlm.worlds.tabletop.scene import MAX_SETTLE_S, REST_SPEED, SETTLE_S, TabletopScene

CARRY_SPEED_M_S = 0.2
PATH_STEP_M = 0.015
"""Between the places at which a carried object is tested for collisions."""
CLEAR_M = 0.04
"""A carried object's underside passes this far above everything on its way."""
LIFT_M = 0.1
"""At least: what has been picked up is seen to be in the air."""
PENETRATION_M = 1e-3
UPRIGHT = np.cos(np.radians(15))


class Handling:
    """Carries out acts on a copy of a scene, which itself stays as it is. `time_s` is the time that they have taken.

    Every act returns False, and leaves the copy of no further use, if something was in the way.
    """

    def __init__(self, scene: TabletopScene) -> None:
        self.scene = scene
        self.data = copy.copy(scene.data)
        self.time_s = 0.0
        self.held: int | None = None
        self._turn = np.array([1.0, 0.0, 0.0, 0.0])

    def now(self) -> TabletopScene:
        """The scene as it is at this moment."""
        return self.scene.changed(copy.copy(self.data))

    def position(self, object_id: int) -> Float[np.ndarray, "3"]:
        return self.data.xpos[object_id].copy()

    def pick(self, object_id: int) -> bool:
        """Lifts what stands free until it is clear of everything around, and holds it there."""
        start = self.position(object_id)
        self.held = object_id
        self._turn = self.data.xquat[object_id].copy()
        lifted = start + _up(max(LIFT_M, self._clearance(object_id, start, start)))
        return self._carry([start + _up(GAP_M), lifted]) and self.let_rest(0.1)

    def carry_over(self, spot: Float[np.ndarray, "3"]) -> bool:
        """Carries what is held to a place above `spot`, high enough to pass everything on the way."""
        assert self.held is not None
        here = self.position(self.held)
        over = max(here[2], here[2] + self._clearance(self.held, here, spot))
        return self._carry([np.array([*here[:2], over]), np.array([*spot[:2], over])])

    def put(self, spot: Float[np.ndarray, "3"], height_m: float = 0.0) -> bool:
        """Lowers what is held above `spot`, until its underside is `height_m` above it, and lets go."""
        assert self.held is not None
        bottom = float(self.scene.layout.objects[self.held - 1].shape.half_extents[2])
        if not self._carry([spot + _up(bottom + DROP_M + max(height_m, GAP_M))]):
            return False
        self._pose(spot + _up(bottom + DROP_M + height_m))
        self.held = None
        return self.let_rest()

    def shove(self, object_id: int, direction_xy: Float[np.ndarray, "2"], distance_m: float) -> None:
        """Moves it at a steady speed over `distance_m` along a unit direction of the table; `let_rest` comes after."""
        velocity = self.scene.model.jnt_dofadr[self.scene.model.body_jntadr[object_id]]
        for _ in range(round(distance_m / PUSH_SPEED_M_S / self.scene.model.opt.timestep)):
            self.data.qvel[velocity : velocity + 2] = direction_xy * PUSH_SPEED_M_S
            self._step()

    def let_rest(self, least_s: float = SETTLE_S) -> bool:
        """Lets physics run until all is at rest; False if it never is, or if something has left the table."""
        place = None if self.held is None else self.position(self.held)
        began, calm = self.data.time, False
        while not calm and self.data.time - began < MAX_SETTLE_S:
            self._step()
            if place is not None:
                self._pin(place)
            calm = self.data.time - began >= least_s and bool(np.abs(self.data.qvel).max() < REST_SPEED)
        self.data.qvel[:] = 0
        mujoco.mj_forward(self.scene.model, self.data)
        objects = range(1, len(self.scene.layout.objects) + 1)
        return calm and all(self.is_on_table(i) for i in objects)

    def is_upright(self, object_id: int) -> bool:
        return bool(self.data.xmat[object_id].reshape(3, 3)[2, 2] > UPRIGHT)

    def is_on_table(self, object_id: int) -> bool:
        """Above the table, within its edges."""
        x, y, z = self.data.xpos[object_id]
        half_x, half_y = self.scene.layout.table_half
        return bool(abs(x) < half_x and abs(y) < half_y and z > self.scene.layout.table_height_m)

    def _carry(self, path: list[Float[np.ndarray, "3"]]) -> bool:
        assert self.held is not None
        for corner in path:
            here = self.position(self.held)
            length = float(np.linalg.norm(corner - here))
            steps = max(1, int(np.ceil(length / PATH_STEP_M)))
            for step in range(1, steps + 1):
                self._pose(here + (corner - here) * step / steps)
                if self._touches(self.held):
                    return False
            self.time_s += length / CARRY_SPEED_M_S
        return True

    def _pose(self, position: Float[np.ndarray, "3"]) -> None:
        """Puts what is held there, at rest, turned as it was when it was picked up."""
        self._pin(position)
        mujoco.mj_forward(self.scene.model, self.data)

    def _pin(self, position: Float[np.ndarray, "3"]) -> None:
        model = self.scene.model
        joint = model.body_jntadr[self.held]
        pose, velocity = model.jnt_qposadr[joint], model.jnt_dofadr[joint]
        self.data.qpos[pose : pose + 3], self.data.qpos[pose + 3 : pose + 7] = position, self._turn
        self.data.qvel[velocity : velocity + 6] = 0

    def _touches(self, body: int) -> bool:
        """Something is inside it by more than the give of a contact."""
        bodies = self.scene.model.geom_bodyid[self.data.contact.geom]
        return bool(np.any((bodies == body).any(axis=1) & (self.data.contact.dist < -PENETRATION_M)))

    def _step(self) -> None:
        mujoco.mj_step(self.scene.model, self.data)
        self.time_s += self.scene.model.opt.timestep

    def _clearance(self, object_id: int, here: Float[np.ndarray, "3"], there: Float[np.ndarray, "3"]) -> float:
        """How much higher the object must be to pass over everything between two places."""
        reach = self.scene.layout.objects[object_id - 1].shape.footprint_radius
        bottom = here[2] - self.scene.layout.objects[object_id - 1].shape.half_extents[2]
        along = there[:2] - here[:2]
        length = max(float(np.linalg.norm(along)), 1e-9)
        highest = self.scene.layout.table_height_m
        for index, body in enumerate(self.scene.layout.objects):
            if index + 1 == object_id or body.mount == "hang":
                continue
            centre = self.data.xpos[index + 1]
            share = np.clip((centre[:2] - here[:2]) @ along / length**2, 0, 1)
            if np.linalg.norm(here[:2] + share * along - centre[:2]) < reach + body.shape.footprint_radius + GAP_M:
                half = body.shape.half_extents
                highest = max(highest, float(centre[2] + np.abs(self.data.xmat[index + 1][6:9]) @ half))
        for body in self.scene.layout.structures:
            front = body.position[1] - body.shape.half_extents[1]
            if body.category == "shelf" and max(here[1], there[1]) + reach > front:
                highest = max(highest, float(body.position[2] + body.shape.half_extents[2]))
        return max(highest + CLEAR_M - bottom, 0.0)


def _up(length_m: float) -> Float[np.ndarray, "3"]:
    return np.array([0.0, 0.0, length_m])
