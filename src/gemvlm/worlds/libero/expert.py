"""A scripted expert for LIBERO's tasks of one thing that must come to lie on or in another (libero_object, _spatial).

It knows the simulator's state: where things are and how high the room stands under the gripper. It takes hold of a
thing across its narrowest side, or by its rim if it is wider than the gripper opens, where both fingers and the palm
are free; lifts it; carries it over what is in between; lets it go. If the thing slipped away, it tries elsewhere. It
acts through the same operational-space controller as a policy does, so its episodes are demonstrations.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gemvlm.robot.rotations import from_matrix
from gemvlm.worlds.libero.world import LiberoWorld

KNOWN_SUITES = ("libero_object", "libero_spatial")
STEP_M, STEP_RAD = 0.05, 0.5
"""How far an action of 1 tells the controller to go."""
OPEN, CLOSED = -1.0, 1.0
WIDEST_M = 0.072
"""Of a thing that fits between the fingers (they open to 8 cm)."""
SPREAD_M = 0.046
"""From the middle of the open gripper to the middle of a finger."""
PALM_M = 0.042
"""How far the palm is above the point between the finger tips; a thing may stand out above it by less."""
TIP_M = 0.012
"""How far the fingers reach below that point."""
RIM_M = 0.022
"""How far below a rim the point between the fingers goes."""
ABOVE_M = 0.08
CLEARANCE_M = 0.025
LIFTED_M = 0.03
TRIES = 4
NEAR_M, EXACT_M = 0.02, 0.006
TURNED_RAD = 0.1
"""How far the open hand's turn may be off on arrival."""
CLOSE_M, LEARNT = 0.04, 0.15
"""Where the aim begins to move by what is left, and how much of that at each step."""
CLOSING_STEPS, OPENING_STEPS = 12, 8
DIRECTIONS = 16
WALL_M, PALM_GAP_M, PAD_M = 0.006, 0.007, 0.018
GRAZE_M = 0.004
"""By how little a grasp may seem to hit something and still count as free: what it stands on gives way as much."""
WIDTH_COST, ROOM_GAIN = 6.0, 10.0
"""Radians of turning that a metre of width costs, and a metre of room is worth."""
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Grasp:
    """Where the point between the finger tips goes (world, metres), and the angle of the line through both fingers."""

    place: Float[np.ndarray, "3"]
    angle: float

    def differs(self, other: Grasp) -> bool:
        turn = abs(self.angle - other.angle)
        return min(turn, np.pi - turn) > 0.5 or bool(np.linalg.norm(self.place - other.place) > 0.03)


class LiberoExpert:
    """Acts in `world` from its state at a reset: call `action` once before each step. ValueError for another task."""

    def __init__(self, world: LiberoWorld) -> None:
        if not knows(world):
            raise ValueError(f"{world.suite}, task {world.index}: the expert only puts one thing on or in another")
        self.world = world
        (_, self.subject, self.place), *_ = world.goals
        self._relief = Relief(world)
        self._script = self._acts()

    def action(self) -> Float[np.ndarray, "7"]:
        """The next action, from what the simulator's state is now."""
        return next(self._script)

    def _acts(self) -> Iterator[Float[np.ndarray, "7"]]:
        for attempt in range(TRIES):
            yield from self._carry(attempt)
        while True:
            yield self._towards(self._hand()[0], None, OPEN)

    def _carry(self, attempt: int) -> Iterator[Float[np.ndarray, "7"]]:
        """One try, from wherever the hand is; over as soon as it is clear that the thing was not taken."""
        grasp = (grasps := self._grasps())[attempt % len(grasps)]
        yield from self._over(grasp.place + ABOVE_M * UP, grasp.angle, OPEN, 0.0)
        yield from self._move(grasp.place, grasp.angle, OPEN, EXACT_M, 40)
        before = self._box()[0].copy()
        yield from self._wait(grasp.angle, CLOSED, CLOSING_STEPS)
        yield from self._move(self._hand()[0] + ABOVE_M * UP, grasp.angle, CLOSED, NEAR_M, 25)
        if self._box()[0][2] < before[2] + LIFTED_M:
            yield from self._move(self._hand()[0] + ABOVE_M * UP, grasp.angle, OPEN, NEAR_M, 15)
            return
        hand, (low, high) = self._hand()[0], self._box()
        hanging = float(hand[2] - low[2])
        goal, height = self._goal()
        offset = hand - (low + high) / 2
        target = np.array([goal[0] + offset[0], goal[1] + offset[1], height + hanging + CLEARANCE_M])
        yield from self._over(target, grasp.angle, CLOSED, hanging)
        low, high = self._box()
        target[:2] = self._hand()[0][:2] + goal[:2] - ((low + high) / 2)[:2]
        target[2] -= CLEARANCE_M - 0.004
        yield from self._move(target, grasp.angle, CLOSED, EXACT_M, 25)
        yield from self._wait(grasp.angle, OPEN, OPENING_STEPS)
        yield from self._move(self._hand()[0] + 2 * ABOVE_M * UP, grasp.angle, OPEN, NEAR_M, 25)

    def _over(
        self, target: Float[np.ndarray, "3"], angle: float, grip: float, hanging: float
    ) -> Iterator[Float[np.ndarray, "7"]]:
        """Up, across and down, as high as what lies between asks for; `hanging` is what hangs below the hand."""
        start = self._hand()[0]
        path = np.linspace(start[:2], target[:2], 30)
        high = float(self._relief.heights(path, self.subject).max()) + max(hanging, TIP_M) + 2 * CLEARANCE_M
        if high > start[2] + NEAR_M:
            yield from self._move(np.array([*start[:2], high]), angle, grip, NEAR_M, 25)
        if high > target[2]:
            yield from self._move(np.array([*target[:2], high]), angle, grip, NEAR_M, 70)
        yield from self._move(target, angle, grip, NEAR_M if grip == OPEN else EXACT_M, 70)

    def _move(
        self, target: Float[np.ndarray, "3"], angle: float, grip: float, near: float, limit: int
    ) -> Iterator[Float[np.ndarray, "7"]]:
        """Straight there. What the controller alone would leave, which is up to 2.5 cm, is added to its aim.

        The turn has to be right only for taking hold. With a thing in the hand it may stay off: an arm that reaches far
        has its elbow straight, up to the joint's limit, and cannot point the hand down any more.
        """
        aim = target.copy()
        for _ in range(limit):
            place, turn = self._hand()
            away, left = self._turn_to(angle, turn), target - place
            if np.linalg.norm(left) < near and (grip == CLOSED or np.linalg.norm(away) < TURNED_RAD):
                return
            if np.linalg.norm(left) < CLOSE_M:
                aim = np.clip(aim + LEARNT * left, target - CLOSE_M, target + CLOSE_M)
            yield self._towards(aim, angle, grip)

    def _wait(self, angle: float, grip: float, steps: int) -> Iterator[Float[np.ndarray, "7"]]:
        place = self._hand()[0].copy()
        for _ in range(steps):
            yield self._towards(place, angle, grip)

    def _towards(self, target: Float[np.ndarray, "3"], angle: float | None, grip: float) -> Float[np.ndarray, "7"]:
        place, turn = self._hand()
        away = np.zeros(3) if angle is None else self._turn_to(angle, turn)
        return np.concatenate([np.clip((target - place) / STEP_M, -1, 1), np.clip(away / STEP_RAD, -1, 1), [grip]])

    def _hand(self) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"]]:
        site = self.world.data.site("gripper0_grip_site")
        return site.xpos.copy(), site.xmat.reshape(3, 3).copy()

    def _turn_to(self, angle: float, turn: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
        """The rotation vector that points the hand down with its fingers along the line at `angle`, the nearer way."""
        fingers = np.array([np.cos(angle), np.sin(angle), 0.0])
        if fingers @ turn[:, 0] < 0:
            fingers = -fingers
        down = np.array([0.0, 0.0, -1.0])
        wanted = np.stack([fingers, np.cross(down, fingers), down], axis=1)
        return from_matrix(wanted @ turn.T, "axis_angle")

    def _points(self) -> Float[np.ndarray, "N 3"]:
        return self.world.view.outline(self.world.data, self.world.ids[self.subject])

    def _box(self) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
        """The thing's lowest and highest coordinates."""
        points = self._points()
        return points.min(axis=0), points.max(axis=0)

    def _goal(self) -> tuple[Float[np.ndarray, "3"], float]:
        """The middle of where the thing must come to lie, and the height at which its bottom will be let go."""
        data, sites = self.world.data, self.world.sites
        if self.place in sites:
            centre = data.site(self.place).xpos.copy()
            reach = np.abs(data.site(self.place).xmat.reshape(3, 3)[2]) @ self.world.model.site(self.place).size
            return centre, float(centre[2] - reach + CLEARANCE_M)
        points = self.world.view.outline(data, self.world.ids[self.place])
        centre = data.body(f"{self.place}_main").xpos.copy()
        return centre, float(points[:, 2].max())

    def _grasps(self) -> list[Grasp]:
        """Grasps that differ, best first: where fingers and palm are free, across little, with little turning."""
        points, now = self._points(), self._hand()[1][:, 0]
        found: list[tuple[float, float, Grasp]] = []
        for angle in np.arange(DIRECTIONS) * np.pi / DIRECTIONS:
            along = np.array([np.cos(angle), np.sin(angle), 0.0])
            turn = float(np.arccos(np.clip(abs(along @ now), 0, 1)))
            for place, width in _places(points, along):
                room = self._relief.room(place, along, self.subject)
                cost = turn + WIDTH_COST * width - ROOM_GAIN * min(room, 0.01)
                found.append((max(0.0, -room - GRAZE_M), cost, Grasp(place, float(angle))))
        found.sort(key=lambda each: each[:2])
        chosen: list[Grasp] = []
        for _, _, grasp in found:
            if len(chosen) < TRIES and all(grasp.differs(other) for other in chosen):
                chosen.append(grasp)
        return chosen


def _places(
    points: Float[np.ndarray, "N 3"], along: Float[np.ndarray, "3"]
) -> list[tuple[Float[np.ndarray, "3"], float]]:
    """Where to take hold of a thing along a line, and the width there: about its middle, or at both ends of its rim."""
    low, high = points.min(axis=0), points.max(axis=0)
    centre, spread = (low + high) / 2, points @ along
    width = float(np.ptp(spread))
    if width <= WIDEST_M:
        across = np.array([-along[1], along[0], 0.0])
        aside = max(0.0, float(np.ptp(points @ across)) / 2 - PAD_M)
        place = centre + along * ((spread.max() + spread.min()) / 2 - centre @ along)
        height = max(low[2] + TIP_M, high[2] - PALM_M + PALM_GAP_M)
        shifts = (0.0, aside, -aside) if aside > 0.005 else (0.0,)
        return [(np.array([*(place + shift * across)[:2], height]), width + abs(shift)) for shift in shifts]
    out = (width / 2 - WALL_M) * along
    return [(np.array([*(centre + sign * out)[:2], max(low[2] + TIP_M, high[2] - RIM_M)]), 0.0) for sign in (1, -1)]


class Relief:
    """How high the room stands, without the robot and the thing that it handles: by rays from above."""

    def __init__(self, world: LiberoWorld) -> None:
        self.world = world
        self._model = copy.copy(world.model)
        self._model.geom_rgba[:, 3] = self._model.mat_rgba[:, 3] = 1.0  # rays go through what is not drawn
        robot = world.view.things[world.ids["robot"] - 1].geoms
        solid = (world.model.geom_contype > 0) | (world.model.geom_conaffinity > 0)
        solid[list(robot)] = False
        self._solid = solid

    def heights(self, places: Float[np.ndarray, "N 2"], without: str) -> Float[np.ndarray, "N"]:
        """Of the highest solid thing at each place, in metres; that of the ground's level, 0, where there is none."""
        import mujoco

        counted = self._solid.copy()
        counted[list(self.world.view.things[self.world.ids[without] - 1].geoms)] = False
        self._model.geom_group[:] = np.where(counted, 0, 5)
        only, geom = np.array([1, 0, 0, 0, 0, 0], np.uint8), np.zeros(1, np.int32)
        heights = np.zeros(len(places))
        for index, (x, y) in enumerate(places):
            top = np.array([x, y, 3.0])
            away = mujoco.mj_ray(self._model, self.world.data, top, np.array([0.0, 0.0, -1.0]), only, 1, -1, geom)
            heights[index] = 3.0 - away if away >= 0 else 0.0
        return heights

    def room(self, place: Float[np.ndarray, "3"], along: Float[np.ndarray, "3"], without: str) -> float:
        """How much is free below both open fingers and the palm at a grasp, in metres; negative if they would hit."""
        across = np.array([-along[1], along[0], 0.0])
        fingers = [
            place + sign * (SPREAD_M + inner) * along + side * across
            for sign in (1, -1) for inner in (-0.008, 0.0, 0.008) for side in (-0.01, 0.0, 0.01)
        ]  # fmt: skip
        palm = [place + s * along + t * across for s in np.linspace(-0.1, 0.1, 9) for t in (-0.03, 0.0, 0.03)]
        below = self.heights(np.array(fingers)[:, :2], without)
        under = self.heights(np.array(palm)[:, :2], without)
        return min(float(place[2] - TIP_M - below.max()), float(place[2] + PALM_M - under.max()))


def knows(world: LiberoWorld) -> bool:
    """Whether the task is of the kind that the expert solves: one thing on or in another."""
    return world.suite in KNOWN_SUITES and len(world.goals) == 1 and world.goals[0][0] in ("on", "in")
