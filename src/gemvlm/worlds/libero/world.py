"""One task of LIBERO: reset to an official or a drawn initial state, step, observe, and its goal as predicates."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gemvlm.camera import View
from gemvlm.worlds.libero.names import KINDS, PARTS, goal_words, instruction, part_of
from gemvlm.worlds.libero.package import initial_states, open_task, task_names
from gemvlm.worlds.mujoco_view import Drawing, MujocoView, Thing, geoms_of, model_view, subtree
from gemvlm.worlds.observation import Observation

DRAWN_GROUPS = frozenset({1, 2})
WAITING_STEPS = 10
"""Steps without motion with which the official evaluation lets things come to rest after a reset."""
WAIT = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
PLACING_STEPS = 30
TURNING_STEPS = 40
UPSET_M = 0.03
SHUT = 0.01
LIFT_M = 0.015
ABREAST_M = 0.04
"""Between things that are put into one place."""

Goal = tuple[str, ...]
"""A predicate and its arguments: ("on", "plate_1", "flat_stove_1_cook_region"), ("turnon", "flat_stove_1")."""


class LiberoWorld:
    """Task `index` of `suite` from its official initial state `state_index`. See `TaskWorld`.

    An action is (dx, dy, dz, three of rotation, grip) for the operational-space controller; +1 closes the gripper.
    An official state says where the robot and the loose things are, not where the fixtures (stove, cabinet) stand:
    those are placed anew for each state, by `seed` and its number, as in published evaluations, whose one seed per task
    runs on through their resets. `assets` is the folder with LIBERO's meshes and textures. ValueError for an unknown
    suite, index or state; ImportError where LIBERO is not installed.
    """

    action_size = 7

    def __init__(
        self,
        suite: str,
        index: int,
        assets: Path | str,
        state_index: int = 0,
        seed: int = 0,
        drawing: Drawing = "opengl",
    ) -> None:
        names = task_names(suite)
        if not 0 <= index < len(names):
            raise ValueError(f"{suite} has tasks 0 to {len(names) - 1}, not {index}")
        self.suite, self.index, self.seed = suite, index, seed
        self.instruction = instruction(names[index])
        self._states = initial_states(suite, index)
        self.state_index = self._checked(state_index)
        self.drawn: int | None = None
        with _private_chance(seed):
            self._env: Any = open_task(suite, index, assets)
        problem = self._env.env.parsed_problem
        self.goals: tuple[Goal, ...] = tuple(tuple(goal) for goal in problem["goal_state"])
        self.model, self.data = self._env.sim.model._model, self._env.sim.data._data
        self.ids: dict[str, int] = {}
        self.view = MujocoView(self.model, self._things(), DRAWN_GROUPS, "libero", drawing, sites=True)
        self.reset()

    @property
    def name(self) -> str:
        start = self.state_index if self.drawn is None else f"drawn{self.drawn}"
        return f"{self.suite}-{self.index}-{start}-{self.seed}"

    @property
    def sites(self) -> frozenset[str]:
        """The regions that goals may name besides things."""
        return frozenset(self._env.env.object_sites_dict)

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.model.cam(index).name for index in range(self.model.ncam))

    @property
    def state(self) -> Float[np.ndarray, "8"]:
        """Gripper position (3, metres), its turn as a rotation vector (3), and the two fingers (2, metres)."""
        import mujoco

        robot = self._env.env.robots[0]
        site = robot.eef_site_id
        quaternion, turn = np.zeros(4), np.zeros(3)
        mujoco.mju_mat2Quat(quaternion, self.data.site_xmat[site])
        mujoco.mju_quat2Vel(turn, quaternion, 1.0)
        fingers = self.data.qpos[robot._ref_gripper_joint_pos_indexes]
        return np.concatenate([self.data.site_xpos[site], turn, fingers])

    def reset(self, state_index: int | None = None) -> None:
        """To an official initial state, after the official wait; by default to where the last reset or draw went."""
        if state_index is None and self.drawn is not None:
            self.draw(self.drawn)
            return
        if state_index is not None:
            self.state_index, self.drawn = self._checked(state_index), None
        with _private_chance(self.seed + self.state_index):
            self._begin()
            self._env.set_init_state(self._states[self.state_index])
            self._rest()

    def draw(self, seed: int) -> None:
        """To a start that LIBERO's own sampler draws from `seed`, which is in no official list, after the same wait."""
        self.drawn = seed
        with _private_chance(seed):
            self._begin()
            self._rest()

    def _begin(self) -> None:
        """A reset as if the model were freshly loaded, where every fixture stands at the origin.

        Places on a fixture are drawn as its new place plus where they are *now*: with the fixture where the last reset
        put it, things would begin beside it, or in the air.
        """
        import mujoco

        for fixture in self._env.env.fixtures_dict.values():
            body = self.model.body(fixture.root_body).id
            self.model.body_pos[body], self.model.body_quat[body] = 0.0, (1.0, 0.0, 0.0, 0.0)
        mujoco.mj_forward(self.model, self.data)
        self._env.reset()
        for robot in self._env.env.robots:
            robot.gripper.current_action[:] = 0  # robosuite forgets to, unless it loads the model anew

    def _rest(self) -> None:
        for _ in range(WAITING_STEPS):
            self._env.step(WAIT)

    def step(self, action: Float[np.ndarray, "7"]) -> bool:
        """One action at 20 Hz; whether all goals hold now."""
        with _private_chance(self.seed):
            self._env.step(np.clip(action, -1, 1))
        return self.succeeded()

    def succeeded(self) -> bool:
        return all(self.holds(goal) for goal in self.goals)

    def holds(self, goal: Goal) -> bool:
        """Whether LIBERO's own predicate says so now."""
        return bool(self._env.env._eval_predicate(list(goal)))

    def observe(self, camera: str | View, size: tuple[int, int] = (256, 256)) -> Observation:
        """What a camera (by name, rows from the top, or any view) sees now; `size` is (height, width) for a name."""
        view = camera if isinstance(camera, View) else self.named_view(camera, size)
        return self.view.observe(self.data, view, self.name)

    def named_view(self, camera: str, size: tuple[int, int]) -> View:
        return model_view(self.model, self.data, camera, size)

    def centre(self) -> Float[np.ndarray, "3"]:
        """The middle of the movable things, in metres."""
        return np.mean(list(self._places().values()), axis=0)

    def compartments(self) -> tuple[str, ...]:
        """What can be opened and closed: drawers by their regions, a microwave by its name."""
        sites = self._env.env.object_sites_dict
        drawers = [name for name in sorted(sites) if part_of(name) in self.ids and sites[name].joints]
        return (*drawers, *(name for name in self._env.env.fixtures_dict if name.startswith("microwave")))

    def is_shut(self, name: str) -> bool:
        """Whether a compartment is shut to within a centimetre (or a hundredth of a radian).

        LIBERO's own "close" is false of a drawer that is shut exactly.
        """
        domain = self._env.env
        part = domain.object_sites_dict.get(name) or domain.get_object(name)
        return all(abs(float(self.data.joint(joint).qpos[0])) < SHUT for joint in part.joints)

    def thing_of(self, name: str) -> int | None:
        """The id of a thing, of the drawer or door that a region is about, or of the thing that a region belongs to."""
        if part_of(name) in self.ids:
            return self.ids[str(part_of(name))]
        owner = max((known for known in self.ids if name.startswith(known)), key=len, default="")
        return self.ids.get(owner)

    def fulfil(self, goal: Goal) -> bool:
        """Brings a goal about by the state of the simulation, not by the robot; whether it then holds by itself.

        A thing is put just above its place and let go; a drawer, door or knob is moved to the middle of the range that
        LIBERO calls open, closed or on. If the goal does not hold afterwards, or something else was upset (another goal
        no longer holds, a thing moved by 3 cm), everything is as it was before.
        """
        predicate, subject, *rest = goal
        before = self._env.get_sim_state()
        held = [other for other in self.goals if other != goal and self.holds(other)]
        places = self._places()
        with _private_chance(self.seed):
            if predicate in ("on", "in"):
                self._put(subject, rest[0])
            else:
                self._turn(subject, predicate)
            for _ in range(PLACING_STEPS):
                self._env.step(WAIT)
        moved = {name: float(np.linalg.norm(place - places[name])) for name, place in self._places().items()}
        loads = self._loads(subject)
        upset = any(moved_m > UPSET_M for name, moved_m in moved.items() if name != subject and name not in loads)
        if self.holds(goal) and all(self.holds(other) for other in held) and not upset:
            return True
        self._env.regenerate_obs_from_state(before)
        return False

    def _places(self) -> dict[str, Float[np.ndarray, "3"]]:
        """Where the movable things are."""
        problem = self._env.env.parsed_problem
        return {n: self.data.body(f"{n}_main").xpos.copy() for names in problem["objects"].values() for n in names}

    def _loads(self, subject: str) -> set[str]:
        """The things that stand on or in what a goal is about: they may move with it."""
        mover = self.thing_of(subject)
        names = {object_id: name for name, object_id in self.ids.items()}
        return {names[s.id] for s in self.view.states(self.data) if mover in s.supported_by and s.id in names}

    def goal_words(self, goal: Goal) -> str:
        return goal_words(goal)

    def close(self) -> None:
        """Frees the simulation; the world can't be used afterwards.

        robosuite's objects refer to one another in circles, and 300 MB of meshes hang on them that Python does not
        count: left to the collector they would pile up while an evaluation goes through its tasks.
        """
        self.view.close()
        self._env.close()
        del self._env, self.view, self.model, self.data
        gc.collect()

    def _checked(self, state_index: int) -> int:
        if not 0 <= state_index < len(self._states):
            raise ValueError(
                f"{self.suite}, task {self.index}: has states 0 to {len(self._states) - 1}, not {state_index}"
            )
        return state_index

    def _put(self, subject: str, place: str) -> None:
        """Moves a thing, upright as it stands, to just above a region or another thing."""
        import mujoco

        domain = self._env.env
        on_region = place in domain.object_sites_dict
        target = self.data.site(place).xpos if on_region else self.data.body(f"{place}_main").xpos
        neighbours = sum(other[2:] == (place,) and other[1] != subject and self.holds(other) for other in self.goals)
        box = self.view.box(self.data, self.ids[subject])
        body = self.data.body(f"{subject}_main").xpos
        bottom = box.center[2] - np.abs(box.rotation[2]) @ box.half_extents
        height = self._height_at(place, target, on_region)
        position = np.array([target[0], target[1] + ABREAST_M * neighbours, height + LIFT_M + body[2] - bottom])
        address = self.model.jnt_qposadr[self.model.body_jntadr[self.model.body(f"{subject}_main").id]]
        self.data.qpos[address : address + 3] = position
        self.data.qvel[:] = 0
        mujoco.mj_forward(self.model, self.data)

    def _height_at(self, place: str, target: Float[np.ndarray, "3"], on_region: bool) -> float:
        """Where a thing put there would come to stand: the floor of a region's box, the bottom of another thing."""
        if on_region:
            site = self.data.site(place)
            reach = np.abs(site.xmat.reshape(3, 3)[2]) @ self.model.site(place).size
            return float(target[2] - reach)
        box = self.view.box(self.data, self.ids[place])
        return float(box.center[2] - np.abs(box.rotation[2]) @ box.half_extents)

    def _turn(self, subject: str, predicate: str) -> None:
        """Moves the joints step by step, so that what lies in a drawer goes with it."""
        domain = self._env.env
        part = domain.object_sites_dict.get(subject) or domain.get_object(subject)
        low, high = sorted(part.object_properties["articulation"][f"default_{predicate}_ranges"])
        joints = [self.data.joint(joint) for joint in part.joints]
        begin = [float(joint.qpos[0]) for joint in joints]
        for share in np.linspace(0, 1, TURNING_STEPS):
            for joint, start in zip(joints, begin, strict=True):
                joint.qpos[0] = start + share * ((low + high) / 2 - start)
                joint.qvel[0] = 0
            self._env.step(WAIT)

    def _things(self) -> list[Thing]:
        """Objects, fixtures and their drawers, doors and knobs, the table or floor, the room and the robot."""
        domain, model = self._env.env, self.model
        problem = domain.parsed_problem
        bodies = [model.body(index).name for index in range(model.nbody)]
        roots = {name: (kind, f"{name}_main", True) for kind, name in _named(problem["objects"])}
        for kind, name in _named(problem["fixtures"]):
            is_table = name not in domain.fixtures_dict
            root = {"main_table": "table", "kitchen_table": "table"}.get(name, name) if is_table else f"{name}_main"
            roots[name] = (kind, root, False)
            for body in bodies if not is_table else ():
                ending = next((end for end in PARTS if body == f"{name}_{end}"), None)
                if ending is not None:
                    roots[body] = ((PARTS[ending], ""), body, False)
        if "floor" in bodies:
            roots.setdefault("floor", (("floor", ""), "floor", False))
        roots["robot"] = (("robot", ""), "robot0_base", False)

        starts = {model.body(root).id for _, root, _ in roots.values()}
        things = []
        for name, (kind, root, movable) in roots.items():
            start = model.body(root).id
            inside = set(subtree(model, start))
            for other in starts & inside - {start}:
                inside -= set(subtree(model, other))
            things.append(Thing(*kind, geoms_of(model, sorted(inside)), start, movable, holder=name == "robot"))
            self.ids[name] = len(things)
        for category, beginning in (("floor", "floor"), ("wall", "wall_")):
            room = tuple(g for g in geoms_of(model, [0]) if model.geom(g).name.startswith(beginning))
            if room:
                things.append(Thing(category, "", room, 0, movable=False))
        return things


def _named(section: dict[str, list[str]]) -> list[tuple[tuple[str, str], str]]:
    """Words and name of each thing in a section of the problem."""
    return [(KINDS[category], name) for category, names in section.items() for name in names]


@contextmanager
def _private_chance(seed: int) -> Iterator[None]:
    """LIBERO draws from numpy's global generator: seeds it here and leaves it as it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
