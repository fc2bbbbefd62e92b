"""Named, complete, frozen trainings and plans of sets: the only home of the paper's numbers.

Each number is marked: [paper], [code] (the authors' released code) or [ours].
"""

from __future__ import annotations

from gemvlm.curation.plan import Plan
from gemvlm.recipes.recipe import Recipe
from gemvlm.recipes.vla import VlaRecipe


def names() -> list[str]:
    """The recipes there are."""
    return sorted(_all())


def get(name: str) -> Recipe:
    """The recipe of that name, or an error that lists what there is."""
    recipes = _all()
    if name not in recipes:
        raise ValueError(f"unknown recipe {name!r}; there are {', '.join(sorted(recipes))}")
    return recipes[name]


def _all() -> dict[str, Recipe]:
    from gemvlm.recipes.debug import DEBUG
    from gemvlm.recipes.gem_2b import GEM_2B
    from gemvlm.recipes.gem_2b_continue import GEM_2B_CONTINUE
    from gemvlm.recipes.gem_2b_lora import GEM_2B_LORA
    from gemvlm.recipes.gem_8b import GEM_8B
    from gemvlm.recipes.gem_nano import GEM_NANO
    from gemvlm.recipes.gem_nano_one_step import GEM_NANO_GUIDED, GEM_NANO_ONE_STEP
    from gemvlm.recipes.quickstart import QUICKSTART

    small = (GEM_NANO, GEM_NANO_ONE_STEP, GEM_NANO_GUIDED)
    large = (GEM_2B, GEM_8B, GEM_2B_LORA, GEM_2B_CONTINUE)
    return {recipe.name: recipe for recipe in (DEBUG, QUICKSTART, *small, *large)}


def get_policy(name: str) -> VlaRecipe:
    """The recipe of a policy of that name, or an error that lists what there is."""
    from gemvlm.recipes import vla_2b, vla_nano
    from gemvlm.recipes.vla_debug import VLA_DEBUG

    policies = {recipe.name: recipe for recipe in (VLA_DEBUG, *vla_nano.RECIPES, *vla_2b.RECIPES)}
    if name not in policies:
        raise ValueError(f"unknown policy recipe {name!r}; there are {', '.join(sorted(policies))}")
    return policies[name]


def get_plan(name: str) -> Plan:
    """The plan of a set of that name, or an error that lists what there is."""
    from gemvlm.recipes.gem_4m import GEM_4M
    from gemvlm.recipes.robot_worlds import ROBOT_WORLDS
    from gemvlm.recipes.tabletop_100k import TABLETOP_100K

    plans = {plan.name: plan for plan in (GEM_4M, TABLETOP_100K, ROBOT_WORLDS)}
    if name not in plans:
        raise ValueError(f"unknown plan {name!r}; there are {', '.join(sorted(plans))}")
    return plans[name]
