"""What a policy's recipe is: a Gem's recipe, an action expert on it, a robot, and how its episodes are shown."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from gemvlm.data.actions import Augmentation
from gemvlm.data.actions.dataset import Told
from gemvlm.model.action_expert import ExpertConfig
from gemvlm.model.gem_vla import GemVlaConfig, SupervisionConfig
from gemvlm.recipes.recipe import Recipe
from gemvlm.robot.statistics import Method

WORDS, ACTION = "text", "action"
"""Losses that paint nothing."""


@dataclass(frozen=True, kw_only=True)
class VlaRecipe(Recipe):
    """A policy's training. The fields of `Recipe` say what it stands on; `data` is None, as episodes are always given.

    `expert` holds the sizes but those of states and actions, which are the embodiment's. The action loss's gradient
    enters the backbone times `backbone_gradient`. `embodiment` names the robot; a run may name another. A share
    `held_out` of the episodes is never learned from, and errors are measured on it. `told` and `every` are those of
    `EpisodeDataset`, the noise, augmentation and hidden shares those of `ActionCollator`. Of a step's samples a share
    `text_share` comes from a set of `gemvlm curate`, where a stage has the loss "text". A chunk is made in `flow_steps`
    Euler steps, `executed` of its actions are carried out.
    """

    expert: ExpertConfig
    backbone_gradient: float
    embodiment: str
    normalisation: Method
    flow_steps: int
    executed: int
    draws: int = 1
    condition_dropout: float = 0.0
    guidance: float = 1.0
    held_out: float = 0.1
    told: Told = "task"
    every: int = 1
    state_noise: float = 0.0
    augmentation: Augmentation | None = None
    hidden_images: float = 0.0
    hidden_words: float = 0.0
    text_share: float = 0.0
    system: str | None = None

    def __post_init__(self) -> None:
        text = any(WORDS in stage.loss_weights for stage in self.stages)
        if text != (self.text_share > 0):
            raise ValueError(
                f"recipe {self.name}: a text_share of {self.text_share} and {'a' if text else 'no'} stage with the "
                f"loss {WORDS!r}; give both or neither"
            )
        if not 1 <= self.executed <= self.expert.horizon or self.flow_steps < 1:
            raise ValueError(
                f"recipe {self.name}: {self.executed} actions of a chunk of {self.expert.horizon} in {self.flow_steps} "
                "steps; carry out at least one and at most all of them"
            )

    @property
    def paints(self) -> bool:
        """Whether a stage learns to paint, so that the policy carries generative supervision."""
        return any(set(stage.loss_weights) - {WORDS, ACTION} for stage in self.stages)

    def policy(self, state: int, action: int, backbone: dict[str, Any] | None = None) -> GemVlaConfig:
        """The model for a robot with so many numbers, on `backbone` if it is not the recipe's own."""
        return GemVlaConfig(
            backbone=self.model.backbone if backbone is None else backbone,
            expert=replace(self.expert, state=state, action=action),
            supervision=SupervisionConfig.of(self.model) if self.paints else None,
            backbone_gradient=self.backbone_gradient,
            condition_dropout=self.condition_dropout,
            draws=self.draws,
        )


def on(gem: Recipe, **changes: Any) -> VlaRecipe:
    """A policy's recipe with the conventions of a Gem's."""
    values = {field.name: getattr(gem, field.name) for field in fields(Recipe)}
    return VlaRecipe(**{**values, "data": None, "epochs": None, **changes})
