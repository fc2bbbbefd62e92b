"""Exact rays against a scene: the first surface along each, and how many rays meet each body when it is alone.

`mj_multiRay` of MuJoCo 3.3.0 skips bodies by bounds that are wrong for what lies straight above or below the camera (it
compares the latitudes of box corners) and for turned bodies. A private copy of the model therefore has no such
bounds, and a body has geoms only while it is cast; the rays that may meet a body are found here by projecting its box.
Most rays meet a table, a floor or a wall: those boxes, whose axes are the world's, are cast here for all rays at once,
in MuJoCo's own arithmetic, so that a distance is the same to the last bit whoever computes it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float, Int, Int32

from gemvlm.camera import Camera, View
from gemvlm.worlds.observation import OrientedBox

VISUAL_GROUP, COLLISION_GROUP = 1, 3
ONLY_VISUAL = (np.arange(6) == VISUAL_GROUP).astype(np.uint8)
NO_BOUNDS = -1
NEAR_M = 0.01
"""Nothing stands nearer to a viewer than this."""
EDGES = np.array([(a, b) for a in range(8) for b in range(a) if (a ^ b).bit_count() == 1])
"""Pairs of `OrientedBox.corners` that an edge joins: their indices differ in one bit."""


@dataclass(frozen=True)
class Bundle:
    """Unit rays from one point, in the world frame.

    `frame` has the viewer's axes as columns, `plane` each ray's (x, y) at z = 1 in that frame; `spared` names one body
    per ray that needs no test (0 for none). `width` is the number of rays per row of a pixel grid, 0 if there is none.
    """

    origin: Float[np.ndarray, "3"]
    directions: Float[np.ndarray, "N 3"]
    frame: Float[np.ndarray, "3 3"]
    plane: Float[np.ndarray, "2 N"]
    spared: Int32[np.ndarray, "N"] | None = None
    width: int = 0

    @classmethod
    def through_pixels(cls, view: View) -> Bundle:
        """One ray per pixel centre, row by row."""
        unit, plane = _pixel_rays(view.camera)
        frame = view.camera_to_world[:3, :3]
        directions = np.einsum("ij,nj->ni", frame, unit)
        return cls(view.camera_to_world[:3, 3].copy(), directions, frame, plane, width=view.camera.width)

    @classmethod
    def towards(
        cls,
        directions: Float[np.ndarray, "N 3"],
        origin: Float[np.ndarray, "3"],
        frame: Float[np.ndarray, "3 3"],
        spared: Int32[np.ndarray, "N"],
    ) -> Bundle:
        """Rays along given directions; those that point behind it meet nothing."""
        local = np.einsum("ji,nj->in", frame, directions)
        ahead = local[2] > NEAR_M
        plane = np.where(ahead, local[:2] / np.where(ahead, local[2], 1), np.inf)
        return cls(origin, directions, frame, plane, spared)

    def windows(self, corners: Float[np.ndarray, "B 8 3"]) -> Float[np.ndarray, "B 4"]:
        """For each box the rectangle (left, top, right, bottom) of `plane` that holds its part ahead of the viewer."""
        seen = np.einsum("ji,bnj->bni", self.frame, corners - self.origin)
        ends = np.stack([seen[:, EDGES], seen[:, EDGES[:, ::-1]]])
        one, other = ends[:, :, :, 0], ends[:, :, :, 1]
        rise = other[..., 2] - one[..., 2]
        share = np.clip((NEAR_M - one[..., 2]) / np.where(rise == 0, 1, rise), 0, 1)
        cut = np.where(one[..., 2:] < NEAR_M, one + share[..., None] * (other - one), one)
        flat = cut[..., :2] / np.maximum(cut[..., 2:], 0.99 * NEAR_M)
        ahead = cut[..., 2:] >= 0.99 * NEAR_M
        low = np.where(ahead, flat, np.inf).min(axis=(0, 2)) - 1e-6
        high = np.where(ahead, flat, -np.inf).max(axis=(0, 2)) + 1e-6
        return np.concatenate([low, high], axis=1)


@lru_cache(maxsize=16)
def _pixel_rays(camera: Camera) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "2 N"]]:
    """Unit rays through the pixel centres in the camera's frame, and where they meet z = 1."""
    rays = camera.rays().reshape(-1, 3)
    unit = rays / np.sqrt(np.einsum("ni,ni->n", rays, rays))[:, None]
    return unit, np.ascontiguousarray(rays[:, :2].T)


class RayCaster:
    """Casts rays against the visual geoms of a scene at rest; `boxes[i]` holds body i + 1."""

    def __init__(self, model: Any, data: Any, boxes: Sequence[OrientedBox]) -> None:
        self.model = copy.copy(model)
        self.model.body_bvhadr[:] = NO_BOUNDS
        self.model.body_geomnum[:] = 0
        self.geom_counts = model.body_geomnum.copy()
        self.data = data
        self.corners = np.stack([box.corners() for box in boxes])
        self.slabs = _slabs(model, data)

    def cast(
        self, bundle: Bundle, bodies: Sequence[int]
    ) -> tuple[Int32[np.ndarray, "N"], Float[np.ndarray, "N"], dict[int, int]]:
        """First geom along each ray (-1 for nothing), its distance in metres (infinite for nothing), and how many rays
        meet each of `bodies` when it is alone."""
        geoms, nearest = np.full(len(bundle.directions), -1, np.int32), np.full(len(bundle.directions), np.inf)
        alone = {}
        windows = bundle.windows(self.corners)
        for body in bodies:
            slab = self.slabs.get(body)
            if slab is not None and not slab.holds(bundle.origin):
                distance = slab.cast(bundle)
                met = distance < np.inf
                alone[body] = int(np.count_nonzero(met))
                closer = distance < nearest
                np.copyto(geoms, slab.geom, where=closer)
                np.copyto(nearest, distance, where=closer)
                continue
            rows = _inside(bundle, windows[body - 1], body)
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


def _inside(bundle: Bundle, window: Float[np.ndarray, "4"], body: int) -> Int[np.ndarray, "M"]:
    """Indices, in order, of the rays through a rectangle of `plane` that do not spare the body."""
    left, top, right, bottom = window
    x, y = bundle.plane
    if bundle.width:
        columns = np.arange(*np.searchsorted(x[: bundle.width], (left, np.nextafter(right, np.inf))))
        lines = np.arange(*np.searchsorted(y[:: bundle.width], (top, np.nextafter(bottom, np.inf))))
        return (lines[:, None] * bundle.width + columns).ravel()
    rows = np.flatnonzero((x >= left) & (x <= right))
    height = y[rows]
    keep = (height >= top) & (height <= bottom)
    if bundle.spared is not None:
        keep &= bundle.spared[rows] != body
    return rows[keep]


@dataclass(frozen=True)
class _Slab:
    """The one box of a body that stands square to the world."""

    body: int
    geom: int
    center: Float[np.ndarray, "3"]
    half: Float[np.ndarray, "3"]

    def holds(self, point: Float[np.ndarray, "3"]) -> bool:
        return bool(np.all(np.abs(point - self.center) <= self.half))

    def cast(self, bundle: Bundle) -> Float[np.ndarray, "N"]:
        """Distance along each ray to the box from an origin outside it, infinite where a ray misses or spares it.

        A ray enters through a face that the origin lies beyond: where it meets the face's plane within the face.
        """
        local = bundle.origin - self.center
        rays = bundle.directions.T
        nearest = np.full(len(bundle.directions), np.inf)
        for axis in np.flatnonzero(np.abs(local) > self.half):
            with np.errstate(divide="ignore", invalid="ignore"):
                distance = (np.copysign(self.half[axis], local[axis]) - local[axis]) / rays[axis]
                met = distance >= 0
                for other in (axis - 1, axis - 2):
                    met &= np.abs(local[other] + distance * rays[other]) <= self.half[other]
            np.minimum(nearest, distance, out=nearest, where=met)
        if bundle.spared is not None:
            nearest[bundle.spared == self.body] = np.inf
        return nearest


def _slabs(model: Any, data: Any) -> dict[int, _Slab]:
    """By body: those whose only visible geom is a box with the world's axes."""
    visible = model.geom_group == VISUAL_GROUP
    square = (model.geom_type == mujoco.mjtGeom.mjGEOM_BOX) & np.all(data.geom_xmat == np.eye(3).ravel(), axis=1)
    pieces = np.bincount(model.geom_bodyid[visible], minlength=model.nbody)
    return {
        int(body): _Slab(int(body), int(geom), data.geom_xpos[geom].copy(), model.geom_size[geom].copy())
        for geom in np.flatnonzero(visible & square)
        if pieces[body := model.geom_bodyid[geom]] == 1
    }
