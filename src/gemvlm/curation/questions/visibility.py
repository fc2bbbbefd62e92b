"""What can be seen of each object in one observation: the measurements that every question family shares.

A question may only speak of what the picture shows. `Seen` holds the objects with at least one visible pixel, measured
once; families ask it who may be named, boxed or sized, and for a reference that no other visible object matches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from gemvlm.curation.questions.boxes import gaps_m
from gemvlm.sample import Box, Point, Region
from gemvlm.worlds.observation import ObjectState, Observation

MIN_PIXELS = 64
"""The usual precondition of question pipelines: about 8 by 8 pixels, where colour and outline survive."""
MIN_SHARE = 0.0005
"""Of the image, where that is more."""
NAMEABLE_FRACTION = 0.3
MEASURABLE_FRACTION = 0.6
WHOLE_FRACTION = 0.8
INVISIBLE_FRACTION = 0.05
MOST_CLOUD = 256
"""Points of an object that are compared with another's, one by one."""
MIN_RADIUS_SHARE = 3 / 448
"""A pointing answer must sit this deep (of the shorter side), and 2 pixels at least: its neighbours are inside too."""

Without = Callable[[int], Mapping[int, float]]
"""Takes an object's id away in simulation and gives every other object's displacement in metres."""


def interior_distance(mask: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Exact Euclidean distance, in pixels, of each pixel to the nearest one outside the mask; the border is outside.

    Two passes: the distance to the nearest outside pixel along each column, then the lower envelope along each row.
    """
    padded = np.pad(mask, 1)
    height, width = padded.shape
    row = np.arange(height)[:, None]
    above = np.maximum.accumulate(np.where(padded, -height, row), axis=0)
    below = np.minimum.accumulate(np.where(padded, 2 * height, row)[::-1], axis=0)[::-1]
    vertical = np.minimum(row - above, below - row).astype(np.float64)
    offsets = np.subtract.outer(np.arange(width), np.arange(width)).astype(np.float64)
    squared = (vertical[:, None, :] ** 2 + offsets[None] ** 2).min(axis=2)
    return np.sqrt(squared)[1:-1, 1:-1]


def interior(rows: Int[np.ndarray, "N"], columns: Int[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """`interior_distance` of each of the given pixels, worked out on their own box only."""
    row, column = rows - rows.min(), columns - columns.min()
    mask = np.zeros((row.max() + 1, column.max() + 1), dtype=bool)
    mask[row, column] = True
    return interior_distance(mask)[row, column]


def deepest_pixel(
    rows: Int[np.ndarray, "N"], columns: Int[np.ndarray, "N"], size: tuple[int, int]
) -> tuple[Point, float]:
    """Of the given pixels of an image (height, width), the deepest inside, and how deep, in pixels.

    Of equals it is the one nearest the centroid.
    """
    depth = interior(rows, columns)
    deepest = np.flatnonzero(depth > depth.max() - 1e-9)
    spread = (rows[deepest] - rows.mean()) ** 2 + (columns[deepest] - columns.mean()) ** 2
    best = deepest[np.argmin(spread)]
    return pixel_centre(int(rows[best]), int(columns[best]), size), float(depth[best])


def pixel_centre(row: int, column: int, size: tuple[int, int]) -> Point:
    return Point((column + 0.5) / size[1], (row + 0.5) / size[0])


@dataclass(frozen=True, eq=False)
class SeenObject:
    """One object and its visible pixels. `x`, `y` are the mask's mean, as fractions of the image; depths in metres."""

    state: ObjectState
    rows: Int[np.ndarray, "N"]
    columns: Int[np.ndarray, "N"]
    depths_m: Float[np.ndarray, "M"]
    size: tuple[int, int]

    @property
    def id(self) -> int:
        return self.state.id

    @property
    def area(self) -> int:
        return len(self.rows)

    @property
    def full_name(self) -> str:
        return self.state.name

    @property
    def colour_name(self) -> str | None:
        """ "red object"; None in worlds that know no colours."""
        return f"{self.state.colour} object" if self.state.colour else None

    @property
    def nouns(self) -> tuple[str, ...]:
        """What the object is one of: "mug", "red object", "object"."""
        return tuple(noun for noun in (self.state.category, self.colour_name, "object") if noun)

    @cached_property
    def x(self) -> float:
        return float((self.columns.mean() + 0.5) / self.size[1])

    @cached_property
    def y(self) -> float:
        return float((self.rows.mean() + 0.5) / self.size[0])

    @property
    def mask(self) -> Bool[np.ndarray, "H W"]:
        mask = np.zeros(self.size, dtype=bool)
        mask[self.rows, self.columns] = True
        return mask

    @cached_property
    def region(self) -> Region:
        return Region.from_mask(self.mask)

    @cached_property
    def box(self) -> Box:
        """The tight box of the visible pixels, from pixel edge to pixel edge."""
        height, width = self.size
        return Box(
            float(self.columns.min() / width),
            float(self.rows.min() / height),
            float((self.columns.max() + 1) / width),
            float((self.rows.max() + 1) / height),
        )

    @cached_property
    def near_m(self) -> float:
        """The 5th percentile of the visible depth: the object's front, without stray pixels."""
        return float(np.percentile(self.depths_m, 5)) if len(self.depths_m) else float("nan")

    @cached_property
    def median_m(self) -> float:
        return float(np.median(self.depths_m)) if len(self.depths_m) else float("nan")

    @cached_property
    def _deepest(self) -> tuple[Point, float]:
        return deepest_pixel(self.rows, self.columns, self.size)

    @property
    def point(self) -> Point:
        return self._deepest[0]

    @property
    def can_be_pointed_at(self) -> bool:
        return self._deepest[1] >= max(2.0, MIN_RADIUS_SHARE * min(self.size))

    @property
    def touches_border(self) -> bool:
        return self.box.x0 == 0 or self.box.y0 == 0 or self.box.x1 == 1 or self.box.y1 == 1

    @property
    def is_large_enough(self) -> bool:
        return self.area >= max(MIN_PIXELS, MIN_SHARE * self.size[0] * self.size[1])

    @property
    def is_nameable(self) -> bool:
        return self.is_large_enough and self.state.visible_fraction >= NAMEABLE_FRACTION

    @property
    def is_measurable(self) -> bool:
        """Seen well enough to speak of its size, its box or its centre."""
        return self.is_large_enough and self.state.visible_fraction >= MEASURABLE_FRACTION and not self.touches_border

    @property
    def is_whole(self) -> bool:
        """Seen well enough to read its length or height off the picture."""
        return self.is_measurable and self.state.visible_fraction >= WHOLE_FRACTION

    @property
    def is_undecidable(self) -> bool:
        """Neither clearly there nor clearly hidden: whoever counts could go either way."""
        hidden = self.state.visible_fraction <= INVISIBLE_FRACTION and not self.is_large_enough
        return not (hidden or self.is_nameable)


@dataclass(frozen=True, eq=False)
class Seen:
    """An observation measured once, for all question families; `without` simulates the removal of an object."""

    observation: Observation
    without: Without | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.observation.ids.shape[0], self.observation.ids.shape[1]

    @cached_property
    def _visible(self) -> tuple[SeenObject, ...]:
        ids, depth = self.observation.ids, self.observation.depth
        seen = []
        for state in self.observation.objects:
            rows, columns = np.nonzero(ids == state.id)
            if len(rows):
                depths = depth.values[rows, columns]
                depths = depths[depth.valid[rows, columns]].astype(np.float64)
                seen.append(SeenObject(state, rows, columns, depths, self.size))
        return tuple(seen)

    @cached_property
    def objects(self) -> tuple[SeenObject, ...]:
        """Movable objects with at least one visible pixel: what a reference must be unique among."""
        return tuple(o for o in self._visible if o.state.movable)

    @cached_property
    def structures(self) -> tuple[SeenObject, ...]:
        return tuple(o for o in self._visible if not o.state.movable)

    @cached_property
    def nameable(self) -> tuple[SeenObject, ...]:
        """Objects that a question may be about: visible enough, with valid depth on at least half of the mask."""
        return tuple(o for o in self.objects if o.is_nameable and 2 * len(o.depths_m) >= o.area)

    @cached_property
    def referable(self) -> tuple[SeenObject, ...]:
        """Nameable objects for which some reference in words is unique."""
        return tuple(o for o in self.nameable if self.references(o))

    @cached_property
    def _matches(self) -> Counter[str]:
        """How many visible objects each phrase fits: "red object" is the colour alone, "bowl" fits a soup bowl too."""
        phrases: Counter[str] = Counter()
        for o in self.objects:
            words = o.full_name.split()
            phrases.update({" ".join(words[i:]) for i in range(len(words))} | {*o.nouns} - {"object"})
        return phrases

    def fits_one(self, phrase: str) -> bool:
        return self._matches[phrase] == 1

    def references(self, o: SeenObject) -> tuple[str, ...]:
        """Phrases that fit this visible object and no other: colour and shape, and the shape alone."""
        phrases = dict.fromkeys((o.full_name, o.state.category))
        return tuple(phrase for phrase in phrases if self.fits_one(phrase))

    def groups(self, least: int = 2) -> dict[str, tuple[SeenObject, ...]]:
        """Visible objects by the nouns that they share; whoever says "mug" means all of a group or none."""
        members: dict[str, list[SeenObject]] = {}
        for o in self.objects:
            for noun in dict.fromkeys(o.nouns):
                members.setdefault(noun, []).append(o)
        return {noun: tuple(group) for noun, group in sorted(members.items()) if len(group) >= least}

    def refer(self, o: SeenObject, rng: np.random.Generator) -> str:
        """One of the object's unique references; callers choose from `referable`."""
        phrases = self.references(o)
        return phrases[rng.integers(len(phrases))]

    @cached_property
    def by_id(self) -> dict[int, SeenObject]:
        """Visible objects and structures."""
        return {o.id: o for o in self._visible}

    def cloud(self, rows: Int[np.ndarray, "N"], columns: Int[np.ndarray, "N"]) -> Float[np.ndarray, "M 3"]:
        """World points (metres) of those of the given pixels that have depth."""
        depth, view = self.observation.depth, self.observation.view
        known = depth.valid[rows, columns]
        rows, columns = rows[known], columns[known]
        pixels = np.stack([columns + 0.5, rows + 0.5], axis=-1)
        return view.to_world(view.camera.unproject(pixels, depth.values[rows, columns].astype(np.float64)))

    def gap_bounds_m(self, a: SeenObject, b: SeenObject) -> tuple[float, float]:
        """Between the closest points of two things there is no less than between their boxes and no more than this.

        That is, than between the points of both that are seen: of a round thing in a box, or of one that hides its near
        side, neither number alone is the gap.
        """
        between = np.linalg.norm(self._samples[a.id][:, None] - self._samples[b.id], axis=-1)
        return self.gap_m(a, b), float(between.min(initial=np.inf))

    def range_m(self, o: SeenObject) -> float:
        """Distance from the camera, along the line of sight, of the nearest point that is seen of an object."""
        return self._ranges[o.id]

    @cached_property
    def _ranges(self) -> dict[int, float]:
        eye = self.observation.view.camera_to_world[:3, 3]
        clouds = {o.id: self.cloud(o.rows, o.columns) for o in self.objects}
        return {i: float(np.linalg.norm(c - eye, axis=1).min(initial=np.inf)) for i, c in clouds.items()}

    @cached_property
    def _samples(self) -> dict[int, Float[np.ndarray, "M 3"]]:
        steps = {o.id: -(-o.area // MOST_CLOUD) for o in self.objects}
        return {o.id: self.cloud(o.rows[:: steps[o.id]], o.columns[:: steps[o.id]]) for o in self.objects}

    def gap_m(self, a: SeenObject, b: SeenObject) -> float:
        """Distance between the closest points of the two objects' boxes."""
        rows, gaps = self._gaps
        return float(gaps[rows[a.id], rows[b.id]])

    @cached_property
    def _gaps(self) -> tuple[dict[int, int], Float[np.ndarray, "N N"]]:
        return {o.id: i for i, o in enumerate(self.objects)}, gaps_m([o.state.box for o in self.objects])

    @cached_property
    def carried(self) -> dict[int, tuple[int, ...]]:
        """For each object, the ids that rest directly on it, seen or not."""
        loads: dict[int, list[int]] = {state.id: [] for state in self.observation.objects}
        for state in self.observation.objects:
            for supporter in state.supported_by:
                loads[supporter].append(state.id)
        return {object_id: tuple(ids) for object_id, ids in loads.items()}

    def all_carried(self, object_id: int) -> set[int]:
        """Everything that rests on the object, directly or through others."""
        found: set[int] = set()
        waiting = [object_id]
        while waiting:
            for load in self.carried[waiting.pop()]:
                if load not in found:
                    found.add(load)
                    waiting.append(load)
        return found
