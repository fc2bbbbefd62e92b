"""Policies of an experiment on actions as one page: success by demonstrations, gaps with intervals, what they say."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from gemvlm.evaluation.rollout_table import Rollouts
from gemvlm.experiments.act import PLAYED, is_finished
from gemvlm.experiments.actions import PLACE, ActionExperiment, ActionTask
from gemvlm.experiments.analysis import LEVEL
from gemvlm.experiments.experiment import Contrast
from gemvlm.experiments.measure import write_json
from gemvlm.figure import Report
from gemvlm.figure.plots import INK, LINES, quieten
from gemvlm.statistics import Difference, holm, paired_over_seeds

SHOWS = (0.30, 0.70)
"""The control's success, between which a gap may show."""

APART = 0.25
"""Of a demonstration, between the points of two arms in the picture: they would hide each other."""

Played = Mapping[tuple[str, int], Mapping[int, Rollouts]]
"""(arm, demonstrations) → seed → the finished policy's episodes, the same starts in the same order everywhere."""


@dataclass(frozen=True)
class ActionGap:
    """`difference` is arm - control in shares of 1; `p_value` is corrected over all gaps (Holm)."""

    contrast: Contrast
    demonstrations: int
    control: float
    difference: Difference
    p_value: float

    @property
    def can_show(self) -> bool:
        return SHOWS[0] <= self.control <= SHOWS[1]


def finished(experiment: ActionExperiment, out: Path) -> Played:
    found: dict[tuple[str, int], dict[int, Rollouts]] = {}
    for task in experiment.tasks():
        if is_finished(task, out):
            cell = found.setdefault((task.arm, task.demonstrations), {})
            cell[task.seed] = Rollouts.read(task.folder(out) / PLAYED)
    return found


def action_gaps(experiment: ActionExperiment, played: Played) -> list[ActionGap]:
    """Of each contrast at each number of demonstrations that both arms have at least two seeds of."""
    found: list[tuple[Contrast, int, float, Difference]] = []
    asked = len(experiment.contrasts) * len(experiment.demonstrations)
    for contrast in experiment.contrasts:
        for count in experiment.demonstrations:
            arm, control = (played.get((name, count), {}) for name in (contrast.arm, contrast.control))
            seeds = sorted(set(arm) & set(control))
            if len(seeds) < 2:
                continue
            ours, theirs = (np.stack([cell[seed].values for seed in seeds]) for cell in (arm, control))
            starts = arm[seeds[0]].starts
            difference = paired_over_seeds(ours, theirs, starts, asked=asked)
            found.append((contrast, count, float(theirs.mean()), difference))
    unfinished = [1.0] * (asked - len(found))
    corrected = holm([*(difference.p_value for *_, difference in found), *unfinished])[: len(found)]
    return [ActionGap(*gap, p) for gap, p in zip(found, corrected, strict=True)]


def said(gap: ActionGap) -> str:
    """One plain sentence."""
    interval = gap.difference.interval
    names = f"{gap.contrast.arm} against {gap.contrast.control} with {gap.demonstrations} demonstrations"
    points = f"{100 * interval.mean:+.1f} points ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
    if not gap.can_show:
        return f"{names}: the control succeeds in {100 * gap.control:.0f} %, where no gap could show ({points})."
    if gap.p_value >= 1 - LEVEL:
        return f"{names}: inconclusive, {points}; below {100 * gap.difference.detectable:.0f} nothing could be seen."
    shown = gap.contrast.shows if interval.mean > 0 else "The opposite of what was claimed"
    return f"{names}: {shown}, {points}."


def write_action_report(experiment: ActionExperiment, out: Path) -> Path:
    """`report.html` and `results.json` in `out/actions`, of whatever is finished."""
    played = finished(experiment, out)
    gaps = action_gaps(experiment, played)
    tasks = list(experiment.tasks())
    left = [task for task in tasks if not is_finished(task, out)]
    starts = f"{len(experiment.worlds)} tasks, {experiment.trials} new starts each"
    report = Report(f"Experiment {experiment.name}", f"{starts}, {len(experiment.seeds)} seeds")
    for gap in gaps:
        report.text(f"**{said(gap)}**")
    report.heading("Success")
    if played:
        report.figure(success_picture(experiment, played), "Mean success of all tasks; a point for each seed.")
        report.table(*_success(experiment, played))
        report.heading("Of each task")
        report.table(*_of_tasks(experiment, played))
    report.heading("Gaps")
    report.table(*_gaps(gaps))
    report.heading("To do")
    report.text(f"{len(left)} of {len(tasks)} policies: {', '.join(t.name for t in left)}" if left else "Nothing.")
    folder = out / PLACE
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        {
            "experiment": experiment.name,
            "success": {
                f"{arm}-{count}": {str(seed): float(one.values.mean()) for seed, one in by_seed.items()}
                for (arm, count), by_seed in played.items()
            },
            "gaps": [
                {**asdict(gap.contrast), "demonstrations": gap.demonstrations, "p": gap.p_value}
                | {"control_success": gap.control, **asdict(gap.difference)}
                for gap in gaps
            ],
        },
        folder / "results.json",
    )
    return report.write(folder / "report.html")


def _rates(by_seed: Mapping[int, Rollouts]) -> Float64[np.ndarray, " seeds"]:
    return np.array([by_seed[seed].values.mean() for seed in sorted(by_seed)])


def _spread(rates: Float64[np.ndarray, " seeds"]) -> str:
    deviation = f" ± {100 * rates.std(ddof=1):.1f}" if len(rates) > 1 else ""
    return f"{100 * rates.mean():.1f}{deviation}"


def _names(experiment: ActionExperiment) -> dict[str, str]:
    """Who played → what it is."""
    return {arm.name: arm.says for arm in experiment.arms} | dict.fromkeys(experiment.blind, "blind")


def _success(experiment: ActionExperiment, played: Played) -> tuple[list[str], list[list[str]], str]:
    rows = [
        [name, says, *(_spread(_rates(cell)) if (cell := played.get((name, n))) else "-" for n in _counts(experiment))]
        for name, says in _names(experiment).items()
    ]
    heads = ["policy", "what it is", *(f"{n} demonstrations, %" for n in _counts(experiment))]
    return heads, rows, "Mean over tasks and seeds; ± is the deviation between seeds."


def _of_tasks(experiment: ActionExperiment, played: Played) -> tuple[list[str], list[list[str]], str]:
    rows = []
    for (name, count), by_seed in sorted(played.items(), key=lambda item: (-item[0][1], item[0][0])):
        of_task = [np.mean([one.of_task(world).mean for one in by_seed.values()]) for world in experiment.worlds]
        rows.append([name, str(count), str(len(by_seed)), *(f"{100 * rate:.0f}" for rate in of_task)])
    tasks = [world.partition("/")[2] for world in experiment.worlds]
    return ["policy", "demonstrations", "seeds", *tasks], rows, "Success in %, mean over seeds."


def _gaps(gaps: list[ActionGap]) -> tuple[list[str], list[list[str]], str]:
    rows = []
    for gap in gaps:
        i = gap.difference.interval
        rows.append(
            [
                f"{gap.contrast.arm} - {gap.contrast.control}",
                str(gap.demonstrations),
                f"{100 * gap.control:.1f}",
                f"{100 * i.mean:+.1f} [{100 * i.low:+.1f}, {100 * i.high:+.1f}]",
                f"{gap.p_value:.3f}",
                f"{100 * gap.difference.detectable:.1f}",
            ]
        )
    caption = "In points, paired over seeds and starts, 95 % intervals; p corrected over all gaps (Holm)."
    return ["gap", "demonstrations", "control, %", "points", "p", "detectable"], rows, caption


def _counts(experiment: ActionExperiment) -> list[int]:
    return sorted(experiment.demonstrations)


def success_picture(experiment: ActionExperiment, played: Played) -> bytes:
    """An SVG file: success over demonstrations, one line for each policy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    counts = _counts(experiment)
    names = _names(experiment)
    for place, (colour, name) in enumerate(zip(LINES, names, strict=False)):
        aside = APART * (place - (len(names) - 1) / 2)
        there = [n for n in counts if (name, n) in played]
        rates = [100 * _rates(played[name, n]) for n in there]
        axes.plot([n + aside for n in there], [each.mean() for each in rates], color=colour, label=name, linewidth=1.8)
        for n, each in zip(there, rates, strict=True):
            axes.scatter([n + aside] * len(each), each, color=colour, s=14)
    axes.set_ylim(0, 100)
    axes.set_xlabel("demonstrations of each task", color=INK)
    axes.set_ylabel("success, %", color=INK)
    axes.legend(frameon=False, labelcolor=INK)
    quieten(axes)
    axes.set_xticks(counts)
    axes.set_xlim(0, max(counts) + min(counts))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def cost(experiment: ActionExperiment, out: Path | None) -> str:
    """What is to be done."""
    tasks: list[ActionTask] = list(experiment.tasks())
    left = [task for task in tasks if out is None or not is_finished(task, out)]
    steps = sum(
        stage.steps for task in left if task.arm in experiment.trained for stage in experiment.recipe_of(task).stages
    )
    episodes = len(left) * len(experiment.worlds) * experiment.trials
    return (
        f"experiment {experiment.name}: {len(tasks)} policies, {len(left)} to do: {steps:,} steps of training, "
        f"{episodes:,} episodes in closed loop"
    )
