"""Two processes train as one would on all their samples, and any number goes on where another stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from gemvlm.training.loop import FINAL
from gemvlm.training.metrics import read_metrics
from gemvlm.training.parallel import Sharding

STAGES = [
    {"number": 2, "steps": 3, "batch_size": 4},
    {"number": 3, "steps": 5, "batch_size": 4},
]
"""Depth alone with the backbone frozen; then everything."""


def losses(folder: Path) -> list[dict[str, float]]:
    lines = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k.startswith(("loss/", "grad_norm/"))} for line in lines]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_tensors(folder / FINAL, "model")


def load_tensors(folder: Path, stem: str) -> dict[str, Tensor]:
    return {k: v for path in folder.glob(f"{stem}*.safetensors") for k, v in load_file(path).items()}


def assert_close(folder: Path, other: Path, rel: float = 2e-4, weight: float = 2e-4) -> None:
    ours, theirs = losses(folder), losses(other)
    assert len(ours) == len(theirs) > 0
    for line, reference in zip(ours, theirs, strict=True):
        assert line == pytest.approx(reference, rel=rel, abs=1e-7)
    a, b = weights(folder), weights(other)
    assert a.keys() == b.keys()
    worst = {name: float((a[name] - b[name]).abs().max()) for name in a}
    assert max(worst.values()) < weight, sorted(worst.items(), key=lambda pair: -pair[1])[:5]


@pytest.fixture(scope="module")
def alone(crew: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    found = crew("train", folder=str(folder), stages=STAGES)
    assert found["values"] == [True], found
    return folder


@pytest.mark.parametrize("sharding", ["shard", pytest.param("replicate", marks=pytest.mark.slow)])
def test_two_processes_are_one(sharding: str, crew: Any, alone: Path, tmp_path: Path) -> None:
    """On samples with and without image, depth and several images, over two stages."""
    found = crew("train", world=2, folder=str(tmp_path), stages=STAGES, sharding=sharding)
    assert found["values"] == [True, True], found
    assert_close(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["shard", "replicate"])
def test_two_processes_train_a_policy_as_one(sharding: str, crew: Any, tmp_path: Path) -> None:
    """On moments of robots and questions. With one sample at a time a process has only the one or the other."""
    for world in (1, 2):
        options = {"folder": str(tmp_path / str(world)), "steps": 8, "batch_size": 2, "sharding": sharding}
        found = crew("train_policy", world=world, **options)
        assert found["values"] == [True] * world, found
    assert_close(tmp_path / "2", tmp_path / "1")
    assert {"loss/action", "loss/text", "loss/depth"} <= {key for line in losses(tmp_path / "2") for key in line}


@pytest.mark.slow
def test_muon_and_pictures_of_several_sizes(crew: Any, tmp_path: Path) -> None:
    """The generator runs once for each size, so not equally often; Muon works on whole matrices."""
    stages = [{"number": 3, "steps": 2, "batch_size": 4}]
    for world in (1, 2):
        options = {"folder": str(tmp_path / str(world)), "optimizer": "muon", "sized": True, "stages": stages}
        found = crew("train", world=world, **options)
        assert found["values"] == [True] * world, found
    assert_close(tmp_path / "2", tmp_path / "1", rel=2e-2, weight=2e-3)


@pytest.mark.slow
def test_callbacks_use_a_model_that_is_spread(crew: Any, tmp_path: Path) -> None:
    """Pictures painted and words said while two processes share the weights, in bfloat16, are those of one process."""
    stages = [{"number": 3, "steps": 2, "batch_size": 4}]
    seen = []
    for world in (1, 2):
        options = {"folder": str(tmp_path / str(world)), "look": True, "precision": "bfloat16", "stages": stages}
        found = crew("train", world=world, **options)
        assert found["values"] == [True] * world, found
        lines = read_metrics(tmp_path / str(world) / "metrics.jsonl")
        seen.append(next(line["painted"] for line in lines if "painted" in line))
    assert seen[0] == pytest.approx(seen[1], rel=2e-2)


def test_processes_that_disagree_are_refused_before_the_first_step(crew: Any, tmp_path: Path) -> None:
    found = crew("train", world=2, folder=str(tmp_path), stages=STAGES, facts_differ=True)
    told = "the processes disagree on data: 0 on process 0, 1 on process 1; start all with the same recipe"
    assert found["codes"] == [1, 1] and all(told in error for error in found["errors"]), found
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "group", "mesh"),
    [("shard", None, (1, 8)), ("replicate", None, (8, 1)), ("hybrid", None, (2, 4)), ("hybrid", 2, (4, 2))],
)
def test_meshes(kind: Any, group: int | None, mesh: tuple[int, int]) -> None:
    assert Sharding(kind, group).mesh(8, 4) == mesh
    with pytest.raises(ValueError, match="8 processes can't be divided into groups of 3"):
        Sharding("hybrid", 3).mesh(8, 4)


def test_a_sample_that_teaches_nothing_hangs_without_a_filler(crew: Any, tmp_path: Path) -> None:
    stages = [{"number": 2, "steps": 3, "batch_size": 2}]
    good = crew("train", world=2, folder=str(tmp_path / "good"), stages=stages)
    assert good["values"] == [True, True], good
    bad = crew("train", world=2, folder=str(tmp_path / "bad"), stages=stages, cure=False, patience=15)
    assert bad["hung"] or any(bad["codes"]), bad


@pytest.mark.parametrize(("first", "then"), [pytest.param(1, 2, marks=pytest.mark.slow), (2, 1)])
def test_another_number_of_processes_goes_on(first: int, then: int, crew: Any, alone: Path, tmp_path: Path) -> None:
    stop = {"signal_at": {"rank": first - 1, "number": 15, "step": 5}, "callback_every": 1}
    found = crew("train", world=first, folder=str(tmp_path), stages=STAGES, **stop)
    assert found["codes"] == [143] * first, found
    found = crew("train", world=then, folder=str(tmp_path), stages=STAGES)
    assert found["values"] == [True] * then, found
    assert_close(tmp_path, alone)
