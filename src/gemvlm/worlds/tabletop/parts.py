"""Pieces of a surface: what MuJoCo casts rays against, and the analytic outward normal of every point on it.

A `Part` is a box, a ball, a cylinder, a convex polyhedron or a lathed profile in its body's frame. Its `size` or
`outline` defines both the geometry given to MuJoCo and the normal used for shading, so that the two cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Kind = Literal["box", "ball", "cylinder", "convex", "lathe"]

LATHE_SEGMENTS = 24
CREASE_COSINE = 0.75
"""Neighbouring profile segments that bend by less than about 41 degrees are shaded as one smooth surface."""


@dataclass(frozen=True)
class Mesh:
    """Vertices in metres, faces wound counter-clockwise seen from outside."""

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]


@dataclass(frozen=True)
class Part:
    """One piece in the frame of its body.

    `size` are half extents in metres: (x, y, z) of a box, (radius,) of a ball, (radius, half height) of a cylinder.
    `outline` is the (radius, z) profile of a lathe, ordered so that the outside lies to its right, or the vertices of a
    convex part.
    `sweep` is the angle range of a lathe in radians; `rotation` has the part's axes as columns.
    """

    kind: Kind
    size: tuple[float, ...] = ()
    outline: Float[np.ndarray, "P D"] | None = None
    closed: bool = False
    sweep: tuple[float, float] = (0.0, 2 * np.pi)
    position: Float[np.ndarray, "3"] = field(default_factory=lambda: np.zeros(3))
    rotation: Float[np.ndarray, "3 3"] = field(default_factory=lambda: np.eye(3))

    def normals(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        """Unit outward normals, in the body's frame, at surface points of the body's frame."""
        local = turned(points - self.position, self.rotation.T)
        if self.kind == "box":
            normal = _box_normals(local, np.array(self.size))
        elif self.kind == "ball":
            normal = local
        elif self.kind == "convex":
            normal = _convex_normals(local, *self.planes)
        else:
            normal = _lathe_normals(local, *self.segments)
        normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        return turned(normal, self.rotation)

    @cached_property
    def segments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Starts and directions of a lathe's or cylinder's profile, and the smoothed normals at both ends of each."""
        if self.kind == "cylinder":
            radius, half = self.size
            return _segments(np.array([[0.0, -half], [radius, -half], [radius, half], [0.0, half]]), closed=False)
        assert self.outline is not None
        return _segments(self.outline, self.closed)

    @cached_property
    def planes(self) -> tuple[Float[np.ndarray, "F 3"], Float[np.ndarray, "F"]]:
        """Outward unit normals and offsets of a convex part's triangles."""
        mesh = self.mesh()
        a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
        normal = np.cross(b - a, c - a)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        return normal, np.einsum("fi,fi->f", a, normal)

    def mesh(self) -> Mesh:
        """The triangles of a convex or lathed part."""
        assert self.outline is not None
        if self.kind == "convex":
            return _convex_mesh(self.outline)
        return _lathe_mesh(self.outline, self.closed, self.sweep)


def turned(vectors: Float[np.ndarray, "N 3"], rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "N 3"]:
    """Each vector v as R v; most bodies' parts and all structures are not turned, which costs nothing."""
    if np.array_equal(rotation, np.eye(3)):
        return vectors
    return np.einsum("ij,nj->ni", rotation, vectors)


def _box_normals(points: np.ndarray, half: np.ndarray) -> np.ndarray:
    axis = np.argmax(np.abs(points) - half, axis=1)
    rows = np.arange(len(points))
    normal = np.zeros_like(points)
    normal[rows, axis] = np.sign(points[rows, axis])
    return normal


def _convex_normals(points: np.ndarray, normals: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return normals[np.argmax(np.einsum("ni,fi->nf", points, normals) - offsets, axis=1)]


def _lathe_normals(
    points: np.ndarray, start: np.ndarray, along: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """The normal at the nearest place of the profile, turned to each point's azimuth."""
    radius = np.hypot(points[:, 0], points[:, 1])
    dr, dz = radius[:, None] - start[:, 0], points[:, 2:] - start[:, 1]
    t = np.clip((dr * along[:, 0] + dz * along[:, 1]) / (along**2).sum(axis=1), 0, 1)
    nearest = np.argmin((dr - t * along[:, 0]) ** 2 + (dz - t * along[:, 1]) ** 2, axis=1)
    t = t[np.arange(len(points)), nearest][:, None]
    flat = (1 - t) * first[nearest] + t * last[nearest]
    outward = points[:, :2] / np.maximum(radius, 1e-9)[:, None]
    return np.concatenate([outward * flat[:, :1], flat[:, 1:]], axis=1)


def _segments(profile: np.ndarray, closed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    points = np.concatenate([profile, profile[:1]]) if closed else profile
    along = np.diff(points, axis=0)
    normal = np.stack([along[:, 1], -along[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    before, after = np.roll(normal, 1, axis=0), np.roll(normal, -1, axis=0)
    if not closed:
        before[0], after[-1] = normal[0], normal[-1]
    smooth = np.einsum("si,si->s", normal, before) > CREASE_COSINE
    first = np.where(smooth[:, None], normal + before, normal)
    smooth = np.einsum("si,si->s", normal, after) > CREASE_COSINE
    last = np.where(smooth[:, None], normal + after, normal)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    last /= np.linalg.norm(last, axis=1, keepdims=True)
    return points[:-1], along, first, last


def _lathe_mesh(profile: np.ndarray, closed: bool, sweep: tuple[float, float]) -> Mesh:
    turn = sweep[1] - sweep[0]
    full = turn > 2 * np.pi - 1e-6
    count = LATHE_SEGMENTS if full else max(6, round(LATHE_SEGMENTS * turn / (2 * np.pi)))
    angles = np.linspace(*sweep, count + 1)[: count if full else count + 1]
    rings = len(angles)
    radius, z = profile[:, 0], profile[:, 1]
    vertices = np.stack(
        [np.outer(np.cos(angles), radius), np.outer(np.sin(angles), radius), np.broadcast_to(z, (rings, len(z)))],
        axis=-1,
    ).reshape(-1, 3)
    faces = []
    for i in range(count):
        here, there = i * len(z), ((i + 1) % rings) * len(z)
        for j in range(len(z) if closed else len(z) - 1):
            k = (j + 1) % len(z)
            if radius[j] > 0:
                faces.append((here + j, there + j, there + k))
            if radius[k] > 0:
                faces.append((here + j, there + k, here + k))
    return Mesh(vertices, np.array(faces))


def _convex_mesh(vertices: np.ndarray) -> Mesh:
    """The hull of a few points by testing every triple; coplanar corners become one fan."""
    faces, count, centre = [], len(vertices), vertices.mean(axis=0)
    seen: set[tuple[float, ...]] = set()
    for i in range(count):
        for j in range(i + 1, count):
            for k in range(j + 1, count):
                normal = np.cross(vertices[j] - vertices[i], vertices[k] - vertices[i])
                normal /= np.linalg.norm(normal)
                height = (vertices - vertices[i]) @ normal
                if height.max() > 1e-9 and height.min() < -1e-9:
                    continue
                outward = normal if normal @ (vertices[i] - centre) > 0 else -normal
                plane = tuple(np.round([*outward, outward @ vertices[i]], 6) + 0.0)
                if plane in seen:
                    continue
                seen.add(plane)
                corners = np.flatnonzero(np.abs(height) < 1e-9)
                faces.extend(_fan(vertices, corners, outward))
    return Mesh(vertices, np.array(faces))


def _fan(vertices: np.ndarray, corners: np.ndarray, outward: np.ndarray) -> list[tuple[int, int, int]]:
    middle = vertices[corners].mean(axis=0)
    x = vertices[corners[0]] - middle
    y = np.cross(outward, x)
    offset = vertices[corners] - middle
    around = corners[np.argsort(np.arctan2(offset @ y, offset @ x))]
    return [(int(around[0]), int(a), int(b)) for a, b in pairwise(around[1:])]
