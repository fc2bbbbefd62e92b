"""The parts of a policy, in plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gemvlm.depth_map import Encoding
from gemvlm.model.config import GemConfig, fields_of
from gemvlm.model.expert_config import ExpertConfig


@dataclass(frozen=True)
class SupervisionConfig:
    """The generative supervision that a policy carries: `GemConfig`'s fields without the backbone."""

    generator: Mapping[str, Any]
    latents: Mapping[str, Any]
    encoding: Encoding
    shift: float
    condition_dropout: float
    training_steps: int = 1000

    def __post_init__(self) -> None:
        self.gem({})

    def gem(self, backbone: Mapping[str, Any]) -> GemConfig:
        """The Gem of this supervision on a backbone."""
        return GemConfig(backbone, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)})

    @classmethod
    def of(cls, gem: GemConfig) -> SupervisionConfig:
        return cls(**{f.name: getattr(gem, f.name) for f in dataclasses.fields(cls)})


@dataclass(frozen=True)
class GemVlaConfig:
    """The parts of a policy.

    `backbone`   keyword arguments of transformers' `Qwen3VLConfig`
    `supervision`  what paints targets from the backbone's states in joint training; None: nothing does
    `backbone_gradient`  the factor of the action loss's gradient into the backbone: 0 keeps it out, 1 lets it pass
    `condition_dropout`  share of training draws whose expert sees zeros in place of the observation, for guidance; the
                 tokens stay where they are (B6: the release took images out of the prompt, and used no guidance)
    `draws`      noises and times drawn for each observation: the backbone, the dearer part, runs once for all
    """

    backbone: Mapping[str, Any]
    expert: ExpertConfig
    supervision: SupervisionConfig | None
    backbone_gradient: float
    condition_dropout: float = 0.0
    draws: int = 1

    def __post_init__(self) -> None:
        if self.backbone_gradient < 0 or not 0 <= self.condition_dropout < 1 or self.draws < 1:
            raise ValueError(
                f"backbone_gradient={self.backbone_gradient} must not be negative, condition_dropout="
                f"{self.condition_dropout} a share below 1 and draws={self.draws} at least 1"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; undone by `from_dict`."""
        return {**dataclasses.asdict(self), "expert": self.expert.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GemVlaConfig:
        """ValueError for missing or unexpected fields, by name."""
        fields = fields_of(cls, values)
        fields["expert"] = ExpertConfig.from_dict(fields["expert"])
        if fields["supervision"] is not None:
            gem = GemConfig.from_dict({"backbone": {}, **fields["supervision"]})
            fields["supervision"] = SupervisionConfig.of(gem)
        return cls(**fields)
