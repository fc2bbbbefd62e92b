"""What `--policy.NAME=VALUE` may say."""

# No `from __future__ import annotations`: LeRobot's parser reads the fields' types themselves.

import logging
from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, NormalizationMode
from lerobot.optim.optimizers import AdamWConfig
from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig


@PreTrainedConfig.register_subclass("gemvlm")
@dataclass
class GemvlmConfig(PreTrainedConfig):
    """`recipe` and `start` are those of `gemvlm vla train`. Learning rates fall by a cosine over `decay_steps`."""

    recipe: str = "vla_nano_action"
    start: str = ""
    chunk_size: int = 16
    n_action_steps: int = 8
    flow_steps: int = 5
    seed: int = 0
    n_obs_steps: int = 1
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.QUANTILES,
            "ACTION": NormalizationMode.QUANTILES,
        }
    )
    optimizer_lr: float = 1e-3
    backbone_lr: float = 2e-4
    optimizer_weight_decay: float = 0.01
    warmup_steps: int = 100
    decay_steps: int = 4000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.n_action_steps <= self.chunk_size or self.flow_steps < 1:
            raise ValueError(
                f"n_action_steps={self.n_action_steps} of chunk_size={self.chunk_size} in flow_steps={self.flow_steps}:"
                " at least one action, at most all, in at least one step"
            )

    def validate_features(self) -> None:
        """Leaves out pictures of depth, of one channel. ValueError unless there are pictures, a state and actions."""
        self.input_features = {
            name: feature
            for name, feature in (self.input_features or {}).items()
            if feature.type is not FeatureType.VISUAL or feature.shape[0] == 3
        }
        missing = [
            name
            for name, there in (
                ("a camera", self.image_features),
                ("observation.state", self.robot_state_feature),
                ("action", self.action_feature),
            )
            if not there
        ]
        if missing:
            raise ValueError(f"gemvlm: the data set has no {', '.join(missing)}; choose another one")

    def fit_statistics(self, statistics: dict[str, dict[str, Any]]) -> None:
        """Normalises by least and largest value, with a warning, what a data set has no quantiles of (q01, q99)."""
        for name, feature in ((self.input_features or {}) | (self.output_features or {})).items():
            kind, known = feature.type.value, statistics.get(name, {})
            by_quantiles = self.normalization_mapping.get(kind) is NormalizationMode.QUANTILES
            if known and by_quantiles and not {"q01", "q99"} <= known.keys():
                logging.warning("gemvlm: no quantiles of %s in the data set, %s goes by min and max", name, kind)
                self.normalization_mapping[kind] = NormalizationMode.MIN_MAX

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(
            lr=self.optimizer_lr, betas=(0.9, 0.95), weight_decay=self.optimizer_weight_decay, grad_clip_norm=1.0
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        return CosineDecayWithWarmupSchedulerConfig(
            peak_lr=self.optimizer_lr,
            decay_lr=self.optimizer_lr / 50,
            num_warmup_steps=self.warmup_steps,
            num_decay_steps=self.decay_steps,
        )

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        return None
