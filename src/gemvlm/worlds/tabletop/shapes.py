"""The objects of the tabletop world: thirteen shapes that are told apart by their silhouettes, in metres.

Every shape has one nominal size, varied a little by its caller, so that a size in the image carries metric information.
What is seen (`visual`) may be hollow; what touches (`collision`) is a few convex pieces that rest stably.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gemvlm.worlds.tabletop.parts import Part


@dataclass(frozen=True)
class Shape:
    """One object about the centre of its bounding box.

    `foot_radius` is the radius of the area it stands on, `footprint_radius` encloses it seen from above. `top_radius`
    and `top_height` describe the flat area that can carry something (radius 0: nothing stands on it). A string
    would be tied at `hook`, or at the middle of the top if that is None.
    """

    half_extents: Float[np.ndarray, "3"]
    visual: tuple[Part, ...]
    collision: tuple[Part, ...]
    foot_radius: float
    footprint_radius: float
    top_radius: float = 0.0
    top_height: float = 0.0
    hook: tuple[float, float, float] | None = None


def cuboid(half_extents: tuple[float, float, float], scale: float = 1.0) -> Shape:
    """A solid box that can carry things."""
    x, y, z = (scale * h for h in half_extents)
    part = Part("box", (x, y, z))
    return Shape(np.array([x, y, z]), (part,), (part,), min(x, y), float(np.hypot(x, y)), min(x, y), z)


def _cube(s: float) -> Shape:
    return cuboid((0.05, 0.05, 0.05), s)


def _book(s: float) -> Shape:
    return cuboid((0.08, 0.11, 0.018), s)


def _ball(s: float) -> Shape:
    radius = 0.05 * s
    part = Part("ball", (radius,))
    return Shape(np.full(3, radius), (part,), (part,), 0.5 * radius, radius)


def _can(s: float) -> Shape:
    radius, half = 0.04 * s, 0.065 * s
    part = Part("cylinder", (radius, half))
    return Shape(np.array([radius, radius, half]), (part,), (part,), radius, radius, radius, half)


def _cone(s: float) -> Shape:
    """A traffic cone: a square flange tells it from the pyramid."""
    half = 0.085 * s
    flange = Part("box", (0.06 * s, 0.06 * s, 0.007 * s), position=np.array([0, 0, -0.078 * s]))
    profile = s * np.array([[0, -0.071], [0.046, -0.071], [0.010, 0.085], [0, 0.085]])
    middle = Part("cylinder", (0.028 * s, 0.078 * s), position=np.array([0, 0, 0.007 * s]))
    return Shape(
        np.array([0.06 * s, 0.06 * s, half]),
        (flange, Part("lathe", outline=profile)),
        (flange, middle),
        0.06 * s,
        0.085 * s,
    )


def _pyramid(s: float) -> Shape:
    x, z = 0.07 * s, 0.048 * s
    corners = np.array([[-x, -x, -z], [x, -x, -z], [x, x, -z], [-x, x, -z], [0, 0, z]])
    part = Part("convex", outline=corners)
    return Shape(np.array([x, x, z]), (part,), (part,), x, float(np.hypot(x, x)))


def _ring(s: float) -> Shape:
    major, minor = 0.052 * s, 0.019 * s
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    profile = np.stack([major + minor * np.cos(angle), minor * np.sin(angle)], axis=1)
    outer = major + minor
    solid = Part("cylinder", (outer, minor))
    return Shape(
        np.array([outer, outer, minor]),
        (Part("lathe", outline=profile, closed=True),),
        (solid,),
        major,
        outer,
        hook=(major, 0.0, minor),
    )


def _mug(s: float) -> Shape:
    """The handle is half a ring on the +x side; the body's axis is moved so that the whole is centred."""
    radius, half, shift = 0.045 * s, 0.052 * s, -0.0175 * s
    profile = s * np.array([[0, -0.052], [0.045, -0.052], [0.045, 0.052], [0.039, 0.052], [0.039, -0.042], [0, -0.042]])
    axis = np.array([shift, 0, 0])
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    tube = s * np.stack([0.029 + 0.009 * np.cos(angle), 0.009 * np.sin(angle)], axis=1)
    upright = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    wall = axis + np.array([radius - 0.003 * s, 0, 0])
    handle = Part("lathe", outline=tube, closed=True, sweep=(-1.6, 1.6), position=wall, rotation=upright)
    grip = Part("box", (0.018 * s, 0.008 * s, 0.03 * s), position=wall + np.array([0.018 * s, 0, 0]))
    solid = Part("cylinder", (radius, half), position=axis)
    return Shape(
        np.array([0.0625 * s, radius, half]),
        (Part("lathe", outline=profile, position=axis), handle),
        (solid, grip),
        radius,
        0.066 * s,
        hook=(shift, 0.0, -0.042 * s),
    )


def _bowl(s: float) -> Shape:
    outer = [[0, -0.036], [0.036, -0.036], [0.058, -0.018], [0.072, 0.006], [0.08, 0.036]]
    inner = [[0.074, 0.036], [0.065, 0.008], [0.052, -0.012], [0.034, -0.027], [0, -0.029]]
    foot = Part("cylinder", (0.042 * s, 0.018 * s), position=np.array([0, 0, -0.018 * s]))
    rim = Part("cylinder", (0.076 * s, 0.018 * s), position=np.array([0, 0, 0.018 * s]))
    half = np.array([0.08, 0.08, 0.036]) * s
    return Shape(
        half,
        (Part("lathe", outline=s * np.array(outer + inner)),),
        (foot, rim),
        0.04 * s,
        0.08 * s,
        hook=(0.0, 0.0, -0.029 * s),
    )


def _bottle(s: float) -> Shape:
    profile = [[0, -0.11], [0.038, -0.11], [0.038, 0.02], [0.033, 0.04], [0.015, 0.062], [0.013, 0.11], [0, 0.11]]
    body = Part("cylinder", (0.038 * s, 0.068 * s), position=np.array([0, 0, -0.042 * s]))
    neck = Part("cylinder", (0.014 * s, 0.04 * s), position=np.array([0, 0, 0.066 * s]))
    half = np.array([0.038, 0.038, 0.11]) * s
    return Shape(half, (Part("lathe", outline=s * np.array(profile)),), (body, neck), 0.038 * s, 0.038 * s)


def _plate(s: float) -> Shape:
    """Flat in the middle: a mug may stand on it."""
    profile = [[0, -0.012], [0.06, -0.012], [0.105, 0.008], [0.105, 0.012], [0.1, 0.012], [0.064, -0.004], [0, -0.004]]
    disc = Part("cylinder", (0.066 * s, 0.004 * s), position=np.array([0, 0, -0.008 * s]))
    half = np.array([0.105, 0.105, 0.012]) * s
    return Shape(
        half,
        (Part("lathe", outline=s * np.array(profile)),),
        (disc,),
        0.06 * s,
        0.105 * s,
        0.058 * s,
        -0.004 * s,
        (0.0, 0.0, -0.004 * s),
    )


def _goblet(s: float) -> Shape:
    outer = [[0, -0.08], [0.04, -0.08], [0.036, -0.073], [0.008, -0.066], [0.007, -0.01], [0.035, 0.012], [0.045, 0.04]]
    inner = [[0.041, 0.08], [0.036, 0.08], [0.039, 0.04], [0.03, 0.016], [0, 0.006]]
    foot = Part("cylinder", (0.04 * s, 0.005 * s), position=np.array([0, 0, -0.075 * s]))
    stem = Part("cylinder", (0.008 * s, 0.035 * s), position=np.array([0, 0, -0.035 * s]))
    cup = Part("cylinder", (0.042 * s, 0.037 * s), position=np.array([0, 0, 0.043 * s]))
    half = np.array([0.045, 0.045, 0.08]) * s
    return Shape(
        half,
        (Part("lathe", outline=s * np.array(outer + inner)),),
        (foot, stem, cup),
        0.04 * s,
        0.045 * s,
        hook=(0.0, 0.0, 0.006 * s),
    )


def _arch(s: float) -> Shape:
    """Two pillars and a lintel, as in a box of building blocks."""
    lintel = Part("box", (0.08 * s, 0.028 * s, 0.018 * s), position=np.array([0, 0, 0.04 * s]))
    pillars = tuple(
        Part("box", (0.018 * s, 0.028 * s, 0.04 * s), position=np.array([x * s, 0, -0.018 * s]))
        for x in (-0.062, 0.062)
    )
    parts = (lintel, *pillars)
    half = np.array([0.08, 0.028, 0.058]) * s
    return Shape(half, parts, parts, 0.05 * s, 0.085 * s, 0.03 * s, 0.058 * s)


SHAPES: dict[str, Callable[[float], Shape]] = {
    "arch": _arch,
    "ball": _ball,
    "book": _book,
    "bottle": _bottle,
    "bowl": _bowl,
    "can": _can,
    "cone": _cone,
    "cube": _cube,
    "goblet": _goblet,
    "mug": _mug,
    "plate": _plate,
    "pyramid": _pyramid,
    "ring": _ring,
}
CATEGORIES = tuple(SHAPES)
