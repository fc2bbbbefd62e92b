"""What was moved: which thing, which way, how far, along which path.

Rules V5, P11 (for objects) and G12 of the data notes. Something moved if its centre is 5 cm away from where it was, and
stayed if it is within 5 mm and 5 degrees; whatever lies between is not asked about.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from gemvlm.curation.questions.level_frame import level_axes
from gemvlm.curation.questions.moments import Moments, spoken_list
from gemvlm.curation.questions.outlines import simplified
from gemvlm.curation.questions.wording import pick, shuffled
from gemvlm.sample import Point, Turn
from gemvlm.worlds.observation import Event, ObjectState

MOVED_M, STAYED_M = 0.05, 0.005
STAYED_COSINE = float(np.cos(np.radians(5)))
WAY_RATIO = 2.0
WAYS = (("to the right", "to the left"), ("away from the camera", "towards the camera"), ("up", "down"))
FAR_TOLERANCE = 0.2
PATH_SHARE, SIMPLIFY_SHARE = 0.05, 0.01
"""Of the image's diagonal: the shortest path asked for, and how far a simplified path may stray."""
MOST_POINTS = 8


def what_moved(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Which of these moved between two images (V5)? One did, the others stayed; all are well seen in both.

    The cues are the object that is lowest and the one that is largest in the earlier image.
    """
    if moments.is_still:
        return
    for a, b in moments.image_pairs(rng):
        both = sorted(moments.nameable[a].keys() & moments.nameable[b].keys())
        moved = [i for i in both if _distance_m(moments, i, a, b) > MOVED_M]
        stayed = [i for i in both if has_stayed(moments, i, a, b)]
        if not moved or not stayed:
            continue
        chosen = shuffled([pick(moved, rng), *shuffled(stayed, rng)[:2]], rng)
        names = {i: moments.refer(i, rng) for i in chosen}
        options = tuple(names.values())
        answer = next(names[i] for i in chosen if i in moved)
        one, two = moments.image_name(a, rng), moments.image_name(b, rng)
        question = pick(
            (
                f"Which of these is in another place in {two} than in {one}: {spoken_list(options)}?",
                f"Between {one} and {two}, which was moved: {spoken_list(options)}?",
                f"Compare {one} with {two}. Which of these changed its place: {spoken_list(options)}?",
            ),
            rng,
        )
        yield Turn(
            question, answer, "what_moved", "reasoning", "choice", options=options, cues=_cues(moments, a, names)
        )


def did_it_move(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Did it move between two images (V5)? In pairs of one yes and one no about the same images."""
    if moments.is_still:
        return
    for a, b in moments.image_pairs(rng):
        both = sorted(moments.nameable[a].keys() & moments.nameable[b].keys())
        moved = [i for i in both if _distance_m(moments, i, a, b) > MOVED_M]
        stayed = [i for i in both if has_stayed(moments, i, a, b)]
        if not moved or not stayed:
            continue
        yes, no = moments.nameable[a][pick(moved, rng)], moments.nameable[a][pick(stayed, rng)]
        for o, answer in shuffled([(yes, "yes"), (no, "no")], rng):
            name, one, two = moments.refer(o.id, rng), moments.image_name(a, rng), moments.image_name(b, rng)
            question = pick((f"Did the {name} move between {one} and {two}?",
                             f"Is the {name} in another place in {two} than in {one}?"), rng)  # fmt: skip
            other = no if o is yes else yes
            cues = {"height": "yes" if o.y > other.y else "no", "size": "yes" if o.area > other.area else "no"}
            yield Turn(question, answer, "did_it_move", "reasoning", "yes_no", cues=cues)


def moved_way(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Which way did it move (V5, P11), for someone level at the camera of the earlier image? Twice the next axis.

    One question for each answer, and about up or down only where nothing went another way: most things are lifted.
    """
    by_answer: dict[str, list[tuple[int, int, int, int]]] = {}
    for a, b, object_id in _moved(moments):
        axes = level_axes(moments.observation(a).view)
        if axes is None:
            continue
        way = axes.T @ (moments.state(object_id, b).box.center - moments.state(object_id, a).box.center)
        second, main = (int(axis) for axis in np.argsort(np.abs(way))[1:])
        if abs(way[main]) >= WAY_RATIO * abs(way[second]):
            by_answer.setdefault(WAYS[main][int(way[main] < 0)], []).append((a, b, object_id, main))
    vertical = shuffled([answer for answer in WAYS[2] if answer in by_answer], rng)
    level = shuffled([answer for ways in WAYS[:2] for answer in ways if answer in by_answer], rng)
    for answer in level or vertical[:1]:
        a, b, object_id, main = pick(by_answer[answer], rng)
        other = pick([axis for axis in range(3) if axis != main], rng)
        options = tuple(shuffled((*WAYS[main], *WAYS[other]), rng))
        name, one, two = moments.refer(object_id, rng), moments.image_name(a, rng), moments.image_name(b, rng)
        question = pick(
            (
                f"From {one} to {two}, did the {name} move mainly {spoken_list(options)}, seen level from the camera?",
                f"Seen level from the camera of {one}, which way did the {name} mainly go until {two}: "
                f"{spoken_list(options)}?",
                f"For someone level at the camera of {one}, has the {name} gone mainly {spoken_list(options)} "
                f"by {two}?",
            ),
            rng,
        )
        yield Turn(question, answer, "moved_way", "reasoning", "choice", options=options)


def moved_far(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """How far is its centre from where it was, both times at rest, in metres (V5, P11)? The cue is the image's."""
    for a, b, object_id in shuffled(_moved(moments), rng):
        before, after = moments.nameable[a][object_id], moments.nameable[b][object_id]
        in_the_air = moments.is_in_the_air(object_id, a) or moments.is_in_the_air(object_id, b)
        if in_the_air or before.touches_border or after.touches_border:
            continue
        name, one, two = moments.refer(object_id, rng), moments.image_name(a, rng), moments.image_name(b, rng)
        question = pick(
            (
                f"How many metres is the {name} in {two} away from where it was in {one}?",
                f"How far did the centre of the {name} get from {one} to {two}, in metres along a straight line?",
            ),
            rng,
        )
        cues = {"image_distance": f"{np.hypot(after.x - before.x, after.y - before.y):.4f}"}
        answer = f"{_distance_m(moments, object_id, a, b):.2f}"
        yield Turn(question, answer, "moved_far", "reasoning", "number", unit="m", tolerance=FAR_TOLERANCE, cues=cues)


def trajectory(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """The path of a handled object's centre in the first image, 3 to 8 points (G12), whether or not the end is shown.

    The object is seen whole before the act begins, the path stays within the image, and is 5 % of its diagonal long.
    An act that is yet to come must say where to: on another object, where it will stay.
    """
    if not moments.is_told_in_order:
        return
    view, (height, width) = moments.observation(0).view, moments.observation(0).ids.shape
    for event, indices in shuffled(_handlings(moments), rng):
        known = indices[-1] <= moments.shown[-1]
        o = moments.nameable[0].get(event.object_id)
        if o is None or o.touches_border or indices[0] > moments.shown[-1]:
            continue
        if not known and not (event.succeeded and event.target_id in moments.states):
            continue
        states = [_state_at(moments, event.object_id, index) for index in indices]
        seen = view.to_camera(np.stack([state.box.center for state in states]))
        if seen[:, 2].min() <= 0:
            continue
        path = view.camera.project(seen)
        diagonal = float(np.hypot(height, width))
        length = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
        path = simplified(path, SIMPLIFY_SHARE * diagonal)
        inside = np.all((path >= 0) & (path <= [width, height]))
        if not inside or length < PATH_SHARE * diagonal or len(path) > MOST_POINTS:
            continue
        name = moments.refer(event.object_id, rng)
        done = f"when this was done: {event.words}" if known else f"if this is done: {event.words}"
        question = pick(
            (
                f"Trace the path of the centre of the {name} in the first image, {done}.",
                f"In the first image, mark the way that the centre of the {name} takes, {done}.",
            ),
            rng,
        )
        places = tuple(Point(float(x / width), float(y / height)) for x, y in path)
        answer = ", ".join(f"<place:{i}>" for i in range(len(places)))
        yield Turn(question, answer, "trajectory", "grounding", "trajectory", places)


def _handlings(moments: Moments) -> list[tuple[Event, list[int]]]:
    """Each push, and each pick with the putting down after it: the event that says where to, and its observations."""
    events = moments.history.events
    found = []
    for number, event in enumerate(events):
        if event.action == "pick" and number + 1 < len(events) and events[number + 1].object_id == event.object_id:
            found.append((events[number + 1], list(range(event.start, events[number + 1].end + 1))))
        elif event.action == "push":
            found.append((event, list(range(event.start, event.end + 1))))
    return found


def _state_at(moments: Moments, object_id: int, index: int) -> ObjectState:
    return next(o for o in moments.history.observations[index].objects if o.id == object_id)


def _moved(moments: Moments) -> list[tuple[int, int, int]]:
    """Two images in the order of time and an object, well seen in both, that moved in between."""
    if moments.is_still or not moments.is_told_in_order:
        return []
    return [
        (a, b, i)
        for a, b in combinations(range(len(moments)), 2)
        for i in sorted(moments.nameable[a].keys() & moments.nameable[b].keys())
        if _distance_m(moments, i, a, b) > MOVED_M
    ]


def _distance_m(moments: Moments, object_id: int, a: int, b: int) -> float:
    return float(np.linalg.norm(moments.state(object_id, b).box.center - moments.state(object_id, a).box.center))


def has_stayed(moments: Moments, object_id: int, a: int, b: int) -> bool:
    """Within 5 mm and 5 degrees, between two images."""
    before, after = (moments.state(object_id, image).box.rotation for image in (a, b))
    cosine = (np.trace(before.T @ after) - 1) / 2
    return bool(_distance_m(moments, object_id, a, b) < STAYED_M and cosine > STAYED_COSINE)


def _cues(moments: Moments, image: int, names: dict[int, str]) -> dict[str, str]:
    objects = [moments.nameable[image][i] for i in names]
    return {"height": names[max(objects, key=lambda o: o.y).id], "size": names[max(objects, key=lambda o: o.area).id]}
