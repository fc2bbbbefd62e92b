"""What a Gem is built from: plain data with a JSON round trip. Sizes have no defaults here; recipes are their home."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gemvlm.depth_map import Encoding


@dataclass(frozen=True)
class GemConfig:
    """The parts of a model, each by the keyword arguments of its class.

    `backbone`   of transformers' `Qwen3VLConfig`
    `generator`  {"kind": "sana", ... of diffusers' `SanaTransformer2DModel`}; with the same weights and fields
                 {"kind": "sana_guided", "guidance": number, ...} or {"kind": "sana_one_step", ...}; or
                 {"kind": "regression", ... of `generator.RegressionConfig`}
    `latents`    {"kind": "dc_ae", ... of diffusers' `AutoencoderDC`} or
                 {"kind": "patch", ... of `latents.PatchLatents`}
    `encoding`   how depth becomes the picture that the generator paints
    `shift`      shift of the noise schedule (the published scheduler files disagree between 1 and 3: say which)
    `condition_dropout`  share of training targets that are generated without their image's states
    `training_steps`     entries of the noise schedule; 1000 for published weights
    """

    backbone: Mapping[str, Any]
    generator: Mapping[str, Any]
    latents: Mapping[str, Any]
    encoding: Encoding
    shift: float
    condition_dropout: float
    training_steps: int = 1000

    def __post_init__(self) -> None:
        _check_kind("generator", self.generator, ("sana", "sana_guided", "sana_one_step", "regression"))
        if self.generator["kind"] == "sana_guided" and not self.generator.get("guidance", 0) >= 1:
            raise ValueError('generator: kind "sana_guided" needs "guidance", the number (at least 1) that it folds in')
        _check_kind("latents", self.latents, ("dc_ae", "patch"))
        if not 0 <= self.condition_dropout <= 1:
            raise ValueError(f"condition_dropout is a share in [0, 1], got {self.condition_dropout}")
        if self.shift <= 0 or self.training_steps < 1:
            raise ValueError(f"shift ({self.shift}) and training_steps ({self.training_steps}) must be positive")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; undone by `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GemConfig:
        """ValueError for missing or unexpected fields, by name."""
        return cls(**fields_of(cls, values) | {"encoding": Encoding(**fields_of(Encoding, values.get("encoding", {})))})


def _check_kind(field: str, values: Mapping[str, Any], kinds: tuple[str, ...]) -> None:
    if values.get("kind") not in kinds:
        raise ValueError(f"{field}: kind {values.get('kind')!r} is not one of {kinds}")


def fields_of(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as a dict, checked against the fields of a dataclass."""
    known = {f.name for f in dataclasses.fields(cls)}
    required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
    unexpected, missing = sorted(set(values) - known), sorted(required - set(values))
    if unexpected or missing:
        raise ValueError(
            f"{cls.__name__}: unexpected fields {unexpected}, missing fields {missing}; known are {sorted(known)}"
        )
    return dict(values)
