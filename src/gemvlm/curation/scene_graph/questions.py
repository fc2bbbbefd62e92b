"""Questions about a scene graph: the families that need only what is seen, with margins as wide as the doubt.

The families bring the margins of exact worlds. Here every turn that leans on depth must also pass them with room for
the depth's uncertainty: an ordering must hold if both objects are off by `SIGMAS` standard deviations towards each
other, a number's tolerance must cover as much. What needs hidden sides, contacts or simulation is never asked; heights
only where up is known; what is absent or counted only where the detections are complete; distances only where the
camera is known, since an assumed one stretches the picture; pixels (points, boxes, what is at a place) only where
every outline is known, since a box holds background too. `benchmarks/scene_graph_agreement.py` says how often the
answers are true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gemvlm.curation.filters import reject
from gemvlm.curation.questions import FAMILIES, write_questions
from gemvlm.curation.questions.boxes import center_distance_m, vertical_interval_m
from gemvlm.curation.questions.relations import DEPTH_GAP_M, DEPTH_RATIO, NEIGHBOUR_GAP_M, VERTICAL_GAP_M
from gemvlm.curation.questions.visibility import Seen, SeenObject
from gemvlm.curation.scene_graph.detections import Detection
from gemvlm.curation.scene_graph.graph import SceneGraph, make_graph
from gemvlm.curation.source import Rejection
from gemvlm.sample import Sample, Turn

SIGMAS = 2.0
OF_NAMES = ("left_right",)
OF_OUTLINES = ("point", "box", "colour", "shape", "object_at", "point_relation")
OF_ALL = ("count", "exists")
OF_ALL_OUTLINES = ("describe", "point_extremum")
OF_DEPTH = ("closer", "nearest_of", "object_depth")
OF_PLACES = ("distance", "nearer_to")
OF_HEIGHT = ("above_below",)
APART = 1.5
"""Distances are asked from this many times the larger object's extent on: visible surfaces then stand for centres."""
CANDIDATES = 4
"""Turns that are written for each that is wanted, since some do not survive."""


def families(graph: SceneGraph) -> tuple[str, ...]:
    """Names of the families that may be asked about the graph."""
    metric = np.isfinite(graph.depth_error)
    chosen = [*OF_NAMES]
    chosen += OF_OUTLINES if graph.outlines else ()
    chosen += OF_ALL if graph.complete else ()
    chosen += OF_ALL_OUTLINES if graph.complete and graph.outlines else ()
    chosen += OF_DEPTH if metric else ()
    chosen += OF_PLACES if metric and graph.camera == "given" else ()
    chosen += OF_HEIGHT if metric and graph.up else ()
    return tuple(name for name in FAMILIES if name in chosen)


def ask(
    graph: SceneGraph,
    key: Iterable[int],
    chosen: Iterable[str] | None = None,
    turns_per_family: int | Mapping[str, int] = 2,
) -> list[Turn]:
    """Up to `turns_per_family` turns of each family, a function of graph and `key`. ValueError for a family that the
    graph does not allow.
    """
    allowed = families(graph)
    names = allowed if chosen is None else tuple(chosen)
    if refused := sorted(set(names) - set(allowed)):
        raise ValueError(f"scene graph: {refused} can't be asked of it; it allows {', '.join(allowed)}")
    wanted = {name: turns_per_family if isinstance(turns_per_family, int) else turns_per_family[name] for name in names}
    seen = Seen(graph.observation)
    candidates = write_questions(graph.observation, key, names, {n: CANDIDATES * k for n, k in wanted.items()})
    turns: list[Turn] = []
    for turn in candidates:
        sure = _CHECKS[turn.family](turn, seen, graph.depth_error) if turn.family in _CHECKS else turn
        if sure is not None and wanted[turn.family] > 0:
            wanted[turn.family] -= 1
            turns.append(sure)
    return turns


def ask_about(
    sample: Sample,
    detections: Sequence[Detection],
    key: Iterable[int],
    turns_per_family: int | Mapping[str, int] = 2,
    complete: bool = False,
) -> Sample | Rejection:
    """The sample with questions about its first frame, which has depth (true or a teacher's, see `depth_teacher`).

    The frame's camera is used if it has one; its pose is not, since nobody says that its z is up. `meta["scene_graph"]`
    says what was assumed. A rejection if the frame has no depth or nothing can be asked.
    """
    frame = sample.frames[0] if sample.frames else None
    if frame is None or frame.depth is None:
        return reject(sample, "no_depth", "a scene graph needs a frame with depth", "frames[0].depth", "questions")
    camera = None if frame.view is None else frame.view.camera
    graph = make_graph(frame.image, detections, frame.depth, camera=camera, complete=complete, scene=sample.scene)
    turns = ask(graph, key, turns_per_family=turns_per_family)
    if not turns:
        detail = f"nothing can be asked about {graph.record['objects']} of {len(detections)} detections"
        return reject(sample, "no_questions", detail, "frames[0]", "questions")
    meta = {**sample.meta, "scene_graph": dict(graph.record)}
    return replace(sample, turns=(*sample.turns, *turns), meta=meta)


Check = Callable[[Turn, Seen, float], Turn | None]


def _named(seen: Seen, phrase: str) -> SeenObject | None:
    return next((o for o in seen.objects if phrase in (o.full_name, o.state.category) and seen.fits_one(phrase)), None)


def _nearest_by_far(turn: Turn, seen: Seen, error: float) -> Turn | None:
    """The winner stays nearest if it is farther, and each rival nearer, by the doubt."""
    winner = _named(seen, turn.answer)
    rivals = [_named(seen, option) for option in turn.options if option != turn.answer]
    if winner is None:
        return None
    slack = np.exp(SIGMAS * np.sqrt(2) * error)
    for rival in rivals:
        if rival is None or rival.near_m < DEPTH_RATIO * slack * winner.near_m:
            return None
        if rival.near_m - slack * winner.near_m < DEPTH_GAP_M:
            return None
    return turn


def _neighbour_by_far(turn: Turn, seen: Seen, error: float) -> Turn | None:
    """The nearer neighbour stays so if every depth is off: an error of depth moves an object along its ray."""
    winner = _named(seen, turn.answer)
    rivals = [_named(seen, option) for option in turn.options if option != turn.answer]
    anchor = next((o for o in seen.objects if any(f"the {p}, " in turn.question for p in seen.references(o))), None)
    if winner is None or anchor is None or None in rivals:
        return None
    near = _spaced(anchor, winner, error, 1) + NEIGHBOUR_GAP_M
    return turn if all(rival is not None and near <= _spaced(anchor, rival, error, -1) for rival in rivals) else None


def _spaced(a: SeenObject, b: SeenObject, error: float, side: int) -> float:
    """Distance of the centres, longer or shorter by the doubt in both depths and by the objects' own extents."""
    doubt = SIGMAS * error * np.hypot(a.median_m, b.median_m)
    extents = (_extent(a) + _extent(b)) / 4
    return center_distance_m(a.state, b.state) + side * (doubt + extents)


def _extent(o: SeenObject) -> float:
    return float(2 * o.state.box.half_extents.max())


def _wide_tolerance(turn: Turn, seen: Seen, error: float) -> Turn | None:
    """A number's tolerance covers the doubt; it is not asked where that would be more than a third."""
    tolerance = max(turn.tolerance or 0.0, SIGMAS * error)
    return replace(turn, tolerance=tolerance) if tolerance <= 1 / 3 else None


def _far_apart(turn: Turn, seen: Seen, error: float) -> Turn | None:
    """Asked where objects are small against their distance, and the doubt in depth too."""
    named = [o for o in seen.objects if any(f"the {p}" in turn.question for p in seen.references(o))]
    if len(named) != 2:
        return None
    a, b = named
    apart = center_distance_m(a.state, b.state)
    doubt = SIGMAS * error * np.hypot(a.median_m, b.median_m)
    if apart < APART * max(_extent(a), _extent(b)) or doubt > (turn.tolerance or 0.0) * apart:
        return None
    return turn


def _clearly_higher(turn: Turn, seen: Seen, error: float) -> Turn | None:
    """Vertical extents stay apart if each is off by the doubt in its depth."""
    winner = _named(seen, turn.answer)
    rivals = [_named(seen, option) for option in turn.options if option != turn.answer]
    if winner is None or None in rivals:
        return None
    for rival in rivals:
        assert rival is not None
        gap = vertical_interval_m(winner.state)[0] - vertical_interval_m(rival.state)[1]
        if gap < VERTICAL_GAP_M + SIGMAS * error * np.hypot(winner.median_m, rival.median_m):
            return None
    return turn


def _in_the_image_only(turn: Turn, seen: Seen, error: float) -> Turn | None:
    """Of the extrema, only left and right need no depth and no height."""
    return turn if "most object in the image" in turn.question else None


_CHECKS: dict[str, Check] = {
    "closer": _nearest_by_far,
    "nearest_of": _nearest_by_far,
    "nearer_to": _neighbour_by_far,
    "object_depth": _wide_tolerance,
    "distance": _far_apart,
    "above_below": _clearly_higher,
    "point_extremum": _in_the_image_only,
}
