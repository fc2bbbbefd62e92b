"""Detections, depth and a camera → an `Observation` that the question families can ask about.

A picture of the world knows less than a simulator: there are no hidden sides, no contacts, no certainty. So a graph
says what it does not know (`up`, `complete`, `camera`), and `questions.py` asks only what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int16, UInt8

from gemvlm.camera import Camera, View
from gemvlm.curation.scene_graph.detections import Detection
from gemvlm.depth_map import DepthMap
from gemvlm.worlds.observation import ObjectState, Observation, OrientedBox

ASSUMED_FOV_DEG = 55.0
"""Vertical, where no camera is known: between a phone's main lens (about 50 upright) and a webcam (about 45-60)."""
RELATIVE_ERROR = {"simulator": 0.0, "sensor": 0.02, "stereo": 0.03, "teacher": 0.08, "unknown": 0.08}
"""One standard deviation of depth between two objects of a picture, by who made the map: sensors' data sheets, and
AbsRel of published metric teachers away from their training data. Give your own where you know it."""
TRIM = 2.0
"""Percentiles cut from either end of an object's points: pixels of its background, at the outline."""
BOX_SPREAD = 0.15
"""Of the depth in the middle of a box, within which its other pixels are taken for the same thing."""
JUMP = 0.05
"""Of the depth, by which a neighbour is nearer that hides something."""


@dataclass(frozen=True)
class GraphRules:
    """What counts as a thing: sure enough, and not two names for the same pixels."""

    min_score: float = 0.4
    max_overlap: float = 0.7
    most: int = 40


@dataclass(frozen=True)
class SceneGraph:
    """An observation made from what was seen, with what is not known about it.

    Without `up` the boxes are in the camera's frame and nothing may be asked about heights. Unless the detections are
    `complete`, nothing may be asked about what is not there; unless all have `outlines`, nothing about single pixels.
    `depth_error` is the relative uncertainty (one standard deviation) of the depth of one object against another's;
    infinite where depth has no metres.
    """

    observation: Observation
    up: bool
    complete: bool
    outlines: bool
    camera: Literal["given", "assumed"]
    depth_error: float
    record: Mapping[str, Any]


def make_graph(
    image: UInt8[np.ndarray, "H W 3"],
    detections: Sequence[Detection],
    depth: DepthMap,
    view: View | None = None,
    camera: Camera | None = None,
    up: bool = False,
    complete: bool = False,
    depth_error: float | None = None,
    scene: str = "",
    rules: GraphRules | None = None,
) -> SceneGraph:
    """The graph of one picture. `view` has a pose, and with `up` its world's z is true up; `camera` alone has none;
    without either a field of view is assumed, and the record says so.

    Depth along the ray becomes z-depth; depth without metres is kept, and nothing is asked that needs it. ValueError if
    sizes differ.
    """
    rules = rules or GraphRules()
    height, width = image.shape[:2]
    given = view.camera if view is not None else camera
    known = given or Camera.from_fov(width, height, ASSUMED_FOV_DEG)
    sizes = {(known.height, known.width), depth.values.shape, *(one.mask.shape for one in detections)}
    if sizes != {(height, width)} or (up and view is None):
        raise ValueError(
            f"scene graph: picture {(height, width)}, and camera, depth and masks {sorted(sizes)}: bring them to one "
            "size; `up` needs a view"
        )
    pose = np.eye(4) if view is None else view.camera_to_world
    seen = View(known, pose)
    depth = depth.to_z(known)
    detections = [replace(one, mask=_core(one.mask, depth)) if one.from_box else one for one in detections]
    ids, kept = _ids(detections, (height, width), rules)
    states = [
        state
        for i, one in enumerate(kept, start=1)
        if (state := _state(i, one, ids, depth, seen)) is not None
    ]  # fmt: skip
    missing = set(range(1, len(kept) + 1)) - {state.id for state in states}
    ids = np.where(np.isin(ids, list(missing)), 0, ids).astype(np.int16)
    by = "unknown" if depth.origin is None else depth.origin.provenance
    error = RELATIVE_ERROR[by] if depth_error is None else depth_error
    record = {
        "camera": "given" if given is not None else f"assumed, {ASSUMED_FOV_DEG:g} degrees vertical field of view",
        "up": "given" if up else "unknown",
        "depth": f"{depth.kind} by {depth.source or by}",
        "depth_error": error,
        "detections": len(detections),
        "boxes_only": sum(one.from_box for one in kept),
        "objects": len(states),
    }
    observation = Observation(image, depth, ids, seen, tuple(states), scene)
    sure = error if depth.is_metric else float("inf")
    outlines = not any(one.from_box for one in kept)
    source: Literal["given", "assumed"] = "given" if given is not None else "assumed"
    return SceneGraph(observation, up, complete, outlines, source, sure, record)


def _core(box: Bool[np.ndarray, "H W"], depth: DepthMap) -> Bool[np.ndarray, "H W"]:
    """The pixels of a box that are surely the thing's: those as deep as its middle; its middle, if depth says nothing.

    The middle is the inner half of either side.
    """
    rows, columns = np.flatnonzero(box.any(axis=1)), np.flatnonzero(box.any(axis=0))
    middle = np.zeros_like(box)
    if len(rows):
        (top, tall), (left, wide) = ((int(found[0]), len(found)) for found in (rows, columns))
        middle[top + tall // 4 : top + tall - tall // 4, left + wide // 4 : left + wide - wide // 4] = True
    known = middle & depth.valid
    if not depth.is_metric or not known.any():
        return middle
    typical = float(np.median(depth.values[known]))
    return box & depth.valid & (np.abs(depth.values - typical) <= BOX_SPREAD * typical)


def _ids(
    detections: Sequence[Detection], size: tuple[int, int], rules: GraphRules
) -> tuple[Int16[np.ndarray, "H W"], list[Detection]]:
    """Each pixel's detection, counted from 1, and the detections that are kept: surest first, smaller ones on top."""
    ranked = sorted((one for one in detections if one.score >= rules.min_score and one.mask.any()), key=_rank)
    kept: list[Detection] = []
    for one in ranked:
        if len(kept) < rules.most and all(_overlap(one.mask, other.mask) <= rules.max_overlap for other in kept):
            kept.append(one)
    ids = np.zeros(size, np.int16)
    for i in sorted(range(len(kept)), key=lambda i: (-int(kept[i].mask.sum()), i)):
        ids[kept[i].mask] = i + 1
    return ids, kept


def _rank(one: Detection) -> tuple[float, str, int]:
    """By score; the rest only makes the order independent of the list's."""
    return -one.score, one.label, int(np.flatnonzero(one.mask)[0])


def _overlap(one: Bool[np.ndarray, "H W"], other: Bool[np.ndarray, "H W"]) -> float:
    """Intersection over union."""
    union = int((one | other).sum())
    return float((one & other).sum()) / union if union else 0.0


def _state(
    object_id: int, one: Detection, ids: Int16[np.ndarray, "H W"], depth: DepthMap, view: View
) -> ObjectState | None:
    """What is visible of a detection; its box holds the visible points alone. None if nothing of it is visible."""
    mask = ids == object_id
    if not mask.any():
        return None
    use = mask & depth.valid
    metric = depth.is_metric and bool(use.any())
    box = OrientedBox(np.full(3, np.nan), np.eye(3), np.full(3, np.nan))
    if metric:
        points = view.to_world(_points(use, depth, view))
        low, high = np.percentile(points, (TRIM, 100 - TRIM), axis=0)
        box = replace(box, center=(low + high) / 2, half_extents=(high - low) / 2)
    hidden = _hidden_share(mask, depth) if depth.is_metric else 0.0
    return ObjectState(object_id, one.label, one.colour, box, True, 1 - hidden, int(mask.sum()))


def _points(mask: Bool[np.ndarray, "H W"], depth: DepthMap, view: View) -> Float[np.ndarray, "N 3"]:
    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns + 0.5, rows + 0.5], axis=-1)
    return view.camera.unproject(pixels, depth.values[rows, columns].astype(np.float64))


def _hidden_share(mask: Bool[np.ndarray, "H W"], depth: DepthMap) -> float:
    """The share of the outline behind which something nearer begins: how much may be hidden."""
    outline = hidden = 0
    values = np.where(depth.valid, depth.values, np.inf)
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        inside, outside = _shifted(mask, values, axis, step)
        outline += len(inside)
        hidden += int((outside < (1 - JUMP) * inside).sum())
    return hidden / outline if outline else 0.0


def _shifted(
    mask: Bool[np.ndarray, "H W"], values: Float[np.ndarray, "H W"], axis: int, step: int
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Depth on both sides of the outline in one direction."""
    here = [slice(None), slice(None)]
    there = [slice(None), slice(None)]
    here[axis], there[axis] = (slice(0, -1), slice(1, None)) if step > 0 else (slice(1, None), slice(0, -1))
    edge = mask[tuple(here)] & ~mask[tuple(there)]
    return values[tuple(here)][edge], values[tuple(there)][edge]
