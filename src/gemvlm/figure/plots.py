"""Curves of a training, on a transparent ground and in colours that read on white and on black."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#808890"
LINES = ("#3a86c8", "#e0603f", "#22a27a", "#b07cd8", "#d39b1f", "#7f8c97")


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """One record per line of a JSON-lines file. A last line cut by a kill is left out; any other bad line is a ValueError."""
    records = []
    lines = Path(path).read_text("utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not JSON ({error.msg}); was the log edited?") from error
    return records


def loss_curves(
    log: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    names: Sequence[str] | None = None,
    smooth: int = 25,
) -> Figure:
    """One small plot per loss against the step: the raw values faint, their running mean over `smooth` records bold.

    `log` is a JSON-lines file or its records; a record is {"step": int, name: number, ...}, losses may also stand in a
    dictionary "losses". By default every numeric field with "loss" in its name, and all of "losses", are drawn. Where the record's
    "stage" changes, a line is drawn with the new stage's name; steps that start anew at a stage are joined to one axis.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    records = [_flat(record) for record in (read_records(log) if isinstance(log, (str, os.PathLike)) else log)]
    names = names or _loss_names(records)
    if not names:
        raise ValueError("loss curves: no record has a loss; a record needs `step` and a number with `loss` in its name")
    steps, starts = _joined_steps(records)
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.5 * columns, 2.5 * rows), layout="constrained")
    figure.patch.set_alpha(0)
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, index + 1)
        known = np.array([_is_number(record.get(name)) for record in records])
        values = np.array([float(record[name]) for record, keep in zip(records, known, strict=True) if keep])
        colour = LINES[index % len(LINES)]
        axes.plot(steps[known], values, color=colour, alpha=0.22, linewidth=0.9)
        axes.plot(steps[known], _running_mean(values, smooth), color=colour, linewidth=1.9)
        _mark_stages(axes, starts, with_names=index < columns)
        if values.size and values.min() > 0 and values.max() > 30 * values.min():
            axes.set_yscale("log")
        axes.set_title(name.replace("_", " "), loc="left", fontsize=9.5, color=INK, fontweight="bold", pad=14)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_facecolor("none")
        axes.tick_params(colors=INK, labelsize=8, length=0)
        axes.grid(axis="y", color=INK, alpha=0.22, linewidth=0.7)
        for side, spine in axes.spines.items():
            spine.set(visible=side == "bottom", color=INK, alpha=0.6)
    return figure


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, **record.get("losses", {})}


def _loss_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """In the order of first appearance."""
    names: dict[str, None] = {}
    for record in records:
        named = record.get("losses", {})
        for name, value in record.items():
            if _is_number(value) and (name in named or "loss" in name):
                names.setdefault(name)
    return list(names)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _joined_steps(records: Sequence[Mapping[str, Any]]) -> tuple[Float[np.ndarray, "R"], list[tuple[float, str]]]:
    """Steps on one axis, and the step with the name at which each stage begins."""
    steps, starts, offset, last, stage = [], [], 0.0, 0.0, None
    for record in records:
        if record.get("stage") != stage:
            stage = record["stage"] if "stage" in record else stage
            offset = last if float(record["step"]) + offset < last else offset
            starts.append((last, str(stage)))
        last = float(record["step"]) + offset
        steps.append(last)
    return np.array(steps, dtype=float), starts


def _running_mean(values: Float[np.ndarray, "R"], width: int) -> Float[np.ndarray, "R"]:
    """Mean of the last `width` values, of fewer at the start: nothing is read from the future."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - width, 0)
    return (total[end] - total[start]) / (end - start)


def _mark_stages(axes: Any, starts: Sequence[tuple[float, str]], with_names: bool) -> None:
    for number, (step, name) in enumerate(starts if len(starts) > 1 else ()):
        if number:
            axes.axvline(step, color=INK, alpha=0.5, linewidth=0.8, linestyle=(0, (2, 3)))
        if with_names:
            place = {"xy": (step, 1), "xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axes.annotate(name, **place, xytext=(3, 3), color=INK, fontsize=7.5)
