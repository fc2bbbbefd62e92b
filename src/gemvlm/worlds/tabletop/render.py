"""Ray-cast views: exact z-depth and ids from one ray per pixel, colour from shading with cast shadows.

Everything goes through `mj_multiRay`, which casts many rays from one point: primary rays start at the camera, shadow rays at the
light. No OpenGL, no graphics card, and no matrix library whose result could depend on its number of threads.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int16, Int32, UInt8

from gemvlm.camera import View
from gemvlm.depth_map import DepthMap
from gemvlm.worlds.observation import OrientedBox
from gemvlm.worlds.tabletop.layout import Layout
from gemvlm.worlds.tabletop.parts import Part
from gemvlm.worlds.tabletop.surface import Surface
from gemvlm.worlds.tabletop.viewpoint import look_at

VISUAL_GROUP, COLLISION_GROUP = 1, 3
ONLY_VISUAL = (np.arange(6) == VISUAL_GROUP).astype(np.uint8)
SHADOW_SLACK_M = 0.0015
NO_BOUNDS = -1


@dataclass(frozen=True)
class Light:
    """A point light far enough to shade evenly: `position` in metres, `frame` its axes (z towards the table), `colour` its strength per channel (linear light)."""

    position: Float[np.ndarray, "3"]
    frame: Float[np.ndarray, "3 3"]
    colour: Float[np.ndarray, "3"]
    ambient: Float[np.ndarray, "3"]

    @classmethod
    def draw(cls, rng: np.random.Generator, layout: Layout) -> Light:
        """On the side without walls, 45 to 75 degrees up."""
        azimuth = np.radians(rng.uniform(-85, -5) if "left" in layout.walls else rng.uniform(-170, -10))
        elevation = np.radians(rng.uniform(45, 75))
        direction = np.array(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
        )
        position = np.array([0, 0, layout.table_height_m]) + 2.5 * direction
        tint = 1 + rng.uniform(-0.06, 0.06, size=3)
        frame = look_at(position, np.array([0, 0, layout.table_height_m]))[:3, :3]
        return cls(position, frame, rng.uniform(0.75, 1.0) * tint, rng.uniform(0.28, 0.42) * np.ones(3))


@dataclass(frozen=True)
class Picture:
    """What the rays of one view found; `alone[i]` counts the pixels of body i + 1 rendered by itself."""

    image: UInt8[np.ndarray, "H W 3"]
    depth: DepthMap
    ids: Int16[np.ndarray, "H W"]
    alone: list[int]


@dataclass(frozen=True)
class _Bundle:
    """Rays from one point. `frame` has the viewer's axes as columns; `plane` holds each ray's (x, y) at z = 1 in that frame."""

    origin: Float[np.ndarray, "3"]
    directions: Float[np.ndarray, "N 3"]
    frame: Float[np.ndarray, "3 3"]
    plane: Float[np.ndarray, "N 2"]


class Renderer:
    """Casts and shades views of one scene. `parts[g]` is what geom g draws, `surfaces[i]` clothes body i + 1, `boxes[i]` holds it;
    `casters` are the bodies that can stand between the light and another one.

    `mj_multiRay` of MuJoCo 3.3.0 skips bodies by bounds that are wrong for what lies straight above or below the camera (it compares
    the latitudes of box corners) and for turned bodies. A private copy of the model has no such bounds, and a body
    has geoms only while it is cast; which rays may meet it is found here by projecting its box.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        parts: Sequence[Part | None],
        surfaces: Sequence[Surface],
        boxes: Sequence[OrientedBox],
        casters: Sequence[int],
        light: Light,
    ) -> None:
        self.model = copy.copy(model)
        self.model.body_bvhadr[:] = NO_BOUNDS
        self.model.body_geomnum[:] = 0
        self.geom_counts = model.body_geomnum.copy()
        self.data = data
        self.parts = parts
        self.surfaces = surfaces
        self.corners = [box.corners() for box in boxes]
        self.casters = [body - 1 for body in casters]
        self.light = light

    def render(self, view: View, rng: np.random.Generator, noise: float) -> Picture:
        """One finished view; `noise` is the standard deviation of the sensor noise, as a fraction of full scale."""
        height, width = view.camera.height, view.camera.width
        bundle = _camera_bundle(view)
        geoms, distance, alone = self._cast(bundle, range(len(self.corners)))
        hit = geoms >= 0
        ids = np.zeros(len(geoms), np.int16)
        ids[hit] = self.model.geom_bodyid[geoms[hit]]
        rays = bundle.directions
        forward = np.einsum("ni,i->n", rays, bundle.frame[:, 2])
        z = np.where(hit, distance * forward, 0).astype(np.float32)

        light = np.empty((len(rays), 3))
        light[~hit] = self._sky(rays[~hit])
        points = bundle.origin + rays[hit] * distance[hit, None]
        light[hit] = self._shade(points, rays[hit], geoms[hit])
        image = np.sqrt(np.clip(light, 0, 1))
        if noise > 0:
            image = image + rng.standard_normal(image.shape, dtype=np.float32) * noise
        image = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).reshape(height, width, 3)
        depth = DepthMap(
            values=z.reshape(height, width), valid=hit.reshape(height, width), kind="metric_z", unit="m", source="tabletop"
        )
        return Picture(image, depth, ids.reshape(height, width), alone)

    def _cast(
        self, bundle: _Bundle, bodies: Sequence[int]
    ) -> tuple[Int32[np.ndarray, "N"], Float[np.ndarray, "N"], list[int]]:
        """First geom (-1 for nothing) and its distance in metres along each ray; how many rays meet each of `bodies`
        if it were alone."""
        geoms, nearest = np.full(len(bundle.plane), -1, np.int32), np.full(len(bundle.plane), np.inf)
        alone = []
        for index in bodies:
            rows = np.flatnonzero(self._window(bundle, self.corners[index]))
            found, distance = self._cast_at(index, bundle.origin, bundle.directions[rows])
            alone.append(int(np.count_nonzero(found >= 0)))
            closer = (found >= 0) & (distance < nearest[rows])
            geoms[rows[closer]], nearest[rows[closer]] = found[closer], distance[closer]
        return geoms, nearest, alone

    @staticmethod
    def _window(bundle: _Bundle, corners: Float[np.ndarray, "8 3"]) -> Bool[np.ndarray, "N"]:
        """Rays that may meet a box: those inside the bounding rectangle of its corners' projections, all if a corner is behind."""
        seen = np.einsum("ji,nj->ni", bundle.frame, corners - bundle.origin)
        if seen[:, 2].min() < 0.01:
            return np.ones(len(bundle.plane), bool)
        flat = seen[:, :2] / seen[:, 2:]
        (left, top), (right, bottom) = flat.min(axis=0) - 1e-6, flat.max(axis=0) + 1e-6
        x, y = bundle.plane[:, 0], bundle.plane[:, 1]
        return (x >= left) & (x <= right) & (y >= top) & (y <= bottom)

    def _cast_at(
        self, index: int, origin: Float[np.ndarray, "3"], rays: Float[np.ndarray, "N 3"]
    ) -> tuple[Int32[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """Geoms and distances of one body along unit rays, -1 where they miss it."""
        geoms, distance = np.full(len(rays), -1, np.int32), np.full(len(rays), -1.0)
        if len(rays):
            self.model.body_geomnum[index + 1] = self.geom_counts[index + 1]
            mujoco.mj_multiRay(
                self.model, self.data, origin, rays.ravel(), ONLY_VISUAL, 1, -1, geoms, distance, len(rays), mujoco.mjMAXVAL
            )
            self.model.body_geomnum[index + 1] = 0
        return geoms, distance

    def _shade(
        self, points: Float[np.ndarray, "N 3"], rays: Float[np.ndarray, "N 3"], geoms: Int32[np.ndarray, "N"]
    ) -> Float[np.ndarray, "N 3"]:
        """Ambient, diffuse and a soft highlight, with the light's shadow, in linear light."""
        normals, albedo, shine = self._surfaces(points, geoms)
        normals = np.where(np.einsum("ni,ni->n", normals, rays)[:, None] > 0, -normals, normals)
        from_light = points - self.light.position
        reach = np.sqrt(np.einsum("ni,ni->n", from_light, from_light))
        from_light /= reach[:, None]
        facing = np.maximum(-np.einsum("ni,ni->n", normals, from_light), 0)
        lit = np.flatnonzero(facing > 0)
        _, first, _ = self._cast(_light_bundle(self.light, from_light[lit]), self.casters)
        facing[lit[first < reach[lit] - SHADOW_SLACK_M]] = 0
        half = -(rays + from_light)
        half /= np.maximum(np.sqrt(np.einsum("ni,ni->n", half, half)), 1e-9)[:, None]
        gleam = shine * (facing > 0) * np.maximum(np.einsum("ni,ni->n", normals, half), 0) ** 24
        sky = 0.75 + 0.25 * normals[:, 2:]
        return albedo * (self.light.ambient * sky + self.light.colour * facing[:, None]) + gleam[:, None] * self.light.colour

    def _surfaces(
        self, points: Float[np.ndarray, "N 3"], geoms: Int32[np.ndarray, "N"]
    ) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"], Float[np.ndarray, "N"]]:
        """World normals, reflectance and shine at hit points, geom by geom."""
        normals, albedo, shine = np.empty_like(points), np.empty_like(points), np.empty(len(points))
        order = np.argsort(geoms, kind="stable")
        found, starts = np.unique(geoms[order], return_index=True)
        for geom, rows in zip(found, np.split(order, starts[1:]), strict=True):
            body, part = int(self.model.geom_bodyid[geom]), self.parts[geom]
            assert part is not None
            rotation = self.data.xmat[body].reshape(3, 3)
            local = np.einsum("ji,nj->ni", rotation, points[rows] - self.data.xpos[body])
            normals[rows] = np.einsum("ij,nj->ni", rotation, part.normals(local))
            surface = self.surfaces[body - 1]
            albedo[rows] = surface.albedo(local)
            shine[rows] = surface.shine
        return normals, albedo, shine

    def _sky(self, rays: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        return np.array([0.45, 0.52, 0.6]) * (0.8 + 0.4 * rays[:, 2:])


def _camera_bundle(view: View) -> _Bundle:
    """One ray per pixel, row by row."""
    rays = view.camera.rays().reshape(-1, 3)
    unit = rays / np.sqrt(np.einsum("ni,ni->n", rays, rays))[:, None]
    frame = view.camera_to_world[:3, :3]
    return _Bundle(view.camera_to_world[:3, 3].copy(), np.einsum("ij,nj->ni", frame, unit), frame, rays[:, :2])


def _light_bundle(light: Light, directions: Float[np.ndarray, "N 3"]) -> _Bundle:
    """Rays from the light, with the light's axis towards the table; rays behind it pass nothing that casts a shadow."""
    local = np.einsum("ji,nj->ni", light.frame, directions)
    plane = np.where(local[:, 2:] > 0.01, local[:, :2] / np.maximum(local[:, 2:], 0.01), np.inf)
    return _Bundle(light.position, directions, light.frame, plane)
