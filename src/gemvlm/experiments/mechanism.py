"""What the image states of an arm hold: the probe on every finished arm, and the gaps between arms that it shows.

OUT/seed-S/ARM/probe.json   depth, normals and relief at the arm's best layer, with each test frame's own sums
OUT/probe-baselines.json    the same read from random weights, and from the place in the image alone; once

A gain in answers without a gain in the probe is not credited to geometry (`credit`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from gemvlm.curation.sources.tabletop import tabletop_samples
from gemvlm.evaluation.probe import ProbeData, probe
from gemvlm.evaluation.probe_readers import GemReader, untrained
from gemvlm.evaluation.probe_report import ProbeReport
from gemvlm.evaluation.probe_targets import TARGETS
from gemvlm.experiments.analysis import Gap
from gemvlm.experiments.experiment import Contrast, Experiment
from gemvlm.experiments.measure import write_json
from gemvlm.inference.pipeline import GemPipeline
from gemvlm.recipes.probe_model import PROBE_SEED, RANDOM, parted
from gemvlm.runtime import available_cores
from gemvlm.sample import Sample
from gemvlm.shards import MANIFEST, ShardReader, write_shards
from gemvlm.statistics import Difference, Interval, holm, paired_over_seeds
from gemvlm.worlds.tabletop import SceneConfig

PROBE, BASELINES = "probe.json", "probe-baselines.json"
VIEWS = 2
"""Of each scene."""
RULE = "A gain in answers without a gain in the probe is not credited to geometry."


@dataclass(frozen=True)
class ProbeScore:
    """R2 of one target at the layer that was best on development scenes.

    `frames` holds (scene, sum of squared errors, sum of squares about the training mean) of each test frame.
    """

    layer: int
    score: Interval
    frames: tuple[tuple[str, float, float], ...]

    def by_frame(self) -> Float64[np.ndarray, " frames"]:
        """Numbers whose plain mean is R2: each frame's error is set against the spread of all."""
        _, errors, spreads = zip(*self.frames, strict=True)
        return 1 - np.array(errors) * len(errors) / sum(spreads)


Probed = Mapping[str, ProbeScore]
"""Target → what was read of it."""


def look_samples(experiment: Experiment, out: Path) -> list[Sample]:
    """Described scenes that no training and no test has, seen as the training's are; made once, into `out`."""
    folder, data = out / "tests" / "looks", experiment.base.data
    assert data is not None
    if not (folder / MANIFEST).is_file():
        seeds = range(PROBE_SEED, PROBE_SEED + experiment.probe_scenes)
        config = SceneConfig(**data.scene)
        made = tabletop_samples(seeds, VIEWS, data.size, config, available_cores(), families=("describe",))
        write_shards(made, draft := folder.with_name(folder.name + ".draft"))
        draft.rename(folder)
    return list(ShardReader(folder))


def probe_data(samples: Sequence[Sample]) -> ProbeData:
    """The samples parted by scene, as `gemvlm probe` parts them."""
    return parted(samples, dict.fromkeys(sample.scene for sample in samples))


def write_probe(pipeline: GemPipeline, samples: Sequence[Sample], path: Path) -> None:
    """Probes the model; `path` appears whole or not at all."""
    report = probe([GemReader(pipeline)], probe_data(samples))
    write_json({**_told(report), **_found(report, report.readers[0])}, path)


def write_baselines(pipeline: GemPipeline, samples: Sequence[Sample], path: Path) -> None:
    """Probes the model's architecture with random weights, and what needs no model."""
    report = probe([GemReader(untrained(pipeline, 0), RANDOM)], probe_data(samples))
    write_json({**_told(report), "readers": {reader: _found(report, reader) for reader in report.readers}}, path)


def _told(report: ProbeReport) -> dict[str, Any]:
    return {"grid": list(report.grid), "frames": dict(report.frames), "scenes": dict(report.scenes)}


def _found(report: ProbeReport, reader: str) -> dict[str, Any]:
    targets = {}
    for target in report.targets:
        best = report.best(reader, target)
        curve = [[row.layer, row.score.mean] for row in report.layers(reader, target, "r2")]
        targets[target] = {"layer": best.layer, "score": asdict(best.score), "frames": best.per_frame, "layers": curve}
    return {"targets": targets}


def read_probe(path: Path) -> Probed:
    return _read(json.loads(path.read_text(encoding="utf-8")))


def read_baselines(path: Path) -> dict[str, Probed]:
    """Reader → what was read."""
    readers = json.loads(path.read_text(encoding="utf-8"))["readers"]
    return {reader: _read(found) for reader, found in readers.items()}


def _read(content: Mapping[str, Any]) -> Probed:
    return {
        target: ProbeScore(each["layer"], Interval(**each["score"]), tuple((s, a, b) for s, a, b in each["frames"]))
        for target, each in content["targets"].items()
    }


def finished_probes(experiment: Experiment, out: Path) -> dict[str, dict[int, Probed]]:
    """Arm → seed → what was probed; see `Experiment.files` for what stands beside the arms."""
    files = experiment.files(out, PROBE)
    return {arm: {seed: read_probe(path) for seed, path in by_seed.items()} for arm, by_seed in files.items()}


def probe_gaps(experiment: Experiment, probes: Mapping[str, Mapping[int, Probed]]) -> list[Gap]:
    """Gaps in R2 of every target and contrast, over the seeds that both arms have.

    p-values are corrected over the targets of a contrast: each contrast is a question of its own.
    """
    gaps: list[Gap] = []
    for contrast in experiment.contrasts:
        arm, control = probes.get(contrast.arm, {}), probes.get(contrast.control, {})
        if len(seeds := sorted(set(arm) & set(control))) < 2:
            continue
        found: list[tuple[str, Difference]] = []
        for target in TARGETS:
            if all(target in probed[seed] for probed in (arm, control) for seed in seeds):
                first, second = (_rows([p[seed][target] for seed in seeds], contrast) for p in (arm, control))
                scenes = [scene for scene, _, _ in arm[seeds[0]][target].frames]
                found.append((target, paired_over_seeds(first, second, scenes, asked=len(TARGETS))))
        corrected = holm([difference.p_value for _, difference in found])
        gaps += [Gap(contrast, f"probe of {t}", d, p) for (t, d), p in zip(found, corrected, strict=True)]
    return gaps


def _rows(scores: Sequence[ProbeScore], contrast: Contrast) -> Float64[np.ndarray, "seeds frames"]:
    scenes = [[scene for scene, _, _ in score.frames] for score in scores]
    if any(each != scenes[0] for each in scenes):
        raise ValueError(
            f"{contrast.arm} against {contrast.control}: probed on {[len(each) for each in scenes]} frames, which must "
            f"be the same; remove the {PROBE} of one kind and run the experiment again"
        )
    return np.stack([score.by_frame() for score in scores])


def credit(answers: Sequence[Gap], probed: Sequence[Gap], primary: Contrast) -> str:
    """One sentence: whether the gap of the primary contrast in answers comes with one in the probe."""
    first = next((gap for gap in answers if gap.contrast == primary), None)
    if first is None:
        return RULE
    own = [gap for gap in probed if gap.contrast == first.contrast]
    if not own:
        return f"{RULE} Fewer than two seeds of {first.contrast.arm} and {first.contrast.control} are probed yet."
    gained = first.decided and first.difference.interval.mean > 0
    rising = [gap for gap in own if gap.decided and gap.difference.interval.mean > 0]
    named = ", ".join(f"{gap.metric.removeprefix('probe of ')} {gap.difference.interval.mean:+.3f}" for gap in own)
    if gained and rising:
        return f"The image states hold more geometry as well (R2: {named}), so the gain may be credited to it."
    if rising:
        return f"The image states hold more geometry (R2: {named}), which the answers do not show."
    seen = max(gap.difference.detectable for gap in own)
    told = f"No gain in geometry could be told from none (R2: {named}; gaps below {seen:.3f} could not have been seen)."
    return f"{RULE} {told}" if gained else told
