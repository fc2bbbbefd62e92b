"""A policy on its own thread: robots that wait are answered together, and the event loop goes on answering pings."""

from __future__ import annotations

import time
from collections.abc import Generator, Hashable, Mapping, Sequence

import numpy as np

from gemvlm.robot import ActionChunk, Committed, Policy, RobotObservation
from gemvlm.serving.queue import Job, WorkQueue
from gemvlm.serving.robot_latency import Latencies
from gemvlm.serving.robot_session import Turn


class PolicyError(RuntimeError):
    """The policy failed, or answered what its contract does not allow."""


class PolicyWorker:
    """One thread that asks a policy.

    At most `max_waiting` observations wait, none that would wait longer than `patience_s`; up to `max_batch` are asked
    together. Nobody waits for company: a robot that is alone is answered at once.
    """

    def __init__(self, policy: Policy, max_batch: int, max_waiting: int, patience_s: float) -> None:
        self.policy = policy
        self.queue = WorkQueue(
            self._work, batch_size=max_batch, waiting=max_waiting, at_once=1, gather_s=0.0, patience_s=patience_s
        )
        self.inference = Latencies()
        self._since_s: float | None = None

    @property
    def working_s(self) -> float:
        """How long the policy has been at its present batch; 0 if it is idle."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def submit(self, turn: Turn) -> Job:
        """The job whose future will hold (ActionChunk, seconds of inference). Raises Busy or Closed."""
        return self.queue.submit("act", turn)

    def warm_up(self, sizes: Mapping[str, tuple[int, int]]) -> list[float]:
        """Asks about black pictures of each camera's (height, width), alone, then with committed actions; seconds of
        each.

        A model's first call compiles, allocates and reads; a robot should not wait for that. PolicyError or whatever
        the policy raises if it can't answer: better at the start than with a robot in motion.
        """
        contract = self.policy.contract
        images = {camera: np.zeros((*size, 3), np.uint8) for camera, size in sizes.items()}
        observation = RobotObservation(images, np.zeros(len(contract.state_names), np.float32), "wait")
        seconds, committed = [], None
        for _ in range(2):
            turn = Turn(observation, seed=0, committed=committed, received_s=0.0, age_s=0.0)
            chunk, took_s = self.submit(turn).future.result()
            seconds.append(took_s)
            committed = Committed(chunk.actions, 1)
        return seconds

    def close(self) -> None:
        """Ends the thread; what waits is refused. A policy that hangs is left behind."""
        self.queue.close(wait_s=5.0)

    def _work(self, key: Hashable, jobs: Sequence[Job]) -> Generator[None, None, None]:
        turns = [job.payload for job in jobs]
        self._since_s = began_s = time.monotonic()
        try:
            chunks = self.policy.act(
                [turn.observation for turn in turns],
                [turn.seed for turn in turns],
                [turn.committed for turn in turns],
            )
            if len(chunks) != len(turns):
                raise PolicyError(f"{len(turns)} observations were answered with {len(chunks)} chunks")
            for chunk in chunks:
                self._check(chunk)
        finally:
            self._since_s = None
        took_s = time.monotonic() - began_s
        for job, chunk in zip(jobs, chunks, strict=True):
            self.inference.add(took_s)
            job.finish((chunk, took_s))
        yield from ()

    def _check(self, chunk: ActionChunk) -> None:
        names, horizon = self.policy.contract.action_names, self.policy.horizon
        actions = chunk.actions
        if actions.ndim != 2 or actions.shape[1] != len(names) or not 0 < len(actions) <= horizon:
            raise PolicyError(
                f"actions of shape {actions.shape} where at most {horizon} of {len(names)} numbers were promised"
            )
