"""A trained checkpoint's generator is taught to paint otherwise; everything else stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemvlm.inference import load
from gemvlm.model.weights import named_tensors
from gemvlm.recipes import get
from gemvlm.recipes.debug import DEBUG
from gemvlm.recipes.gem_nano_one_step import repainted
from gemvlm.recipes.run import train_recipe
from gemvlm.recipes.start import find_start


@pytest.mark.parametrize(
    ("kind", "more"), [("sana_one_step", {}), ("sana_guided", {"guidance": 2.0})], ids=["one step", "guided"]
)
def test_only_connector_and_generator_learn(kind, more, debug_run: Path, tmp_path: Path) -> None:
    recipe = repainted(DEBUG, f"debug_{kind}", str(debug_run / "final"), 12, kind=kind, **more)
    assert train_recipe(recipe, tmp_path, data=debug_run / "data", device="cpu")
    before, after = load(debug_run / "final", "cpu"), load(tmp_path / "final", "cpu")
    assert after.card.model.generator["kind"] == kind
    old, new = named_tensors(before.gem), named_tensors(after.gem)
    changed = {name.split(".")[0] for name in old if not bool((old[name] == new[name]).all())}
    assert changed and not changed & {"model", "lm_head", "backbone"}
    if kind == "sana_one_step":
        image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        found = [after.depth(image, steps=steps, seed=steps).depth.values for steps in (1, 30)]
        assert np.array_equal(*found)


def test_the_named_variants_of_nano_begin_with_the_shipped_one() -> None:
    for name, kind in (("gem_nano_one_step", "sana_one_step"), ("gem_nano_guided", "sana_guided")):
        recipe = get(name)
        begun = find_start(recipe, recipe.start)
        assert begun.model.generator == recipe.model.generator and begun.model.generator["kind"] == kind
