"""Ray-cast views: exact z-depth and ids from one ray per pixel, colour from shading with cast shadows.

Everything goes through `mj_multiRay`, which casts many rays from one point: primary rays start at the camera, shadow rays at the
light. No OpenGL, no graphics card, and no matrix library whose result could depend on its number of threads.
"""

from __future__ import annotations

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

VISUAL_GROUP, ALONE_GROUP, COLLISION_GROUP = 1, 2, 3
SHADOW_SLACK_M = 0.0015


@dataclass(frozen=True)
class Light:
    """A point light far enough to shade evenly: `position` in metres, `colour` its strength per channel (linear light)."""

    position: Float[np.ndarray, "3"]
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
        return cls(position, rng.uniform(0.75, 1.0) * tint, rng.uniform(0.28, 0.42) * np.ones(3))


@dataclass(frozen=True)
class Picture:
    """What the rays of one view found."""

    image: UInt8[np.ndarray, "H W 3"]
    depth: DepthMap
    ids: Int16[np.ndarray, "H W"]


class Renderer:
    """Casts and shades views of one scene. `parts[g]` is what geom g draws, `surfaces[i]` clothes body i + 1."""

    def __init__(
        self, model: Any, data: Any, parts: Sequence[Part | None], surfaces: Sequence[Surface], light: Light
    ) -> None:
        self.model = model
        self.data = data
        self.parts = parts
        self.surfaces = surfaces
        self.light = light

    def render(self, view: View, rng: np.random.Generator, noise: float) -> Picture:
        """One finished view; `noise` is the standard deviation of the sensor noise, as a fraction of full scale."""
        height, width = view.camera.height, view.camera.width
        origin = view.camera_to_world[:3, 3]
        rays = _directions(view)
        geoms, distance = self._cast(origin, rays, VISUAL_GROUP)
        hit = geoms >= 0
        ids = np.zeros(len(rays), np.int16)
        ids[hit] = self.model.geom_bodyid[geoms[hit]]
        forward = np.einsum("ni,i->n", rays, view.camera_to_world[:3, 2])
        z = np.where(hit, distance * forward, 0).astype(np.float32)

        light = np.empty((len(rays), 3))
        light[~hit] = self._sky(rays[~hit])
        points = origin + rays[hit] * distance[hit, None]
        light[hit] = self._shade(points, rays[hit], geoms[hit])
        image = np.clip(light, 0, 1) ** (1 / 2.2)
        if noise > 0:
            image = image + rng.standard_normal(image.shape, dtype=np.float32) * noise
        image = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).reshape(height, width, 3)
        depth = DepthMap(
            values=z.reshape(height, width), valid=hit.reshape(height, width), kind="metric_z", unit="m", source="tabletop"
        )
        return Picture(image, depth, ids.reshape(height, width))

    def visible_fraction(self, body: int, visible: int, box: OrientedBox, view: View, picture: Picture) -> float:
        """Visible pixels over those the body would have alone. Only pixels where something nearer than the far end of its box
        stands inside the box's outline can hide it, so only those are cast again."""
        if visible == 0:
            return 0.0
        hidden = self._hidden_pixels(body, box, view, picture)
        if not hidden.any():
            return 1.0
        groups = self.model.geom_group
        mine = (self.model.geom_bodyid == body) & (groups == VISUAL_GROUP)
        groups[mine] = ALONE_GROUP
        geoms, _ = self._cast(view.camera_to_world[:3, 3], _directions(view)[hidden.ravel()], ALONE_GROUP)
        groups[mine] = VISUAL_GROUP
        return visible / (visible + int(np.count_nonzero(geoms >= 0)))

    def _hidden_pixels(self, body: int, box: OrientedBox, view: View, picture: Picture) -> Bool[np.ndarray, "H W"]:
        """Pixels that may hide a part of the body."""
        corners = view.to_camera(box.corners())
        window = np.zeros(picture.ids.shape, bool)
        if corners[:, 2].min() > 0.01:
            pixels = view.camera.project(corners)
            left, top = np.maximum(np.floor(pixels.min(axis=0)).astype(int), 0)
            right, bottom = np.maximum(np.ceil(pixels.max(axis=0)).astype(int), 0)
            window[top:bottom, left:right] = True
        else:
            window[:] = True
        nearer = (picture.depth.values <= corners[:, 2].max()) & picture.depth.valid
        return window & nearer & (picture.ids != body)

    def _cast(
        self, origin: Float[np.ndarray, "3"], rays: Float[np.ndarray, "N 3"], group: int
    ) -> tuple[Int32[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """Geom (-1 for nothing) and distance in metres along each unit ray, among the geoms of one group."""
        geoms, distance = np.full(len(rays), -1, np.int32), np.full(len(rays), -1.0)
        groups = np.zeros(6, np.uint8)
        groups[group] = 1
        if len(rays):
            flat = np.ascontiguousarray(rays).ravel()
            mujoco.mj_multiRay(
                self.model, self.data, origin.copy(), flat, groups, 1, -1, geoms, distance, len(rays), mujoco.mjMAXVAL
            )
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
        _, first = self._cast(self.light.position, from_light, VISUAL_GROUP)
        facing[(first >= 0) & (first < reach - SHADOW_SLACK_M)] = 0
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


def _directions(view: View) -> Float[np.ndarray, "N 3"]:
    """Unit rays of all pixels, row by row, in the world frame."""
    rays = view.camera.rays().reshape(-1, 3)
    rays = rays / np.sqrt(np.einsum("ni,ni->n", rays, rays))[:, None]
    return np.einsum("ij,nj->ni", view.camera_to_world[:3, :3], rays)
