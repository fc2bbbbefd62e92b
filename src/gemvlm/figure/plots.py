"""Curves of a training, on a transparent ground and in colours that read on white and on black."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

INK = "#808890"
LINES = ("#3a86c8", "#e0603f", "#22a27a", "#b07cd8", "#d39b1f", "#7f8c97")


def loss_curves(
    records: Sequence[Mapping[str, Any]],
    names: Sequence[str] | None = None,
    smooth: int = 25,
    file_format: Literal["svg", "png"] = "svg",
) -> bytes:
    """An image file, one small plot per loss: raw values faint, their running mean over `smooth` records bold.

    `records` are lines of a run's `metrics.jsonl`: {"step": int, "stage": str, "loss/text": number, ...}. By default
    every field whose name begins with "loss/" is drawn. A dotted line with its name marks where a stage begins.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = names or list(dict.fromkeys(name for record in records for name in record if name.startswith("loss/")))
    if not names:
        raise ValueError(f'loss curves: none of {len(records)} records has a field that begins with "loss/"')
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.5 * columns, 2.3 * rows), layout="constrained")
    figure.patch.set_alpha(0)
    for index, name in enumerate(names):
        known = [(record["step"], record[name]) for record in records if name in record]
        steps, values = np.array(known, dtype=float).reshape(-1, 2).T
        axes = figure.add_subplot(rows, columns, index + 1)
        colour = LINES[index % len(LINES)]
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.9)
        axes.plot(steps, _running_mean(values, smooth), color=colour, linewidth=1.9)
        axes.set_title(name.removeprefix("loss/").replace("_", " "), loc="left", fontsize=10, color=INK, weight="bold")
        quieten(axes)
        _mark_stages(axes, records)
    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "font.family": ["sans-serif"], "svg.hashsalt": "gemvlm"}):
        figure.savefig(buffer, format=file_format, dpi=200, metadata={"Date": None} if file_format == "svg" else None)
    return buffer.getvalue()


def _running_mean(values: Float[np.ndarray, " records"], width: int) -> Float[np.ndarray, " records"]:
    """Mean of the last `width` values, of fewer at the start: nothing is read from the future."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - width, 0)
    return (total[end] - total[start]) / (end - start)


def quieten(axes: Any) -> None:
    """Leaves of a plot's furniture what a reader needs: the values, light lines to read them by, a floor."""
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_ylim()
    if low > 0 and high > 30 * low:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_facecolor("none")
    axes.tick_params(which="both", colors=INK, labelsize=8, length=0)
    axes.grid(axis="y", color=INK, alpha=0.22, linewidth=0.7)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=INK, alpha=0.6)


def _mark_stages(axes: Any, records: Sequence[Mapping[str, Any]]) -> None:
    """A dotted line where a stage begins, its name along it: names of short stages must not run into each other."""
    low, high = axes.get_xlim()
    stage = records[0].get("stage")
    for record in records:
        if record.get("stage") != stage:
            stage, step = record.get("stage"), record["step"]
            if low < step < high:
                axes.axvline(step, color=INK, alpha=0.6, linewidth=0.8, linestyle=(0, (2, 3)))
                where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "rotation": 90}
                axes.annotate(stage, (step, 1), xytext=(2, -2), color=INK, fontsize=7, va="top", ha="left", **where)
