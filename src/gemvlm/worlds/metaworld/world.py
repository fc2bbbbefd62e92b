"""One Meta-World task: reset, step and observe, and the package's own scripted expert.

What the package's renderer does wrong for data is not used: two of its cameras hang upside down, its multisampled
pictures have no exact depth, and its goal marks are things that nothing can touch.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gemvlm.camera import View
from gemvlm.worlds.metaworld.tasks import EVERYWHERE, ROBOT, TABLE, TASKS, THINGS, Kind
from gemvlm.worlds.mujoco_view import Drawing, MujocoView, Thing, geoms_of, model_view, subtree
from gemvlm.worlds.observation import Observation

DRAWN_GROUPS = frozenset({0, 1, 2})
EXTRA = "Meta-World is not installed: pip install 'gemvlm[worlds]'"


class MetaWorld:
    """Task `task` with the places of its things drawn from `seed`. See `TaskWorld`.

    An action is (dx, dy, dz, grip) in [-1, 1], `state` the 39 numbers of the goal-observable environment. With
    `goal_mark` the package's own marks show in colour, as in its pictures; depth and ids never have them. ValueError
    for an unknown task, ImportError without the package.
    """

    action_size = 4

    def __init__(self, task: str, seed: int = 0, drawing: Drawing = "opengl", goal_mark: bool = False) -> None:
        if task not in TASKS:
            raise ValueError(f"Meta-World has no task {task!r}; choose from {sorted(TASKS)}")
        try:
            from metaworld import env_dict, policies
        except ImportError as error:
            raise ImportError(f"{EXTRA} ({error})") from error
        self.task_name, self.task = task, TASKS[task]
        self.seed = seed
        self.instruction = self.task.instruction
        environments: dict[str, Any] = dict(env_dict.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE)
        experts: dict[str, Any] = dict(policies.ENV_POLICY_MAP)
        self._env = environments[f"{task}-goal-observable"](seed=seed)
        self._expert = experts[task]()
        self.model, self.data = self._env.model, self._env.data
        always = {name: kind for name, kind in EVERYWHERE.items() if _has_body(self.model, name)}  # some have no edge
        self.kinds = THINGS[Path(self._env.model_name).name] | always
        self.view = MujocoView(
            self.model, _things(self.model, self.kinds), DRAWN_GROUPS, "metaworld", drawing, sites=goal_mark
        )
        self.reset()

    @property
    def name(self) -> str:
        return f"metaworld-{self.task_name}-{self.seed}"

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.model.cam(index).name for index in range(self.model.ncam))

    @property
    def state(self) -> Float[np.ndarray, "39"]:
        return self._state.copy()

    @property
    def horizon(self) -> int:
        """Steps after which the package wants a reset."""
        return int(self._env.max_path_length)

    def reset(self, seed: int | None = None) -> None:
        """Back to the start: the same one each time, or from now on that of another seed."""
        import mujoco

        if seed is not None:
            self._draw(seed)
        mujoco.mj_resetData(self.model, self.data)
        self._state, _ = self._env.reset()
        mujoco.mj_forward(self.model, self.data)
        self._done = False

    def _draw(self, seed: int) -> None:
        """New places from `seed`, by the package's own draw from numpy's global generator, left as it was."""
        before = np.random.get_state()
        np.random.seed(seed)
        self._env._freeze_rand_vec = False
        try:
            self._env.reset()
        finally:
            self._env._freeze_rand_vec = True
            np.random.set_state(before)
        self.seed = seed

    def step(self, action: Float[np.ndarray, "4"]) -> bool:
        """One action; whether the package counts the task as done now. ValueError beyond the horizon."""
        self._state, _, _, _, info = self._env.step(np.clip(action, -1, 1).astype(np.float32))
        self._done = bool(info["success"])
        return self._done

    def succeeded(self) -> bool:
        return self._done

    def expert_action(self) -> Float[np.ndarray, "4"]:
        """What the package's scripted policy would do now."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that its actions will be clipped
            action = self._expert.get_action(self._state)
        return np.clip(np.asarray(action, np.float64), -1, 1)

    def snapshot(self) -> Float[np.ndarray, "S"]:
        """The state of the physics, for `restore`."""
        import mujoco

        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(self.model, kind))
        mujoco.mj_getState(self.model, self.data, state, kind)
        return state

    def restore(self, snapshot: Float[np.ndarray, "S"]) -> None:
        """Puts the physics back to look at it; to go on acting, `reset` first."""
        import mujoco

        mujoco.mj_setState(self.model, self.data, snapshot, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(self.model, self.data)

    def observe(self, camera: str | View, size: tuple[int, int] = (256, 256)) -> Observation:
        """What a camera (by name, the right way up, or any view) sees now; `size` is (height, width) for a name."""
        view = camera if isinstance(camera, View) else model_view(self.model, self.data, camera, size)
        return self.view.observe(self.data, view, self.name)

    def id_of(self, category: str) -> int | None:
        """The id of the first thing of that category, None if there is none."""
        return next((i for i, thing in enumerate(self.view.things, 1) if thing.category == category), None)

    def close(self) -> None:
        self.view.close()
        self._env.close()


def _things(model: Any, kinds: dict[str, Kind]) -> list[Thing]:
    """One thing per named body: that body and what is below it, less what has a name of its own.

    Bodies without a name that stand in the world by themselves are parts of tables with holes, and the table's.
    """
    roots = {model.body(name).id: kind for name, kind in kinds.items() if _has_body(model, name)}
    things = []
    for root, kind in sorted(roots.items()):
        inside = set(subtree(model, root)) if root else {0}
        if model.body(root).name == TABLE:
            inside |= {
                body for body in range(1, model.nbody) if not model.body(body).name and not model.body_parentid[body]
            }
        for other in roots:
            if other != root and other in inside:
                inside -= set(subtree(model, other))
        geoms = geoms_of(model, sorted(inside))
        is_robot = model.body(root).name == ROBOT
        things.append(Thing(kind.category, kind.colour, geoms, root, kind.movable, holder=is_robot))
    return things


def _has_body(model: Any, name: str) -> bool:
    return any(model.body(index).name == name for index in range(model.nbody))
