"""One robot's connection: its episode, its seeds, how old its pictures are, and what it is in the middle of doing.

Real-time chunking (Black, Galliker and Levine, "Real-Time Execution of Action Chunking Flow Policies", 2025): the robot
goes on with its previous chunk while the next one is computed. At an observation of step s it says how many actions of
the previous chunk, counted from that chunk's own observation, will have run when the answer arrives:

    previous chunk, of step p   a0  a1  a2  a3  a4  a5  a6  a7
                                         |           |
                                  seen: step s   arrives: `committed` = 6
    new chunk, of step s                 b0  b1  b2  b3  b4  b5  b6  b7      b0..b3 continue a2..a5

The policy gets a[s - p : committed] as the beginning that can't be changed any more, and the rest of a to stay near to,
the less the later.
"""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from gemvlm.robot import ActionChunk, ActionContract, Committed, RobotObservation
from gemvlm.robot.limits import Guard, Limits
from gemvlm.serving.robot_requests import Question, RequestError


class Age:
    """How old an observation is, by two clocks that need not agree nor keep the same pace for long.

    On the robot's own clock a message was `sent_s - time_s` after its pictures; the way here took as much longer than
    the fastest of the last messages as its clocks differ more. Where the robot says only when it looked, the age is
    how much later than the freshest of the last observations it came: a camera that stands still grows old.
    """

    def __init__(self) -> None:
        self._differences: deque[float] = deque(maxlen=256)

    def of(self, question: Question, received_s: float) -> float:
        """Seconds between an observation's pictures and its receipt; 0 where the robot says no time."""
        stamp = question.time_s if question.sent_s is None else question.sent_s
        if stamp is None:
            return 0.0
        self._differences.append(received_s - stamp)
        way_s = received_s - stamp - min(self._differences)
        return way_s if question.time_s is None else way_s + stamp - question.time_s


@dataclass(frozen=True)
class Turn:
    """An observation on its way to the policy. `age_s` is its age at `received_s`, on the server's clock.

    `previous` is the action that the robot was last given before it, where that is known.
    """

    observation: RobotObservation
    seed: int
    committed: Committed | None
    received_s: float
    age_s: float
    previous: Float32[np.ndarray, "A"] | None = None


class Session:
    """What the server remembers of one connection between two observations."""

    def __init__(self, contract: ActionContract, horizon: int, limits: Limits, seed: int) -> None:
        self.contract, self.horizon, self.limits, self._first_seed = contract, horizon, limits, seed
        self.guard = Guard(contract, limits)
        self.reset(None)

    def reset(self, seed: int | None) -> int:
        """Begins an episode; returns the seed that its answers derive from."""
        self.seed = self._first_seed if seed is None else seed
        self._age = Age()
        self._previous: ActionChunk | None = None
        self._step = self._answers = 0
        return self.seed

    def begin(self, question: Question, received_s: float) -> Turn:
        """What the policy is to be asked. RequestError where the question does not fit what went before."""
        step = self._answers if question.step is None else question.step
        if question.step is not None and step < self._step:
            raise RequestError(f"step: {step} after {self._step}; send a reset when an episode begins")
        committed = self._committed(question)
        seed = zlib.crc32(f"{self.seed} {step}".encode()) if question.seed is None else question.seed
        observation = replace(question.observation, step=step)
        age_s = self._age.of(question, received_s)
        return Turn(observation, seed, committed, received_s, age_s, self._last_action(question))

    def stale(self, turn: Turn) -> str | None:
        """Why there is no use in asking the policy at all."""
        if turn.age_s <= self.limits.stale_after_s:
            return None
        return f"the observation is {turn.age_s:.2f} s old, at most {self.limits.stale_after_s:g} s are answered"

    def stop(self, turn: Turn, reason: str) -> dict[str, Any]:
        """The answer that keeps the robot still."""
        actions = self.guard.hold(self.horizon, turn.observation.state, turn.previous)
        return self._answer(turn, ActionChunk(actions, self.contract.rate_hz), [], reason)

    def answer(self, turn: Turn, chunk: ActionChunk, now_s: float) -> dict[str, Any]:
        """The policy's chunk inside the limits, or a stop, as it is sent: `stop`, `reason` and `limited` say which."""
        age_s = turn.age_s + now_s - turn.received_s
        limited = self.guard.limit(chunk.actions, turn.observation.state, age_s, turn.previous)
        cut = [str(clipped) for clipped in limited.clipped]
        return self._answer(turn, ActionChunk(limited.actions, chunk.rate_hz), cut, limited.stopped)

    def _answer(self, turn: Turn, chunk: ActionChunk, limited: list[str], stopped: str | None) -> dict[str, Any]:
        self._previous = None if stopped else chunk
        self._step, self._answers = turn.observation.step, self._answers + 1
        return {
            "actions": np.ascontiguousarray(chunk.actions, np.float32),
            "rate_hz": float(chunk.rate_hz),
            "step": turn.observation.step,
            "seed": turn.seed,
            "committed": 0 if turn.committed is None else turn.committed.fixed,
            "stop": stopped is not None,
            "reason": stopped or "",
            "limited": limited,
        }

    def _last_action(self, question: Question) -> Float32[np.ndarray, "A"] | None:
        if self._previous is None or question.step is None:
            return None
        used = question.step - self._step
        return self._previous.actions[used - 1] if 1 <= used <= len(self._previous.actions) else None

    def _committed(self, question: Question) -> Committed | None:
        """The rest of the previous chunk; fixed is what will run between this observation and its answer."""
        if question.committed == 0:
            return None
        if question.step is None:
            raise RequestError("committed: needs `step`, the number of actions executed since the episode began")
        if self._previous is None:
            raise RequestError("committed: there is no previous chunk in this episode to go on with; leave it out")
        start, length = question.step - self._step, len(self._previous.actions)
        if not start <= question.committed <= length:
            raise RequestError(
                f"committed: must lie between the {start} actions already executed and the {length} of the previous "
                f"chunk, is {question.committed}"
            )
        fixed = question.committed - start
        return Committed(self._previous.actions[start:], fixed) if fixed else None
