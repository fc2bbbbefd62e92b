"""What a probe found, as numbers with intervals, a table and a plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from gemvlm.evaluation.probe_targets import TARGETS, Target
from gemvlm.figure.layers import Curve, Panel, layer_curves
from gemvlm.statistics import Interval

Metric = Literal["r2", "abs_rel", "angle_deg"]
RESAMPLES = 1000
BLIND = ("position only", "mean map")

PANELS: tuple[tuple[Target, Metric, str, str], ...] = (
    ("depth", "r2", "Depth: share explained", "1 is perfect, 0 is saying the same everywhere"),
    ("depth", "abs_rel", "Depth: relative error", "lower is better"),
    ("normals", "r2", "Surface normals: share explained", "higher is better"),
    ("relief", "r2", "Relief: share explained", "what stands out of the image's plane; higher is better"),
)


@dataclass(frozen=True)
class ProbeRow:
    """One metric of one target at one layer of one reader, on the test frames.

    `development_r2` is what a layer may be chosen by. `per_frame` holds (scene, sum of errors, divisor) of each frame.
    """

    reader: str
    layer: int
    target: Target
    metric: Metric
    penalty: float
    development_r2: float
    score: Interval
    per_frame: tuple[tuple[str, float, float], ...]

    @classmethod
    def of(
        cls,
        reader: str,
        layer: int,
        target: Target,
        metric: Metric,
        penalty: float,
        development_r2: float,
        per_frame: Sequence[tuple[str, float, float]],
    ) -> ProbeRow:
        ratio = pooled_ratio(per_frame)
        score = Interval(1 - ratio.mean, 1 - ratio.high, 1 - ratio.low, ratio.n) if metric == "r2" else ratio
        return cls(reader, layer, target, metric, penalty, development_r2, score, tuple(per_frame))


@dataclass(frozen=True)
class ProbeReport:
    """All rows; the first reader is the model in question. `frames` and `scenes` count those of each part."""

    rows: tuple[ProbeRow, ...]
    grid: tuple[int, int]
    frames: Mapping[str, int]
    scenes: Mapping[str, int]

    @property
    def readers(self) -> list[str]:
        return list(dict.fromkeys(row.reader for row in self.rows))

    @property
    def targets(self) -> list[Target]:
        return [target for target in TARGETS if any(row.target == target for row in self.rows)]

    def layers(self, reader: str, target: Target, metric: Metric) -> list[ProbeRow]:
        """The rows of one curve, layer by layer."""
        return [row for row in self.rows if (row.reader, row.target, row.metric) == (reader, target, metric)]

    def best(self, reader: str, target: Target, metric: Metric = "r2") -> ProbeRow:
        """The layer that was best on the development frames, as it scores on the test. ValueError if it has none."""
        rows = self.layers(reader, target, metric)
        if not rows:
            raise ValueError(f"probe: no {metric} of {target} by {reader!r}; readers are {self.readers}")
        return max(rows, key=lambda row: row.development_r2)

    def against(self, other: str, target: Target) -> Interval:
        """R2 of the model's best layer minus that of `other`, on the same frames, by scene."""
        own, theirs = self.best(self.readers[0], target), self.best(other, target)
        return ratio_difference(theirs.per_frame, own.per_frame)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the frames' own sums, for JSON."""
        rows = []
        for row in self.rows:
            fields = asdict(row)
            del fields["per_frame"]
            rows.append(fields)
        others = self.readers[1:]
        return {
            "grid": list(self.grid),
            "frames": dict(self.frames),
            "scenes": dict(self.scenes),
            "rows": rows,
            "best_layer": {t: {r: self.best(r, t).layer for r in self.readers} for t in self.targets},
            "r2_above": {t: {r: asdict(self.against(r, t)) for r in others} for t in self.targets},
        }

    def to_markdown(self) -> str:
        """One line for each target and reader, at the layer chosen on development frames."""
        lines = ["| target | read from | layer | R² | model above it | error |", "|---|---|---|---|---|---|"]
        for target in self.targets:
            for reader in self.readers:
                best = self.best(reader, target)
                above = "" if reader == self.readers[0] else str(self.against(reader, target))
                lines.append(f"| {target} | {reader} | {best.layer} | {best.score} | {above} | {self._error(best)} |")
        return "\n".join(lines) + "\n"

    def _error(self, best: ProbeRow) -> str:
        for metric, words in (("abs_rel", "AbsRel {}"), ("angle_deg", "{}°")):
            rows = self.layers(best.reader, best.target, metric)  # type: ignore[arg-type]
            if found := [row for row in rows if row.layer == best.layer]:
                return words.format(found[0].score)
        return ""

    def plot(self, file_format: Literal["svg", "png"] = "svg") -> bytes:
        """Layers from left to right; models as curves, what needs no model as level lines."""
        panels = []
        for target, metric, title, note in PANELS:
            curves = []
            for reader in self.readers:
                if rows := self.layers(reader, target, metric):
                    places = [(row.layer, row.score.mean, row.score.low, row.score.high) for row in rows]
                    curves.append(Curve(reader, tuple(places), level=reader in BLIND))
            if curves:
                panels.append(Panel(title, note, tuple(curves), "lower" if metric != "r2" else "higher"))
        return layer_curves(panels, "layer of the language model", file_format)


PerFrame = Sequence[tuple[str, float, float]]
"""(scene, a, b) of each frame, for the ratio sum(a) / sum(b)."""


def pooled_ratio(frames: PerFrame, seed: int = 0) -> Interval:
    """sum(a) / sum(b) with its bootstrap interval (95 %): whole scenes are drawn."""
    return _interval([frames], lambda ratios: ratios[0], len(frames), seed)


def ratio_difference(first: PerFrame, second: PerFrame, seed: int = 0) -> Interval:
    """The first ratio minus the second, with its interval: the same scenes are drawn for both."""
    return _interval([first, second], lambda ratios: ratios[0] - ratios[1], len(first), seed)


def _interval(groups: Sequence[PerFrame], of: Callable[[list[Any]], Any], count: int, seed: int) -> Interval:
    numbers = {scene: place for place, scene in enumerate(dict.fromkeys(f[0] for frames in groups for f in frames))}
    sums = []
    for frames in groups:
        index = [numbers[scene] for scene, _, _ in frames]
        sums.append([np.bincount(index, [f[part] for f in frames], minlength=len(numbers)) for part in (1, 2)])
    draws = np.random.default_rng(seed).multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), RESAMPLES)
    resampled = of([(draws @ above) / np.maximum(draws @ below, 1e-12) for above, below in sums])
    low, high = np.quantile(resampled, [0.025, 0.975])
    whole = of([above.sum() / max(below.sum(), 1e-12) for above, below in sums])
    return Interval(float(whole), float(low), float(high), count)
