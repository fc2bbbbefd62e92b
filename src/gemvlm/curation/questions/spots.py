"""Places that objects around them define: between two, on top of one, under what hangs; and gaps to pass through.

Rules G9 and R16 of the data notes. A region is made of the visible pixels of the surface or object that the question
names; whoever hits any of them is right.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool

from gemvlm.curation.questions.boxes import closest_points, distance_to_box_m, footprint, vertical_interval_m
from gemvlm.curation.questions.surfaces import MIN_REGION_SHARE, SURFACE_TOLERANCE_M, UPRIGHT, Surface, surfaces
from gemvlm.curation.questions.visibility import Seen, SeenObject, deepest_pixel
from gemvlm.curation.questions.wording import pairs, pick, shuffled
from gemvlm.sample import Region, Turn

LEAST_GAP_M = 0.06
"""Between two objects, to have a middle third worth pointing to."""
GAP_SPREAD = 1.25
"""Between what is seen of the two there may be so much more than between their boxes."""
OVERHANG_M = 0.03
GAP_RATIO = 0.15
GAP_WIDTH_M = (0.03, 0.4)


def point_between(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The middle third of the way between the nearest faces of two objects on one surface (G9), as wide as long.

    Nothing else stands on the way.
    """
    for surface in shuffled(surfaces(seen), rng):
        standing = _standing_on(seen, surface)
        for a, b in pairs(standing, rng):
            here, there = (point[:2] for point in closest_points(a.state.box, b.state.box))
            gap_m = float(np.linalg.norm(there - here))
            low, high = seen.gap_bounds_m(a, b)
            if gap_m < LEAST_GAP_M or high > GAP_SPREAD * low or not _is_clear(seen, a, b, 1 / 6):
                continue
            along = (there - here) / gap_m
            offset = surface.points[:, :2] - here
            forward, side = offset @ along, offset @ np.array([-along[1], along[0]])
            inside = (forward >= gap_m / 3) & (forward <= 2 * gap_m / 3) & (np.abs(side) <= gap_m / 6)
            carrier = surface.structure.state.category
            first, second = seen.refer(a, rng), seen.refer(b, rng)
            question = pick(
                (
                    f"Point to the {carrier} halfway between the {first} and the {second}.",
                    f"Point to the middle of the gap between the {first} and the {second}, on the {carrier}.",
                    f"Where on the {carrier} is the midpoint between the {first} and the {second}?",
                    f"Mark the {carrier} midway from the {first} to the {second}.",
                ),
                rng,
            )
            yield from _spot(seen, "point_between", question, surface.rows[inside], surface.columns[inside])


def point_on_top(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The upper side of an upright object with nothing on it (G9): its pixels within 1 cm of its box's top."""
    for o in shuffled([o for o in seen.referable if o.is_measurable and not seen.carried[o.id]], rng):
        if np.abs(o.state.box.rotation[2]).max() < UPRIGHT:
            continue
        known = seen.observation.depth.valid[o.rows, o.columns]
        rows, columns = o.rows[known], o.columns[known]
        height = seen.cloud(rows, columns)[:, 2]
        top = np.abs(height - vertical_interval_m(o.state)[1]) <= SURFACE_TOLERANCE_M
        if top.mean() > 0.9:  # nothing else of it is in view: any pixel of the object would do
            continue
        name = seen.refer(o, rng)
        question = pick(
            (
                f"Point to the top of the {name}.",
                f"Point to the highest part of the {name}.",
                f"Where is the upper side of the {name}?",
                f"Mark the top of the {name}.",
            ),
            rng,
        )
        yield from _spot(seen, "point_on_top", question, rows[top], columns[top])


def point_under(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The surface straight under what hangs over it (G9): within the footprint of the hanging object's box."""
    for surface in shuffled(surfaces(seen), rng):
        for o in shuffled([o for o in seen.referable if o.state.hanging], rng):
            if vertical_interval_m(o.state)[0] - surface.height_m < OVERHANG_M:
                continue
            yaw, half = footprint(o.state.box)
            offset = surface.points[:, :2] - o.state.box.center[:2]
            x = offset[:, 0] * np.cos(yaw) + offset[:, 1] * np.sin(yaw)
            y = -offset[:, 0] * np.sin(yaw) + offset[:, 1] * np.cos(yaw)
            below = (np.abs(x) <= half[0]) & (np.abs(y) <= half[1])
            name, carrier = seen.refer(o, rng), surface.structure.state.category
            question = pick(
                (
                    f"Point to the {carrier} straight under the {name}.",
                    f"If the {name} fell straight down, where on the {carrier} would it land?",
                    f"Where on the {carrier} is the spot vertically below the {name}?",
                    f"Mark the place on the {carrier} that the {name} hangs over.",
                ),
                rng,
            )
            yield from _spot(seen, "point_under", question, surface.rows[below], surface.columns[below])


def gap_passes(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Would something so wide pass between two objects (R16)? In pairs: the same width, a wide gap and a narrow one.

    The gap is that between the closest points of objects on one surface with nothing between. What passes is 15 %
    narrower than the gap between their boxes; what does not is as much wider than the gap between what is seen of them.
    """
    for surface in shuffled(surfaces(seen), rng):
        level = pairs(_standing_on(seen, surface), rng)
        gaps = [(*seen.gap_bounds_m(a, b), a, b) for a, b in level if _is_clear(seen, a, b, 1 / 2)]
        for (_, narrow_m, *narrow), (wide_m, _, *wide) in shuffled([(a, b) for a in gaps for b in gaps], rng):
            low, high = narrow_m / (1 - GAP_RATIO), wide_m / (1 + GAP_RATIO)
            if low >= high:
                continue
            width_cm = round(100 * float(np.sqrt(low * high)))
            if not (GAP_WIDTH_M[0] <= width_cm / 100 <= GAP_WIDTH_M[1] and low <= width_cm / 100 <= high):
                continue
            for (a, b), answer in shuffled([(wide, "yes"), (narrow, "no")], rng):
                first, second = seen.refer(a, rng), seen.refer(b, rng)
                question = pick(
                    (
                        f"Would a box {width_cm} cm wide pass between the {first} and the {second}?",
                        f"Is the gap between the {first} and the {second} wider than {width_cm} cm?",
                        f"Could something {width_cm} cm wide be pushed between the {first} and the {second}?",
                        f"Is there room for a {width_cm} cm wide box between the {first} and the {second}?",
                    ),
                    rng,
                )
                apart = abs(a.x - b.x) * a.size[1] / a.size[0]
                typical = np.median([abs(p.x - q.x) * p.size[1] / p.size[0] for *_, p, q in gaps])
                cues = {"image_distance": "yes" if apart > typical else "no"}
                yield Turn(question, answer, family="gap_passes", task="reasoning", kind="yes_no", cues=cues)


def _is_clear(seen: Seen, a: SeenObject, b: SeenObject, share: float) -> bool:
    """Whether there is a level gap between two objects, and no third one within `share` of its width to its sides."""
    here, there = closest_points(a.state.box, b.state.box)
    gap_m = float(np.linalg.norm((there - here)[:2]))
    if gap_m == 0 or abs(there[2] - here[2]) > 1e-3 + 0.1 * gap_m:
        return False
    way = here + np.linspace(0.0, 1.0, 9)[:, None] * (there - here)
    others = [o for o in seen.observation.objects if o.movable and o.id not in (a.id, b.id)]
    return all(distance_to_box_m(way, o.box).min() >= share * gap_m for o in others)


def _standing_on(seen: Seen, surface: Surface) -> list[SeenObject]:
    return [
        o
        for o in seen.referable
        if o.is_measurable
        and o.state.supported_by == (surface.structure.id,)
        and np.abs(o.state.box.rotation[2]).max() >= UPRIGHT
    ]


def _spot(seen: Seen, family: str, question: str, rows: np.ndarray, columns: np.ndarray) -> Iterator[Turn]:
    """The turn, unless what is visible of the region is too little to point to."""
    height, width = seen.size
    if len(rows) < max(3, MIN_REGION_SHARE * height * width):
        return
    place, depth = deepest_pixel(rows, columns, seen.size)
    if depth < 2:
        return
    mask: Bool[np.ndarray, "H W"] = np.zeros(seen.size, dtype=bool)
    mask[rows, columns] = True
    yield Turn(
        question,
        "<place:0>",
        family=family,
        task="grounding",
        kind="point",
        places=(place,),
        region=Region.from_mask(mask),
    )
