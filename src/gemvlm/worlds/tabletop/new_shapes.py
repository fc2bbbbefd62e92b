"""Five shapes that no training scene shows, for tests of what a model makes of objects that it has never seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gemvlm.worlds.tabletop.parts import Part
from gemvlm.worlds.tabletop.shapes import Shape


def _vase(s: float) -> Shape:
    """A round belly, a narrow neck and a wide rim, hollow."""
    outer = [[0, -0.09], [0.03, -0.09], [0.056, -0.05], [0.058, -0.02], [0.04, 0.025], [0.022, 0.05], [0.034, 0.09]]
    inner = [[0.029, 0.09], [0.017, 0.05], [0, 0.03]]
    foot = Part("cylinder", (0.045 * s, 0.05 * s), position=np.array([0, 0, -0.04 * s]))
    neck = Part("cylinder", (0.03 * s, 0.04 * s), position=np.array([0, 0, 0.05 * s]))
    half = np.array([0.058, 0.058, 0.09]) * s
    return Shape(half, (Part("lathe", outline=s * np.array(outer + inner)),), (foot, neck), 0.03 * s, 0.058 * s)


def _hourglass(s: float) -> Shape:
    """Two cups that touch at their bottoms between two discs."""
    profile = [[0, -0.08], [0.05, -0.08], [0.05, -0.07], [0.042, -0.066], [0.012, 0], [0.042, 0.066], [0.05, 0.07]]
    profile += [[0.05, 0.08], [0, 0.08]]
    lower, middle, upper = (
        Part("cylinder", (radius * s, half * s), position=np.array([0, 0, z * s]))
        for radius, half, z in ((0.05, 0.012, -0.068), (0.028, 0.06, 0.0), (0.05, 0.012, 0.068))
    )
    half = np.array([0.05, 0.05, 0.08]) * s
    parts = (lower, middle, upper)
    return Shape(half, (Part("lathe", outline=s * np.array(profile)),), parts, 0.05 * s, 0.05 * s, 0.05 * s, 0.08 * s)


def _stool(s: float) -> Shape:
    """A square seat on four legs."""
    seat = Part("box", (0.065 * s, 0.065 * s, 0.012 * s), position=np.array([0, 0, 0.058 * s]))
    legs = tuple(
        Part("box", (0.011 * s, 0.011 * s, 0.058 * s), position=np.array([x * s, y * s, -0.012 * s]))
        for x in (-0.052, 0.052)
        for y in (-0.052, 0.052)
    )
    half = np.array([0.065, 0.065, 0.07]) * s
    parts = (seat, *legs)
    return Shape(half, parts, parts, 0.052 * s, 0.092 * s, 0.06 * s, 0.07 * s)


def _cross(s: float) -> Shape:
    """A plus sign that lies flat."""
    beams = tuple(Part("box", (x * s, y * s, 0.028 * s)) for x, y in ((0.085, 0.026), (0.026, 0.085)))
    half = np.array([0.085, 0.085, 0.028]) * s
    return Shape(half, beams, beams, 0.07 * s, 0.089 * s, 0.03 * s, 0.028 * s)


def _pawn(s: float) -> Shape:
    """A chessman: a ball on a slender cone on a foot."""
    profile = [[0, -0.08], [0.046, -0.08], [0.046, -0.064], [0.034, -0.054], [0.016, 0.024], [0.03, 0.03], [0, 0.036]]
    ball = Part("ball", (0.03 * s,), position=np.array([0, 0, 0.05 * s]))
    foot = Part("cylinder", (0.046 * s, 0.01 * s), position=np.array([0, 0, -0.07 * s]))
    stem = Part("cylinder", (0.022 * s, 0.048 * s), position=np.array([0, 0, -0.012 * s]))
    half = np.array([0.046, 0.046, 0.08]) * s
    body = Part("lathe", outline=s * np.array(profile))
    return Shape(half, (body, ball), (foot, stem, ball), 0.046 * s, 0.046 * s)


NEW_SHAPES: dict[str, Callable[[float], Shape]] = {
    "cross": _cross,
    "hourglass": _hourglass,
    "pawn": _pawn,
    "stool": _stool,
    "vase": _vase,
}
NEW_CATEGORIES = tuple(NEW_SHAPES)
