"""Measures of oriented boxes: extents, volumes, the gap between two of them, footprints on a horizontal surface."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from gemvlm.worlds.observation import ObjectState, OrientedBox

PROJECTIONS = 20
"""Alternating projections between two boxes; at table scale the gap is then within a millimetre."""


def vertical_interval_m(state: ObjectState) -> tuple[float, float]:
    """Lowest and highest world z of the object's box."""
    reach = float(np.abs(state.box.rotation[2]) @ state.box.half_extents)
    return float(state.box.center[2]) - reach, float(state.box.center[2]) + reach


def volume_m3(state: ObjectState) -> float:
    return float(8 * np.prod(state.box.half_extents))


def longest_side_m(state: ObjectState) -> float:
    return float(2 * state.box.half_extents.max())


def center_distance_m(a: ObjectState, b: ObjectState) -> float:
    return float(np.linalg.norm(a.box.center - b.box.center))


def gaps_m(boxes: list[OrientedBox]) -> Float[np.ndarray, "N N"]:
    """Distances between the closest points of all pairs of boxes; 0 where they touch or overlap.

    Closest points of two convex sets by alternating projections (Cheney and Goldstein 1959), all pairs at once.
    """
    first, second = np.triu_indices(len(boxes), k=1)
    center = np.stack([box.center for box in boxes])
    rotation = np.stack([box.rotation for box in boxes])
    half = np.stack([box.half_extents for box in boxes])

    def project(points: Float[np.ndarray, "K 3"], onto: np.ndarray) -> Float[np.ndarray, "K 3"]:
        local = np.einsum("ki,kij->kj", points - center[onto], rotation[onto])
        return np.einsum("kj,kij->ki", np.clip(local, -half[onto], half[onto]), rotation[onto]) + center[onto]

    here = center[first]
    for _ in range(PROJECTIONS):
        there = project(here, second)
        here = project(there, first)
    result = np.zeros((len(boxes), len(boxes)))
    result[first, second] = result[second, first] = np.linalg.norm(here - there, axis=1)
    return result


def closest_points(a: OrientedBox, b: OrientedBox) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """A point of each of two solid boxes, as close to each other as any: alternating projections, as in `gaps_m`."""

    def onto(point: Float[np.ndarray, "3"], box: OrientedBox) -> Float[np.ndarray, "3"]:
        local = (point - box.center) @ box.rotation
        return np.clip(local, -box.half_extents, box.half_extents) @ box.rotation.T + box.center

    here = a.center
    for _ in range(PROJECTIONS):
        there = onto(here, b)
        here = onto(there, a)
    return here, there


def share_inside(box: OrientedBox, container: OrientedBox) -> float:
    """Of the box's volume, what lies in the container's: counted on a grid of 10 x 10 x 10 points."""
    cells = (np.arange(10) + 0.5) / 5 - 1
    points = np.stack(np.meshgrid(cells, cells, cells, indexing="ij"), axis=-1).reshape(-1, 3) * box.half_extents
    return float((distance_to_box_m(points @ box.rotation.T + box.center, container) == 0).mean())


def distance_to_box_m(points: Float[np.ndarray, "N 3"], box: OrientedBox) -> Float[np.ndarray, "N"]:
    """Distance of world points to a solid box; 0 inside."""
    local = np.abs((points - box.center) @ box.rotation)
    return np.linalg.norm(np.maximum(local - box.half_extents, 0), axis=1)


def footprint(box: OrientedBox) -> tuple[float, Float[np.ndarray, "2"]]:
    """The box seen from above: yaw (radians) of its most horizontal axis, and half extents along and across it."""
    axis = int(np.argmin(np.abs(box.rotation[2])))
    yaw = float(np.arctan2(box.rotation[1, axis], box.rotation[0, axis]))
    along = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    return yaw, np.abs(along @ box.rotation[:2]) @ box.half_extents


def rectangles_overlap(
    centers: Float[np.ndarray, "N 2"],
    yaws: Float[np.ndarray, "N"],
    half: Float[np.ndarray, "2"],
    other_center: Float[np.ndarray, "2"],
    other_yaw: float,
    other_half: Float[np.ndarray, "2"],
) -> Bool[np.ndarray, "N"]:
    """For N poses of one rectangle, whether it overlaps another (separating axes)."""
    offset = other_center - centers
    apart = np.zeros(len(centers), dtype=bool)
    turn = yaws - other_yaw
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    for axis_yaw, mine, theirs in ((yaws, half, other_half), (np.full_like(yaws, other_yaw), other_half, half)):
        x = offset[:, 0] * np.cos(axis_yaw) + offset[:, 1] * np.sin(axis_yaw)
        y = -offset[:, 0] * np.sin(axis_yaw) + offset[:, 1] * np.cos(axis_yaw)
        apart |= np.abs(x) > mine[0] + theirs[0] * cos + theirs[1] * sin
        apart |= np.abs(y) > mine[1] + theirs[0] * sin + theirs[1] * cos
    return ~apart
