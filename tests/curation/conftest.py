"""A world of plain boxes, drawn by casting one ray per pixel: question rules are tested on it, free of a simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.worlds.observation import ObjectState, Observation, OrientedBox

TABLE = {"id": 90, "category": "table", "colour": "brown", "center": (0, 0, -0.05), "half": (0.6, 0.6, 0.05)}


def thing(object_id, name, center, half, yaw=0.0, on=(90,), **more):
    """An object "red cube" at `center` with half extents `half` (metres), resting on the ids `on`."""
    colour, category = name.split()
    return {"id": object_id, "category": category, "colour": colour, "center": center, "half": half, "yaw": yaw,
            "on": on, "movable": True, **more}  # fmt: skip


def look_at(eye, target, size, roll_deg=0.0):
    forward = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross(forward, [0, 0, 1]) / np.linalg.norm(np.cross(forward, [0, 0, 1]))
    down = np.cross(forward, right)
    angle = np.radians(roll_deg)
    pose = np.eye(4)
    pose[:3, 0] = np.cos(angle) * right + np.sin(angle) * down
    pose[:3, 1] = -np.sin(angle) * right + np.cos(angle) * down
    pose[:3, 2], pose[:3, 3] = forward, eye
    return View(Camera.from_fov(size, size, 50.0), pose)


def observe(things, eye=(0.0, -0.9, 0.7), size=160, roll_deg=0.0):
    """The things on a table, seen from `eye` towards the table's middle."""
    view = look_at(eye, (0.0, 0.0, 0.05), size, roll_deg)
    states = []
    for spec in (*things, {**TABLE, "yaw": 0.0, "on": (), "movable": False}):
        cos, sin = np.cos(spec["yaw"]), np.sin(spec["yaw"])
        rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
        box = OrientedBox(np.array(spec["center"], float), rotation, np.array(spec["half"], float))
        states.append(
            ObjectState(
                spec["id"],
                spec["category"],
                spec["colour"],
                box,
                spec["movable"],
                0.0,
                0,
                tuple(spec["on"]),
                spec.get("hanging", False),
            )
        )
    alone = np.stack([_hit(view, state.box) for state in states])
    nearest = alone.argmin(axis=0)
    depth = alone.min(axis=0)
    ids = np.where(np.isfinite(depth), np.array([s.id for s in states])[nearest], 0).astype(np.int16)
    counted = []
    for state, own in zip(states, alone, strict=True):
        visible = int((ids == state.id).sum())
        counted.append(
            replace(state, visible_pixels=visible, visible_fraction=visible / max(int(np.isfinite(own).sum()), 1))
        )
    values = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
    image = np.repeat((ids % 7 * 30).astype(np.uint8)[:, :, None], 3, axis=2)
    return Observation(image, DepthMap.from_values(values), ids, view, tuple(counted), "boxes")


def _hit(view, box):
    """z-depth at which each pixel's ray enters the box, infinite where it misses (slabs)."""
    direction = view.camera.rays() @ view.camera_to_world[:3, :3].T @ box.rotation
    origin = (view.camera_to_world[:3, 3] - box.center) @ box.rotation
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = (-box.half_extents - origin) / direction, (box.half_extents - origin) / direction
    enter, leave = np.minimum(one, two).max(axis=-1), np.maximum(one, two).min(axis=-1)
    return np.where((enter <= leave) & (enter > 0), enter, np.inf)


@pytest.fixture(scope="session")
def boxes():
    """`boxes.thing(...)` and `boxes.observe(things)`."""

    class World:
        thing = staticmethod(thing)
        observe = staticmethod(observe)

    return World
