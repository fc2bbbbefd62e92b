"""Carries chunks out at a fixed rate while the next one is being computed elsewhere.

Each tick takes one action; the network and the policy are waited for on another thread only. In real-time chunking the
next chunk is asked for early, and is told which actions will still be executed until it arrives, so that it continues
the motion instead of breaking it. Otherwise a chunk is used up, and the robot waits for the next one.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Callable, Protocol

import numpy as np

from gemvlm_client.client import Chunk, Observation, RobotClient, ServerError


class Robot(Protocol):
    """What the runner needs of a robot. None of these may take longer than a tick."""

    def observe(self) -> Observation:
        """The newest pictures and state; `step` is filled in by the runner."""

    def act(self, action: np.ndarray) -> None:
        """Takes one action (dimension,), for one tick."""

    def stop(self, reason: str) -> None:
        """Comes to rest and stays there. Called once, whatever ended the run."""


@dataclass(frozen=True)
class RunReport:
    """What happened: `steps` actions in `ticks` ticks, in `waits` of which there was no action to take.

    `late` ticks came more than half a period after their time. `delays_s` are the seconds from each observation to its
    chunk, `errors` the last failures of the server or the way to it. `stopped` says what ended the run before its end.
    """

    steps: int
    ticks: int
    waits: int
    late: int
    chunks: int
    delays_s: Sequence[float]
    errors: Sequence[str]
    stopped: str | None


class ChunkRunner:
    """Runs a robot by a server's chunks at `rate_hz` (the policy's own by default).

    `real_time` chooses real-time chunking; `replan_steps` is after how many actions of a chunk the next one is asked
    for: by default as many as the server says that its policy was made for, at most half a chunk, or a whole one
    without real-time chunking. A run ends in a stop when for `patience_s`
    there was no action to take, or when the server says so.
    """

    def __init__(
        self,
        client: RobotClient,
        robot: Robot,
        *,
        rate_hz: float | None = None,
        real_time: bool = True,
        replan_steps: int | None = None,
        patience_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if replan_steps is not None and replan_steps < 1:
            raise ValueError(f"replan_steps is {replan_steps}; it must be at least 1")
        self.client, self.robot, self.rate_hz = client, robot, rate_hz
        self.real_time, self.replan_steps, self.patience_s = real_time, replan_steps, patience_s
        self._clock, self._sleep = clock, sleep

    def run(self, max_steps: int, done: Callable[[], bool] = lambda: False, *, seed: int | None = None) -> RunReport:
        """One episode: up to `max_steps` actions, or until `done()`. `seed` makes the server's answers repeatable.

        Whatever is raised, the robot is told to stop first.
        """
        with ThreadPoolExecutor(1, "gemvlm-infer") as thread:
            try:
                self.client.reset(seed)
                run = _Run(self, thread)
                return run.report(run.loop(max_steps, done))
            except BaseException as error:
                self.robot.stop(f"{type(error).__name__}: {error}")
                raise


class _Run:
    """The state of one run."""

    def __init__(self, runner: ChunkRunner, thread: ThreadPoolExecutor) -> None:
        self.runner, self.thread = runner, thread
        self.client, self.robot = runner.client, runner.robot
        rate_hz = runner.rate_hz or self.client.metadata.get("contract", {}).get("rate_hz")
        if not rate_hz:
            raise ValueError("the server does not say how many actions a second it means: give rate_hz")
        self.period_s = 1.0 / rate_hz
        self.chunk: Chunk | None = None
        self.asked: Future[Chunk] | None = None
        self.asked_s = 0.0
        self.step = self.ticks = self.waits = self.late = self.chunks = 0
        self.delays_s: deque[float] = deque(maxlen=4096)
        self.errors: deque[str] = deque(maxlen=16)

    def loop(self, max_steps: int, done: Callable[[], bool]) -> str | None:
        """Ticks until the end; returns why it was stopped before."""
        next_s = acted_s = self.runner._clock()
        while self.step < max_steps and not done():
            reason = self.collect()
            if reason is not None:
                return reason
            if self.asked is None and self.wants_chunk():
                self.ask()
            action = self.action()
            now_s = self.runner._clock()
            if action is not None:
                self.robot.act(action)
                self.step += 1
                acted_s = now_s
            else:
                self.waits += 1
                if now_s - acted_s > self.runner.patience_s:
                    last = f"; last: {self.errors[-1]}" if self.errors else ""
                    return f"no action for {self.runner.patience_s:g} s{last}"
            self.ticks += 1
            next_s = self.tick(next_s)
        return None

    def tick(self, next_s: float) -> float:
        """Waits for the next tick. Lost time is lost: a robot must not make up for it by hurrying."""
        next_s += self.period_s
        now_s = self.runner._clock()
        if now_s < next_s:
            self.runner._sleep(next_s - now_s)
        elif now_s - next_s > 0.5 * self.period_s:
            self.late += 1
            return now_s
        return next_s

    def collect(self) -> str | None:
        """Takes the answer if it has come; returns the reason if it is a stop."""
        if self.asked is None or not self.asked.done():
            return None
        asked, self.asked = self.asked, None
        try:
            chunk = asked.result()
        except (ServerError, OSError, TimeoutError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            return None
        self.delays_s.append(self.runner._clock() - self.asked_s)
        self.chunks += 1
        self.chunk = chunk
        return chunk.reason or "the server said stop" if chunk.stop else None

    def wants_chunk(self) -> bool:
        return self.chunk is None or self.step - self.chunk.step >= self.replan(self.chunk)

    def replan(self, chunk: Chunk) -> int:
        length = len(chunk.actions)
        if self.runner.replan_steps is not None:
            return min(self.runner.replan_steps, length)
        most = max(1, length // 2) if self.runner.real_time else length
        meant = self.runner.client.metadata.get("executed")
        return min(meant, most) if type(meant) is int and meant > 0 else most

    def ask(self) -> None:
        """Observes now; the answer is computed on the other thread."""
        committed = 0
        if self.runner.real_time and self.chunk is not None:
            used = self.step - self.chunk.step
            longest_s = max(list(self.delays_s)[-8:], default=0.0)
            committed = min(used + math.ceil(longest_s / self.period_s), len(self.chunk.actions))
        observation = replace(self.robot.observe(), step=self.step)
        self.asked_s = self.runner._clock()
        self.asked = self.thread.submit(self.client.infer, observation, committed=committed)

    def action(self) -> np.ndarray | None:
        """The action of this step, if the chunk at hand has one and may still be used."""
        if self.chunk is None:
            return None
        used = self.step - self.chunk.step
        end = len(self.chunk.actions) if self.runner.real_time else self.replan(self.chunk)
        return self.chunk.actions[used] if used < end else None

    def report(self, stopped: str | None) -> RunReport:
        """Ends the run: the robot comes to rest."""
        self.robot.stop(stopped or "the run is over")
        return RunReport(
            self.step,
            self.ticks,
            self.waits,
            self.late,
            self.chunks,
            tuple(self.delays_s),
            tuple(self.errors),
            stopped,
        )
