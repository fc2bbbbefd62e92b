"""Worlds for policies by name: `metaworld/reach-v3`, `libero/libero_object/3`, `bimanual/hand-over`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gemvlm.worlds.mujoco_view import Drawing
from gemvlm.worlds.robot_world import RobotWorld


@dataclass(frozen=True)
class WorldMaker:
    """Makes worlds whose pictures have `size` pixels a side, in any process: call it with a name.

    LIBERO needs `assets`, the folder of its meshes and textures; `turn` turns its pictures as published data are.
    """

    size: int = 96
    drawing: Drawing = "opengl"
    assets: Path | None = None
    turn: bool = False

    def __call__(self, name: str) -> RobotWorld:
        """ValueError for a name that no world has; ImportError where its packages are missing."""
        simulator, _, task = name.partition("/")
        if simulator == "metaworld":
            from gemvlm.worlds.metaworld.robot import metaworld_robot

            return metaworld_robot(task, self.size, self.drawing)
        if simulator == "bimanual":
            from gemvlm.worlds.bimanual import bimanual_robot

            return bimanual_robot(task, self.size, self.drawing)
        suite, _, index = task.partition("/")
        if simulator != "libero" or not index.isdecimal():
            raise ValueError(f"{name!r} names no world; write metaworld/TASK, libero/SUITE/INDEX or bimanual/TASK")
        if self.assets is None:
            raise ValueError(f"{name}: LIBERO needs the folder of its assets (libero/libero/assets); give it")
        from gemvlm.worlds.libero.robot import libero_robot

        return libero_robot(suite, int(index), self.assets, self.size, self.turn, self.drawing)
