"""Every recipe is complete: what its stages name is there."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from gemvlm import recipes
from gemvlm.curation.questions import FAMILIES
from gemvlm.depth_map import Encoding
from gemvlm.model.gem import GROUPS, Gem
from gemvlm.recipes.data import target_makers
from gemvlm.recipes.recipe import DEVELOPMENT_SEED, TEST_SEED, Recipe

ALL = [recipes.get(name) for name in recipes.names()]
SMALL = [recipe for recipe in ALL if recipe.data is not None and recipe.start is None]
LARGE = [recipe for recipe in ALL if recipe.data is None]
each = pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
each_small = pytest.mark.parametrize("recipe", SMALL, ids=lambda recipe: recipe.name)
each_large = pytest.mark.parametrize("recipe", LARGE, ids=lambda recipe: recipe.name)


def test_an_unknown_recipe_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown recipe 'gem_giga'; there are .*debug.*gem_nano"):
        recipes.get("gem_giga")


@each
def test_a_recipe_is_found_by_its_name_and_frozen(recipe: Recipe) -> None:
    assert recipes.get(recipe.name) is recipe
    with pytest.raises(FrozenInstanceError):
        recipe.seed = 1  # type: ignore[misc]


@each
def test_stages_name_what_is_there(recipe: Recipe) -> None:
    makers = target_makers(recipe)
    assert len({stage.name for stage in recipe.stages}) == len(recipe.stages)
    for stage in recipe.stages:
        assert set(stage.learning_rates) <= set(GROUPS) - {"latents"}
        painted = {name.removesuffix("_prior") for name in stage.loss_weights} - {"text"}
        assert painted == set(stage.targets) <= set(makers)
        assert set(stage.families or ()) <= set(FAMILIES)
        assert ("text" in stage.loss_weights) == (stage.turns_per_sample > 0)


@pytest.mark.parametrize("recipe", [*SMALL, recipes.get("gem_2b"), recipes.get("gem_8b")], ids=lambda r: r.name)
def test_the_papers_stages_train_the_papers_modules(recipe: Recipe) -> None:
    one, two, three = recipe.stages[-3:]
    assert set(one.learning_rates) == {"connector"} and set(one.loss_weights) == {"depth"}
    assert set(two.learning_rates) == {"connector", "generator"} and set(two.loss_weights) == {"depth"}
    assert set(three.learning_rates) == set(GROUPS) - {"latents"}
    assert three.loss_weights == {"text": 1.0, "depth": 0.1}


@each_small
def test_stage_0_speaks_no_depth(recipe: Recipe) -> None:
    first = recipe.stages[0]
    assert set(first.families or ()) == {"describe"} and "depth" not in first.targets


@each
def test_sizes_fit_each_other(recipe: Recipe) -> None:
    patch, merge = recipe.image.patch_size, recipe.image.merge_size
    vision = recipe.model.backbone["vision_config"]
    assert (vision["patch_size"], vision["spatial_merge_size"]) == (patch, merge)
    assert recipe.model.backbone["text_config"]["vocab_size"] == recipe.vocabulary
    assert isinstance(recipe.model.encoding, Encoding)
    if recipe.target is not None:
        assert all(side % recipe.model.latents["patch"] == 0 for side in recipe.target)
    if recipe.data is not None:
        assert recipe.data.scenes <= DEVELOPMENT_SEED < TEST_SEED


def test_the_smallest_recipe_is_small() -> None:
    gem = Gem(recipes.get("debug").model)
    assert sum(parameter.numel() for parameter in gem.parameters()) < 1_000_000


def test_the_papers_numbers() -> None:
    one, two, three = recipes.get("gem_2b").stages
    assert (one.steps, two.steps, recipes.get("gem_2b").epochs) == (500, 4000, 1.0)
    assert (three.learning_rates["language"], three.clip, three.optimizer.weight_decay) == (1e-5, 1.0, 0.0)
    assert three.schedule.shape == "cosine" and three.schedule.warmup == round(0.03 * three.steps)
    assert recipes.get("gem_2b").image.max_pixels == 2_359_296 and recipes.get("gem_2b").max_tokens == 16_384
    assert not recipes.get("gem_8b").model.backbone["tie_word_embeddings"]


def test_the_last_stage_lasts_an_epoch_of_the_set_it_gets_and_keeps_its_share_of_warmup() -> None:
    recipe = recipes.get("gem_2b")
    last = recipe.stages_for(8000)[-1]
    assert last.steps == 250 and last.schedule.warmup == 8
    assert recipe.stages_for(3)[-1].steps == 1
    assert recipes.get("debug").stages_for(10**6) == recipes.get("debug").stages


@each_large
def test_large_recipes_plan_for_eight_gpus_of_80_gb(recipe: Recipe) -> None:
    from gemvlm.recipes.plan import memory_of
    from gemvlm.training.budget import Budget

    budget = Budget(recipe.model)
    planned = [memory_of(recipe, stage, budget, 8).total / 2**30 for stage in recipe.stages]
    assert all(1 < gib < 74 for gib in planned), planned
