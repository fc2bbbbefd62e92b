"""One world in which one episode is played at a time: what runs where the simulator lives, without any policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from gemvlm.evaluation.rollout.video import VideoFile
from gemvlm.robot import ActionContract, RobotObservation
from gemvlm.worlds.robot_world import RobotWorld

WorldMaker = Callable[[str], RobotWorld]
"""Makes the world of a task by its name; a function of a module, since processes of workers import it."""


@dataclass(frozen=True)
class WorldFacts:
    """What a world says about itself, for the check before the first step and for the record."""

    contract: ActionContract
    horizon: int
    test_starts: range
    protocol: Mapping[str, str]


@dataclass(frozen=True)
class Job:
    """An episode to begin: `task` from `start`, at most `steps` actions, over at the first success or not.

    `video` is where its pictures go, None for none.
    """

    task: str
    start: int
    steps: int
    stops_at_success: bool
    video: Path | None = None


@dataclass(frozen=True)
class Orders:
    """What a lane does before the policy is asked again: these actions, or `steps` of the world's own expert."""

    actions: Float32[np.ndarray, "T A"] | None = None
    steps: int = 0


@dataclass(frozen=True)
class Moment:
    """Where a lane's episode stands. After an `error` there is no observation, and the episode is over."""

    observation: RobotObservation | None
    facts: WorldFacts | None = None
    steps: int = 0
    first_success: int | None = None
    done: bool = False
    over: bool = False
    error: str | None = None


class Lane:
    """Keeps the world of the last task, as making one costs seconds. An error of the world ends the episode alone."""

    def __init__(self, make: WorldMaker) -> None:
        self._make = make
        self._world: RobotWorld | None = None
        self._task = ""
        self._job: Job | None = None
        self._video: VideoFile | None = None
        self._steps, self._first = 0, None  # type: int, int | None

    def meet(self, task: str) -> WorldFacts:
        """Makes the world, if it is not there, and says what it is. Raises what the maker raises."""
        if self._world is None or self._task != task:
            self.close()
            self._world, self._task = self._make(task), task
        world = self._world
        return WorldFacts(world.contract, world.horizon, world.test_starts, dict(world.protocol))

    def begin(self, job: Job) -> Moment:
        """Puts the world to the start."""
        self._steps, self._first = 0, None
        try:
            facts = self.meet(job.task)
            assert self._world is not None
            self._job = job
            observation = self._world.reset(job.start)
            if job.video is not None:
                title = f"{job.task} · start {job.start}"
                self._video = VideoFile(job.video, title, job.steps, facts.contract.rate_hz)
                self._video.add(observation.images, 0, self._world.succeeded())
        except Exception as error:  # a simulator may raise anything, and one bad start must not end a run of hours
            return self._broken(error)
        return Moment(observation, facts)

    def execute(self, orders: Orders) -> Moment:
        """Acts until the orders, the steps or the episode end."""
        if self._world is None or self._job is None:
            return Moment(None, over=True, error="the process of this world ended")
        done, count = False, orders.steps if orders.actions is None else len(orders.actions)
        observation: RobotObservation | None = None
        try:
            for index in range(min(count, self._job.steps - self._steps)):
                action = self._world.expert_action() if orders.actions is None else orders.actions[index]
                if action is None:
                    raise ValueError(f"{self._world.name} has no scripted expert")
                observation, done = self._world.step(action)
                self._steps += 1
                if done and self._first is None:
                    self._first = self._steps
                if self._video is not None:
                    self._video.add(observation.images, self._steps, done)
                if done and self._job.stops_at_success:
                    break
            over = self._steps == self._job.steps or (done and self._job.stops_at_success)
            if over:
                self._end(done)
        except Exception as error:  # as above
            return self._broken(error)
        return Moment(observation, None, self._steps, self._first, done, over)

    def stop(self) -> None:
        """Ends an episode that will not go on, as after an error of the policy."""
        self._end(False)

    def close(self) -> None:
        self._end(False)
        if self._world is not None:
            world, self._world = self._world, None
            world.close()

    def _end(self, done: bool) -> None:
        if self._video is not None:
            video, self._video = self._video, None
            video.close(done, self._first)
        self._job = None

    def _broken(self, error: Exception) -> Moment:
        """The world is not used again: whatever raised may have left it between two states."""
        told = f"{type(error).__name__}: {error}"
        try:
            self.close()
        except Exception as second:  # closing what is broken may raise as well; the first reason is the one to keep
            told += f" (and closing it: {type(second).__name__})"
            self._world, self._video = None, None
        return Moment(None, None, self._steps, self._first, over=True, error=told)
