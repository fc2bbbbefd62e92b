"""A point on a plane that must go to a mark which only the pictures show: a robot world of a few lines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from gemvlm.depth_map import DepthMap
from gemvlm.evaluation.blind_policies import Demonstration
from gemvlm.robot import ActionChunk, ActionContract, Committed, RobotObservation

SIDE = 16
SPEED, RADIUS = 0.1, 0.12
CORNERS = np.array([(0.8, 0.8), (-0.8, 0.8), (-0.8, -0.8), (0.8, -0.8)])
CONTRACT = ActionContract("point", ("x", "y"), ("dx", "dy"), "delta", "none", "none", 10.0, ("top", "side"))
STEPS = 20


class PointMass:
    """Start n has its mark in corner n modulo 4, and the point a little beside the middle. `task` "fails-at-N" raises
    in step N, "dies-at-N" ends the process there, "slow" needs nothing: it is another name for the same."""

    def __init__(self, task: str, contract: ActionContract = CONTRACT, version: str = "1") -> None:
        self.name, self.instruction = f"point-{task}", f"go to the mark ({task})"
        self.contract, self.horizon = contract, 40
        self.test_starts, self.demonstration_starts = range(100), range(100, 200)
        self._how, _, number = task.partition("-at-")
        self._number, self._version = int(number or -1), version
        self._closed = False

    @property
    def protocol(self) -> Mapping[str, str]:
        return {"simulator": f"point mass {self._version}", "pictures": f"{SIDE} x {SIDE}"}

    def reset(self, start: int) -> RobotObservation:
        assert not self._closed
        rng = np.random.default_rng(start)
        self._start, self._steps, self.mark = start, 0, CORNERS[start % 4]
        self.place = rng.uniform(-0.03, 0.03, 2)
        return self._seen()

    def step(self, action: np.ndarray) -> tuple[RobotObservation, bool]:
        self._steps += 1
        assert self._steps <= self.horizon
        if self._steps == self._number and self._start % 2:
            if self._how == "dies":
                os._exit(7)
            raise RuntimeError("the simulator exploded")
        self.place = np.clip(self.place + SPEED * np.clip(action, -1, 1), -1, 1)
        return self._seen(), self.succeeded()

    def succeeded(self) -> bool:
        return bool(np.linalg.norm(self.place - self.mark) < RADIUS)

    def depths(self) -> dict[str, DepthMap]:
        return {}

    def expert_action(self) -> np.ndarray | None:
        return np.clip((self.mark - self.place) / SPEED, -1, 1).astype(np.float32)

    def close(self) -> None:
        self._closed = True

    def _seen(self) -> RobotObservation:
        picture = np.full((SIDE, SIDE, 3), 40, np.uint8)
        x, y = ((self.mark + 1) / 2 * (SIDE - 1)).round().astype(int)
        picture[y, x] = (250, 220, 40)
        images = {"top": picture, "side": picture[::-1].copy()}
        state = self.place.astype(np.float32)
        return RobotObservation(images, state, self.instruction, self._steps, self._steps / self.contract.rate_hz)


make = PointMass
make_turned = partial(PointMass, contract=replace(CONTRACT, image_turn="half", rate_hz=20.0))
make_newer = partial(PointMass, version="2")


class Seeing:
    """Finds the brightest pixel of the picture and goes there; `beyond` it goes through the mark and on."""

    def __init__(self, horizon: int = 8, contract: ActionContract = CONTRACT, beyond: bool = False) -> None:
        self.contract, self.horizon, self.beyond = contract, horizon, beyond
        self.batches: list[int] = []

    def act(
        self,
        observations: Sequence[RobotObservation],
        seeds: Sequence[int],
        committed: Sequence[Committed | None] | None = None,
    ) -> list[ActionChunk]:
        self.batches.append(len(observations))
        return [ActionChunk(self.chunk(seen), self.contract.rate_hz) for seen in observations]

    def chunk(self, seen: RobotObservation) -> np.ndarray:
        bright = seen.images["top"].sum(axis=2, dtype=int)
        y, x = np.unravel_index(int(bright.argmax()), bright.shape)
        goal = np.array([x, y]) / (SIDE - 1) * 2 - 1
        place, actions = seen.state.astype(np.float64), []
        for _ in range(self.horizon):
            way = goal * 2 - place if self.beyond else goal - place
            actions.append(np.clip(way / SPEED, -1, 1))
            place = place + SPEED * actions[-1]
        return np.array(actions, np.float32)


def demonstrations(starts: Sequence[int], task: str = "a") -> tuple[Demonstration, ...]:
    """The world's expert, recorded."""
    found = []
    for start in starts:
        world = PointMass(task)
        seen, states, actions, done = world.reset(start), [], [], False
        while not done:
            action = world.expert_action()
            states.append(seen.state)
            actions.append(action)
            seen, done = world.step(action)
        found.append(Demonstration(world.instruction, np.stack(states), np.stack(actions)))
    return tuple(found)
