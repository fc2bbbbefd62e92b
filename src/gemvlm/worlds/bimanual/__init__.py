"""Three tasks for two arms with exact depth, in MuJoCo alone (extra `worlds`)."""

from gemvlm.worlds.bimanual.scene import TASKS
from gemvlm.worlds.bimanual.world import BimanualWorld, bimanual_robot

__all__ = ["TASKS", "BimanualWorld", "bimanual_robot"]
