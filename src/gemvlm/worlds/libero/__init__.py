"""LIBERO's four suites of ten tasks with exact depth, ids, poses, contacts and goals (`make worlds-libero`)."""

from gemvlm.worlds.libero.package import SUITES, stand_ins, task_names, versions
from gemvlm.worlds.libero.robot import LiberoRobot, libero_robot
from gemvlm.worlds.libero.world import Goal, LiberoWorld

__all__ = ["SUITES", "Goal", "LiberoRobot", "LiberoWorld", "libero_robot", "stand_ins", "task_names", "versions"]
