"""Parts of an experiment's page: gaps, probes, what was forgotten, what was spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gemvlm.evaluation.probe_targets import TARGETS
from gemvlm.experiments.analysis import Gap
from gemvlm.experiments.arm import get_arm, matchings
from gemvlm.experiments.experiment import STAGE_0, START, Experiment
from gemvlm.experiments.forgetting import MEASURES, Forgetting, mean_nats
from gemvlm.experiments.mechanism import BASELINES, RULE, Probed, read_baselines
from gemvlm.experiments.spent import Spent
from gemvlm.figure import Report

Table = tuple[list[str], list[list[str]], str]
UNITS = {"score": ("points", 100, 1), "surprise": ("nats", 1, 3)}
"""Of a metric: what its gaps are told in, what they are multiplied by, and digits; R2 otherwise."""


def gap_table(gaps: Sequence[Gap], metric: str) -> Table:
    """A line for each gap of one metric, with the kinds of matching that it has."""
    unit, factor, digits = UNITS[metric]
    caption = f"Gaps of the primary metric's {metric} in {unit}; p corrected over all gaps (Holm); 95 % intervals."
    names = ["gap", "would show", "matched", unit, "p", "detectable"]
    return names, [_gap(gap, factor, digits) for gap in gaps], caption


def _gap(gap: Gap, factor: int, digits: int) -> list[str]:
    i, contrast = gap.difference.interval, gap.contrast
    return [
        f"{contrast.arm} - {contrast.control}",
        contrast.shows,
        ", ".join(matchings(get_arm(contrast.arm), get_arm(contrast.control))),
        f"{factor * i.mean:+.{digits}f} [{factor * i.low:+.{digits}f}, {factor * i.high:+.{digits}f}]",
        f"{gap.p_value:.3f}",
        f"{factor * gap.difference.detectable:.{digits}f}",
    ]


def gap_rows(gaps: Sequence[Gap]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {
            "arm": gap.contrast.arm,
            "control": gap.contrast.control,
            "metric": gap.metric,
            "matched": matchings(get_arm(gap.contrast.arm), get_arm(gap.contrast.control)),
            "p": gap.p_value,
            **asdict(gap.difference),
        }
        for gap in gaps
    ]


def probe_means(probes: Mapping[str, Mapping[int, Probed]]) -> dict[str, dict[str, list[float]]]:
    """Arm → target → R2 of each seed in order."""
    return {
        arm: {
            target: [by_seed[seed][target].score.mean for seed in sorted(by_seed) if target in by_seed[seed]]
            for target in TARGETS
        }
        for arm, by_seed in probes.items()
    }


def add_probes(report: Report, probes: Mapping[str, Mapping[int, Probed]], gaps: Sequence[Gap], out: Path) -> None:
    """Scores of every arm and of the baselines, and the gaps of the contrasts."""
    report.heading("Geometry in the image states")
    report.text(
        f"What a linear probe reads from the frozen states at the image's tokens (`gemvlm probe`), on scenes of no "
        f"training and no test: R2, 1 being perfect and 0 saying the same everywhere. **{RULE}**"
    )
    rows = [
        [arm, str(len(probes[arm])), *(spread(values) for values in by_target.values())]
        for arm, by_target in probe_means(probes).items()
    ]
    if (out / BASELINES).is_file():
        for reader, probed in read_baselines(out / BASELINES).items():
            rows.append([reader, "", *(f"{probed[t].score.mean:.3f}" if t in probed else "-" for t in TARGETS)])
    if not rows:
        report.text("No arm is probed yet; the same command without --report does it.")
        return
    report.table(["read from", "seeds", *TARGETS], rows, "R2 at each reader's best layer; ± between seeds.")
    if gaps:
        cells = [[gap.metric.removeprefix("probe of "), *_gap(gap, 1, 3)] for gap in gaps]
        names = ["target", "gap", "would show", "matched", "R2", "p", "detectable"]
        report.table(names, cells, "Paired over seeds and scenes; p corrected over all of these (Holm).")


def add_forgetting(report: Report, found: Mapping[str, Mapping[int, Forgetting]]) -> dict[str, dict[str, list[float]]]:
    """Nats of every arm beside those of what it began with; returns arm → measure → each seed's."""
    told = {arm: {name: mean_nats(by_seed, name) for name in MEASURES} for arm, by_seed in found.items()}
    told = {arm: {name: values for name, values in each.items() if values} for arm, each in told.items()}
    measures = [name for name in MEASURES if any(name in each for each in told.values())]
    if not measures:
        return {}
    report.heading("What was not to be forgotten")
    report.text(
        "Surprise at true words in nats per token, lower is better: descriptions of held-out scenes with the image "
        "(`caption`) and without any (`text_only`), and short facts (`general`) where weights were given. The first "
        "line is what all arms began with; a rise over it is forgetting."
    )
    begun = [name for name in (STAGE_0, START) if name in told]
    order = [*begun, *(arm for arm in told if arm not in begun)]
    rows = [[arm, *(spread(told[arm].get(name, [])) for name in measures)] for arm in order]
    report.table(["arm", *measures], rows, "Means over items; ± is the deviation between seeds.")
    return told


def add_spent(report: Report, experiment: Experiment, found: Mapping[str, Spent]) -> dict[str, dict[str, Any]]:
    """Operations, time and parameters of every arm; returns the same for JSON."""
    if not found:
        return {}
    report.heading("What it cost")
    control = experiment.contrasts[0].control
    rows = [
        [
            arm,
            str(each.seeds),
            f"{each.steps:,}",
            f"{each.operations:.2e}",
            f"{each.operations / found[control].operations:.2f}" if control in found else "-",
            f"{each.seconds / 60:.1f}",
            f"{each.trained / 1e6:.2f}",
            f"{each.deployed / 1e6:.2f}",
            get_arm(arm).matching,
        ]
        for arm, each in found.items()
    ]
    names = ["arm", "seeds", "steps", "operations", f"over {control}", "minutes", "trained, M", "deployed, M", "length"]
    report.table(
        names,
        rows,
        "After stage 0, means over seeds. Operations as the runs counted them; minutes of wall time on whatever ran "
        "them; millions of parameters that learned, and of those that are left when the supervision is dropped. "
        "Length: an arm takes the steps of all, or those that cost as much compute as depth.",
    )
    return {arm: asdict(each) for arm, each in found.items()}


def spread(values: Sequence[float]) -> str:
    """Their mean, with the deviation between them if there are several."""
    if not values:
        return "-"
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"
