"""What a policy begins with: a GEM, plain published parts, or another policy; never less than the recipe asks for.

A start that lacks what a stage needs is refused by name: the release's joint training began with a random connector
because its script forgot the trained one (A17), and skipped weights in silence (A16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from gemvlm.data.tokenizer import load_tokenizer
from gemvlm.inference.load import shipped_checkpoints
from gemvlm.model.gem_vla import GemVla, GemVlaConfig
from gemvlm.model.policy_card import POLICY_FILE, PolicyCard
from gemvlm.model.vla_weights import load_published
from gemvlm.model.weights import SUPERVISION, load_parts, load_weights, read_config, undrawn
from gemvlm.recipes.recipe import Start
from gemvlm.recipes.start import find_start, located
from gemvlm.recipes.vla import VlaRecipe
from gemvlm.runtime import deterministic, get_log

EXPERT = ("expert.",)
PUBLISHED = "expert"
"""The part of a start that others trained: an expert by the authors' names."""


@dataclass(frozen=True)
class PolicyBeginning:
    """Where the weights lie, the backbone that they make, and what of the folder has no place in the policy."""

    backbone: dict[str, Any]
    tokenizer: PreTrainedTokenizerFast
    parts: dict[str, Path]

    @property
    def raw_state(self) -> bool:
        """Whether the expert is one that others trained, which saw the state as it is."""
        return PUBLISHED in self.parts

    def load(self, model: GemVlaConfig, seed: int) -> GemVla:
        """`model` with every tensor as its file has it; what no file has is drawn from `seed`."""
        with deterministic(seed):
            policy = undrawn(lambda: GemVla(model))
            policy.expert.reset_parameters()
            unused = SUPERVISION if model.supervision is None else ()
            if "policy" in self.parts:
                load_weights(policy, self.parts["policy"], unused=unused)
            elif "checkpoint" in self.parts:
                load_weights(policy, self.parts["checkpoint"], new=EXPERT, unused=unused)
            else:
                load_parts(policy, self.parts["qwen"], self.parts.get("sana"), self.parts.get("dc_ae"))
            if PUBLISHED in self.parts:
                load_published(policy, self.parts[PUBLISHED], ("expert",))
        return policy


def find_policy_start(recipe: VlaRecipe, words: Sequence[str]) -> PolicyBeginning | None:
    """Looks at the places of a start; None for random weights. ValueError says what is missing or of another size.

    `expert=PLACE` is an action expert in the authors' layout, which goes on the backbone that the rest names.
    """
    others = [word for word in words if not word.startswith(f"{PUBLISHED}=")]
    experts = [word.partition("=")[2] for word in words if word not in others]
    found = _find_rest(recipe, others)
    if not experts:
        return found
    if len(experts) > 1 or found is None or "policy" in found.parts:
        raise ValueError(
            f"--start {PUBLISHED}={experts[-1]}: an expert needs one backbone that it was trained on; add --start "
            "qwen=PLACE, or the place of a GEM"
        )
    return replace(found, parts={**found.parts, PUBLISHED: located(experts[0])})


def _find_rest(recipe: VlaRecipe, words: Sequence[str]) -> PolicyBeginning | None:
    if recipe.start is None and not words:
        return None
    start = (recipe.start or Start()).given(words)
    if start.checkpoint is not None:
        folder = shipped_checkpoints().get(start.checkpoint) or located(start.checkpoint)
        if (folder / POLICY_FILE).is_file():
            return _policy(recipe, folder)
    if start.checkpoint is None and start.qwen is not None and not recipe.paints:
        folder = located(start.qwen)
        return PolicyBeginning(read_config(folder), load_tokenizer(folder), {"qwen": folder})
    if recipe.paints:
        start = replace(start, trained=tuple({*start.trained, "connector", "generator"}))
    found = find_start(recipe, start)
    return PolicyBeginning(dict(found.model.backbone), found.tokenizer, dict(found.parts))


def _policy(recipe: VlaRecipe, folder: Path) -> PolicyBeginning:
    card = PolicyCard.read(folder)
    if recipe.paints and card.model.supervision is None:
        raise ValueError(
            f"{folder}: a policy without generative supervision, but recipe {recipe.name} learns to paint; begin with "
            "a GEM, or take a recipe of actions alone"
        )
    theirs, ours = (
        card.model.expert,
        replace(recipe.expert, state=card.model.expert.state, action=card.model.expert.action),
    )
    if theirs != ours:
        raise ValueError(
            f"{folder}: its expert is {theirs}, that of recipe {recipe.name} {ours}; take the recipe that it was "
            "trained with"
        )
    get_log().info("beginning with policy %s of step %d", card.recipe, card.step)
    return PolicyBeginning(dict(card.model.backbone), load_tokenizer(folder), {"policy": folder})
