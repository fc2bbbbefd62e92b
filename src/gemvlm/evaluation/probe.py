"""How much geometry do a model's image states hold? A linear probe of every layer, beside what needs no model.

Frozen states at the image tokens predict depth, normals and relief (`probe_targets.py`) by ridge regression in closed
form. Scenes are parted: weights are fitted on some, the penalty is chosen on others, the rest is scored once. Scores
over all tokens of the test frames, with 95 % intervals by scene:

    r2         1 - sum (y - p)^2 / sum (y - m)^2, m being the training mean: 0 for whoever says the same everywhere
    abs_rel    depth: mean |exp(p) - z| / z
    angle_deg  normals: mean angle between the true normal and the predicted one

A linear probe finds what is there to be read directly, no more: a layer that scores low may still hold the depth in
another form. Alain and Bengio, Understanding intermediate layers using linear classifier probes, 2016
(arXiv 1610.01644); for depth and normals in vision models El Banani et al., Probing the 3D awareness of visual
foundation models, 2024 (arXiv 2404.08636), whose probes are not linear.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gemvlm.evaluation.probe_readers import MeanMap, Position, StateReader
from gemvlm.evaluation.probe_report import Metric, ProbeReport, ProbeRow
from gemvlm.evaluation.probe_ridge import PENALTIES, RidgePath, RidgeSums, exact
from gemvlm.evaluation.probe_targets import TARGETS, Target, TokenTargets, token_targets
from gemvlm.runtime import get_log
from gemvlm.sample import Sample

CHUNK = 32
"""Frames whose states are held at once."""

Split = Literal["train", "development", "test"]


@dataclass(frozen=True)
class ProbeData:
    """Samples of one frame each, all of one size, with depth in metres; no scene is in two parts."""

    train: Sequence[Sample]
    development: Sequence[Sample]
    test: Sequence[Sample]

    def __post_init__(self) -> None:
        parts = {"train": self.train, "development": self.development, "test": self.test}
        if empty := [name for name, samples in parts.items() if not samples]:
            raise ValueError(f"probe: no frames to {', '.join(empty)} on; give more scenes")
        seen: dict[str, str] = {}
        for name, samples in parts.items():
            for sample in samples:
                if seen.setdefault(sample.scene, name) != name:
                    raise ValueError(
                        f"probe: scene {sample.scene!r} is in {seen[sample.scene]} and {name}; split by scene"
                    )
        sizes = {sample.frames[0].image.shape for samples in parts.values() for sample in samples}
        if len(sizes) > 1:
            raise ValueError(f"probe: frames have {len(sizes)} sizes, e.g. {sorted(sizes)[:2]}; resize them to one")


@dataclass
class _Layer:
    """What is learned about one target at one layer."""

    sums: RidgeSums = field(default_factory=RidgeSums)
    path: RidgePath | None = None
    errors: Tensor | None = None
    spread: float = 0.0

    def solve(self) -> None:
        self.path, self.sums = self.sums.solve(), RidgeSums()

    def check(self, x: Tensor, y: Tensor) -> None:
        """Adds up the errors of every penalty on development tokens."""
        assert self.path is not None
        errors = (self.path.predict(x) - y).square().sum((1, 2))
        self.errors = errors if self.errors is None else self.errors + errors
        self.spread += float((y - self.path.target_mean).square().sum())

    def choose(self) -> tuple[float, float]:
        """Keeps the best penalty; returns it and the R2 on the development frames."""
        assert self.path is not None and self.errors is not None
        best = int(self.errors.argmin())
        self.path = self.path.chosen(best)
        return PENALTIES[best], 1 - float(self.errors[best]) / max(self.spread, 1e-12)


def probe(readers: Sequence[StateReader], data: ProbeData) -> ProbeReport:
    """Probes every layer of every reader, the first being the model in question; blind baselines are added.

    Every frame is read once by each reader. A target that is unknown in one of the parts (normals, without a camera) is
    left out. ValueError if two readers have one name.
    """
    first = readers[0].read([data.train[0].frames[0].image])[0]
    every: list[StateReader] = [*readers, Position(first.grid), MeanMap(first.grid)]
    if len({reader.name for reader in every}) < len(every):
        raise ValueError(f"probe: two readers have one name: {[reader.name for reader in every]}")
    rows: list[ProbeRow] = []
    frames = sum(len(part) for part in _parts(data).values())
    for reader in every:
        get_log().info("probing %s: %d frames, %d layers", reader.name, frames, len(reader.layers))
        rows += _probe_one(reader, data)
    return ProbeReport(
        tuple(rows),
        first.grid,
        {name: len(part) for name, part in _parts(data).items()},
        {name: len({sample.scene for sample in part}) for name, part in _parts(data).items()},
    )


def _parts(data: ProbeData) -> dict[Split, Sequence[Sample]]:
    return {"train": data.train, "development": data.development, "test": data.test}


def _probe_one(reader: StateReader, data: ProbeData) -> list[ProbeRow]:
    layers: dict[tuple[int, Target], _Layer] = {}
    for _, target, number, x, y in _tokens(reader, data.train):
        layers.setdefault((number, target), _Layer()).sums.add(x, y)
    for layer in layers.values():
        layer.solve()
    for _, target, number, x, y in _tokens(reader, data.development):
        if (number, target) in layers:
            layers[number, target].check(x, y)
    chosen = {key: layer.choose() for key, layer in layers.items() if layer.errors is not None}
    sums: dict[tuple[int, Target, Metric], list[tuple[str, float, float]]] = {}
    for sample, target, number, x, y in _tokens(reader, data.test):
        if (number, target) in chosen:
            path = layers[number, target].path
            assert path is not None
            for metric, (error, weight) in _errors(target, path.predict(x)[0], y, path.target_mean).items():
                sums.setdefault((number, target, metric), []).append((sample.scene, error, weight))
    return [
        ProbeRow.of(reader.name, number, target, metric, *chosen[number, target], per_frame)
        for (number, target, metric), per_frame in sums.items()
    ]


def _tokens(reader: StateReader, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Target, int, Tensor, Tensor]]:
    """Of each frame, target and layer the states and true values of the tokens at which the target is known."""
    for start in range(0, len(samples), CHUNK):
        part = samples[start : start + CHUNK]
        found = reader.read([sample.frames[0].image for sample in part])
        for sample, states in zip(part, found, strict=True):
            for target, known, y in _known(token_targets(sample.frames[0], states.grid), states.states.device):
                for number, layer in zip(reader.layers, states.states, strict=True):
                    yield sample, target, number, layer[known], y


def _known(truth: TokenTargets, device: torch.device) -> Iterator[tuple[Target, Tensor, Tensor]]:
    for target in TARGETS:
        if target in truth.values and truth.known[target].any():
            known, y = torch.from_numpy(truth.known[target]), torch.from_numpy(truth.values[target])
            yield target, known.to(device), exact(y[known].to(device))


def _errors(target: Target, found: Tensor, true: Tensor, mean: Tensor) -> dict[Metric, tuple[float, float]]:
    """Of each metric a frame's sum of errors, and what it is divided by."""
    errors: dict[Metric, tuple[float, float]] = {
        "r2": (float((found - true).square().sum()), float((true - mean).square().sum()))
    }
    if target == "depth":
        errors["abs_rel"] = (float((torch.exp(found - true) - 1).abs().sum()), float(len(true)))
    if target == "normals":
        cosine = torch.nn.functional.cosine_similarity(found, true, dim=-1).clamp(-1, 1)
        errors["angle_deg"] = (float(np.degrees(cosine.arccos().sum().item())), float(len(true)))
    return errors
