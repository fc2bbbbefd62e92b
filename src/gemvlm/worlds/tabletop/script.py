"""What is to be done with the things on a table: random acts, or a plan that reaches a goal, step by step.

A plan's steps stand in the only order that works: what lies on top goes first, and what is in the hand must be put down
before anything else is picked up. `careless` steps let go beside the middle of what should carry the object, or on
something round or pointed, so that the simulation decides whether it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from gemvlm.worlds.observation import ObjectState
from gemvlm.worlds.tabletop.handling import Handling
from gemvlm.worlds.tabletop.layout import GAP_M
from gemvlm.worlds.tabletop.scene import TabletopScene

Action = Literal["pick", "place", "stack", "drop", "push"]
DROP_HEIGHT_M = 0.1
PUSH_M = (0.06, 0.18)
PUSHED_SHARE = 0.5
PUSHED_M = 0.03
NEAR_SPOT_M = 0.04
MAX_TRIES = 60
CARELESS = 0.25
"""Share of goals whose last step is careless."""
UNSTABLE_BASES = ("ball", "pyramid")


@dataclass(frozen=True)
class Step:
    """One act. `target_id` is what it shall rest on; `height_m` how high above it is let go; `hides` is what it shall
    stand before, as the camera sees it."""

    action: Action
    object_id: int
    target_id: int | None = None
    careless: bool = False
    height_m: float = 0.0
    hides: int | None = None


@dataclass(frozen=True)
class Plan:
    """Steps in their order and the instruction that they follow, "" for acts without a goal."""

    task: str
    steps: tuple[Step, ...]


def name(state: ObjectState) -> str:
    return f"{state.colour} {state.category}" if state.movable else state.category


def words(step: Step, states: Sequence[ObjectState]) -> str:
    """The step in English: "put the red mug on the blue book"."""
    what = f"the {name(states[step.object_id - 1])}"
    if step.action == "pick":
        return f"pick up {what}"
    if step.action == "push":
        return f"push {what}"
    where = f"the {name(states[(step.target_id or 0) - 1])}"
    return f"drop {what} on {where}" if step.action == "drop" else f"put {what} on {where}"


class Planner:
    """Draws plans for what stands in a scene; `visible` are the ids that may be named."""

    def __init__(self, scene: TabletopScene, visible: Sequence[int], rng: np.random.Generator) -> None:
        self.states = scene.states()
        self.shapes = [body.shape for body in scene.layout.objects]
        self.rng = rng
        self.visible = [i for i in visible if self.states[i - 1].movable and not self.states[i - 1].hanging]
        self.table = next(s.id for s in self.states if s.category == "table")
        self.loads: dict[int, list[int]] = {s.id: [] for s in self.states}
        for state in self.states:
            for carrier in state.supported_by:
                self.loads[carrier].append(state.id)

    def goal(self) -> Plan | None:
        """Put one thing on another, clear something, or build a stack; None if nothing visible lends itself."""
        makers = [self._put_on, self._put_on, self._clear, self._stack]
        for index in self.rng.permutation(len(makers)):
            if plan := makers[int(index)]():
                return plan
        return None

    def acts(self, count: int, hide: bool) -> Plan | None:
        """`count` acts without a goal: pushes, and things put or dropped somewhere; each object at most once.

        With `hide` the first puts something before something smaller, if there is such a pair.
        """
        steps = self._hide() if hide else []
        used = {i for step in steps for i in (step.object_id, step.hides)}
        free = [int(i) for i in self.rng.permutation(self.visible) if i not in used]
        for object_id in free[: count - bool(steps)]:
            if self.loads[object_id] or self.rng.random() < 0.4:
                steps.append(Step("push", object_id))
                continue
            bases = self._bases(object_id, UNSTABLE_BASES) if self.rng.random() < 0.4 else []
            target = bases[int(self.rng.integers(len(bases)))] if bases else self.table
            height = DROP_HEIGHT_M if self.rng.random() < 0.3 else 0.0
            action: Action = "drop" if height else "stack" if target != self.table else "place"
            careless = bool(target != self.table and self.rng.random() < 0.5)
            steps += [Step("pick", object_id), Step(action, object_id, target, careless, height)]
        return Plan("", tuple(steps)) if steps else None

    def _put_on(self) -> Plan | None:
        for object_id in self._shuffled(self.visible):
            clearing = self._uncover(object_id)
            careless = bool(self.rng.random() < CARELESS)
            for base in self._shuffled(self._bases(object_id, UNSTABLE_BASES if careless else ())):
                beneath = self._uncover(base)
                if clearing is None or beneath is None or (clearing and beneath) or self._stands_on(base, object_id):
                    continue
                if base in self.states[object_id - 1].supported_by:
                    continue
                steps = (*clearing, *beneath, Step("pick", object_id), Step("stack", object_id, base, careless))
                return Plan(words(steps[-1], self.states), steps)
        return None

    def _clear(self) -> Plan | None:
        """Something that carries a pile, one upon another."""
        for object_id in self._shuffled(self.visible):
            steps = self._uncover(object_id)
            if steps:
                return Plan(f"take everything off the {name(self.states[object_id - 1])}", tuple(steps))
        return None

    def _stack(self) -> Plan | None:
        free = [i for i in self.visible if not self.loads[i] and self.table in self.states[i - 1].supported_by]
        for first in self._shuffled(free):
            for second in self._shuffled(self._that_carry(first, free)):
                for base in self._shuffled(self._that_carry(second, [i for i in free if i != first])):
                    steps = (
                        Step("pick", second),
                        Step("stack", second, base),
                        Step("pick", first),
                        Step("stack", first, second, bool(self.rng.random() < CARELESS)),
                    )
                    top, middle, bottom = (f"the {name(self.states[i - 1])}" for i in (first, second, base))
                    return Plan(f"build a stack: {bottom}, then {middle}, then {top} on top", steps)
        return None

    def _uncover(self, object_id: int) -> list[Step] | None:
        """Steps that take a pile off, top first; None if it isn't one thing upon another, or isn't all visible."""
        steps: list[Step] = []
        below = object_id
        while self.loads[below]:
            if len(self.loads[below]) != 1 or self.loads[below][0] not in self.visible:
                return None
            (below,) = self.loads[below]
            if len(self.states[below - 1].supported_by) != 1:
                return None
            steps = [Step("pick", below), Step("place", below, self.table), *steps]
        return steps

    def _that_carry(self, object_id: int, among: Sequence[int]) -> list[int]:
        foot = self.shapes[object_id - 1].foot_radius
        return [i for i in among if i != object_id and foot <= 1.05 * self.shapes[i - 1].top_radius]

    def _bases(self, object_id: int, unstable: Sequence[str]) -> list[int]:
        odd = [i for i in self.visible if i != object_id and self.states[i - 1].category in unstable]
        return [*self._that_carry(object_id, self.visible), *odd]

    def _hide(self) -> list[Step]:
        """Something put before a lower, hardly wider thing on the table; no steps if there is no such pair."""
        lower = [i for i in self.visible if self.states[i - 1].supported_by == (self.table,) and not self.loads[i]]
        for object_id in self._shuffled([i for i in self.visible if not self.loads[i]]):
            mine = self.shapes[object_id - 1]
            for hidden in self._shuffled([i for i in lower if i != object_id]):
                theirs = self.shapes[hidden - 1]
                narrow = theirs.footprint_radius < 1.2 * mine.footprint_radius
                if narrow and theirs.half_extents[2] < 0.9 * mine.half_extents[2]:
                    return [Step("pick", object_id), Step("place", object_id, self.table, hides=hidden)]
        return []

    def _stands_on(self, upper: int, lower: int) -> bool:
        waiting = list(self.states[upper - 1].supported_by)
        while waiting:
            below = waiting.pop()
            if below == lower:
                return True
            waiting.extend(self.states[below - 1].supported_by)
        return False

    def _shuffled(self, ids: Sequence[int]) -> list[int]:
        return [int(i) for i in self.rng.permutation(np.array(ids, dtype=int))]


def perform(
    handling: Handling,
    step: Step,
    eye: Float[np.ndarray, "3"],
    rng: np.random.Generator,
    midway: Callable[[], None],
) -> bool | None:
    """Carries out one step. True or False as it succeeds or not; None if it can't be carried out at all.

    The camera is at `eye`. `midway` is called when the object is above where it will be let go, and halfway through a
    push.
    """
    if step.action == "pick":
        return True if handling.pick(step.object_id) else None
    if step.action == "push":
        return _push(handling, step.object_id, rng, midway)
    spot = _spot(handling, step, eye, rng)
    if spot is None or not handling.carry_over(spot):
        return None
    midway()
    if not handling.put(spot, step.height_m):
        return None
    state = handling.now().states()[step.object_id - 1]
    near = float(np.linalg.norm(state.box.center[:2] - spot[:2])) < NEAR_SPOT_M
    upright = handling.is_upright(step.object_id) or state.category == "ball"
    return state.supported_by == (step.target_id,) and near and upright


def _push(handling: Handling, object_id: int, rng: np.random.Generator, midway: Callable[[], None]) -> bool | None:
    angle, distance = rng.uniform(0, 2 * np.pi), float(rng.uniform(*PUSH_M))
    direction = np.array([np.cos(angle), np.sin(angle)])
    start = handling.position(object_id)
    handling.shove(object_id, direction, distance / 2)
    midway()
    handling.shove(object_id, direction, distance / 2)
    if not handling.let_rest():
        return None
    way = float((handling.position(object_id) - start)[:2] @ direction)
    return way >= max(PUSHED_M, PUSHED_SHARE * distance)


def _spot(
    handling: Handling, step: Step, eye: Float[np.ndarray, "3"], rng: np.random.Generator
) -> Float[np.ndarray, "3"] | None:
    """Where the underside of what is held shall come to rest: on its target's top, or on a free place of the table."""
    assert step.target_id is not None
    layout = handling.scene.layout
    if step.target_id > len(layout.objects):
        return _free_spot(handling, step.object_id, _before(handling, step, eye), rng)
    base = layout.objects[step.target_id - 1].shape
    turn = rng.uniform(0, 2 * np.pi)
    share = rng.uniform(0.75, 1.1) if step.careless and base.top_radius else rng.uniform(0, 0.15)
    away = share * max(base.top_radius, 0.3 * base.foot_radius) * np.array([np.cos(turn), np.sin(turn)])
    top = base.top_height if base.top_radius else float(base.half_extents[2])
    if handling.is_upright(step.target_id):
        return handling.position(step.target_id) + np.array([*away, top])
    return None


def _before(handling: Handling, step: Step, eye: Float[np.ndarray, "3"]) -> list[Float[np.ndarray, "2"]]:
    """Places before what the step shall hide, on the line to the camera, nearest first; none if it hides nothing."""
    if step.hides is None:
        return []
    hidden = handling.position(step.hides)[:2]
    towards = (eye[:2] - hidden) / np.linalg.norm(eye[:2] - hidden)
    mine, theirs = (handling.scene.layout.objects[i - 1].shape.footprint_radius for i in (step.object_id, step.hides))
    return [hidden + towards * (mine + theirs + 2 * GAP_M + further) for further in np.arange(0, 0.12, 0.02)]


def _free_spot(
    handling: Handling, object_id: int, wished: list[Float[np.ndarray, "2"]], rng: np.random.Generator
) -> Float[np.ndarray, "3"] | None:
    """A place on the table with room for the object: one of those wished for, else among the other things."""
    layout = handling.scene.layout
    mine = layout.objects[object_id - 1].shape.footprint_radius
    reach = np.abs([body.position[:2] for body in layout.objects]).max(axis=0)
    others = [state for state in handling.now().states() if state.movable and state.id != object_id]
    shelf = [body.position[1] - body.shape.half_extents[1] for body in layout.structures if body.category == "shelf"]
    for spot in (*wished, *rng.uniform(-reach, reach, size=(MAX_TRIES, 2))):
        edge = np.array(layout.table_half) - np.abs(spot)
        if np.any(edge < mine + GAP_M) or any(spot[1] + mine + GAP_M > front for front in shelf):
            continue
        if all(_gap(spot, state) > mine + GAP_M for state in others):
            return np.array([*spot, layout.table_height_m])
    return None


def _gap(spot: Float[np.ndarray, "2"], state: ObjectState) -> float:
    """From a place on the table to the circle around an object seen from above; infinite for what hangs."""
    if state.hanging:
        return np.inf
    corners = state.box.corners()[:, :2] - state.box.center[:2]
    return float(np.linalg.norm(spot - state.box.center[:2]) - np.linalg.norm(corners, axis=1).max())
