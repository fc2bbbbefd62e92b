"""Reads the numerical fixtures that were made with the authors' code; skips where they are not at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parents[2] / "../shared/fixtures"


@dataclass(frozen=True)
class Numbers:
    """The tensors of one fixture, the configuration that made them, and the tolerance it suggests."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    atol: Any

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix`, without it."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}

    def spans(self, input_ids: Tensor) -> Tensor:
        """Half-open token ranges strictly between the vision markers of (1, S) ids."""
        ids = input_ids[0].tolist()
        starts = [i + 1 for i, token in enumerate(ids) if token == self.config["vision_start_token_id"]]
        ends = [i for i, token in enumerate(ids) if token == self.config["vision_end_token_id"]]
        return torch.tensor([starts, ends]).T


@pytest.fixture(scope="session")
def numbers() -> Callable[[str], Numbers]:
    def read(name: str) -> Numbers:
        path = FOLDER / "a" / f"{name}.json"
        if not path.is_file():
            pytest.skip(f"the numerical fixture {name} is not beside the repository")
        meta = json.loads(path.read_text())
        return Numbers(meta["config"], load_file(path.with_suffix(".safetensors")), meta["suggested_atol_f32"])

    return read


@pytest.fixture(scope="session")
def full_size_keys() -> dict[str, Any]:
    path = FOLDER / "full_size_keys.json"
    if not path.is_file():
        pytest.skip("full_size_keys.json is not beside the repository")
    return json.loads(path.read_text())


def close(actual: Tensor, expected: Tensor, atol: float) -> None:
    """Equal within an absolute tolerance."""
    torch.testing.assert_close(actual.detach().to(expected.dtype), expected, atol=atol, rtol=0)


@pytest.fixture(scope="session")
def assert_close() -> Callable[[Tensor, Tensor, float], None]:
    return close
