"""Scores of several models family by family: a dot with its interval for each, on a transparent ground."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Literal

from gemvlm.figure.plots import INK, LINES

Measured = tuple[float, float, float]
"""A score between the ends of its interval: (score, low, high), in [0, 1]."""


def family_plot(
    families: Sequence[str],
    models: Mapping[str, Mapping[str, Measured]],
    chance: Mapping[str, float] | None = None,
    file_format: Literal["svg", "png"] = "svg",
) -> bytes:
    """An image file: a row for each family, in it a dot for each model and a tick where chance stands."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not families or not models:
        raise ValueError("plot of families: needs one family and one model at least")
    height = 0.9 + len(families) * (0.16 + 0.13 * len(models))
    figure = Figure(figsize=(7.2, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    step = 0.8 / (len(models) + 1)
    for index, (model, scores) in enumerate(models.items()):
        rows = [
            (row + step * (index + 1) - 0.4, scores[family]) for row, family in enumerate(families) if family in scores
        ]
        colour = LINES[index % len(LINES)]
        marker = "osD^vP"[index // len(LINES) % 6]
        for y, (_, low, high) in rows:
            axes.plot([100 * low, 100 * high], [y, y], color=colour, linewidth=1.6, alpha=0.55, solid_capstyle="round")
        axes.plot([100 * s[0] for _, s in rows], [y for y, _ in rows], marker, color=colour, markersize=5, label=model)
    for row, family in enumerate(families):
        if chance and family in chance:
            axes.plot(
                [100 * chance[family]] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=1.2, linestyle=(0, (2, 2))
            )
    axes.set_yticks(range(len(families)), [family.replace("_", " ") for family in families])
    axes.set_ylim(len(families) - 0.45, -0.55)
    axes.set_xlim(-1.5, 101.5)
    axes.set_xlabel("score, %; bars are 95 % intervals" + ("; dashed: chance" if chance else ""), color=INK, fontsize=8)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.grid(axis="x", color=INK, alpha=0.22, linewidth=0.7)
    for spine in axes.spines.values():
        spine.set(visible=False)
    legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(3, len(models)), frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_color(INK)
    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "font.family": ["sans-serif"], "svg.hashsalt": "gemvlm"}):
        figure.savefig(buffer, format=file_format, dpi=200, metadata={"Date": None} if file_format == "svg" else None)
    return buffer.getvalue()
