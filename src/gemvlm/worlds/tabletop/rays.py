"""Exact rays against a scene: the first surface along each, and how many rays meet each body when it is alone.

`mj_multiRay` of MuJoCo 3.3.0 skips bodies by bounds that are wrong for what lies straight above or below the camera (it
compares the latitudes of box corners) and for turned bodies. A private copy of the model therefore has no such
bounds, and a body has geoms only while it is cast; the rays that may meet a body are found here by projecting its box.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int32

from gemvlm.camera import View
from gemvlm.worlds.observation import OrientedBox

VISUAL_GROUP, COLLISION_GROUP = 1, 3
ONLY_VISUAL = (np.arange(6) == VISUAL_GROUP).astype(np.uint8)
NO_BOUNDS = -1


@dataclass(frozen=True)
class Bundle:
    """Unit rays from one point, in the world frame.

    `frame` has the viewer's axes as columns, `plane` each ray's (x, y) at z = 1 in that frame; `spared` names one body
    per ray that needs no test (0 for none).
    """

    origin: Float[np.ndarray, "3"]
    directions: Float[np.ndarray, "N 3"]
    frame: Float[np.ndarray, "3 3"]
    plane: Float[np.ndarray, "N 2"]
    spared: Int32[np.ndarray, "N"] | None = None

    @classmethod
    def through_pixels(cls, view: View) -> Bundle:
        """One ray per pixel centre, row by row."""
        rays = view.camera.rays().reshape(-1, 3)
        unit = rays / np.sqrt(np.einsum("ni,ni->n", rays, rays))[:, None]
        frame = view.camera_to_world[:3, :3]
        return cls(view.camera_to_world[:3, 3].copy(), np.einsum("ij,nj->ni", frame, unit), frame, rays[:, :2])

    @classmethod
    def towards(
        cls,
        directions: Float[np.ndarray, "N 3"],
        origin: Float[np.ndarray, "3"],
        frame: Float[np.ndarray, "3 3"],
        spared: Int32[np.ndarray, "N"],
    ) -> Bundle:
        """Rays along given directions; those behind the frame meet only bodies that reach behind it too."""
        local = np.einsum("ji,nj->ni", frame, directions)
        ahead = local[:, 2:] > 0.01
        return cls(
            origin, directions, frame, np.where(ahead, local[:, :2] / np.where(ahead, local[:, 2:], 1), np.inf), spared
        )

    def window(self, corners: Float[np.ndarray, "8 3"]) -> Bool[np.ndarray, "N"]:
        """Rays inside the bounding rectangle of a box's projected corners; all of them if a corner is behind."""
        seen = np.einsum("ji,nj->ni", self.frame, corners - self.origin)
        if seen[:, 2].min() < 0.01:
            return np.ones(len(self.plane), bool)
        flat = seen[:, :2] / seen[:, 2:]
        (left, top), (right, bottom) = flat.min(axis=0) - 1e-6, flat.max(axis=0) + 1e-6
        x, y = self.plane[:, 0], self.plane[:, 1]
        return (x >= left) & (x <= right) & (y >= top) & (y <= bottom)


class RayCaster:
    """Casts rays against the visual geoms of a scene at rest; `boxes[i]` holds body i + 1."""

    def __init__(self, model: Any, data: Any, boxes: Sequence[OrientedBox]) -> None:
        self.model = copy.copy(model)
        self.model.body_bvhadr[:] = NO_BOUNDS
        self.model.body_geomnum[:] = 0
        self.geom_counts = model.body_geomnum.copy()
        self.data = data
        self.corners = {body: box.corners() for body, box in enumerate(boxes, start=1)}

    def cast(
        self, bundle: Bundle, bodies: Sequence[int]
    ) -> tuple[Int32[np.ndarray, "N"], Float[np.ndarray, "N"], dict[int, int]]:
        """First geom along each ray (-1 for nothing), its distance in metres (infinite for nothing), and how many rays
        meet each of `bodies` when it is alone."""
        geoms, nearest = np.full(len(bundle.plane), -1, np.int32), np.full(len(bundle.plane), np.inf)
        alone = {}
        for body in bodies:
            window = bundle.window(self.corners[body])
            if bundle.spared is not None:
                window &= bundle.spared != body
            rows = np.flatnonzero(window)
            found, distance = self._cast_at(body, bundle.origin, bundle.directions[rows])
            alone[body] = int(np.count_nonzero(found >= 0))
            closer = (found >= 0) & (distance < nearest[rows])
            geoms[rows[closer]], nearest[rows[closer]] = found[closer], distance[closer]
        return geoms, nearest, alone

    def _cast_at(
        self, body: int, origin: Float[np.ndarray, "3"], rays: Float[np.ndarray, "N 3"]
    ) -> tuple[Int32[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """Geoms and distances of one body along unit rays, -1 where they miss it."""
        count = len(rays)
        geoms, distance = np.full(count, -1, np.int32), np.full(count, -1.0)
        if count:
            self.model.body_geomnum[body] = self.geom_counts[body]
            far = mujoco.mjMAXVAL
            mujoco.mj_multiRay(
                self.model, self.data, origin, rays.ravel(), ONLY_VISUAL, 1, -1, geoms, distance, count, far
            )
            self.model.body_geomnum[body] = 0
        return geoms, distance
