"""Requests that wait for one model: bounded, in order, batched with their like, and worked on by one thread.

    queue = WorkQueue(work, batch_size=8)
    job = queue.submit(key, payload)          # Busy if too much is waiting
    job.future.result()                       # or .cancel()

Jobs of equal keys share a batch. `work` is a generator: wherever it yields, another batch may have its turn, so that a
long answer does not hold up a short one, and jobs that were cancelled are seen. One thread touches the model, whatever
the number of requests.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

import torch

from gemvlm.runtime import get_log

LONGEST_WAIT_S = 60


class Busy(Exception):  # noqa: N818 - a state of the queue
    """Too much is waiting; there may be room again in `wait_s` seconds."""

    def __init__(self, waiting: int, wait_s: int) -> None:
        super().__init__(f"{waiting} requests are waiting; try again in {wait_s} s")
        self.wait_s = wait_s


class Closed(Exception):  # noqa: N818 - a state of the queue
    """The queue takes nothing any more: the server is shutting down."""


@dataclass(eq=False)
class Job:
    """One request. `weight` is the memory in bytes that it holds while it waits; `on_piece` hears of partial results.

    One that must be `alone` shares no batch.
    """

    key: Hashable
    payload: Any
    weight: int = 0
    on_piece: Callable[[Any], None] | None = None
    alone: bool = False
    future: Future[Any] = field(default_factory=Future)
    spoke: bool = False

    @property
    def over(self) -> bool:
        """True once it has a result, failed, or was cancelled: nobody waits for it any more."""
        return self.future.done()

    def piece(self, value: Any) -> None:
        """A part of the result, for who listens."""
        if self.on_piece is not None and not self.over:
            self.spoke = True
            self.on_piece(value)

    def finish(self, result: Any) -> None:
        self._settle(self.future.set_result, result)

    def fail(self, error: BaseException) -> None:
        self._settle(self.future.set_exception, error)

    @staticmethod
    def _settle(settle: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(InvalidStateError):  # cancelled at this very moment
            settle(value)


Work = Callable[[Hashable, Sequence[Job]], Generator[None, None, None]]
"""Works on jobs of one key and settles each; yields wherever others may have their turn."""


@dataclass
class _Batch:
    jobs: list[Job]
    steps: Generator[None, None, None]
    began: float


class WorkQueue:
    """One thread and what waits for it.

    At most `waiting` jobs and `weight` bytes of payload wait, and a job that would wait longer than `patience_s` at the
    present pace is refused, too: a late answer helps nobody. `at_once` batches take turns. An idle worker waits
    `gather_s` for company before it begins. `observe(key, jobs, seconds)` is told of every batch that ended.
    """

    def __init__(
        self,
        work: Work,
        *,
        batch_size: int = 8,
        waiting: int = 64,
        weight: int = 2**30,
        at_once: int = 2,
        patience_s: float = 120.0,
        gather_s: float = 0.004,
        observe: Callable[[Hashable, int, float], None] | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("waiting", waiting), ("at_once", at_once)):
            if value < 1:
                raise ValueError(f"queue: {name} is {value}; it must be at least 1")
        self.batch_size, self.room, self.weight, self.at_once = batch_size, waiting, weight, at_once
        self.patience_s, self.gather_s = patience_s, gather_s
        self._work, self._observe = work, observe
        self._waiting: dict[Job, None] = {}
        self._held = 0
        self._active: deque[_Batch] = deque()
        self._pace_s = 0.0
        self._closed = self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="gemvlm-worker", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many jobs wait; those being worked on are not among them."""
        return len(self._waiting)

    @property
    def working(self) -> int:
        """How many jobs are being worked on."""
        return sum(len(batch.jobs) for batch in list(self._active))

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def closed(self) -> bool:
        return self._closed

    def submit(
        self,
        key: Hashable,
        payload: Any,
        *,
        weight: int = 0,
        on_piece: Callable[[Any], None] | None = None,
        alone: bool = False,
    ) -> Job:
        """Puts a job at the end of the queue. Raises Busy or Closed."""
        job = Job(key, payload, weight, on_piece, alone)
        with self._changed:
            if self._closed:
                raise Closed("the server is shutting down")
            expected_s = self._pace_s * len(self._waiting)
            full = len(self._waiting) >= self.room or (self._waiting and self._held + weight > self.weight)
            if full or expected_s > self.patience_s:
                raise Busy(len(self._waiting), min(LONGEST_WAIT_S, max(1, math.ceil(expected_s / 2))))
            self._waiting[job] = None
            self._held += weight
            self._changed.notify_all()
        job.future.add_done_callback(lambda _: self._forget(job))
        return job

    def close(self, wait_s: float = 60.0) -> bool:
        """Takes nothing new, finishes what is here for up to `wait_s`, fails the rest. True if all was finished."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(wait_s)
        finished = not self._thread.is_alive()
        with self._changed:
            self._abandoned = True
            left = [*self._waiting, *(job for batch in list(self._active) for job in batch.jobs if not job.over)]
        for job in left:
            job.fail(Closed("the server shut down before this was done"))
        return finished

    def _forget(self, job: Job) -> None:
        with self._changed:
            if job in self._waiting:
                self._take(job)

    def _take(self, job: Job) -> None:
        del self._waiting[job]
        self._held -= job.weight

    @torch.no_grad()
    def _run(self) -> None:
        while self._fill():
            batch = self._active[0]
            if self._advance(batch):
                self._active.rotate(-1)
            else:
                self._active.remove(batch)

    def _fill(self) -> bool:
        """Begins a batch where there is one to begin; False once nothing is left and nothing will come."""
        with self._changed:
            while True:
                if self._abandoned or (self._closed and not self._waiting and not self._active):
                    return False
                if self._active and (not self._waiting or len(self._active) >= self.at_once):
                    return True
                if not self._waiting:
                    self._changed.wait()
                    continue
                if not self._active and self.gather_s and not self._full_batch_waits():
                    self._changed.wait_for(self._full_batch_waits, self.gather_s)
                if self._waiting:  # not all cancelled meanwhile
                    jobs = self._next_jobs()
                    self._active.append(_Batch(jobs, self._work(jobs[0].key, jobs), time.monotonic()))
                    return True

    def _full_batch_waits(self) -> bool:
        return len(self._waiting) >= self.batch_size or self._closed

    def _next_jobs(self) -> list[Job]:
        """The oldest job and those that may share its batch, taken out of the queue."""
        head = next(iter(self._waiting))
        like = [job for job in self._waiting if job.key == head.key and not job.alone]
        jobs = [head] if head.alone else like[: self.batch_size]
        for job in jobs:
            self._take(job)
        return jobs

    def _advance(self, batch: _Batch) -> bool:
        """One step of a batch; False when it is over."""
        try:
            if not all(job.over for job in batch.jobs):
                next(batch.steps)
                return True
        except StopIteration:
            for job in batch.jobs:
                if not job.over:
                    job.fail(RuntimeError("the work ended without an answer"))
        except Exception as error:  # whatever work raises is the answer to its jobs; the thread must live
            self._failed(batch, error)
        batch.steps.close()
        seconds = time.monotonic() - batch.began
        each = seconds / len(batch.jobs) / max(1, len(self._active))
        self._pace_s = each if self._pace_s == 0 else 0.8 * self._pace_s + 0.2 * each
        if self._observe is not None:
            self._observe(batch.jobs[0].key, len(batch.jobs), seconds)
        return False

    def _failed(self, batch: _Batch, error: Exception) -> None:
        """One bad request must not take its neighbours along: each of a batch that failed is tried once more, alone."""
        left = [job for job in batch.jobs if not job.over]
        if len(batch.jobs) == 1 or self._abandoned:
            for job in left:
                job.fail(error)
            return
        get_log().warning("a batch of %d failed (%s); each is tried alone", len(batch.jobs), error)
        again: dict[Job, None] = {}
        for job in left:
            if job.spoke:
                job.fail(error)
            else:
                job.alone = True
                again[job] = None
        with self._changed:
            self._waiting = again | self._waiting
            self._held += sum(job.weight for job in again)
