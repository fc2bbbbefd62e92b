"""A world of plain boxes, drawn by casting one ray per pixel: question rules are tested on it, free of a simulator.

And the second oracle's eyes: what depth, ids, names and the camera say, without a pose or a box of any object.
"""

from __future__ import annotations

import re
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


def observe(things, eye=(0.0, -0.9, 0.7), size=160, roll_deg=0.0, scale=1.0):
    """The things on a table, seen from `eye` towards the table's middle; all of it `scale` times as large."""
    things = [
        {**spec, "center": np.multiply(scale, spec["center"]), "half": np.multiply(scale, spec["half"])}
        for spec in (*things, {**TABLE, "yaw": 0.0, "on": (), "movable": False})
    ]
    view = look_at(np.multiply(scale, eye), np.multiply(scale, (0.0, 0.0, 0.05)), size, roll_deg)
    states = []
    for spec in things:
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


class Pixels:
    """What the depth picture says about an observation: a cloud of world points for every name."""

    def __init__(self, observation):
        self.observation = observation
        view = observation.view
        height, width = observation.ids.shape
        rows, columns = np.mgrid[:height, :width]
        pixels = np.stack([columns + 0.5, rows + 0.5], axis=-1)
        self.world = view.to_world(view.camera.unproject(pixels, observation.depth.values.astype(np.float64)))
        self.eye = view.camera_to_world[:3, 3]
        self.visible = [o for o in observation.objects if (observation.ids == o.id).any()]

    def objects_in(self, text):
        """The visible objects that a text speaks of as "the mug", in its order."""
        phrases = sorted(
            {p for o in self.visible if o.movable for p in (o.category, f"{o.colour} {o.category}")}, key=len
        )
        return re.findall(rf"\bthe ({'|'.join(reversed(phrases))})\b", text)

    def group(self, noun):
        """Masks of the movable objects that a noun fits ("mug", "red object", "object")."""
        fitting = [o for o in self.visible if o.movable and noun in (o.category, f"{o.colour} object", "object")]
        return [self.observation.ids == o.id for o in fitting]

    def mask(self, phrase):
        found = [o for o in self.visible if phrase in (o.category, f"{o.colour} {o.category}")]
        assert len(found) == 1, f"{phrase!r} fits {len(found)} visible objects"
        return self.observation.ids == found[0].id

    def cloud(self, phrase):
        return self.world[self.mask(phrase)]

    def at(self, place):
        """Row and column of the pixel under a place."""
        height, width = self.observation.ids.shape
        return int(place.y * height), int(place.x * width)

    def depth(self, phrase):
        return self.observation.depth.values[self.mask(phrase)]

    def column(self, phrase):
        return np.nonzero(self.mask(phrase))[1].mean()

    def middle(self, phrase):
        cloud = self.cloud(phrase)
        return (cloud.min(axis=0) + cloud.max(axis=0)) / 2


@pytest.fixture(scope="session")
def pixels_of():
    """`pixels_of(observation)`: what its depth picture says."""
    return Pixels


@pytest.fixture(scope="session")
def boxes():
    """`boxes.thing(...)` and `boxes.observe(things)`."""

    class World:
        thing = staticmethod(thing)
        observe = staticmethod(observe)

    return World
