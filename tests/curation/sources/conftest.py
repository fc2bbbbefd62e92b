"""What the importers' tests share: write a layout, read its source, put what comes out through training's collation."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gemvlm.batch import Batch
from gemvlm.curation.source import Rejection, Source
from gemvlm.data.collate import Collator
from gemvlm.data.conversation import CoordinateFormat
from gemvlm.data.frames import ImageConfig
from gemvlm.data.targets.depth import DepthTarget
from gemvlm.data.tokenizer import train_tokenizer
from gemvlm.depth_map import Encoding
from gemvlm.sample import Sample

LAYOUTS = Path(__file__).parents[1] / "layouts"
WORDS = ["Which point is closer to the camera?", "user assistant system", "pick up the cup", "yes no (120, 340)"]


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"layout_{name}", LAYOUTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def written(name: str, folder: Path) -> Any:
    """The source of a layout that was written into `folder`."""
    return module(name).write(folder, module("pictures"))


def read_all(source: Source) -> tuple[list[Sample], list[Rejection]]:
    """Everything a source gives; its parts are read twice and must give the same."""
    assert isinstance(source, Source)
    parts = source.parts()
    assert source.parts() == parts
    found = [item for part in parts for item in source.read(part)]
    again = [item for part in parts for item in source.read(part)]
    assert [getattr(item, "id", "") for item in found] == [getattr(item, "id", "") for item in again]
    samples = [item for item in found if isinstance(item, Sample)]
    same = [item for item in again if isinstance(item, Sample)]
    assert [sample.turns for sample in samples] == [sample.turns for sample in same]
    return samples, [item for item in found if isinstance(item, Rejection)]


@cache
def _tokenizer() -> Any:
    return train_tokenizer(WORDS * 3, 1600)


def collated(samples: Sequence[Sample] | Iterable[Sample]) -> Batch:
    """All samples in one batch with depth targets; any warning is an error."""
    images = ImageConfig(patch_size=8, min_pixels=16 * 16, max_pixels=64 * 64)
    collator = Collator(_tokenizer(), CoordinateFormat(step=10), images, [DepthTarget(Encoding("spectral"), 32, 32)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return collator(list(samples))


@pytest.fixture(scope="session")
def importing() -> SimpleNamespace:
    return SimpleNamespace(module=module, written=written, read_all=read_all, collated=collated)
