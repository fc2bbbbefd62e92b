"""In which direction something lies: four sectors, hours of a clock, degrees of a turn.

Rules R7 and R15 of the data notes, in two frames that every question names in words: of a level observer who stands
where the camera does (E), and of someone who stands at one object and faces another (O). Directions are those of
objects' centres along the floor.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np
from jaxtyping import Float

from gemvlm.curation.questions.level_frame import bearing_deg, level_axes, quadrant
from gemvlm.curation.questions.relations import OBSERVER_DISTANCE_M
from gemvlm.curation.questions.visibility import Seen, SeenObject
from gemvlm.curation.questions.wording import in_turn, listing, pick, shuffled
from gemvlm.sample import Turn

Stance = tuple[SeenObject, SeenObject, SeenObject]
"""Where someone stands, what is faced, what is asked about."""

SECTOR_MARGIN_DEG = 20.0
CORNER_SHARE = 0.7
"""Of the corners of the object's box that must lie in the sector of its centre."""
HOUR_MARGIN_DEG = 5.0
TURN_DEG = (20.0, 170.0)
TURN_TOLERANCE = 0.2

_FROM_CAMERA = {"ahead": "behind", "right": "right", "behind": "in front", "left": "left"}
"""What lies ahead of the camera beyond an object is behind that object, as people say."""


def direction_seen(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Left, right, in front or behind of another object, for a level observer at the camera (R7, frame E).

    In front is towards the camera. The cue says what the larger of the two shifts in the image says.
    """
    axes = level_axes(seen.observation.view)
    if axes is None:
        return
    found: dict[str, list[tuple[SeenObject, SeenObject]]] = {}
    for a, o in permutations(seen.referable, 2):
        if sector := _sector(a, o, axes):
            found.setdefault(_FROM_CAMERA[sector], []).append((a, o))
    for answer, (a, o) in in_turn(found, rng):
        thing, anchor = seen.refer(o, rng), seen.refer(a, rng)
        options = tuple(shuffled(("left", "right", "in front", "behind"), rng))
        sides = listing(options, "or")
        question = pick(
            (
                f"For someone standing level at the camera, where is the {thing} relative to the {anchor}: {sides}?",
                f"Along the floor and as seen from the camera, on which side of the {anchor} is the {thing}: {sides}?",
                f"A level observer at the camera looks at the {anchor}. Where is the {thing} relative to it: {sides}?",
                f"Along the floor, how does the {thing} stand to the {anchor} from the camera's standpoint: {sides}?",
            ),
            rng,
        )
        yield Turn(
            f"{question} In front means towards the camera.",
            answer,
            family="direction_seen",
            task="reasoning",
            kind="choice",
            options=options,
            cues={"image": _shift_in_image(a, o)},
        )


def _shift_in_image(a: SeenObject, o: SeenObject) -> str:
    right, down = (o.x - a.x) * a.size[1], (o.y - a.y) * a.size[0]
    if abs(right) > abs(down):
        return "right" if right > 0 else "left"
    return "in front" if down > 0 else "behind"


def direction_standing(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Ahead, behind, left or right of someone who stands at A and faces B (R7, frame O)."""
    found: dict[str, list[Stance]] = {}
    for a, b, c in _stances(seen):
        if sector := _sector(a, c, _facing(a, b)):
            found.setdefault(sector, []).append((a, b, c))
    for sector, (a, b, c) in in_turn(found, rng):
        at, facing, asked = (seen.refer(o, rng) for o in (a, b, c))
        options = tuple(shuffled(("ahead", "behind", "left", "right"), rng))
        sides = listing(options, "or")
        question = pick(
            (
                f"Standing at the {at} facing the {facing}, where is the {asked}: {sides}?",
                f"You stand at the {at} and look towards the {facing}. Where is the {asked} relative to you: {sides}?",
                f"If you were at the {at}, turned to the {facing}, would the {asked} be {sides}?",
                f"From the {at}, with the {facing} straight ahead, where is the {asked}: {sides}?",
            ),
            rng,
        )
        yield Turn(
            question,
            sector,
            family="direction_standing",
            task="reasoning",
            kind="choice",
            options=options,
            cues={"side": "left" if c.x < a.x else "right"},
        )


def clock_direction(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The hour at which C lies for someone who stands at A and faces B, at 12 (R15): 5° from every half hour."""
    found: dict[str, list[Stance]] = {}
    for a, b, c in _stances(seen):
        hours = _bearing(a, c, _facing(a, b)) % 360 / 30
        if abs(hours - round(hours)) * 30 <= 15 - HOUR_MARGIN_DEG:
            found.setdefault(str(round(hours) % 12 or 12), []).append((a, b, c))
    for hour, (a, b, c) in in_turn(found, rng):
        at, facing, asked = (seen.refer(o, rng) for o in (a, b, c))
        question = pick(
            (
                f"Standing at the {at} with the {facing} at 12 o'clock, at which hour is the {asked}?",
                f"You are at the {at} and the {facing} is at your 12 o'clock. At what hour is the {asked}?",
                f"Seen from above, standing at the {at}: if the {facing} is at 12 o'clock, "
                f"which hour points to the {asked}?",
                f"From the {at}, 12 o'clock is the {facing}. Give the clock hour of the {asked}.",
            ),
            rng,
        )
        yield Turn(
            question,
            hour,
            family="clock_direction",
            task="reasoning",
            kind="number",
            tolerance=0.0,
            cues={"side": f"{c.x - a.x:.4f}"},
        )


def turn_angle(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """By how many degrees someone at A who faces B must turn, to the side that is named, to face C (R15)."""
    low, high = TURN_DEG
    for a, b, c in shuffled(list(_stances(seen)), rng):
        angle = _bearing(a, c, _facing(a, b))
        if not low <= abs(angle) <= high:
            continue
        at, facing, asked = (seen.refer(o, rng) for o in (a, b, c))
        side = "right" if angle > 0 else "left"
        question = pick(
            (
                f"Standing at the {at} facing the {facing}, how many degrees to the {side} is the {asked}?",
                f"At the {at} and facing the {facing}, how many degrees must you turn {side} to face the {asked}?",
                f"At the {at}, what is the angle in degrees from the {facing} {side} to the {asked}, along the floor?",
                f"Turning {side} at the {at} from the {facing} to the {asked}: how many degrees?",
            ),
            rng,
        )
        spread = abs(np.arctan2(c.y - a.y, c.x - a.x) - np.arctan2(b.y - a.y, b.x - a.x))
        yield Turn(
            question,
            f"{abs(angle):.0f}",
            family="turn_angle",
            task="reasoning",
            kind="number",
            unit="degrees",
            tolerance=TURN_TOLERANCE,
            cues={"image_angle": f"{np.degrees(min(spread, 2 * np.pi - spread)):.1f}"},
        )


def _stances(seen: Seen) -> Iterator[Stance]:
    """All, with pairs neither too near nor too far apart along the floor."""
    low, high = OBSERVER_DISTANCE_M
    for trio in permutations(seen.referable, 3):
        places = [o.state.box.center[:2] for o in trio]
        apart = [float(np.linalg.norm(places[i] - places[j])) for i, j in ((0, 1), (0, 2), (1, 2))]
        if all(low <= metres <= high for metres in apart):
            yield trio


def _facing(a: SeenObject, b: SeenObject) -> Float[np.ndarray, "3 3"]:
    """Columns right, forward, up of the level frame that looks from `a` to `b`."""
    x, y = (b.state.box.center - a.state.box.center)[:2]
    length = np.hypot(x, y)
    return np.array([[y, x, 0], [-x, y, 0], [0, 0, length]]) / length


def _bearing(a: SeenObject, o: SeenObject, axes: Float[np.ndarray, "3 3"]) -> float:
    return float(bearing_deg((o.state.box.center - a.state.box.center)[None] @ axes)[0])


def _sector(a: SeenObject, o: SeenObject, axes: Float[np.ndarray, "3 3"]) -> str | None:
    """The quadrant of `o` as seen from `a`; None within a margin, too near, too far or with its corners elsewhere."""
    low, high = OBSERVER_DISTANCE_M
    if not low <= np.linalg.norm((o.state.box.center - a.state.box.center)[:2]) <= high:
        return None
    sector = quadrant(_bearing(a, o, axes), SECTOR_MARGIN_DEG)
    corners = bearing_deg((o.state.box.corners() - a.state.box.center) @ axes)
    agreeing = np.mean([quadrant(float(bearing), 0.0) == sector for bearing in corners])
    return sector if agreeing >= CORNER_SHARE else None
