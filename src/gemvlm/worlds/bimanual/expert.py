"""Scripted experts of the bimanual tasks: they know where the things are, and act by the same fourteen numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from gemvlm.robot.rotations import from_matrix, to_matrix
from gemvlm.worlds.bimanual.scene import ARMS, HOMES, OPEN_M

STEP_M, STEP_RAD = 0.013, 0.06
"""How far a hand is told to go at once; less than it may."""
SHUT = 0.0
ABOVE_M = 0.08
NEAR_M, NEAR_RAD = 0.008, 0.08
LONGEST_MOVE = 90
CLOSING_STEPS, OPENING_STEPS = 12, 8
DOWN = np.diag([1.0, -1.0, -1.0])
UP = np.array([0.0, 0.0, 1.0])


@runtime_checkable
class Hands(Protocol):
    """What an expert must know of its world."""

    task: str

    def hand(self, arm: str) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"], float]: ...

    def thing(self, name: str) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"]]: ...


class BimanualExpert:
    """Call `action` once before each step, from a reset on."""

    def __init__(self, world: Hands) -> None:
        self.world = world
        self._place = {arm: np.array(HOMES[arm]) for arm in ARMS}
        self._turn = {arm: DOWN.copy() for arm in ARMS}
        self._width = dict.fromkeys(ARMS, OPEN_M)
        scripts = {"lift-tray": self._lift_tray, "hand-over": self._hand_over, "insert-peg": self._insert_peg}
        self._script = scripts[world.task]()

    def action(self) -> Float[np.ndarray, "14"]:
        next(self._script, None)
        return np.concatenate([self._arm(arm) for arm in ARMS])

    def _arm(self, arm: str) -> Float[np.ndarray, "7"]:
        return np.concatenate([self._place[arm], from_matrix(self._turn[arm], "axis_angle"), [self._width[arm]]])

    def _lift_tray(self) -> Iterator[None]:
        place, turn = self.world.thing("tray")
        angle = float(np.arctan2(turn[1, 0], turn[0, 0]))
        grips = {arm: place + turn @ [x, 0.0, 0.046] for arm, x in zip(ARMS, (-0.126, 0.126), strict=True)}
        yield from self._go({arm: grip + ABOVE_M * UP for arm, grip in grips.items()}, dict.fromkeys(ARMS, angle))
        yield from self._go(grips)
        yield from self._grip(dict.fromkeys(ARMS, SHUT), CLOSING_STEPS)
        yield from self._go({arm: grip + 0.16 * UP for arm, grip in grips.items()})

    def _hand_over(self) -> Iterator[None]:
        place, turn = self.world.thing("stick")
        angle = float(np.arctan2(turn[1, 0], turn[0, 0])) + np.pi / 2
        grip = place + turn @ [-0.065, 0.0, 0.013]
        yield from self._go({"left": grip + ABOVE_M * UP}, {"left": angle})
        yield from self._go({"left": grip})
        yield from self._grip({"left": SHUT}, CLOSING_STEPS)
        yield from self._go({"left": grip + ABOVE_M * UP})
        meet = np.array([-0.065, 0.02, 0.15])
        far = {"right": meet + np.array([0.13, 0.0, ABOVE_M])}
        yield from self._go({"left": meet} | far, {"left": np.pi / 2, "right": np.pi / 2})
        place, turn = self.world.thing("stick")
        yield from self._go({"right": place + turn @ [0.065, 0.0, 0.013]})
        yield from self._grip({"right": SHUT}, CLOSING_STEPS)
        yield from self._grip({"left": OPEN_M}, OPENING_STEPS)
        yield from self._go({"left": meet + ABOVE_M * UP})
        pad, _ = self.world.thing("pad")
        stick, _ = self.world.thing("stick")
        held = self.world.hand("right")[0] - stick
        target = np.array([pad[0] + held[0], pad[1] + held[1], held[2] + 0.006])
        yield from self._go({"right": target + ABOVE_M * UP, "left": np.array(HOMES["left"])})
        yield from self._go({"right": target})
        yield from self._grip({"right": OPEN_M}, OPENING_STEPS)
        yield from self._go({"right": target + ABOVE_M * UP})

    def _insert_peg(self) -> Iterator[None]:
        block, turn = self.world.thing("block")
        angle = float(np.arctan2(turn[1, 0], turn[0, 0])) + np.pi / 2
        peg, peg_turn = self.world.thing("peg")
        peg_angle = float(np.arctan2(peg_turn[1, 0], peg_turn[0, 0]))
        grips = {"left": block + turn @ [-0.11, 0.0, 0.012], "right": peg + 0.08 * UP}
        angles = {"left": angle, "right": _nearest(peg_angle)}
        yield from self._go({arm: grip + ABOVE_M * UP for arm, grip in grips.items()}, angles)
        yield from self._go(grips)
        yield from self._grip(dict.fromkeys(ARMS, SHUT), CLOSING_STEPS)
        lifted = {"left": np.array([-0.11, 0.02, 0.09]), "right": grips["right"] + 0.12 * UP}
        yield from self._go(lifted, {"left": np.pi / 2, "right": 0.0})
        for height in (0.07, 0.0):
            hole, hole_turn = self.world.thing("block")
            tip, _ = self.world.thing("peg")
            held = self.world.hand("right")[0] - tip
            yield from self._go({"right": hole + hole_turn @ [0.0, 0.0, height + 0.005] + held})

    def _go(self, places: dict[str, Float[np.ndarray, "3"]], angles: dict[str, float] | None = None) -> Iterator[None]:
        """Straight to places, turning the fingers' line to angles (radians from x); over when the hands are there."""
        turns = {arm: _pointing_down(angle) for arm, angle in (angles or {}).items()}
        for _ in range(LONGEST_MOVE):
            for arm, place in places.items():
                way = place - self._place[arm]
                self._place[arm] = self._place[arm] + way * min(1.0, STEP_M / max(float(np.linalg.norm(way)), 1e-9))
            for arm, turn in turns.items():
                bend = from_matrix(turn @ self._turn[arm].T, "axis_angle")
                bend *= min(1.0, STEP_RAD / max(float(np.linalg.norm(bend)), 1e-9))
                self._turn[arm] = to_matrix(bend, "axis_angle") @ self._turn[arm]
            yield
            if all(self._is_at(arm, place, turns.get(arm)) for arm, place in places.items()):
                return

    def _is_at(self, arm: str, place: Float[np.ndarray, "3"], turn: Float[np.ndarray, "3 3"] | None) -> bool:
        now, turn_now, _ = self.world.hand(arm)
        turned = turn is None or float(np.linalg.norm(from_matrix(turn @ turn_now.T, "axis_angle"))) < NEAR_RAD
        told = float(np.linalg.norm(place - self._place[arm])) < 1e-6
        return told and turned and float(np.linalg.norm(place - now)) < NEAR_M

    def _grip(self, widths: dict[str, float], steps: int) -> Iterator[None]:
        self._width.update(widths)
        for _ in range(steps):
            yield


def _pointing_down(angle: float) -> Float[np.ndarray, "3 3"]:
    return to_matrix(np.array([0.0, 0.0, angle]), "axis_angle") @ DOWN


def _nearest(angle: float) -> float:
    """The angle of one of a square's sides that is nearest to 0."""
    return float((angle + np.pi / 4) % (np.pi / 2) - np.pi / 4)
