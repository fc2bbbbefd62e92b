"""Room on the surfaces that carry things: an empty spot to point to, and whether an object would fit at a place.

Rules G7 and G8 of the data notes. A surface is the part of a structure at the height at which objects rest on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from gemvlm.curation.questions.boxes import distance_to_box_m, footprint, rectangles_overlap, vertical_interval_m
from gemvlm.curation.questions.visibility import Seen, SeenObject, deepest_pixel
from gemvlm.curation.questions.wording import pick, shuffled
from gemvlm.sample import Region, Turn
from gemvlm.worlds.observation import ObjectState

SURFACE_TOLERANCE_M = 0.01
CLEARANCE_M = 0.03
"""Around an empty spot, on the surface and as far above it."""
NEAR_M = 0.15
"""How far from its object an empty spot may be; the question says so."""
MIN_REGION_SHARE = 0.002
YAWS = np.arange(8) * np.pi / 8
FIT_SLACK, FIT_INFLATION_M = 0.1, 0.01
UPRIGHT = np.cos(np.radians(10))
TRIED_PLACES = 48


@dataclass(frozen=True, eq=False)
class Surface:
    """Visible pixels of a structure at one height, as `rows`, `columns` and world `points` (metres)."""

    structure: SeenObject
    height_m: float
    rows: np.ndarray
    columns: np.ndarray
    points: Float[np.ndarray, "N 3"]

    def is_inside_edge(self, points: Float[np.ndarray, "*N 3"], margin_m: float) -> Bool[np.ndarray, "*N"]:
        """Whether points of the surface lie at least `margin_m` inside the structure's footprint."""
        yaw, half = footprint(self.structure.state.box)
        offset = points[..., :2] - self.structure.state.box.center[:2]
        along = offset[..., 0] * np.cos(yaw) + offset[..., 1] * np.sin(yaw)
        across = -offset[..., 0] * np.sin(yaw) + offset[..., 1] * np.cos(yaw)
        return (np.abs(along) <= half[0] - margin_m) & (np.abs(across) <= half[1] - margin_m)


def surfaces(seen: Seen) -> list[Surface]:
    """One for each visible structure on which something rests, at the height at which most things rest on it."""
    found = []
    observation = seen.observation
    for structure in seen.structures:
        loads = [o for o in observation.objects if o.supported_by == (structure.id,)]
        if not loads:
            continue
        rest_m = float(np.median([vertical_interval_m(o)[0] for o in loads]))
        known = observation.depth.valid[structure.rows, structure.columns]
        rows, columns = structure.rows[known], structure.columns[known]
        pixels = np.stack([columns + 0.5, rows + 0.5], axis=-1)
        z = observation.depth.values[rows, columns].astype(np.float64)
        points = observation.view.to_world(observation.view.camera.unproject(pixels, z))
        level = np.abs(points[:, 2] - rest_m) <= SURFACE_TOLERANCE_M
        found.append(Surface(structure, rest_m, rows[level], columns[level], points[level]))
    return found


def free_space(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Point to an empty spot (G7) near an object that rests on the same surface, on one side of it in the image."""
    for surface in shuffled(surfaces(seen), rng):
        beside = [o for o in seen.referable if surface.structure.id in o.state.supported_by]
        for o, side in shuffled([(o, side) for o in beside for side in ("left", "right")], rng):
            columns = surface.columns
            spots = np.flatnonzero(columns < o.columns.min() if side == "left" else columns > o.columns.max())
            spots = spots[distance_to_box_m(surface.points[spots], o.state.box) <= NEAR_M]
            spots = spots[_is_free(seen, surface, surface.points[spots])]
            if len(spots) < max(3, MIN_REGION_SHARE * seen.size[0] * seen.size[1]):
                continue
            rows, columns = surface.rows[spots], columns[spots]
            place, depth = deepest_pixel(rows, columns, seen.size)
            if depth < 2:
                continue
            mask = np.zeros(seen.size, dtype=bool)
            mask[rows, columns] = True
            yield Turn(
                f"Point to empty {surface.structure.state.category} within 15 cm of the {seen.refer(o, rng)}, "
                f"{side} of it in the image.",
                "<place:0>",
                family="free_space",
                task="grounding",
                kind="point",
                places=(place,),
                region=Region.from_mask(mask),
            )


def _is_free(seen: Seen, surface: Surface, points: Float[np.ndarray, "N 3"]) -> Bool[np.ndarray, "N"]:
    """Whether points of the surface are clear of every object, and of the surface's edge, by `CLEARANCE_M`."""
    free = surface.is_inside_edge(points, CLEARANCE_M)
    for state in seen.observation.objects:
        low, high = vertical_interval_m(state)
        is_level = low < surface.height_m + 2 * CLEARANCE_M and high > surface.height_m - CLEARANCE_M
        if state.id != surface.structure.id and is_level:
            for lift in (0.0, CLEARANCE_M):
                free &= distance_to_box_m(points + np.array([0, 0, lift]), state.box) >= CLEARANCE_M
    return free


def fits(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Would this object, standing as it does, fit at this place (G8)? One yes and one no place per object.

    Its footprint is tried at eight yaws. Yes if it fits a tenth larger with a centimetre to spare, no if it collides
    even a tenth smaller; whatever lies between, hangs over the edge or meets a wall is not asked.
    """
    for surface in shuffled(surfaces(seen), rng):
        movable = [o for o in seen.referable if o.is_measurable and not seen.carried[o.id] and _is_upright(o.state)]
        for o in shuffled(movable, rng):
            tried = rng.permutation(len(surface.points))[:TRIED_PLACES]
            room = _room_for(seen, surface, o.state, surface.points[tried])
            yes, no = tried[room == 1], tried[room == -1]
            if not (len(yes) and len(no)):
                continue
            for index, answer in shuffled([(rng.choice(yes), "yes"), (rng.choice(no), "no")], rng):
                name = seen.refer(o, rng)
                question = pick(
                    (f"Would the {name} fit at <place:0>?", f"Is there room for the {name} at <place:0>?"), rng
                )
                place, _ = deepest_pixel(surface.rows[[index]], surface.columns[[index]], seen.size)
                lower = place.y > (np.median(surface.rows) + 0.5) / seen.size[0]
                yield Turn(
                    question,
                    answer,
                    family="fits",
                    task="planning",
                    kind="yes_no",
                    places=(place,),
                    cues={"height": "yes" if lower else "no"},
                )


def _is_upright(state: ObjectState) -> bool:
    return bool(np.abs(state.box.rotation[2]).max() >= UPRIGHT)


def _room_for(
    seen: Seen, surface: Surface, state: ObjectState, places: Float[np.ndarray, "N 3"]
) -> Float[np.ndarray, "N"]:
    """For each place 1 if the object fits there, -1 if not, 0 if too close to call."""
    _, half = footprint(state.box)
    bottom, top = vertical_interval_m(state)
    generous, tight = half * (1 + FIT_SLACK) + FIT_INFLATION_M, half * (1 - FIT_SLACK)
    centers = np.repeat(places[:, :2], len(YAWS), axis=0)
    yaws = np.tile(YAWS, len(places))
    blocked, clear = np.zeros(len(centers), bool), np.ones(len(centers), bool)
    for other in seen.observation.objects:
        low, high = vertical_interval_m(other)
        is_level = low < surface.height_m + (top - bottom) and high > surface.height_m + SURFACE_TOLERANCE_M
        if other.id in (state.id, surface.structure.id) or not is_level:
            continue
        other_yaw, other_half = footprint(other.box)
        other_center = other.box.center[:2]
        clear &= ~rectangles_overlap(centers, yaws, generous, other_center, other_yaw, other_half)
        if other.movable:
            blocked |= rectangles_overlap(centers, yaws, tight, other_center, other_yaw, other_half)
    clear &= np.repeat(surface.is_inside_edge(places, float(np.hypot(*generous))), len(YAWS))
    fits_somehow = clear.reshape(-1, len(YAWS)).any(axis=1)
    collides_always = blocked.reshape(-1, len(YAWS)).all(axis=1)
    return np.subtract(fits_somehow, collides_always, dtype=np.float64)
