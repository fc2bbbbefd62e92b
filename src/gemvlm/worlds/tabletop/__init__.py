"""A seeded tabletop with exact metric depth, ids, poses and support relations (extra `worlds`)."""

from gemvlm.worlds.tabletop.generate import generate_views
from gemvlm.worlds.tabletop.histories import Episode, follow_plan, handle, look_around, walk_past
from gemvlm.worlds.tabletop.layout import SceneConfig
from gemvlm.worlds.tabletop.new_shapes import NEW_CATEGORIES
from gemvlm.worlds.tabletop.scene import TabletopScene, build_scene
from gemvlm.worlds.tabletop.shapes import CATEGORIES
from gemvlm.worlds.tabletop.surface import COLOURS, NEW_PATTERNS

__all__ = [
    "CATEGORIES",
    "COLOURS",
    "NEW_CATEGORIES",
    "NEW_PATTERNS",
    "Episode",
    "SceneConfig",
    "TabletopScene",
    "build_scene",
    "follow_plan",
    "generate_views",
    "handle",
    "look_around",
    "walk_past",
]
