"""Ray-cast views: exact z-depth and ids from one ray per pixel, colour from shading with cast shadows.

Primary rays start at the camera, shadow rays at the light. No OpenGL, no graphics card, and no matrix library whose
result could depend on its number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int16, Int32, UInt8

from gemvlm.camera import View
from gemvlm.depth_map import DepthMap
from gemvlm.worlds.tabletop.layout import Layout
from gemvlm.worlds.tabletop.parts import Part, turned
from gemvlm.worlds.tabletop.rays import Bundle, RayCaster
from gemvlm.worlds.tabletop.surface import Surface
from gemvlm.worlds.viewpoints import look_at

SHADOW_SLACK_M = 0.0015


@dataclass(frozen=True)
class Light:
    """A point light far enough to shade evenly.

    `position` is in metres, `frame` has its axes as columns (z towards the table), `colour` is its strength per channel
    and `ambient` what reaches the shade (both linear light).
    """

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
    """What the rays of one view found; `alone` counts the pixels of each body rendered by itself."""

    image: UInt8[np.ndarray, "H W 3"]
    depth: DepthMap
    ids: Int16[np.ndarray, "H W"]
    alone: dict[int, int]


class Renderer:
    """Casts and shades views of one scene.

    `parts[g]` is what geom g draws, `surfaces[i]` clothes body i + 1, `casters` are the bodies that can stand between
    the light and another one.
    """

    def __init__(
        self,
        caster: RayCaster,
        parts: Sequence[Part | None],
        surfaces: Sequence[Surface],
        casters: Sequence[int],
        light: Light,
    ) -> None:
        self.caster = caster
        self.model = caster.model
        self.data = caster.data
        self.parts = parts
        self.surfaces = surfaces
        self.casters = casters
        self.convex_body = _convex_bodies(self.model, parts)
        self.light = light

    def render(self, view: View, rng: np.random.Generator, noise: float) -> Picture:
        """One finished view; `noise` is the standard deviation of the sensor noise, as a fraction of full scale."""
        height, width = view.camera.height, view.camera.width
        bundle = Bundle.through_pixels(view)
        geoms, distance, alone = self.caster.cast(bundle, range(1, len(self.surfaces) + 1))
        hit = geoms >= 0
        ids = np.zeros(len(geoms), np.int16)
        ids[hit] = self.model.geom_bodyid[geoms[hit]]
        rays = bundle.directions
        forward = np.einsum("ni,i->n", rays, bundle.frame[:, 2])
        z = np.where(hit, distance * forward, 0).astype(np.float32)

        light = self._sky(rays)
        found = np.flatnonzero(hit)
        points = bundle.origin + rays[found] * distance[found, None]
        light[found] = self._shade(points, rays[found], geoms[found])
        image = np.sqrt(np.clip(light, 0, 1))
        if noise > 0:
            image = image + rng.standard_normal(image.shape, dtype=np.float32) * noise
        image = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).reshape(height, width, 3)
        depth = DepthMap(
            values=z.reshape(height, width),
            valid=hit.reshape(height, width),
            kind="metric_z",
            unit="m",
            source="tabletop",
        )
        return Picture(image, depth, ids.reshape(height, width), alone)

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
        spared = self.convex_body[geoms[lit]]
        shadows = Bundle.towards(from_light[lit], self.light.position, self.light.frame, spared)
        _, first, _ = self.caster.cast(shadows, self.casters)
        facing[lit[first < reach[lit] - SHADOW_SLACK_M]] = 0
        sky = 0.75 + 0.25 * normals[:, 2:]
        light = albedo * (self.light.ambient * sky + self.light.colour * facing[:, None])
        lit = np.flatnonzero(facing > 0)
        half = -(rays[lit] + from_light[lit])
        half /= np.maximum(np.sqrt(np.einsum("ni,ni->n", half, half)), 1e-9)[:, None]
        gleam = shine[lit] * np.maximum(np.einsum("ni,ni->n", normals[lit], half), 0) ** 40
        light[lit] += gleam[:, None] * self.light.colour
        return light

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
            local = turned(points[rows] - self.data.xpos[body], rotation.T)
            normals[rows] = turned(part.normals(local), rotation)
            surface = self.surfaces[body - 1]
            albedo[rows] = surface.albedo(local)
            shine[rows] = surface.shine
        return normals, albedo, shine

    def _sky(self, rays: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        return np.array([0.45, 0.52, 0.6]) * (0.8 + 0.4 * rays[:, 2:])


def _convex_bodies(model: Any, parts: Sequence[Part | None]) -> Int32[np.ndarray, "G"]:
    """For each geom its body if that is one convex piece (which cannot shade what faces the light on it), else 0."""
    drawn = np.array([part is not None for part in parts])
    pieces = np.bincount(model.geom_bodyid[drawn], minlength=model.nbody)
    convex = np.array([part is not None and part.kind != "lathe" for part in parts]) & (pieces[model.geom_bodyid] == 1)
    return np.where(convex, model.geom_bodyid, 0).astype(np.int32)
