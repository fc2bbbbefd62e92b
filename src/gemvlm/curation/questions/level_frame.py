"""The frame of someone who stands where a camera stands, level: right, forward and up, whatever the camera's roll."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from gemvlm.camera import View

LEAST_FORWARD = 0.15
"""A camera that looks almost straight down has no forward: the horizontal part of its axis must be this long."""


def level_axes(view: View) -> Float[np.ndarray, "3 3"] | None:
    """World directions (columns right, forward, up) of the level frame; None for a gaze almost straight down or up."""
    forward = view.camera_to_world[:2, 2]
    length = float(np.linalg.norm(forward))
    if length < LEAST_FORWARD:
        return None
    x, y = forward / length
    return np.array([[y, x, 0.0], [-x, y, 0.0], [0.0, 0.0, 1.0]])


def turn_deg(view: View, then: View) -> float | None:
    """How far the gaze turns to the left about the vertical, in -180..180 degrees; None if either has no forward."""
    here, there = level_axes(view), level_axes(then)
    if here is None or there is None:
        return None
    x, y = here[:2, 1] @ there[:2, 1], here[0, 1] * there[1, 1] - here[1, 1] * there[0, 1]
    return float(np.degrees(np.arctan2(y, x)))


def bearing_deg(offsets: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N"]:
    """Of offsets in a level frame: 0 straight ahead, positive to the right, in -180..180 degrees."""
    return np.degrees(np.arctan2(offsets[:, 0], offsets[:, 1]))


def quadrant(bearing: float, margin_deg: float) -> str | None:
    """ "ahead", "right", "behind" or "left"; None within `margin_deg` of the border between two."""
    names = ("ahead", "right", "behind", "left")
    turned = (bearing + 45) % 360
    inside = margin_deg <= turned % 90 <= 90 - margin_deg
    return names[int(turned // 90)] if inside else None
