"""A MuJoCo model and its state read as an `Observation`: exact depth and ids by rays, poses, boxes, who carries whom.

Nothing here needs OpenGL. One ray per pixel centre meets what the simulator would draw: geoms of the drawn groups, but
not glass (less than half opaque), which is looked through, as in the simulator's own depth buffer. Each body is cast by
itself, in the window of pixels that its box can cover, so that how much of a thing is hidden costs nothing more.
(`mj_multiRay` of MuJoCo 3.3.0 also skips bodies by bounds that are wrong for what lies straight above or below the
camera; a private copy of the model has no such bounds.)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int16, Int32, UInt8

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.origin import DepthOrigin
from gemvlm.worlds.mujoco_gl import Canvas
from gemvlm.worlds.mujoco_marks import marks
from gemvlm.worlds.observation import ObjectState, Observation, OrientedBox

Drawing = Literal["opengl", "plain"]

SHOWN, UNSHOWN = 0, 5
NEAR_M = 0.01
LEVEL = 0.05
"""How far a camera's upward axis may point down before it counts as upside down; one that looks straight down is 0."""
OPAQUE = 0.5
UPWARDS = 0.3
"""Least share of a contact's normal that points up for it to carry something."""
LEAST_FORCE_N = 1e-4
BEFORE_SKY = 0.5
"""Share of the far plane's distance beyond which a depth buffer shows the sky, whose box stands at 0.7, or nothing."""
AMBIENT, LAMP = 0.35, 0.65


@dataclass(frozen=True)
class Thing:
    """What counts as one thing: its geoms, drawn and colliding, and the body whose axes its box has.

    A `holder` (a robot) carries nothing: what only it touches hangs.
    """

    category: str
    colour: str
    geoms: tuple[int, ...]
    frame: int
    movable: bool
    holder: bool = False


def subtree(model: Any, root: int) -> tuple[int, ...]:
    """The body `root` and all below it."""
    inside = {root}
    for body in range(root + 1, model.nbody):
        if int(model.body_parentid[body]) in inside:
            inside.add(body)
    return tuple(sorted(inside))


def geoms_of(model: Any, bodies: Sequence[int]) -> tuple[int, ...]:
    """All geoms of the given bodies."""
    return tuple(int(geom) for geom in np.flatnonzero(np.isin(model.geom_bodyid, list(bodies))))


def model_view(model: Any, data: Any, camera: str, size: tuple[int, int]) -> View:
    """The view of a camera of the model, now, at `size` (height, width) pixels.

    A camera that hangs upside down in the room (Meta-World has two) is turned by half a turn: a roll, not a mirror.
    ValueError for an unknown camera.
    """
    import mujoco

    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA.value, camera)
    if index < 0:
        known = [model.cam(i).name for i in range(model.ncam)]
        raise ValueError(f"camera {camera!r} is unknown; choose from {known}")
    axes = data.cam_xmat[index].reshape(3, 3)
    turned = model.cam_bodyid[index] == 0 and axes[2, 1] < -LEVEL
    pose = np.eye(4)
    pose[:3, :3] = axes @ np.diag([-1.0, 1.0, -1.0] if turned else [1.0, -1.0, -1.0])
    pose[:3, 3] = data.cam_xpos[index]
    return View(Camera.from_fov(size[1], size[0], float(model.cam_fovy[index])), pose)


class MujocoView:
    """Reads states of one model. `things[i]` has the id i + 1; geoms of no thing have the id 0 and still hide others.

    `groups` are the geom groups that the simulator draws, `sites` whether its marks show in colour (rays never meet
    them), `source` names the simulator in depth maps. ValueError if a geom belongs to two things.
    """

    def __init__(
        self,
        model: Any,
        things: Sequence[Thing],
        groups: frozenset[int],
        source: str,
        drawing: Drawing = "opengl",
        sites: bool = False,
    ) -> None:
        self.model = model
        self.things = tuple(things)
        self.source = source
        self.drawing = drawing
        self._groups, self._sites = groups, sites
        self._thing_of = np.zeros(model.ngeom, np.int16)
        for index, thing in enumerate(self.things):
            geoms = list(thing.geoms)
            if self._thing_of[geoms].any():
                raise ValueError(f"{source}: {thing.category!r} shares geoms with another thing; split them")
            self._thing_of[geoms] = index + 1
        self._shown = np.isin(model.geom_group, list(groups)) & (_alpha(model) >= OPAQUE)
        self._ray_model = copy.copy(model)
        self._ray_model.geom_group[:] = np.where(self._shown, SHOWN, UNSHOWN)
        self._ray_model.body_bvhadr[:] = -1
        self._ray_model.body_geomnum[:] = 0
        outer = {int(geom): _outermost(_corners(model, int(geom))) for geom in np.flatnonzero(self._shown)}
        self._hulls = self._by_body(outer, self._shown)
        self._parts = [self._by_body(outer, self._shown & (self._thing_of == i + 1)) for i in range(len(self.things))]

    def _by_body(
        self, points: Mapping[int, Float[np.ndarray, "_ 3"]], chosen: Bool[np.ndarray, "G"]
    ) -> dict[int, Float[np.ndarray, "_ 3"]]:
        """The points of the chosen geoms, gathered by the body in whose frame they are."""
        gathered: dict[int, list[np.ndarray]] = {}
        for geom in np.flatnonzero(chosen):
            gathered.setdefault(int(self.model.geom_bodyid[geom]), []).append(points[int(geom)])
        return {body: np.concatenate(parts) for body, parts in gathered.items()}

    @cached_property
    def _canvas(self) -> Canvas:
        return Canvas(self.model, self._groups, self._sites)

    @cached_property
    def _fast_canvas(self) -> Canvas:
        return Canvas(self.model, self._groups, self._sites, samples=0, shadows=False)

    def close(self) -> None:
        """Frees the drawing contexts, if there are any."""
        for name in ("_canvas", "_fast_canvas"):
            if name in self.__dict__:
                self.__dict__[name].close()

    def picture(self, data: Any, view: View) -> tuple[UInt8[np.ndarray, "H W 3"], DepthMap]:
        """Colour and depth alone, fast: what a robot's camera sees of `data` (poses up to date).

        By OpenGL in one pass, without shadows, reflections and smoothed edges: at 96 pixels 6 ms on one core, where
        rays need 15. Marks, where they show, are part of both: depth is that of the picture.
        """
        if self.drawing == "opengl":
            image, z = self._fast_canvas.draw_with_depth(data, view)
            hit = z < self._fast_canvas.far_m * BEFORE_SKY
        else:
            geoms, z, _ = self._cast(data, view)
            hit = geoms >= 0
            albedo = self._albedo[geoms]
            for window, away, colour in marks(self.model, data, view) if self._sites else ():
                nearer = away < np.where(hit[window], z[window], np.inf)
                z[window][nearer], albedo[window][nearer], hit[window][nearer] = away[nearer], colour, True
            image = shade(z, hit, albedo, view.camera)
        z = np.where(hit, z, 0).astype(np.float32)
        return image, DepthMap(z, hit, "metric_z", "m", self.source, DepthOrigin("simulator", model=self.source))

    def observe(self, data: Any, view: View, scene: str) -> Observation:
        """What `view` sees of `data` (poses up to date). ImportError if colour needs what is not installed."""
        geoms, z, alone = self._cast(data, view)
        hit = geoms >= 0
        ids = np.where(hit, self._thing_of[geoms], 0).astype(np.int16)
        depth = DepthMap(z, hit, "metric_z", "m", self.source, DepthOrigin("simulator", model=self.source))
        if self.drawing == "opengl":
            image = self._canvas.draw(data, view)
        else:
            image = shade(z, hit, self._albedo[geoms], view.camera)
        return Observation(image, depth, ids, view, self._states(data, ids, alone), scene)

    def visible_shares(self, data: Any, view: View) -> dict[int, tuple[float, float]]:
        """For each id how much of what `view` could see of it is not hidden, and its share of the picture.

        Both are 0 if it is out of view. Nothing is drawn.
        """
        geoms, _, alone = self._cast(data, view)
        counts = np.bincount(self._thing_of[geoms[geoms >= 0]], minlength=len(self.things) + 1)
        return {
            index: (int(counts[index]) / max(pixels, 1), int(counts[index]) / geoms.size)
            for index, pixels in alone.items()
        }

    def states(self, data: Any) -> tuple[ObjectState, ...]:
        """Every thing without regard to a view: both visible fields are 0."""
        return self._states(data, np.zeros((1, 1), np.int16), {})

    def touching(self, data: Any) -> set[tuple[int, int]]:
        """Pairs of ids (smaller first, 0 for no thing) that touch now."""
        pairs = set()
        for index in range(data.ncon):
            contact = data.contact[index]
            if contact.dist <= 0:
                a, b = sorted(int(self._thing_of[geom]) for geom in (contact.geom1, contact.geom2))
                pairs.add((a, b))
        return pairs

    def _states(self, data: Any, ids: Int16[np.ndarray, "H W"], alone: Mapping[int, int]) -> tuple[ObjectState, ...]:
        visible = np.bincount(ids.ravel(), minlength=len(self.things) + 1)
        carriers, touching = self._carriers(data), self.touching(data)
        holders = {i + 1 for i, thing in enumerate(self.things) if thing.holder}
        states = []
        for index, thing in enumerate(self.things, start=1):
            carried_by = tuple(sorted(carriers.get(index, set()) - holders)) if thing.movable else ()
            held = any(index in pair and holders & set(pair) for pair in touching)
            states.append(
                ObjectState(
                    id=index,
                    category=thing.category,
                    colour=thing.colour,
                    box=self.box(data, index),
                    movable=thing.movable,
                    visible_fraction=float(visible[index]) / max(alone.get(index, 0), 1),
                    visible_pixels=int(visible[index]),
                    supported_by=carried_by,
                    hanging=thing.movable and held and not carried_by,
                )
            )
        return tuple(states)

    def outline(self, data: Any, object_id: int) -> Float[np.ndarray, "N 3"]:
        """Points in the world that the thing's drawn parts lie between, as they stand now, in metres."""
        parts = self._parts[object_id - 1].items()
        return np.concatenate([p @ data.xmat[body].reshape(3, 3).T + data.xpos[body] for body, p in parts])

    def box(self, data: Any, object_id: int) -> OrientedBox:
        """The box of the drawn parts along the axes of the thing's frame, as they stand now."""
        frame = self.things[object_id - 1].frame
        rotation, origin = data.xmat[frame].reshape(3, 3).copy(), data.xpos[frame]
        low, high = np.full(3, np.inf), np.full(3, -np.inf)
        for body, points in self._parts[object_id - 1].items():
            local = (points @ data.xmat[body].reshape(3, 3).T + data.xpos[body] - origin) @ rotation
            low, high = np.minimum(low, local.min(axis=0)), np.maximum(high, local.max(axis=0))
        if not np.isfinite(low).all():
            return OrientedBox(origin.copy(), rotation, np.zeros(3))
        return OrientedBox(origin + rotation @ ((low + high) / 2), rotation, (high - low) / 2)

    def _carriers(self, data: Any) -> dict[int, set[int]]:
        """For each id the ids whose contact pushes it upwards."""
        import mujoco

        carriers: dict[int, set[int]] = {}
        force = np.zeros(6)
        for index in range(data.ncon):
            contact = data.contact[index]
            mujoco.mj_contactForce(self.model, data, index, force)
            up = float(contact.frame[2])
            if force[0] <= LEAST_FORCE_N or abs(up) < UPWARDS:
                continue
            below, above = (int(self._thing_of[geom]) for geom in (contact.geom1, contact.geom2))
            if up < 0:
                below, above = above, below
            if below and above and below != above:
                carriers.setdefault(above, set()).add(below)
        return carriers

    def _cast(self, data: Any, view: View) -> tuple[Int32[np.ndarray, "H W"], Float[np.ndarray, "H W"], dict[int, int]]:
        """First geom per pixel (-1 for none), its z-depth in metres (0 for none), pixels of each id when alone."""
        height, width = view.camera.height, view.camera.width
        rays = view.camera.rays()
        lengths = np.sqrt(np.einsum("hwi,hwi->hw", rays, rays))
        directions = np.einsum("ij,hwj->hwi", view.camera_to_world[:3, :3], rays / lengths[..., None])
        first, nearest = np.full((height, width), -1, np.int32), np.full((height, width), np.inf)
        covered = {index + 1: np.zeros((height, width), bool) for index in range(len(self.things))}
        for body in self._hulls:
            window = self._window(data, body, view)
            if window is None:
                continue
            found, distance = self._cast_at(body, data, view.camera_to_world[:3, 3], directions[window])
            closer = (found >= 0) & (distance < nearest[window])
            first[window] = np.where(closer, found, first[window])
            nearest[window] = np.where(closer, distance, nearest[window])
            owners = np.where(found >= 0, self._thing_of[found], 0)
            for owner in np.unique(owners[owners > 0]):
                covered[int(owner)][window] |= owners == owner
        z = np.where(first >= 0, nearest / lengths, 0).astype(np.float32)
        return first, z, {index: int(mask.sum()) for index, mask in covered.items()}

    def _cast_at(
        self, body: int, data: Any, origin: Float[np.ndarray, "3"], rays: Float[np.ndarray, "h w 3"]
    ) -> tuple[Int32[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
        """Geoms (-1 for a miss) and distances of one body along unit rays."""
        import mujoco

        shape = rays.shape[:2]
        count = shape[0] * shape[1]
        found, distance = np.full(count, -1, np.int32), np.full(count, -1.0)
        self._ray_model.body_geomnum[body] = self.model.body_geomnum[body]
        only = (np.arange(6) == SHOWN).astype(np.uint8)
        mujoco.mj_multiRay(
            self._ray_model, data, origin, rays.ravel(), only, 1, -1, found, distance, count, mujoco.mjMAXVAL
        )
        self._ray_model.body_geomnum[body] = 0
        return found.reshape(shape), distance.reshape(shape)

    def _window(self, data: Any, body: int, view: View) -> tuple[slice, slice] | None:
        """Rows and columns of the pixels that the body's box can cover; None if it is out of view."""
        camera = view.camera
        points = self._hulls[body]
        low, high = points.min(axis=0), points.max(axis=0)
        corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
        seen = view.to_camera(corners @ data.xmat[body].reshape(3, 3).T + data.xpos[body])
        if (seen[:, 2] < NEAR_M).all():
            return None
        if (seen[:, 2] < NEAR_M).any():
            return slice(0, camera.height), slice(0, camera.width)
        pixels = camera.project(seen)
        left, top = np.floor(pixels.min(axis=0) - 1).astype(int).clip(0)
        right, bottom = np.ceil(pixels.max(axis=0) + 1).astype(int).clip(0)
        right, bottom = min(int(right), camera.width), min(int(bottom), camera.height)
        return (slice(int(top), bottom), slice(int(left), right)) if top < bottom and left < right else None

    @cached_property
    def _albedo(self) -> Float[np.ndarray, "G 3"]:
        """One colour per geom: its own or its material's, times the mean of the texture."""
        model = self.model
        colours = model.geom_rgba[:, :3].astype(np.float64)
        for geom, material in enumerate(model.geom_matid):
            if material >= 0:
                colours[geom] = model.mat_rgba[material, :3]
            texture = int(model.mat_texid[material].max()) if material >= 0 else -1
            if texture >= 0:
                start, channels = int(model.tex_adr[texture]), int(model.tex_nchannel[texture])
                count = int(model.tex_height[texture] * model.tex_width[texture])
                pixels = model.tex_data[start : start + count * channels].reshape(count, channels)
                colours[geom] *= pixels[:, :3].mean(axis=0) / 255
        return colours


def shade(
    z: Float[np.ndarray, "H W"], hit: Bool[np.ndarray, "H W"], albedo: Float[np.ndarray, "H W 3"], camera: Camera
) -> UInt8[np.ndarray, "H W 3"]:
    """Flat colours under a lamp at the camera; normals from neighbouring depths, so edges are a little dark."""
    points = camera.rays() * z[..., None]
    normals = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=0))
    away = np.linalg.norm(points, axis=-1) * np.linalg.norm(normals, axis=-1)
    facing = np.abs(np.einsum("hwi,hwi->hw", normals, points)) / np.maximum(away, 1e-12)
    light = np.where(hit[..., None], albedo * (AMBIENT + LAMP * facing[..., None]), 0.6)
    return (light.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _alpha(model: Any) -> Float[np.ndarray, "G"]:
    """How opaque each geom is drawn: as its material says if it has one, but not at all if its own alpha is 0."""
    own = model.geom_rgba[:, 3].astype(np.float64)
    materials = np.append(model.mat_rgba[:, 3].astype(np.float64), 1.0)
    return np.where(model.geom_matid >= 0, materials[model.geom_matid] * (own > 0), own)


def _outermost(points: Float[np.ndarray, "M 3"]) -> Float[np.ndarray, "N 3"]:
    """The points farthest along the axes and 200 other directions: their box is that of all points in this frame, and
    nearly so in any other."""
    if len(points) <= 64:
        return points
    turn = np.arange(200) + 0.5
    height, angle = 1 - turn / 100, np.pi * (1 + np.sqrt(5)) * turn
    ring = np.sqrt(1 - height**2)
    around = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)
    farthest = {int(np.argmax(points @ way)) for way in np.concatenate([np.eye(3), -np.eye(3), around])}
    return points[sorted(farthest)]


def _corners(model: Any, geom: int) -> Float[np.ndarray, "N 3"]:
    """Points in the body's frame whose hull holds the geom: a mesh's vertices, else the corners of its box."""
    import mujoco

    kind, size = int(model.geom_type[geom]), model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = int(model.geom_dataid[geom])
        start, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        local = model.mesh_vert[start : start + count].astype(np.float64)
    else:
        if kind == mujoco.mjtGeom.mjGEOM_PLANE:
            far = float(model.stat.extent)
            center, half = np.zeros(3), np.array([size[0] or far, size[1] or far, 0.0])
        else:
            center, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
        local = center + half * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    return local @ rotation.reshape(3, 3).T + model.geom_pos[geom]
