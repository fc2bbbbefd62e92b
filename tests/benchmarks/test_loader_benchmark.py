"""The benchmark of loading: it runs, and its equality is a real assertion."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gemvlm.recipes import get
from gemvlm.recipes.data import development_samples
from gemvlm.sample import Sample

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import loader
    finally:
        sys.path.remove(str(BENCHMARKS))
    return loader


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    found = development_samples(replace(get("debug").data, size=(96, 128)), 6)
    return [replace(sample, turns=sample.turns[:3]) for sample in found if sample.turns][:3]


def test_it_reports_the_ratios_of_loaders_that_agree(bench, samples, capsys):
    ratios = bench.run(samples, batch_sizes=[1, 2], rounds=2)
    assert list(ratios) == [1, 2] and set(ratios[1]) == {
        "straightforward",
        "ours, decoding depth",
        "ours, cached targets",
    }
    assert "batches of 2, 2 rounds: all tensors equal" in capsys.readouterr().out


def test_one_different_tensor_stops_the_run(bench, samples, tmp_path):
    loaders = bench.make_loaders(samples, tmp_path)
    bench.check(loaders, [[0, 2], [1]])
    for name, change, told in [
        ("pixel_values", lambda values: values + 1e-6, "pixel_values differs"),
        ("labels", lambda values: values.roll(1), "labels differs"),
        ("valid", torch.logical_not, "masks differ"),
        ("picture", lambda values: values + 0.01, "pictures differ"),
    ]:

        def spoilt(indices, name=name, change=change):
            made = loaders.straightforward(indices)
            return {**made, name: change(made[name])}

        with pytest.raises(AssertionError, match=told):
            bench.check(replace(loaders, straightforward=spoilt), [[0]])

    def other(indices):
        batch = loaders.cached(indices)
        targets = tuple(replace(target, latent=target.latent * 1.01) for target in batch.targets)
        return replace(batch, targets=targets)

    with pytest.raises(AssertionError, match="latents differ"):
        bench.check(replace(loaders, cached=other), [[0]])
