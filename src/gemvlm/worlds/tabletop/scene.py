"""A settled tabletop scene: layout to MuJoCo model, physics to rest, who stands on whom.

Body ids are object ids: bodies are added objects first, structures after, and MuJoCo's world is 0. Visual and colliding
geoms are in different groups, so rays meet exactly what is drawn and physics only convex pieces.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mujoco
import numpy as np

from gemvlm.camera import View
from gemvlm.worlds.observation import ObjectState, Observation, OrientedBox
from gemvlm.worlds.tabletop.interact import push, settle, take_away
from gemvlm.worlds.tabletop.layout import Body, Layout, SceneConfig, plan_layout
from gemvlm.worlds.tabletop.parts import Part
from gemvlm.worlds.tabletop.rays import COLLISION_GROUP, VISUAL_GROUP, RayCaster
from gemvlm.worlds.tabletop.render import Light, Renderer
from gemvlm.worlds.tabletop.viewpoint import choose_view

TIMESTEP_S = 0.004
SETTLE_S = 0.4
MAX_SETTLE_S = 1.6
MAX_LAYOUTS = 50
REST_SPEED = 0.02
"""Metres (or radians) per second below which a body counts as resting."""
DENSITY = 500.0
"""Kilograms per cubic metre of colliding pieces; drawn ones weigh next to nothing (MuJoCo refuses zero)."""

_GEOM = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "ball": mujoco.mjtGeom.mjGEOM_SPHERE,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "convex": mujoco.mjtGeom.mjGEOM_MESH,
    "lathe": mujoco.mjtGeom.mjGEOM_MESH,
}


class TabletopScene:
    """A scene at rest. Construct with `build_scene`; `model` and `data` are MuJoCo's."""

    def __init__(self, seed: int, config: SceneConfig, layout: Layout, model: Any, data: Any, parts: list[Part | None]):
        self.seed = seed
        self.config = config
        self.layout = layout
        self.model = model
        self.data = data
        self.name = f"tabletop-{seed}"
        self._bodies = (*layout.objects, *layout.structures)
        self._parts = parts
        light = Light.draw(np.random.default_rng([seed, 2]), layout)
        self._supports = _supports(model, data)
        surfaces = [body.surface for body in self._bodies]
        caster = RayCaster(model, data, [state.box for state in self.states()])
        casters = [state.id for state in self.states() if state.category not in ("floor", "wall")]
        self._renderer = Renderer(caster, parts, surfaces, casters, light)

    def states(self) -> tuple[ObjectState, ...]:
        """Every object (ids from 1) and structure (ids after), without visibility: both visible fields are 0."""
        return tuple(self._state(i + 1, body) for i, body in enumerate(self._bodies))

    def observe(self, view_index: int, size: tuple[int, int] = (96, 96)) -> Observation:
        """View `view_index` at `size` (height, width) pixels: a function of seed, config, view_index and size only."""
        if view_index < 0 or min(size) < 1:
            raise ValueError(
                f"{self.name}: view_index {view_index} must be >= 0 and size {size} (height, width) positive"
            )
        rng = np.random.default_rng([self.seed, 3, view_index])
        centres = [s.box.center for s in self.states() if s.movable]
        return self.look(choose_view(rng, self.config, self.layout, centres, size), rng)

    def look(self, view: View, rng: np.random.Generator) -> Observation:
        """What a camera sees; `rng` draws the noise of its sensor."""
        picture = self._renderer.render(view, rng, self.config.noise)
        counted = []
        for state in self.states():
            visible = int(np.count_nonzero(picture.ids == state.id))
            fraction = visible / max(picture.alone[state.id], 1)
            counted.append(replace(state, visible_fraction=fraction, visible_pixels=visible))
        return Observation(picture.image, picture.depth, picture.ids, view, tuple(counted), self.name)

    def without(self, object_id: int) -> dict[int, float]:
        """Takes an object away, lets a second pass: how far each other object's centre moved (metres), by id."""
        return take_away(self.model, self.data, self._movable(object_id), self._others(object_id))

    def pushed(self, object_id: int, direction_xy: np.ndarray, distance_m: float) -> dict[int, float]:
        """Pushes a standing object along a direction of the table and lets it rest: how far each object's centre moved
        (metres), the pushed one included, by id."""
        if self.layout.objects[self._movable(object_id) - 1].mount == "hang":
            raise ValueError(f"{self.name}: object {object_id} hangs; only standing objects can be pushed")
        length = float(np.linalg.norm(direction_xy))
        if length == 0 or distance_m <= 0:
            raise ValueError(
                f"{self.name}: push needs a direction and a distance, got {direction_xy} and {distance_m} m"
            )
        every = [object_id, *self._others(object_id)]
        return push(self.model, self.data, object_id, np.asarray(direction_xy) / length, distance_m, every)

    def changed(self, data: Any) -> TabletopScene:
        """The same things where `data` (MuJoCo's, of this scene's model) has them."""
        return TabletopScene(self.seed, self.config, self.layout, self.model, data, self._parts)

    def _movable(self, object_id: int) -> int:
        if not 1 <= object_id <= len(self.layout.objects):
            raise ValueError(
                f"{self.name}: object {object_id} is not one of the {len(self.layout.objects)} objects (ids from 1)"
            )
        return object_id

    def _others(self, object_id: int) -> list[int]:
        return [i + 1 for i in range(len(self.layout.objects)) if i + 1 != object_id]

    def _state(self, object_id: int, body: Body) -> ObjectState:
        return ObjectState(
            id=object_id,
            category=body.category,
            colour=body.surface.colour,
            box=OrientedBox(
                self.data.xpos[object_id].copy(),
                self.data.xmat[object_id].reshape(3, 3).copy(),
                body.shape.half_extents,
            ),
            movable=body.mount != "structure",
            visible_fraction=0.0,
            visible_pixels=0,
            supported_by=self._supports.get(object_id, ()),
            hanging=body.mount == "hang",
        )


def build_scene(seed: int, config: SceneConfig | None = None) -> TabletopScene:
    """Plans, builds and settles the scene of `seed`; objects that fall off or never rest are left out."""
    config = config or SceneConfig()
    for attempt in range(MAX_LAYOUTS):
        layout = plan_layout(np.random.default_rng([seed, 1, attempt]), config)
        while len(layout.objects) >= config.min_objects:
            model, parts = _compile(layout)
            data = mujoco.MjData(model)
            settle(model, data, SETTLE_S, MAX_SETTLE_S, REST_SPEED)
            resting = _resting(model, data, layout)
            if all(resting):
                return TabletopScene(seed, config, layout, model, data, parts)
            layout = _keep(layout, resting)
    raise ValueError(
        f"tabletop-{seed}: {MAX_LAYOUTS} layouts kept fewer than min_objects {config.min_objects}; lower min_objects "
        f"or raise crowding {config.crowding} (more is roomier)"
    )


def _compile(layout: Layout) -> tuple[Any, list[Part | None]]:
    """The MuJoCo model, and for each of its geoms the part that it draws (None for geoms that only collide)."""
    spec = mujoco.MjSpec()
    spec.option.timestep = TIMESTEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 5
    spec.option.iterations = 20
    spec.option.enableflags |= mujoco.mjtEnableBit.mjENBL_MULTICCD
    parts: list[Part | None] = []
    for index, body in enumerate((*layout.objects, *layout.structures)):
        turn = [np.cos(body.yaw / 2), 0, 0, np.sin(body.yaw / 2)]
        added = spec.worldbody.add_body(name=f"{index + 1}", pos=body.position, quat=turn)
        if body.mount in ("table", "shelf", "stack"):
            added.add_freejoint()
        for number, part in enumerate(body.shape.visual):
            _add_geom(spec, added, part, f"v{index}-{number}", VISUAL_GROUP)
            parts.append(part)
        if body.category == "table":
            added.add_geom(
                type=mujoco.mjtGeom.mjGEOM_PLANE,
                size=[0, 0, 1],
                pos=[0, 0, body.shape.half_extents[2]],
                group=COLLISION_GROUP,
            )
            parts.append(None)
        elif body.category not in ("floor", "wall", "string"):
            for number, part in enumerate(body.shape.collision):
                _add_geom(spec, added, part, f"c{index}-{number}", COLLISION_GROUP)
                parts.append(None)
    return spec.compile(), parts


def _add_geom(spec: Any, body: Any, part: Part, name: str, group: int) -> None:
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, part.rotation.ravel())
    geom = body.add_geom(type=_GEOM[part.kind], pos=part.position, quat=quat, group=group)
    if part.size:
        geom.size = [*part.size, 0, 0][:3]
    else:
        mesh = part.mesh()
        spec.add_mesh(
            name=name,
            uservert=mesh.vertices.ravel(),
            userface=mesh.faces.ravel(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
        geom.meshname = name
    if group == VISUAL_GROUP:
        geom.contype, geom.conaffinity, geom.density = 0, 0, 1e-3 * DENSITY
    else:
        geom.condim, geom.friction, geom.density = 6, [0.8, 0.01, 0.002], DENSITY


def _resting(model: Any, data: Any, layout: Layout) -> list[bool]:
    """Per object: hanging, or still, near its planned place and above the table."""
    resting = []
    half = np.array(layout.table_half)
    for index, body in enumerate(layout.objects):
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, index + 1, velocity, 0)
        centre = data.xpos[index + 1]
        near = np.linalg.norm(centre - body.position) < 0.03
        resting.append(bool(near and np.all(np.abs(centre[:2]) < half) and np.abs(velocity).max() < 5 * REST_SPEED))
    return resting


def _keep(layout: Layout, resting: list[bool]) -> Layout:
    """The layout with only what rests; what hangs always does, so the strings stay."""
    objects = tuple(body for body, keep in zip(layout.objects, resting, strict=True) if keep)
    return replace(layout, objects=objects)


def _supports(model: Any, data: Any) -> dict[int, tuple[int, ...]]:
    """For each body, the bodies whose contact pushes it upwards."""
    carried: dict[int, set[int]] = {}
    force = np.zeros(6)
    for index in range(data.ncon):
        contact = data.contact[index]
        mujoco.mj_contactForce(model, data, index, force)
        up = float(contact.frame[2])
        if force[0] <= 1e-4 or abs(up) < 0.3:
            continue
        below, above = (int(model.geom_bodyid[g]) for g in (contact.geom1, contact.geom2))
        if up < 0:
            below, above = above, below
        carried.setdefault(above, set()).add(below)
    return {above: tuple(sorted(below)) for above, below in carried.items()}
