"""An experiment as one page: the verdict, gaps with intervals, probes, learning curves, costs, what is still to do."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemvlm.experiments.analysis import (
    Gap,
    Scores,
    Selection,
    can_show,
    gaps,
    group_items,
    mean_score,
    primary_items,
    reached_at,
    verdict,
)
from gemvlm.experiments.arm import get_arm, recipe_of
from gemvlm.experiments.execute import is_done, is_finished
from gemvlm.experiments.experiment import Experiment, Task
from gemvlm.experiments.forgetting import finished_forgetting
from gemvlm.experiments.measure import ItemScore, read_scores, write_json
from gemvlm.experiments.mechanism import credit, finished_probes, probe_gaps
from gemvlm.experiments.plan import seeds_advice
from gemvlm.experiments.report_parts import (
    add_forgetting,
    add_probes,
    add_spent,
    gap_rows,
    gap_table,
    probe_means,
)
from gemvlm.experiments.run_log import LOG_FILE, marks
from gemvlm.experiments.shared import place_of
from gemvlm.experiments.spent import spent
from gemvlm.figure import Report
from gemvlm.figure.plots import INK, LINES, quieten
from gemvlm.training.metrics import read_metrics

CHANCE = 0.5
"""Of every question of the primary metric: each has two answers, and shortcuts answer half of them."""

METRICS: dict[str, Callable[[ItemScore], float]] = {
    "score": lambda item: item.score,
    "surprise": lambda item: item.surprise,
}


def finished_scores(experiment: Experiment, out: Path, test: str) -> Scores:
    """What the finished arms answered on one of the test sets."""
    found: dict[str, dict[int, list[ItemScore]]] = {}
    for arm in experiment.arms:
        for seed in experiment.seeds_of(arm):
            path = Task(arm, seed).folder(out) / f"{test}.jsonl"
            if path.is_file():
                found.setdefault(arm, {})[seed] = read_scores(path)
    return found


def write_report(experiment: Experiment, out: Path) -> Path:
    """`report.html` and `results.json` in `out`, of whatever is finished."""
    tests = [place_of(test, experiment, out).name for test in experiment.tests]
    report = Report(f"Experiment {experiment.name}", f"{len(experiment.arms)} arms, {len(experiment.seeds)} seeds")
    results: dict[str, object] = {"experiment": experiment.name, "tests": {}}
    probes = finished_probes(experiment, out)
    probed = probe_gaps(experiment, probes)
    left = [task.name for task in experiment.tasks() if not is_finished(task, experiment, out)]
    selections: dict[str, Selection] = {"primary": primary_items(experiment)}
    for group in ("taught", "untaught", "metric"):
        selections[group] = group_items(getattr(experiment, group))
    for place, test in enumerate(tests):
        scores = finished_scores(experiment, out, test)
        report.heading(f"Test set {test}")
        chosen = selections["primary"]
        asked = any(chosen(item) for by_seed in scores.values() for items in by_seed.values() for item in items)
        found = {
            metric: gaps(experiment, scores, chosen, metric, value) if asked else []
            for metric, value in METRICS.items()
        }
        if not place:
            said = results["verdict"] = _said(
                experiment, scores, chosen, found["score"], probed, _lacks_answers(experiment, out)
            )
            if broken := untrue_self_test(experiment, out, tests):
                said = results["verdict"] = (
                    f"The harness is broken: `detached` answered otherwise than `text` with seeds {broken}; nothing "
                    "is concluded."
                )
            report.text(f"**{said}**")
            if experiment.more_seeds and found["score"]:
                before = results["planned_seeds"] = _of_planned_seeds(experiment, out, test)
                report.text(f"Of the planned seeds alone: {before}")
        report.table(*_means(experiment, scores, selections))
        for metric, rows in ((metric, rows) for metric, rows in found.items() if rows):
            report.table(*gap_table(rows, metric))
        results["tests"][test] = {metric: gap_rows(rows) for metric, rows in found.items()}  # type: ignore[index]
    results["probe"] = {"means": probe_means(probes), "gaps": gap_rows(probed)}
    add_probes(report, probes, probed, out)
    results["forgetting"] = add_forgetting(report, finished_forgetting(experiment, out))
    results["spent"] = add_spent(report, experiment, spent(experiment, out))
    report.heading("As they learn")
    report.text("How surprised each arm is by held-out answers, over the operations that it has spent (mean of seeds).")
    curves = learning_curves(experiment, out)
    if curves:
        report.figure(curves_picture(curves), "nats per token; stage 0 is not counted")
    if (control_arm := experiment.contrasts[0].control) in curves:
        report.table(*_thresholds(curves, control_arm))
    report.heading("To do")
    report.text(f"{len(left)} trainings are not finished: {', '.join(left)}" if left else "Everything is finished.")
    report.text(seeds_advice(experiment, out))
    write_json(results, out / "results.json")
    return report.write(out / "report.html")


def _said(
    experiment: Experiment,
    scores: Scores,
    chosen: Selection,
    found: Sequence[Gap],
    probed: Sequence[Gap],
    preliminary: bool,
) -> str:
    """The verdict, and whether the probe agrees; of the control's seeds that the primary gap is taken over."""
    primary = experiment.contrasts[0]
    control = scores.get(primary.control, {})
    shared = {seed: items for seed, items in control.items() if seed in scores.get(primary.arm, {})}
    mean = float(mean_score(shared, chosen, METRICS["score"]).mean()) if found and shared else float("nan")
    said = verdict(found, primary, mean, CHANCE)
    if can_show(mean, CHANCE):
        said = f"{said} {credit(found, probed, primary)}"
    planned = len(experiment.seeds_of(primary.control))
    return f"Preliminary, {len(shared)} of {planned} seeds: {said}" if preliminary and shared else said


def _of_planned_seeds(experiment: Experiment, out: Path, test: str) -> str:
    """The verdict as it is without the seeds that were added."""
    planned = replace(experiment, more_seeds=())
    scores, chosen = finished_scores(planned, out, test), primary_items(planned)
    found = gaps(planned, scores, chosen, "score", METRICS["score"])
    probed = probe_gaps(planned, finished_probes(planned, out))
    return _said(planned, scores, chosen, found, probed, _lacks_answers(planned, out))


def _lacks_answers(experiment: Experiment, out: Path) -> bool:
    """Whether an arm is unfinished. Answers may have come without the weights of the stage 0 that they stand on."""
    return any(task.arm is not None and not is_finished(task, experiment, out) for task in experiment.tasks())


def untrue_self_test(experiment: Experiment, out: Path, tests: Sequence[str]) -> list[int]:
    """Seeds with which `detached` did not answer as `text`, to the bit: then the arms differ in more than they say."""
    found: set[int] = set()
    for test in tests:
        scores = finished_scores(experiment, out, test)
        text, detached = scores.get("text", {}), scores.get("detached", {})
        found |= {seed for seed in text.keys() & detached.keys() if text[seed] != detached[seed]}
    return sorted(found)


def _means(
    experiment: Experiment, scores: Scores, selections: Mapping[str, Selection]
) -> tuple[list[str], list[list[str]], str]:
    rows = []
    for arm, by_seed in scores.items():
        cells = [arm, get_arm(arm).says, str(len(by_seed))]
        for name, chosen in selections.items():
            for metric in ("score", "surprise") if name == "primary" else ("score",):
                try:
                    each = mean_score(by_seed, chosen, METRICS[metric])
                except ValueError:
                    cells.append("-")
                    continue
                spread = f" ± {each.std(ddof=1):.3f}" if len(each) > 1 else ""
                cells.append(f"{each.mean():.3f}{spread}")
        rows.append(cells)
    names = ["arm", "what it is", "seeds", "primary", "primary, nats", "taught", "untaught", "metric"]
    return names, rows, "Mean over families; ± is the deviation between seeds. The primary metric's chance is 0.5."


def learning_curves(experiment: Experiment, out: Path) -> dict[str, list[tuple[float, float]]]:
    """Arm → (operations spent after stage 0, surprise), averaged over its finished seeds."""
    curves = {}
    for arm in experiment.arms:
        tasks = [task for seed in experiment.seeds_of(arm) if is_done(task := Task(arm, seed), experiment, out)]
        if tasks:
            points = np.array([_curve(experiment, task, out) for task in tasks]).mean(axis=0)
            curves[arm] = [(float(x), float(y)) for x, y in points]
    return curves


def _curve(experiment: Experiment, task: Task, out: Path) -> list[tuple[float, float]]:
    assert task.arm is not None
    along = marks(task.folder(out), recipe_of(get_arm(task.arm), experiment.base, task.seed).stages)
    steps, operations = [mark.step for mark in along], [mark.operations for mark in along]
    last = experiment.base.stages[-1].name  # before it nobody learns to answer
    return [
        (float(np.interp(line["step"], steps, operations)), line["curve/surprise"])
        for line in read_metrics(task.folder(out) / LOG_FILE)
        if "curve/surprise" in line and line["stage"] == last
    ]


def curves_picture(curves: Mapping[str, list[tuple[float, float]]]) -> bytes:
    """An SVG file: one line for each arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    for colour, (arm, points) in zip([*LINES, *LINES], curves.items(), strict=False):
        x, y = np.array(points).T
        axes.plot(x, y, color=colour, label=arm, linewidth=1.8)
    axes.set_xlabel("operations after stage 0", color=INK)
    axes.set_ylabel("surprise, nats per token", color=INK)
    axes.legend(frameon=False, labelcolor=INK)
    quieten(axes)
    axes.set_yscale("linear")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _thresholds(
    curves: Mapping[str, list[tuple[float, float]]], control: str
) -> tuple[list[str], list[list[str]], str]:
    """Operations to the surprise that the control ends with."""
    goal = curves[control][-1][1]
    rows = []
    for arm, points in curves.items():
        at = reached_at(points, goal)
        share = "never" if at is None else f"{at / curves[control][-1][0]:.2f}"
        drop = f"{points[-2][1] - points[-1][1]:.3f}" if len(points) > 1 else "-"
        rows.append([arm, f"{points[-1][1]:.3f}", drop, share])
    caption = (
        f"Operations to {goal:.3f} nats, where {control} ends, as a share of what {control} spent. An arm whose last "
        "drop is large was not flat: its final score says how fast it learns as well."
    )
    return ["arm", "at the end", "last drop", "operations"], rows, caption
