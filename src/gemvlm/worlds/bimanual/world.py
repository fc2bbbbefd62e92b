"""Three small tasks for two arms in MuJoCo alone: lift a tray level, hand a stick over, put a peg into a held block.

Both arms take the paper's fourteen numbers: for each hand its place (metres), its turn as a rotation vector (radians)
and the width between its fingers (metres), all absolute, in the table's frame. A hand goes at most `SPEED_M_S` and
`SPEED_RAD_S`, and not out of its own half of the table, so neither can do a task alone.
"""

from __future__ import annotations

import importlib.metadata
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.robot import RobotObservation
from gemvlm.robot.embodiments.bimanual import CONTRACT
from gemvlm.robot.rotations import from_matrix, to_matrix
from gemvlm.worlds.bimanual.expert import BimanualExpert
from gemvlm.worlds.bimanual.scene import (
    ARMS,
    FINGER_M,
    HOMES,
    INSTRUCTIONS,
    OPEN_M,
    PIECES,
    RATE_HZ,
    STEPS_PER_ACTION,
    TASKS,
    build,
)
from gemvlm.worlds.mujoco_view import Drawing, MujocoView, Thing, geoms_of, subtree
from gemvlm.worlds.robot_world import Pictures, checked_action, checked_start
from gemvlm.worlds.viewpoints import look_at

SPEED_M_S, SPEED_RAD_S = 0.6, 2.5
REACH = {"left": ((-0.42, -0.28, 0.006), (0.09, 0.28, 0.40)), "right": ((-0.09, -0.28, 0.006), (0.42, 0.28, 0.40))}
"""Lowest and highest places of each hand, metres."""
EYES = {"front": ((0.0, -0.70, 0.50), (0.0, 0.04, 0.09)), "top": ((0.0, -0.02, 0.92), (0.0, 0.04, 0.0))}
FIELD_DEG = 46.0
HORIZON = 360
SETTLING_STEPS = 10
TESTS, DEMONSTRATIONS = range(100, 1000), range(1000, 1_000_000)
PAD_M = (0.10, 0.06)
LIFTED_M, LEVEL_COS, HELD_M, INSERTED_M, INSIDE_M = 0.10, 0.96, 0.04, 0.02, 0.014


class BimanualWorld:
    """Task `task`, pictures of `size` pixels a side. A `RobotWorld`: a start is the seed of where things lie.

    ValueError for an unknown task, ImportError without MuJoCo (or, for `drawing` "opengl", without OSMesa).
    """

    contract = CONTRACT
    test_starts, demonstration_starts = TESTS, DEMONSTRATIONS

    def __init__(self, task: str, size: int = 96, drawing: Drawing = "plain") -> None:
        if task not in TASKS:
            raise ValueError(f"there is no bimanual task {task!r}; choose from {TASKS}")
        self.task, self.name, self.instruction = task, f"bimanual/{task}", INSTRUCTIONS[task]
        self.horizon, self.size, self.drawing = HORIZON, size, drawing
        self.model = build(task)
        import mujoco

        self.data: Any = mujoco.MjData(self.model)
        self.view = MujocoView(self.model, _things(self.model, task), frozenset({0}), "bimanual", drawing)
        camera = Camera.from_fov(size, size, FIELD_DEG)
        self.views = {name: View(camera, look_at(np.array(eye), np.array(aim))) for name, (eye, aim) in EYES.items()}
        self._steps, self._done = 0, False
        self._pictures = Pictures((), self._draw)
        self._expert: BimanualExpert | None = None

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            "simulator": f"mujoco {importlib.metadata.version('mujoco')}",
            "drawing": f"{self.drawing}, {self.size} x {self.size}",
            "horizon": str(self.horizon),
            "success": "at any step, by geometry",
            "licence": "cc0-1.0",
        }

    def reset(self, start: int) -> RobotObservation:
        import mujoco

        checked_start(start, (TESTS, DEMONSTRATIONS), self.name)
        self._pictures.expire()
        mujoco.mj_resetData(self.model, self.data)
        self._lay_out(np.random.default_rng((start, zlib.crc32(self.task.encode()))))
        for arm in ARMS:
            self._aim(arm, np.array(HOMES[arm]), np.diag([1.0, -1.0, -1.0]), OPEN_M)
        for _ in range(SETTLING_STEPS * STEPS_PER_ACTION):
            mujoco.mj_step(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)
        self._steps, self._done, self._expert = 0, False, BimanualExpert(self)
        return self._seen()

    def step(self, action: Float[np.ndarray, "A"]) -> tuple[RobotObservation, bool]:
        import mujoco

        if self._steps >= self.horizon:
            raise ValueError(f"{self.name}: the episode is over after {self.horizon} actions; reset it")
        wanted = checked_action(action, CONTRACT, self.name).reshape(2, 7)
        self._pictures.expire()
        for arm, (*place, rx, ry, rz, width) in zip(ARMS, wanted, strict=True):
            self._approach(arm, np.array(place), to_matrix(np.array([rx, ry, rz]), "axis_angle"), float(width))
        for _ in range(STEPS_PER_ACTION):
            mujoco.mj_step(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)
        self._steps += 1
        self._done = self._judged()
        return self._seen(), self._done

    def succeeded(self) -> bool:
        return self._done

    def depths(self) -> dict[str, DepthMap]:
        return self._pictures.depths()

    def expert_action(self) -> Float32[np.ndarray, "14"]:
        """Once before each step."""
        assert self._expert is not None, "reset first"
        return self._expert.action().astype(np.float32)

    def close(self) -> None:
        self.view.close()

    def hand(self, arm: str) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"], float]:
        """Place and turn of a hand, and the width between its fingers."""
        site = self.data.site(f"{arm}_hand")
        width = float(self.data.joint(f"{arm}_low").qpos[0] + self.data.joint(f"{arm}_high").qpos[0])
        return site.xpos.copy(), site.xmat.reshape(3, 3).copy(), width

    def thing(self, name: str) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"]]:
        """Place and turn of a thing's frame, which lies in its underside."""
        body = self.data.body(name)
        return body.xpos.copy(), body.xmat.reshape(3, 3).copy()

    def touched(self, name: str) -> bool:
        """Whether a hand touches the thing now."""
        mine = {i + 1 for i, thing in enumerate(self.view.things) if thing.category == name}
        hands = {i + 1 for i, thing in enumerate(self.view.things) if thing.holder}
        return any(set(pair) & mine and set(pair) & hands for pair in self.view.touching(self.data))

    def _seen(self) -> RobotObservation:
        self._pictures = Pictures(CONTRACT.cameras, self._draw)
        state = []
        for arm in ARMS:
            place, turn, width = self.hand(arm)
            state.append(np.concatenate([place, from_matrix(turn, "axis_angle"), [width]]))
        told = np.concatenate(state).astype(np.float32)
        return RobotObservation(self._pictures, told, self.instruction, self._steps, self._steps / RATE_HZ)

    def _draw(self, camera: str) -> tuple[np.ndarray, DepthMap]:
        return self.view.picture(self.data, self.views[camera])

    def _approach(self, arm: str, place: Float[np.ndarray, "3"], turn: Float[np.ndarray, "3 3"], width: float) -> None:
        """One action's way towards a pose, no faster than a hand may go and not beyond its reach."""
        goal = self.data.mocap_pos[self._goal(arm)]
        turn_now = to_matrix(self.data.mocap_quat[self._goal(arm)], "quaternion_wxyz")
        place_now = goal + turn_now @ [0.0, 0.0, FINGER_M]
        low, high = REACH[arm]
        way = np.clip(place, low, high) - place_now
        way *= min(1.0, SPEED_M_S / RATE_HZ / max(float(np.linalg.norm(way)), 1e-9))
        bend = from_matrix(turn @ turn_now.T, "axis_angle")
        bend *= min(1.0, SPEED_RAD_S / RATE_HZ / max(float(np.linalg.norm(bend)), 1e-9))
        self._aim(arm, place_now + way, to_matrix(bend, "axis_angle") @ turn_now, width)

    def _aim(self, arm: str, place: Float[np.ndarray, "3"], turn: Float[np.ndarray, "3 3"], width: float) -> None:
        index = self._goal(arm)
        self.data.mocap_pos[index] = place - turn @ [0.0, 0.0, FINGER_M]
        self.data.mocap_quat[index] = from_matrix(turn, "quaternion_wxyz")
        self.data.actuator(f"{arm}_grip").ctrl[0] = np.clip(width, 0, OPEN_M) / 2

    def _goal(self, arm: str) -> int:
        return int(self.model.body_mocapid[self.model.body(f"{arm}_goal").id])

    def _lay_out(self, rng: np.random.Generator) -> None:
        """Where the things of the task lie, turned a little."""
        if self.task == "lift-tray":
            place, yaw = rng.uniform([-0.04, 0.0], [0.04, 0.10]), float(rng.uniform(-0.25, 0.25))
            self._put("tray", place, 0.001, yaw)
            spot = place + _turned(rng.uniform([-0.06, -0.04], [0.06, 0.04]), yaw)
            self._put("cube", spot, 0.010, float(rng.uniform(-0.7, 0.7)))
        elif self.task == "hand-over":
            self._put("stick", rng.uniform([-0.28, -0.02], [-0.22, 0.12]), 0.001, float(rng.uniform(-0.4, 0.4)))
            self.model.body("pad").pos[:2] = rng.uniform([0.20, -0.04], [0.28, 0.12])
        else:
            self._put("block", rng.uniform([-0.12, -0.02], [-0.06, 0.10]), 0.001, float(rng.uniform(-0.3, 0.3)))
            self._put("peg", rng.uniform([0.14, -0.04], [0.26, 0.12]), 0.001, float(rng.uniform(-0.4, 0.4)))

    def _put(self, name: str, place: Float[np.ndarray, "2"], height: float, yaw: float) -> None:
        address = self.model.jnt_qposadr[self.model.body_jntadr[self.model.body(name).id]]
        turn = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        self.data.qpos[address : address + 7] = [*place, height, *turn]

    def _judged(self) -> bool:
        if self.task == "lift-tray":
            place, turn = self.thing("tray")
            cube = (self.thing("cube")[0] - place) @ turn
            carried = abs(cube[0]) < 0.125 and abs(cube[1]) < 0.085 and 0.0 < cube[2] < 0.03
            return bool(place[2] > LIFTED_M and turn[2, 2] > LEVEL_COS and carried)
        if self.task == "hand-over":
            away = self.thing("stick")[0] - self.data.body("pad").xpos
            return bool(np.abs(away[0]) < 0.10 and np.abs(away[1]) < 0.06 and away[2] < 0.02) and not self.touched(
                "stick"
            )
        block, turn = self.thing("block")
        tip = (self.thing("peg")[0] - block) @ turn
        inside = abs(tip[0]) < INSIDE_M and abs(tip[1]) < INSIDE_M and -0.03 < tip[2] < 0.05 - INSERTED_M
        return bool(inside and block[2] > HELD_M)


def bimanual_robot(task: str, size: int = 96, drawing: Drawing = "plain") -> BimanualWorld:
    """The task in closed loop; see `BimanualWorld`."""
    return BimanualWorld(task, size, drawing)


def _turned(place: Float[np.ndarray, "2"], yaw: float) -> Float[np.ndarray, "2"]:
    return np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]) @ place


def _things(model: Any, task: str) -> list[Thing]:
    """The table, both hands and the pieces of the task."""
    named = [("table", "table", "white", False, False)]
    named += [
        (f"{arm}_palm", "gripper", colour, False, True) for arm, colour in zip(ARMS, ("orange", "blue"), strict=True)
    ]
    named += [(piece.name, piece.category, piece.colour, piece.movable, False) for piece in PIECES[task]]
    things = []
    for body, category, colour, movable, holder in named:
        root = model.body(body).id
        things.append(Thing(category, colour, geoms_of(model, subtree(model, root)), root, movable, holder))
    return things
