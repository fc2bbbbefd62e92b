"""Everything that draws: depth and answers on pictures, curves, and the one style of HTML report.

Nothing here computes a result, and nothing imports another room: pictures are uint8 RGB arrays, places are fractions of
the image.
"""

from __future__ import annotations

from gemvlm.figure.pictures import (
    DepthRow,
    colour_depth,
    depth_panel,
    draw_points_boxes,
    enlarge,
    error_map,
    png_bytes,
)
from gemvlm.figure.plots import loss_curves
from gemvlm.figure.report import Exchange, Report, Score

__all__ = [
    "DepthRow",
    "Exchange",
    "Report",
    "Score",
    "colour_depth",
    "depth_panel",
    "draw_points_boxes",
    "enlarge",
    "error_map",
    "loss_curves",
    "png_bytes",
]
