"""One moment seen from several places: how the camera moved, where things would be, which view shows what.

Rules V1, V3, V4, V9 and G13 of the data notes. Directions are those of someone who stands level where a camera stands;
the wording says where, and which way they face.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np
from jaxtyping import Bool, Float

from gemvlm.curation.questions.level_frame import bearing_deg, level_axes, quadrant, turn_deg
from gemvlm.curation.questions.moments import Moments, spoken_list
from gemvlm.curation.questions.visibility import SeenObject, interior, pixel_centre
from gemvlm.curation.questions.wording import pick, shuffled
from gemvlm.sample import Point, Region, Turn

TURN_DEG = (10.0, 150.0)
MOVE_M, MOVE_RATIO = 0.15, 2.0
"""Along the main axis, and over the next; for rooms the notes ask for 0.3 m."""
MOVES = (("to the right", "to the left"), ("forward", "backward"), ("up", "down"))
QUADRANT_MARGIN_DEG = 20.0
CORNERS_IN_QUADRANT = 0.7
TURNS = {
    0: ("", "ahead"),
    90: ("turn 90 degrees to the left", "right"),
    -90: ("turn 90 degrees to the right", "left"),
    180: ("turn around", "behind"),
}
"""By degrees to the left: in words, and where something straight ahead is afterwards."""
WALKS_M = (0.0, 0.2, 0.5, 1.0, 1.5, 2.0)
AFTER_DISTANCE_M = (0.15, 5.0)
"""Horizontal; 0.3 m in rooms."""
OVERLAP_GAP = 0.15
SAME_SURFACE = 0.01
SPOT_M, SPOT_PIXELS = 0.02, 2.5
"""How near to the marked spot a pointing answer must come: the larger of the two."""
OBSERVER_MARGIN_DEG = 15.0
OBSERVER_DISTANCE_M = 0.1

Spot = tuple[Point, Point, Region]
"""Where a spot lies in one image, where in another, and the pixels there that are near enough to it."""


def camera_turn(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Did the camera turn left or right from one image to another (V3)? By 10 to 150 degrees about the vertical."""
    for a, b in moments.image_pairs(rng):
        angle = turn_deg(moments.observation(a).view, moments.observation(b).view)
        if angle is None or not TURN_DEG[0] <= abs(angle) <= TURN_DEG[1]:
            continue
        first, second = moments.image_name(a, rng), moments.image_name(b, rng)
        question = pick(
            (
                f"From {first} to {second}, did the camera turn to its left or to its right?",
                f"Which way did the camera turn between {first} and {second}, to its left or to its right?",
                f"To go from the view of {first} to that of {second}, must the camera turn to its left or right?",
            ),
            rng,
        )
        yield _choice(question, "left" if angle > 0 else "right", ("left", "right"), "camera_turn", rng)


def camera_move(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Where did the camera go, in the level frame of the earlier image (V3)? One axis twice the next, and 15 cm."""
    for a, b in moments.image_pairs(rng):
        start, end = moments.observation(a).view, moments.observation(b).view
        axes = level_axes(start)
        if axes is None:
            continue
        way = axes.T @ (end.camera_to_world[:3, 3] - start.camera_to_world[:3, 3])
        second, main = np.argsort(np.abs(way))[1:]
        if abs(way[main]) < MOVE_M or abs(way[main]) < MOVE_RATIO * abs(way[second]):
            continue
        other = pick([axis for axis in range(3) if axis != main], rng)
        options = tuple(shuffled((*MOVES[main], *MOVES[other]), rng))
        one, two = moments.image_name(a, rng), moments.image_name(b, rng)
        question = pick(
            (
                f"From {one} to {two}, did the camera move mainly {spoken_list(options)}, for someone who stands level "
                f"where {one} was taken and faces its way?",
                f"Stand level where {one} was taken, facing its way. Which way did the camera mainly go from there to "
                f"{two}: {spoken_list(options)}?",
            ),
            rng,
        )
        yield _choice(question, MOVES[main][int(way[main] < 0)], options, "camera_move", rng)


def after_moving(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Where would an object be after turning and walking from where an image was taken (V4)?

    Sectors of 90 degrees in the level frame, 20 degrees off their borders, with 70 % of the box's corners inside. Each
    possible answer is as likely, and the cue (what the turn alone would say of something straight ahead) is as often
    wrong as right, where that can be.
    """
    if not moments.is_still:
        return
    for image in shuffled(range(len(moments)), rng):
        for object_id in shuffled(sorted(moments.nameable[image]), rng):
            by_answer: dict[str, list[tuple[int, float]]] = {}
            for turn in TURNS:
                for walk_m in WALKS_M:
                    if (turn or walk_m) and (where := _where_after(moments, image, object_id, turn, walk_m)):
                        by_answer.setdefault(where, []).append((turn, walk_m))
            if not by_answer:
                continue
            where = pick(sorted(by_answer), rng)
            plain = [motion for motion in by_answer[where] if TURNS[motion[0]][1] == where]
            tricky = [motion for motion in by_answer[where] if motion not in plain]
            turn, walk_m = pick(pick([motions for motions in (plain, tricky) if motions], rng), rng)
            words, guess = TURNS[turn]
            walk = f"walk {walk_m:g} m straight on"
            move = " and ".join([words] * bool(turn) + [walk] * bool(walk_m))
            name, here = moments.refer(object_id, rng), moments.image_name(image, rng)
            question = pick(
                (
                    f"You stand where {here} was taken and face the same way. You {move}. "
                    f"Is the {name} then ahead of you, behind you, on your left or on your right?",
                    f"Stand level at the camera of {here}, facing its way, and {move}. Where is the {name} then: "
                    "ahead, behind, left or right of you?",
                    f"Imagine that you stand where the camera of {here} is, facing its way, and {move}. "
                    f"Would the {name} be ahead, behind, left or right of you?",
                ),
                rng,
            )
            options = tuple(shuffled(("ahead", "behind", "left", "right"), rng))
            yield Turn(question, where, "after_moving", "reasoning", "choice", options=options, cues={"turn": guess})
            break


def _where_after(moments: Moments, image: int, object_id: int, turn: int, walk_m: float) -> str | None:
    """The sector that the object is in after a turn to the left (degrees) and a walk; None if that is not clear."""
    view = moments.observation(image).view
    axes = level_axes(view)
    if axes is None:
        return None
    turned = axes @ _about_up(float(turn))
    stand = view.camera_to_world[:3, 3] + walk_m * turned[:, 1]
    box = moments.state(object_id, image).box
    offsets = (np.concatenate([box.center[None], box.corners()]) - stand) @ turned
    center, *others = (float(bearing) for bearing in bearing_deg(offsets))
    where = quadrant(center, QUADRANT_MARGIN_DEG)
    corners = [quadrant(bearing, 0.0) for bearing in others]
    clear = where is not None and corners.count(where) >= CORNERS_IN_QUADRANT * len(corners)
    return where if clear and AFTER_DISTANCE_M[0] <= np.linalg.norm(offsets[0, :2]) <= AFTER_DISTANCE_M[1] else None


def perspective_across(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Standing at A facing B, is C left or right (V1), where no one image shows all three: views must be joined."""
    if not moments.is_still:
        return
    for a, b, c in shuffled(list(permutations(moments.nameable_somewhere, 3)), rng):
        if any({a, b, c} <= objects.keys() for objects in moments.nameable):
            continue
        at, facing, asked = (moments.states[i].box.center[:2] for i in (a, b, c))
        forward, side = facing - at, asked - at
        if min(np.linalg.norm(v) for v in (forward, side, facing - asked)) < OBSERVER_DISTANCE_M:
            continue
        angle = np.degrees(np.arctan2(forward[0] * side[1] - forward[1] * side[0], forward @ side))
        if not OBSERVER_MARGIN_DEG < abs(angle) < 180 - OBSERVER_MARGIN_DEG:
            continue
        first, second, third = (moments.refer(i, rng) for i in (a, b, c))
        question = pick(
            (
                f"Standing at the {first} facing the {second}, is the {third} on your left or right?",
                f"If you stood at the {first} and faced the {second}, on which side of you would the {third} be, "
                "left or right?",
            ),
            rng,
        )
        yield _choice(question, "left" if angle > 0 else "right", ("left", "right"), "perspective_across", rng)


def view_showing(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Which image shows an object (V9)? Well seen in one image, hidden or out of view in all others."""
    if len(moments) < 2:
        return
    for object_id in shuffled(moments.nameable_somewhere, rng):
        showing = [i for i in range(len(moments)) if object_id in moments.nameable[i]]
        others = [i for i in range(len(moments)) if i not in showing]
        if len(showing) != 1 or not all(moments.is_hidden(object_id, i) for i in others):
            continue
        name = moments.refer(object_id, rng)
        question = pick((f"Which image shows the {name}?", f"In which of the images can the {name} be seen?",
                         f"Only one image shows the {name}. Which one?"), rng)  # fmt: skip
        options = tuple(f"image {i + 1}" for i in range(len(moments)))
        yield Turn(question, options[showing[0]], "view_showing", "reasoning", "choice", options=options)


def view_overlap(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Which image shares more of the scene with a given one (V9)? Shares of surface seen in both, 15 % of it apart."""
    if len(moments) < 3 or not moments.is_still:
        return
    for image in shuffled(range(len(moments)), rng):
        others = shuffled([i for i in range(len(moments)) if i != image], rng)[:2]
        shares = [overlap(moments, image, other) for other in others]
        if abs(shares[0] - shares[1]) < OVERLAP_GAP:
            continue
        options = tuple(f"image {other + 1}" for other in others)
        here = f"image {image + 1}"
        question = pick(
            (
                f"Which image shows more of what {here} shows, {spoken_list(options)}?",
                f"Which view overlaps more with that of {here}, {spoken_list(options)}?",
            ),
            rng,
        )
        answer = options[int(np.argmax(shares))]
        yield Turn(question, answer, "view_overlap", "reasoning", "choice", options=options)


def overlap(moments: Moments, a: int, b: int) -> float:
    """Mean of the shares of either image's pixels whose place the other one shows too."""
    return 0.5 * (float(_shown_in(moments, a, b).mean()) + float(_shown_in(moments, b, a).mean()))


def same_point(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """A spot marked in one image, to be pointed to in another (G13): the surface is the same to 1 % of depth, and the
    pixels around it in the other image belong to the same object."""
    if not moments.is_still:
        return
    for a, b in moments.image_pairs(rng):
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        both = sorted(moments.nameable[a].keys() & moments.nameable[b].keys())
        for object_id in shuffled(both, rng):
            spot = _spot(moments, moments.nameable[a][object_id], a, b, rng)
            if spot is None:
                continue
            marked, target, region = spot
            one, two = moments.image_name(a, rng), moments.image_name(b, rng)
            question = pick(
                (
                    f"A spot is marked in {one} at <place:1>. Point to the same spot in {two}.",
                    f"Where in {two} is the spot that lies at <place:1> in {one}?",
                ),
                rng,
            )
            yield Turn(question, "<place:0>", "same_point", "grounding", "point", (target, marked), region=region)
            break


def _spot(moments: Moments, o: SeenObject, a: int, b: int, rng: np.random.Generator) -> Spot | None:
    """A random inner pixel of the object in `a`, where it lies in `b`, and the pixels near it there; None if unseen."""
    inside = np.flatnonzero(interior(o.rows, o.columns) >= 2)
    if not len(inside):
        return None
    row, column = (int(v[inside[rng.integers(len(inside))]]) for v in (o.rows, o.columns))
    first, second = moments.observation(a), moments.observation(b)
    z = np.array(float(first.depth.values[row, column]))
    world = first.view.to_world(first.view.camera.unproject(np.array([column + 0.5, row + 0.5]), z))
    seen = second.view.to_camera(world)
    height, width = second.ids.shape
    if seen[2] <= 0:
        return None
    x, y = np.floor(second.view.camera.project(seen)).astype(int)
    reach = int(np.ceil(SPOT_PIXELS))
    if not (reach <= x < width - reach and reach <= y < height - reach):
        return None
    around = (slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1))
    if np.any(second.ids[around] != o.id) or not second.depth.valid[y, x]:
        return None
    if abs(float(second.depth.values[y, x]) / seen[2] - 1) > SAME_SURFACE:
        return None
    near = max(SPOT_M, SPOT_PIXELS * float(seen[2]) / second.view.camera.fx)
    mine = (second.ids == o.id) & second.depth.valid
    points = _world_points(moments, b)
    region = Region.from_mask(mine & (np.linalg.norm(points - world, axis=-1) <= near))
    return pixel_centre(row, column, o.size), pixel_centre(int(y), int(x), (height, width)), region


def _world_points(moments: Moments, image: int) -> Float[np.ndarray, "H W 3"]:
    observation = moments.observation(image)
    camera = observation.view.camera
    return observation.view.to_world(camera.rays() * observation.depth.values[..., None].astype(np.float64))


def _shown_in(moments: Moments, a: int, b: int) -> Bool[np.ndarray, "N"]:
    """For each valid pixel of `a`, whether `b` shows the same surface, to twice the tolerance of one spot."""
    first, second = moments.observation(a), moments.observation(b)
    seen = second.view.to_camera(_world_points(moments, a)[first.depth.valid])
    ahead = seen[:, 2] > 0
    pixels = second.view.camera.project(np.where(ahead[:, None], seen, [0.0, 0.0, 1.0]))
    height, width = second.ids.shape
    column, row = np.floor(pixels).astype(int).T
    inside = ahead & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    row, column = np.where(inside, row, 0), np.where(inside, column, 0)
    there = second.depth.values[row, column]
    same = np.abs(there - seen[:, 2]) <= 0.02 + 2 * SAME_SURFACE * np.abs(seen[:, 2])
    return inside & second.depth.valid[row, column] & same


def _about_up(degrees: float) -> Float[np.ndarray, "3 3"]:
    """In a level frame (right, forward, up), a turn to the left."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _choice(question: str, answer: str, options: tuple[str, ...], family: str, rng: np.random.Generator) -> Turn:
    return Turn(question, answer, family, "reasoning", "choice", options=tuple(shuffled(options, rng)))
