"""What stands where before physics: a seeded plan of structures, and of objects that stand, are stacked, or hang.

The table's centre lies above the world's origin, its back towards +y. Walls and shelves stand at the back (walls also
on the left), so that cameras know which azimuths see the table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from gemvlm.worlds.tabletop.new_shapes import NEW_SHAPES
from gemvlm.worlds.tabletop.parts import Part
from gemvlm.worlds.tabletop.shapes import CATEGORIES, SHAPES, Shape, cuboid
from gemvlm.worlds.tabletop.surface import (
    COLOURS,
    OBJECT_PATTERNS,
    PATTERNS,
    Surface,
    object_surface,
    structure_surface,
)

Mount = Literal["table", "shelf", "stack", "hang", "structure"]

GAP_M = 0.012
"""Free space kept between neighbours."""
DROP_M = 0.0005
"""Objects are released this far above what carries them."""
STRING_RADIUS_M = 0.005
WALL_HEIGHT_M = 1.5
STRING_TOP_M = 1.9
"""Height above the table at which strings end: above every camera."""


_SHAPES = {**SHAPES, **NEW_SHAPES}


@dataclass(frozen=True)
class SceneConfig:
    """Ranges that scenes and cameras are drawn from; lengths in metres, angles in degrees.

    `categories` may name the shapes of `new_shapes.py` too. `structure_patterns`, if given, are those of table, floor,
    wall and shelf in place of their usual ones.
    """

    min_objects: int = 4
    max_objects: int = 12
    size_variation: float = 0.15
    stack_chance: float = 0.4
    shelf_chance: float = 0.45
    on_shelf_chance: float = 0.4
    wall_chance: float = 0.6
    corner_chance: float = 0.4
    hanging_chance: float = 0.6
    max_hanging: int = 3
    hanging_height_m: tuple[float, float] = (0.2, 0.45)
    textured_chance: float = 0.3
    table_height_m: tuple[float, float] = (0.4, 0.75)
    crowding: tuple[float, float] = (0.9, 1.25)
    shelf_height_m: tuple[float, float] = (0.16, 0.32)
    fov_y_deg: tuple[float, ...] = (50.0, 57.0, 64.0)
    elevation_deg: tuple[float, float] = (20.0, 75.0)
    roll_deg: tuple[float, float] = (-15.0, 15.0)
    distance_m: tuple[float, float] = (0.55, 1.65)
    noise: float = 0.006
    categories: tuple[str, ...] = CATEGORIES
    object_patterns: tuple[str, ...] = OBJECT_PATTERNS
    structure_patterns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min_objects <= self.max_objects:
            raise ValueError(
                f"scene config: min_objects {self.min_objects} must be in 1..max_objects {self.max_objects}"
            )
        if unknown := sorted({*self.categories} - _SHAPES.keys()):
            raise ValueError(f"scene config: categories {unknown} are no shapes; there are {', '.join(_SHAPES)}")
        if unknown := sorted({*self.object_patterns, *(self.structure_patterns or ())} - {*PATTERNS}):
            raise ValueError(f"scene config: patterns {unknown} are unknown; there are {', '.join(PATTERNS)}")
        if not self.object_patterns or self.structure_patterns == ():
            raise ValueError("scene config: object_patterns and structure_patterns need at least one pattern each")
        if self.max_objects > (most := len(self.categories) * len(COLOURS) // 4):
            raise ValueError(
                f"scene config: max_objects {self.max_objects} is too many for distinct names; use {most} or fewer"
            )


@dataclass(frozen=True)
class Body:
    """A thing to be placed: position of its box's centre (metres, world) and turn about the vertical (radians)."""

    category: str
    shape: Shape
    surface: Surface
    position: Float[np.ndarray, "3"]
    yaw: float = 0.0
    mount: Mount = "table"


@dataclass(frozen=True)
class Layout:
    """A planned scene. `walls` names the walls that stand: "back" at +y, "left" at -x."""

    objects: tuple[Body, ...]
    structures: tuple[Body, ...]
    table_height_m: float
    table_half: tuple[float, float]
    walls: tuple[str, ...]
    shelf: bool


@dataclass
class _Space:
    """Vertical cylinders that are taken: (x, y, radius, bottom, top)."""

    taken: list[tuple[float, float, float, float, float]] = field(default_factory=list)

    def free(self, x: float, y: float, radius: float, bottom: float, top: float) -> bool:
        for tx, ty, tr, tb, tt in self.taken:
            if np.hypot(x - tx, y - ty) < radius + tr + GAP_M and bottom < tt + GAP_M and top > tb - GAP_M:
                return False
        return True


def plan_layout(rng: np.random.Generator, config: SceneConfig) -> Layout:
    """Draws a layout; places that are crowded out are dropped, so there may be fewer objects than were drawn."""
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    top = float(rng.uniform(*config.table_height_m))
    spread = float(rng.uniform(*config.crowding) * 0.105 * np.sqrt(count) + 0.03)
    has_shelf = bool(rng.random() < config.shelf_chance)
    shelf_y = spread + 0.11
    margin = rng.uniform(0.08, 0.25, size=2)
    half = (spread + 0.08 + float(margin[0]), spread + (0.26 if has_shelf else 0.08) + float(margin[1]))
    shelf_top = top + float(rng.uniform(*config.shelf_height_m))
    structures, walls = _structures(rng, config, top, half)
    if has_shelf:
        structures.append(_shelf(rng, config, top, shelf_top, spread, shelf_y))

    space = _Space()
    names = _distinct_names(rng, count, config.categories)
    hanging = int(rng.integers(1, config.max_hanging + 1)) if rng.random() < config.hanging_chance else 0
    objects: list[Body] = []
    for index, (category, colour) in enumerate(names):
        shape = _SHAPES[category](float(rng.uniform(1 - config.size_variation, 1 + config.size_variation)))
        textured = bool(rng.random() < config.textured_chance)
        surface = object_surface(rng, colour, textured, config.object_patterns)
        body = None
        if index >= count - hanging:
            body = _hang(rng, config, space, category, shape, surface, top, spread)
        elif objects and rng.random() < config.stack_chance:
            body = _stack(rng, space, objects, category, shape, surface)
        elif has_shelf and rng.random() < config.on_shelf_chance:
            area = (spread - 0.02, 0.08)
            body = _stand(rng, space, category, shape, surface, "shelf", shelf_top, area, shelf_y)
        if body is None:
            body = _stand(rng, space, category, shape, surface, "table", top, (spread, spread), 0.0)
        if body is None:
            continue
        objects.append(body)
        x, y, z = body.position
        reach = shape.half_extents[2] if body.mount != "hang" else max(shape.half_extents)
        space.taken.append((x, y, shape.footprint_radius, z - reach, z + reach))
    strings = [_string(rng, body, top) for body in objects if body.mount == "hang"]
    return Layout(tuple(objects), tuple(structures + strings), top, half, walls, has_shelf)


def _distinct_names(rng: np.random.Generator, count: int, categories: tuple[str, ...]) -> list[tuple[str, str]]:
    """Pairs of category and colour, none twice."""
    pairs = [(category, colour) for category in categories for colour in COLOURS]
    return [pairs[i] for i in rng.permutation(len(pairs))[:count]]


def _stand(
    rng: np.random.Generator,
    space: _Space,
    category: str,
    shape: Shape,
    surface: Surface,
    mount: Mount,
    height: float,
    area: tuple[float, float],
    centre_y: float,
) -> Body | None:
    for _ in range(30):
        x, y = float(rng.uniform(-area[0], area[0])), centre_y + float(rng.uniform(-area[1], area[1]))
        if mount == "shelf" and shape.foot_radius > area[1] + 0.02 - abs(y - centre_y):
            continue
        z = height + float(shape.half_extents[2]) + DROP_M
        if space.free(x, y, shape.footprint_radius, height + 2 * GAP_M, height + 2 * float(shape.half_extents[2])):
            return Body(category, shape, surface, np.array([x, y, z]), float(rng.uniform(0, 2 * np.pi)), mount)
    return None


def _stack(
    rng: np.random.Generator, space: _Space, objects: list[Body], category: str, shape: Shape, surface: Surface
) -> Body | None:
    """Puts a body on the flat top of an earlier one that is broad enough and still free."""
    for index in rng.permutation(len(objects)):
        base = objects[int(index)]
        if base.mount == "hang" or shape.foot_radius > 1.05 * base.shape.top_radius:
            continue
        shift = 0.15 * base.shape.top_radius
        x, y = (float(v) for v in base.position[:2] + rng.uniform(-shift, shift, size=2))
        bottom = float(base.position[2]) + base.shape.top_height + DROP_M
        above = float(base.position[2] + base.shape.half_extents[2])
        if space.free(x, y, shape.footprint_radius, above + 2 * GAP_M, bottom + 2 * float(shape.half_extents[2])):
            position = np.array([x, y, bottom + float(shape.half_extents[2])])
            return Body(category, shape, surface, position, float(rng.uniform(0, 2 * np.pi)), "stack")
    return None


def _hang(
    rng: np.random.Generator,
    config: SceneConfig,
    space: _Space,
    category: str,
    shape: Shape,
    surface: Surface,
    top: float,
    spread: float,
) -> Body | None:
    for _ in range(30):
        x, y = (float(v) for v in rng.uniform(-0.9 * spread, 0.9 * spread, size=2))
        z = top + float(rng.uniform(*config.hanging_height_m))
        reach = float(shape.half_extents[2])
        if space.free(x, y, shape.footprint_radius, z - reach - 0.03, z + STRING_TOP_M):
            return Body(category, shape, surface, np.array([x, y, z]), float(rng.uniform(0, 2 * np.pi)), "hang")
    return None


def _string(rng: np.random.Generator, body: Body, top: float) -> Body:
    """From the body's hook straight up, out of every view."""
    tie_x, tie_y, tie_z = body.shape.hook or (0.0, 0.0, float(body.shape.half_extents[2]))
    x = float(body.position[0] + np.cos(body.yaw) * tie_x - np.sin(body.yaw) * tie_y)
    y = float(body.position[1] + np.sin(body.yaw) * tie_x + np.cos(body.yaw) * tie_y)
    bottom = float(body.position[2] + tie_z)
    half = 0.5 * (top + STRING_TOP_M - bottom)
    shape = Shape(
        np.array([STRING_RADIUS_M, STRING_RADIUS_M, half]),
        (Part("cylinder", (STRING_RADIUS_M, half)),),
        (),
        0.0,
        STRING_RADIUS_M,
    )
    surface = structure_surface(rng, ("plain",), (0.05, 0.06))
    return Body("string", shape, surface, np.array([x, y, bottom + half]), 0.0, "structure")


def _slab(
    category: str, surface: Surface, center: tuple[float, float, float], half: tuple[float, float, float]
) -> Body:
    return Body(category, cuboid(half), surface, np.array(center), 0.0, "structure")


def _structures(
    rng: np.random.Generator, config: SceneConfig, top: float, half: tuple[float, float]
) -> tuple[list[Body], tuple[str, ...]]:
    instead = config.structure_patterns
    table = structure_surface(rng, instead or ("plain", "wood", "wood", "checker", "stripes", "speckle"), (0.04, 0.12))
    floor = structure_surface(rng, instead or ("plain", "wood", "checker", "checker"), (0.12, 0.35))
    wall = structure_surface(rng, instead or ("plain", "stripes", "checker", "speckle"), (0.08, 0.3))
    bodies = [
        _slab("table", table, (0.0, 0.0, top - 0.015), (*half, 0.015)),
        _slab("floor", floor, (0.0, 0.0, -0.02), (4.0, 4.0, 0.02)),
    ]
    walls: list[str] = []
    if rng.random() < config.wall_chance:
        walls.append("back")
        bodies.append(_slab("wall", wall, (0.0, half[1] + 0.03, WALL_HEIGHT_M / 2), (2.5, 0.02, WALL_HEIGHT_M / 2)))
        if rng.random() < config.corner_chance:
            walls.append("left")
            bodies.append(
                _slab("wall", wall, (-half[0] - 0.03, 0.0, WALL_HEIGHT_M / 2), (0.02, 2.5, WALL_HEIGHT_M / 2))
            )
    return bodies, tuple(walls)


def _shelf(
    rng: np.random.Generator, config: SceneConfig, top: float, shelf_top: float, spread: float, y: float
) -> Body:
    """A board on two side panels that stands on the back of the table."""
    surface = structure_surface(rng, config.structure_patterns or ("plain", "wood"), (0.04, 0.1))
    half_width, half_height = spread + 0.04, 0.5 * (shelf_top - top)
    board = Part("box", (half_width, 0.1, 0.009), position=np.array([0, 0, half_height - 0.009]))
    panels = tuple(
        Part("box", (0.009, 0.1, half_height - 0.009), position=np.array([sign * (half_width - 0.009), 0, -0.009]))
        for sign in (-1.0, 1.0)
    )
    parts = (board, *panels)
    shape = Shape(np.array([half_width, 0.1, half_height]), parts, parts, 0.1, half_width, 0.1, half_height)
    return Body("shelf", shape, surface, np.array([0, y, top + half_height]), 0.0, "structure")
