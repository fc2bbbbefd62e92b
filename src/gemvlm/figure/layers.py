"""Curves over the layers of a model, each quantity in a plot of its own, with what needs no model as level lines."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gemvlm.figure.plots import INK, LINES, quieten

DASH = 4.0


@dataclass(frozen=True)
class Curve:
    """(layer, value, low, high) of one name; a `level` curve has one value, drawn as a line over the whole width."""

    name: str
    places: tuple[tuple[int, float, float, float], ...]
    level: bool = False


@dataclass(frozen=True)
class Panel:
    """One plot: its title, a line that says how to read it, and its curves."""

    title: str
    note: str
    curves: tuple[Curve, ...]
    better: Literal["higher", "lower"] = "higher"


def layer_curves(panels: Sequence[Panel], axis: str, file_format: Literal["svg", "png"] = "svg") -> bytes:
    """An image file with the panels two by two; names have the same colour in all of them, told by one legend."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not panels:
        raise ValueError("layer curves: no panel to draw")
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.9 * rows + 0.4), layout="constrained")
    figure.patch.set_alpha(0)
    lines: dict[str, Any] = {}
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        for curve in panel.curves:
            lines[curve.name] = _draw(axes, curve, LINES[names.index(curve.name) % len(LINES)])
        axes.set_title(panel.title, loc="left", fontsize=10, color=INK, weight="bold", pad=18)
        axes.annotate(panel.note, (0, 1), xytext=(0, 5), color=INK, fontsize=8, va="bottom",
                      xycoords="axes fraction", textcoords="offset points")  # fmt: skip
        if panel.better == "lower":
            axes.set_ylim(bottom=0)
        else:
            axes.set_ylim(bottom=min(0, max(axes.get_ylim()[0], -0.3)))
        quieten(axes)
        if number >= len(panels) - columns:
            axes.set_xlabel(axis, fontsize=8, color=INK)
    legend = figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(names), frameon=False)
    for text in legend.get_texts():
        text.set(color=INK, fontsize=9)
    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "font.family": ["sans-serif"], "svg.hashsalt": "gemvlm"}):
        figure.savefig(buffer, format=file_format, dpi=200, metadata={"Date": None} if file_format == "svg" else None)
    return buffer.getvalue()


def _draw(axes: Any, curve: Curve, colour: str) -> Any:
    layers, values, low, high = np.array(curve.places, dtype=float).T
    if curve.level:
        # dashes of one level fall into the gaps of the next: two that agree are both seen
        offset = DASH * sum(line.get_linestyle() == "--" for line in axes.lines)
        return axes.axhline(values[0], color=colour, linewidth=1.5, linestyle=(offset, (DASH, DASH)))
    axes.fill_between(layers, low, high, color=colour, alpha=0.18, linewidth=0)
    return axes.plot(layers, values, color=colour, linewidth=1.9, marker="o", markersize=3.5)[0]
