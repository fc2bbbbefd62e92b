"""A task of LIBERO in closed loop, as the official evaluation gives it to policies, and our scripted expert.

Starts 0 to 49 are the official initial states, for tests; those from 1000 on are drawn by LIBERO's own sampler, for
demonstrations. Pictures have their first row at the top. Published data and the policies trained on them have
robosuite's, whose rows run upwards, turned by 180 degrees (Physical-Intelligence/openpi, `examples/libero/main.py`):
that leaves left and right exchanged. `turn` shows them so, and the contract says it. The numbers of actions after which
an episode has failed are those of openvla/openvla, `experiments/robot/libero/run_libero_eval.py` (commit 7ea27426),
which others have taken over; LeRobot plays libero_spatial for 280.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from gemvlm.depth_map import DepthMap
from gemvlm.robot import RobotObservation
from gemvlm.robot.embodiments import mirrored
from gemvlm.robot.embodiments.libero import CONTRACT, official_state
from gemvlm.worlds.libero.expert import LiberoExpert, knows
from gemvlm.worlds.libero.package import stand_ins, versions
from gemvlm.worlds.libero.world import WAITING_STEPS, LiberoWorld
from gemvlm.worlds.mujoco_view import Drawing
from gemvlm.worlds.robot_world import Pictures, checked_action, checked_start

HORIZONS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520}
TESTS = range(50)
DEMONSTRATIONS = range(1000, 1_000_000)
HAND = "robot0_right_hand"
"""The body whose turn robosuite tells as the gripper's."""


class LiberoRobot:
    """Task `index` of `suite`, pictures of `size` pixels a side. A `RobotWorld`.

    `assets` is the folder with LIBERO's meshes and textures; `name` says if some of them are stand-ins, because scores
    with those are not LIBERO scores. ValueError for an unknown suite or index, ImportError without the packages.
    """

    test_starts, demonstration_starts = TESTS, DEMONSTRATIONS

    def __init__(
        self,
        suite: str,
        index: int,
        assets: Path | str,
        size: int = 128,
        turn: bool = False,
        drawing: Drawing = "opengl",
    ) -> None:
        self.world = LiberoWorld(suite, index, assets, drawing=drawing)
        self.missing = stand_ins(assets)
        self.name = f"libero/{suite}/{index}" + (" with stand-in assets" if self.missing else "")
        self.instruction = self.world.instruction
        self.contract = replace(CONTRACT, image_turn="half") if turn else CONTRACT
        self.horizon = HORIZONS[suite]
        self.size, self.turn, self.drawing = size, turn, drawing
        self._expert: LiberoExpert | None = None
        self._steps = 0
        self._pictures = Pictures((), self._draw)

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            "simulator": versions(),
            "drawing": f"{self.drawing}, {self.size} x {self.size}, without shadows",
            "assets": f"{self.missing} files are stand-ins" if self.missing else "LIBERO's own",
            "pictures": "as published, mirrored" if self.turn else "upright",
            "fixtures": "placed anew for each start",
            "waiting steps": str(WAITING_STEPS),
            "horizon": str(self.horizon),
            "success": "at any step, by LIBERO's own predicates",
            "licence": "LicenseRef-LIBERO-assets",
        }

    def reset(self, start: int) -> RobotObservation:
        checked_start(start, (TESTS, DEMONSTRATIONS), self.name)
        self._pictures.expire()
        if start in TESTS:
            self.world.reset(start)
        else:
            self.world.draw(start)
        self._steps = 0
        self._expert = LiberoExpert(self.world) if knows(self.world) else None
        return self._seen()

    def step(self, action: Float[np.ndarray, "A"]) -> tuple[RobotObservation, bool]:
        if self._steps >= self.horizon:
            raise ValueError(f"{self.name}: the episode is over after {self.horizon} actions; reset it")
        moved = checked_action(action, self.contract, self.name)
        self._pictures.expire()
        done = self.world.step(moved)
        self._steps += 1
        return self._seen(), done

    def succeeded(self) -> bool:
        return self.world.succeeded()

    def depths(self) -> dict[str, DepthMap]:
        return self._pictures.depths()

    def expert_action(self) -> Float32[np.ndarray, "7"] | None:
        """Once before each step; None for the tasks that the expert does not know."""
        return None if self._expert is None else self._expert.action().astype(np.float32)

    def close(self) -> None:
        self._expert = None
        self.world.close()

    def _seen(self) -> RobotObservation:
        self._pictures = Pictures(self.contract.cameras, self._draw)
        quaternion = np.roll(self.world.data.body(HAND).xquat, -1)
        state = self.world.state
        told = official_state(state[:3], quaternion, state[6:])
        time_s = self._steps / self.contract.rate_hz
        return RobotObservation(self._pictures, told, self.instruction, self._steps, time_s)

    def _draw(self, camera: str) -> tuple[np.ndarray, DepthMap]:
        view = self.world.named_view(camera, (self.size, self.size))
        image, depth = self.world.view.picture(self.world.data, view)
        if not self.turn:
            return image, depth
        return mirrored(image), replace(depth, values=mirrored(depth.values), valid=mirrored(depth.valid))


def libero_robot(
    suite: str,
    index: int,
    assets: Path | str,
    size: int = 128,
    turn: bool = False,
    drawing: Drawing = "opengl",
) -> LiberoRobot:
    """The task in closed loop; see `LiberoRobot`."""
    return LiberoRobot(suite, index, assets, size, turn, drawing)
