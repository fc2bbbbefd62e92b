"""Meta-World's 50 tabletop tasks with exact depth, ids, poses and contacts (extra `worlds`)."""

from gemvlm.worlds.metaworld.robot import MetaWorldRobot, metaworld_robot
from gemvlm.worlds.metaworld.tasks import ALTERNATIVES, TASKS
from gemvlm.worlds.metaworld.world import MetaWorld

__all__ = ["ALTERNATIVES", "TASKS", "MetaWorld", "MetaWorldRobot", "metaworld_robot"]
