"""The sizes of an action expert, and what it looks at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gemvlm.model.config import fields_of

Conditioning = Literal["layer_inputs", "keys_values"]


@dataclass(frozen=True)
class ExpertConfig:
    """Sizes of an expert and what it looks at.

    `action` and `state` count numbers, `horizon` steps of a chunk. Block i looks at `layers[i % len(layers)]`, so that
    one layer may serve all. With `conditioning` "layer_inputs" an index means what it means in the published code: 0 is
    the embeddings, i the output of decoder layer i counted from 1, DeepStack included. With "keys_values" index i is
    decoder layer i counted from 0, whose keys and values are used as they are; `kv_heads` and width / heads must then
    be the backbone's.

    Time enters a sinusoid of periods 1 to 10,000 after multiplication by `time_scale`: the published 1 leaves 212 of
    its 256 channels nearly constant (B4), 1000 uses them all.
    """

    action: int
    state: int
    horizon: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    registers: int
    conditioning: Conditioning
    layers: tuple[int, ...]
    time_scale: float
    ffn_multiple_of: int = 256
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        sizes = (self.action, self.state, self.horizon, self.width, self.depth, self.heads, self.kv_heads)
        if min(sizes) < 1 or self.registers < 0 or self.ffn_multiple_of < 1 or self.time_scale <= 0:
            raise ValueError(f"sizes and time_scale of an expert must be positive, got {self}")
        if self.width % (2 * self.heads) or self.heads % self.kv_heads:
            raise ValueError(
                f"width={self.width} must be a multiple of twice heads={self.heads}, and heads one of "
                f"kv_heads={self.kv_heads}"
            )
        if self.conditioning not in ("layer_inputs", "keys_values"):
            raise ValueError(f"conditioning={self.conditioning!r} must be 'layer_inputs' or 'keys_values'")
        if not 1 <= len(self.layers) <= self.depth or min(self.layers) < 0:
            raise ValueError(
                f"layers={self.layers}: name 1 to {self.depth} layers of the backbone, for {self.depth} blocks"
            )

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def ffn_width(self) -> int:
        """Two thirds of four times the width, rounded up."""
        multiple = self.ffn_multiple_of
        return -(-int(8 * self.width / 3) // multiple) * multiple

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; undone by `from_dict`."""
        return {**dataclasses.asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExpertConfig:
        """ValueError for missing or unexpected fields, by name."""
        fields = fields_of(cls, values)
        return cls(**fields | {"layers": tuple(fields["layers"])})
