"""quickstart: learn from RGB-D scenes, answer, paint depth and report, within minutes on two CPU cores."""

from __future__ import annotations

import dataclasses

from gemvlm.recipes.gem_nano import GEM_NANO
from gemvlm.recipes.recipe import Recipe, TabletopData

QUICKSTART: Recipe = dataclasses.replace(
    GEM_NANO,
    name="quickstart",
    data=TabletopData(scenes=200, views_per_scene=4, size=(96, 96), turns_per_family=2),
)
