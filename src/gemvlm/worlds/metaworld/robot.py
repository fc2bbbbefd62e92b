"""A task of Meta-World in closed loop: two pictures, the hand's place and how far it is open, and the scripted expert.

The package's own observation holds the places of all things and of the goal; a policy gets none of that. Both cameras
are ours, the right way up: the package's are far away, and two of them hang upside down. They stand on the robot's two
sides at the height of its shoulder, so that a place in the room is a pair of places in the pictures. The one on its
right is where others have moved the package's `corner2` to (huggingface/lerobot, `src/lerobot/envs/metaworld.py`).
Goals show as the package's own pictures show them: a coloured ball, without which some tasks can't be solved by sight.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float32

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.robot import RobotObservation
from gemvlm.robot.embodiments.metaworld import CONTRACT
from gemvlm.worlds.metaworld.tasks import TASKS
from gemvlm.worlds.metaworld.world import MetaWorld
from gemvlm.worlds.mujoco_view import Drawing
from gemvlm.worlds.robot_world import Pictures, checked_action, checked_start
from gemvlm.worlds.viewpoints import look_at

EYES = {"right": (0.75, 0.075, 0.7), "left": (-0.75, 0.075, 0.7)}
AIM = (0.0, 0.66, 0.12)
"""The middle of what the hand can reach, in metres."""
FIELD_DEG = 46.0
TESTS = range(100, 1000)
"""The seeds below belong to the questions about these scenes that a backbone may have learned from."""
DEMONSTRATIONS = range(1000, 1_000_000)


class MetaWorldRobot:
    """Task `task`, pictures of `size` pixels a side. A `RobotWorld`: a start is the seed of the things' places.

    The state is the hand's place in metres and the gripper's opening from 0 to 1, an action three steps of at most 1 cm
    (as shares of it, -1 to 1) and the gripper's effort. ValueError for an unknown task, ImportError without the
    package, or without OSMesa where `drawing` is "opengl".
    """

    contract = CONTRACT
    test_starts, demonstration_starts = TESTS, DEMONSTRATIONS

    def __init__(self, task: str, size: int = 96, drawing: Drawing = "opengl") -> None:
        self.name = f"metaworld/{task}"
        self.world = MetaWorld(task, drawing=drawing, goal_mark=True)
        self.instruction = TASKS[task].instruction
        self.horizon = self.world.horizon
        self.size, self.drawing = size, drawing
        camera = Camera.from_fov(size, size, FIELD_DEG)
        self.views = {name: View(camera, look_at(np.array(eye), np.array(AIM))) for name, eye in EYES.items()}
        self._steps = 0
        self._pictures = Pictures((), self._draw)

    @property
    def protocol(self) -> Mapping[str, str]:
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("metaworld", "mujoco"))
        return {
            "simulator": versions,
            "drawing": f"{self.drawing}, {self.size} x {self.size}, goal marks shown",
            "horizon": str(self.horizon),
            "success": "at any step, by the package's own rule",
            "licence": "mit",
        }

    def reset(self, start: int) -> RobotObservation:
        checked_start(start, (TESTS, DEMONSTRATIONS), self.name)
        self._pictures.expire()
        self.world.reset(start)
        self._steps = 0
        return self._seen()

    def step(self, action: Float[np.ndarray, "A"]) -> tuple[RobotObservation, bool]:
        if self._steps >= self.horizon:
            raise ValueError(f"{self.name}: the episode is over after {self.horizon} actions; reset it")
        moved = checked_action(action, CONTRACT, self.name)
        self._pictures.expire()
        done = self.world.step(moved)
        self._steps += 1
        return self._seen(), done

    def succeeded(self) -> bool:
        return self.world.succeeded()

    def depths(self) -> dict[str, DepthMap]:
        return self._pictures.depths()

    def expert_action(self) -> Float32[np.ndarray, "4"]:
        return self.world.expert_action().astype(np.float32)

    def close(self) -> None:
        self.world.close()

    def _seen(self) -> RobotObservation:
        self._pictures = Pictures(CONTRACT.cameras, self._draw)
        state = self.world.state[: len(CONTRACT.state_names)].astype(np.float32)
        return RobotObservation(self._pictures, state, self.instruction, self._steps, self._steps / CONTRACT.rate_hz)

    def _draw(self, camera: str) -> tuple[np.ndarray, DepthMap]:
        return self.world.view.picture(self.world.data, self.views[camera])


def metaworld_robot(task: str, size: int = 96, drawing: Drawing = "opengl") -> MetaWorldRobot:
    """The task in closed loop; see `MetaWorldRobot`."""
    return MetaWorldRobot(task, size, drawing)
