"""What a robot may be told to do: a box for its hands or joints, speeds, ranges, and how old a picture may be.

Nothing is changed in silence: every number that was cut is named with the reason, and a chunk that can't be trusted
(NaN, a stale observation, a stop) becomes one that holds still and says why. Limits are a last line, not a certificate:
they look at numbers one by one, know no bodies and no other machine, and a robot's own controller must have its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from gemvlm.robot.contract import ActionContract, RobotObservation

Reason = Literal["range", "workspace", "speed"]
Bounds = tuple[float, float]
EARLY_S = 0.05
"""By how much an observation may seem to come from the future before its clock is called wrong."""
LARGEST_SIDE = 8192
_SLACK = 1e-6


@dataclass(frozen=True)
class Move:
    """Which number of the state an action's number drives, and by how much: state units for one unit of action."""

    state: str
    gain: float = 1.0


@dataclass(frozen=True)
class Limits:
    """`ranges` bound numbers of actions as they are; the others speak of numbers of the state, in its units.

    `workspace` is where the state may be sent: a box for hands (metres), joint limits (radians), a gripper's width.
    `speeds` are the most units per second. `moves` tells which action drives which state; where actions are places it
    defaults to the same name. `stale_after_s` is the age of an observation beyond which its chunk is not executed.
    """

    ranges: Mapping[str, Bounds] = field(default_factory=dict)
    workspace: Mapping[str, Bounds] = field(default_factory=dict)
    speeds: Mapping[str, float] = field(default_factory=dict)
    moves: Mapping[str, Move] = field(default_factory=dict)
    stale_after_s: float = 0.5

    def __post_init__(self) -> None:
        for name, (low, high) in (*self.ranges.items(), *self.workspace.items()):
            if not low < high:
                raise ValueError(f"limits of {name!r}: {low} is not below {high}")
        if bad := [name for name, speed in self.speeds.items() if not speed > 0]:
            raise ValueError(f"limits: the speeds of {bad} are not above 0")
        if bad := [name for name, move in self.moves.items() if not (math.isfinite(move.gain) and move.gain)]:
            raise ValueError(f"limits: the gains of {bad} are 0 or not finite")
        if not self.stale_after_s > 0:
            raise ValueError(f"limits: stale after {self.stale_after_s} s; give seconds above 0")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Limits:
        """Undoes `to_dict`, also what JSON made of it. ValueError for unknown keys and what are no numbers."""
        if unknown := sorted(set(values) - set(cls.__dataclass_fields__)):
            raise ValueError(f"limits: {unknown} are unknown; there are {sorted(cls.__dataclass_fields__)}")
        try:
            bounds = {
                key: {name: (float(low), float(high)) for name, (low, high) in dict(values.get(key, {})).items()}
                for key in ("ranges", "workspace")
            }
            speeds = {name: float(speed) for name, speed in dict(values.get("speeds", {})).items()}
            moves = {
                name: Move(str(move["state"]), float(move.get("gain", 1.0)))
                for name, move in dict(values.get("moves", {})).items()
            }
            return cls(**bounds, speeds=speeds, moves=moves, stale_after_s=float(values.get("stale_after_s", 0.5)))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"limits: {error!r}; ranges and workspace map names to [low, high], speeds to numbers, moves to "
                "{state, gain}"
            ) from error


@dataclass(frozen=True)
class Clipped:
    """One number of an action that was cut: at first in `step`, in `steps` of the chunk's steps."""

    name: str
    reason: Reason
    step: int
    asked: float
    given: float
    steps: int

    def __str__(self) -> str:
        numbers = f"{self.asked:.4g} became {self.given:.4g} at step {self.step}"
        return f"{self.name}: {self.reason}, {numbers}, {self.steps} steps in all"


@dataclass(frozen=True)
class Limited:
    """Actions that may be executed, what was cut, and why they hold still, if they do."""

    actions: Float32[np.ndarray, "T A"]
    clipped: tuple[Clipped, ...] = ()
    stopped: str | None = None


class Guard:
    """Limits one robot's chunks. `stop` holds it still until `release`, whatever it is asked to do.

    ValueError if the limits name what the contract lacks, or if it can't be known how the robot stands still.
    """

    def __init__(self, contract: ActionContract, limits: Limits) -> None:
        self.contract, self.limits = contract, limits
        self.stopped: str | None = None
        absolute = contract.control == "absolute"
        same = {name: Move(name) for name in contract.action_names if absolute and name in contract.state_names}
        self._moves = same | dict(limits.moves)
        _check_names(contract, limits, self._moves)
        if absolute and (lost := [name for name in contract.action_names if name not in self._moves]):
            raise ValueError(f"limits: actions {lost} are places of nothing in the state; name it in moves")
        if not absolute and contract.rotation in ("rotation_6d", "quaternion_xyzw"):
            raise ValueError(
                f"limits: {contract.embodiment} turns by steps of {contract.rotation}, whose zeros are no rotation, so "
                "that it can't be held still; turn them into axis_angle at the robot"
            )
        self._driven = [contract.action_names.index(name) for name in self._moves]
        self._states = [contract.state_names.index(move.state) for move in self._moves.values()]
        self._gains = np.array([move.gain for move in self._moves.values()], np.float64)
        driven_states = [move.state for move in self._moves.values()]
        self._low, self._high = _bounds(limits.workspace, driven_states)
        self._step = np.array([limits.speeds.get(name, np.inf) for name in driven_states]) / contract.rate_hz
        self._range_low, self._range_high = _bounds(limits.ranges, contract.action_names)

    def stop(self, reason: str) -> None:
        """Every chunk holds still from now on; the first reason is kept."""
        self.stopped = self.stopped or reason

    def release(self) -> None:
        self.stopped = None

    def limit(
        self,
        actions: Float[np.ndarray, "T A"],
        state: Float[np.ndarray, "S"],
        age_s: float = 0.0,
        previous: Float[np.ndarray, "A"] | None = None,
    ) -> Limited:
        """The chunk that may be executed from `state` on.

        `age_s` is how long ago the observation was made, when the chunk is to begin. `previous` is the last action that
        was sent, from which speeds of places count where it is known. ValueError for a chunk or state of wrong size.
        """
        sizes = (len(self.contract.action_names), len(self.contract.state_names))
        if (actions.shape[-1], len(state)) != sizes or not len(actions):
            raise ValueError(
                f"{self.contract.embodiment}: actions {actions.shape} and state {state.shape}, but the contract has "
                f"{sizes[0]} and {sizes[1]} numbers"
            )
        why = self._refusal(actions, state, age_s)
        if why is not None:
            return Limited(self.hold(len(actions), state, previous), stopped=why)
        wanted = actions.astype(np.float64)
        given, clipped = np.clip(wanted, self._range_low, self._range_high), []
        clipped += self._named("range", wanted, given, range(len(self.contract.action_names)))
        moving = given[:, self._driven]
        start = state.astype(np.float64)[self._states]
        in_box, kept = self._places(moving, start, previous) if self._absolute else self._steps(moving, start)
        clipped += self._named("workspace", moving, in_box, self._driven)
        clipped += self._named("speed", in_box, kept, self._driven)
        given[:, self._driven] = kept
        return Limited(given.astype(np.float32), tuple(clipped))

    def hold(
        self, steps: int, state: Float[np.ndarray, "S"], previous: Float[np.ndarray, "A"] | None = None
    ) -> Float32[np.ndarray, "T A"]:
        """Actions that keep the robot where it is: no step, or the place that was last sent (else, where it is).

        What no number of the state tells (a gripper's effort) stays as `previous` had it, else 0.
        """
        still = np.zeros(len(self.contract.action_names))
        known = previous is not None and bool(np.isfinite(previous).all())
        if previous is not None and known:
            keeps = [self._absolute or "grip" in name for name in self.contract.action_names]
            still = np.where(keeps, previous, 0.0)
        elif self._absolute:
            here = np.nan_to_num(state.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
            still[self._driven] = here[self._states] / self._gains
        return np.repeat(still[None], steps, axis=0).astype(np.float32)

    @property
    def _absolute(self) -> bool:
        return self.contract.control == "absolute"

    def _refusal(self, actions: Float[np.ndarray, "T A"], state: Float[np.ndarray, "S"], age_s: float) -> str | None:
        if self.stopped is not None:
            return self.stopped
        if not np.isfinite(state).all():
            return f"the state holds NaN or infinity: {_not_finite(state, self.contract.state_names)}"
        if not np.isfinite(actions).all():
            return f"the actions hold NaN or infinity: {_not_finite(actions, self.contract.action_names)}"
        if not -EARLY_S <= age_s <= self.limits.stale_after_s:
            return f"the observation is {age_s:.3f} s old, more than {self.limits.stale_after_s} s or from the future"
        return None

    def _places(
        self,
        moving: Float64[np.ndarray, "T M"],
        start: Float64[np.ndarray, "M"],
        previous: Float[np.ndarray, "A"] | None,
    ) -> tuple[Float64[np.ndarray, "T M"], Float64[np.ndarray, "T M"]]:
        """Places inside the box, and those that can be reached from one step to the next."""
        in_box = np.clip(moving * self._gains, self._low, self._high)
        at = start
        if previous is not None and np.isfinite(previous).all():
            at = previous.astype(np.float64)[self._driven] * self._gains
        reached = np.empty_like(in_box)
        for step, target in enumerate(in_box):
            at = reached[step] = np.clip(target, at - self._step, at + self._step)
        return in_box / self._gains, reached / self._gains

    def _steps(
        self, moving: Float64[np.ndarray, "T M"], start: Float64[np.ndarray, "M"]
    ) -> tuple[Float64[np.ndarray, "T M"], Float64[np.ndarray, "T M"]]:
        """Steps whose sum stays inside the box, and those that are no faster, and as actions no larger, than allowed.

        From outside the box the way back takes as many of those as it needs.
        """
        in_box, slow = np.empty_like(moving), np.empty_like(moving)
        ends = np.stack([self._range_low, self._range_high])[:, self._driven] * self._gains
        smallest, largest = ends.min(axis=0), ends.max(axis=0)
        at = start
        for step, asked in enumerate(moving * self._gains):
            in_box[step] = np.clip(at + asked, self._low, self._high) - at
            slow[step] = np.clip(np.clip(in_box[step], -self._step, self._step), smallest, largest)
            at = at + slow[step]
        return in_box / self._gains, slow / self._gains

    def _named(
        self, reason: Reason, asked: Float64[np.ndarray, "T M"], given: Float64[np.ndarray, "T M"], columns: Any
    ) -> list[Clipped]:
        changed: Bool[np.ndarray, "T M"] = np.abs(asked - given) > _SLACK * np.maximum(1, np.abs(asked))
        cuts = []
        for place, column in enumerate(columns):
            steps = np.flatnonzero(changed[:, place])
            if len(steps):
                first = int(steps[0])
                numbers = float(asked[first, place]), float(given[first, place])
                cuts.append(Clipped(self.contract.action_names[column], reason, first, *numbers, len(steps)))
        return cuts


def check_observation(contract: ActionContract, observation: RobotObservation) -> list[str]:
    """One line for all in which an observation is not what the contract's robot sends; nothing if all is well."""
    wrong = []
    if missing := [name for name in contract.cameras if name not in observation.images]:
        wrong.append(f"cameras {missing} are missing; there are {sorted(observation.images)}")
    for name, image in observation.images.items():
        shape, kind = getattr(image, "shape", None), getattr(image, "dtype", None)
        if kind != np.uint8 or shape is None or len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < 1:
            wrong.append(f"camera {name!r}: {shape} of {kind}; pictures are (height, width, 3) of uint8")
        elif max(shape[:2]) > LARGEST_SIDE:
            wrong.append(f"camera {name!r}: {shape} is larger than {LARGEST_SIDE} pixels")
    state = np.asarray(observation.state)
    if state.shape != (len(contract.state_names),):
        wrong.append(f"state: shape {state.shape}; {len(contract.state_names)} numbers: {list(contract.state_names)}")
    elif not np.isfinite(state).all():
        wrong.append(f"state: NaN or infinity in {_not_finite(state, contract.state_names)}")
    if not observation.instruction.strip():
        wrong.append("instruction: empty")
    if not math.isfinite(observation.time_s):
        wrong.append(f"time_s: {observation.time_s}")
    return wrong


def _check_names(contract: ActionContract, limits: Limits, moves: Mapping[str, Move]) -> None:
    driven = {move.state for move in moves.values()}
    named = {
        "ranges": (limits.ranges, contract.action_names),
        "moves": (moves, contract.action_names),
        "moves' states": (driven, contract.state_names),
        "workspace": (limits.workspace, driven),
        "speeds": (limits.speeds, driven),
    }
    for what, (names, known) in named.items():
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(
                f"limits: {what} name {unknown}, but there are {sorted(known)}; limits of the state act through "
                "the actions that drive it: name them in moves"
            )


def _bounds(limits: Mapping[str, Bounds], names: Any) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    ends = np.array([limits.get(name, (-np.inf, np.inf)) for name in names], np.float64).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


def _not_finite(values: Float[np.ndarray, "*any"], names: tuple[str, ...]) -> list[str]:
    bad = ~np.isfinite(values).reshape(-1, len(names)).all(axis=0)
    return [name for name, is_bad in zip(names, bad, strict=True) if is_bad]
