"""The queue by itself: batches, bounds, cancelling, failures, the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Hashable, Sequence

import pytest

from gemvlm.serving.queue import Busy, Closed, Job, WorkQueue

PATIENCE_S = 20.0


class Worker:
    """Echoes payloads, batch by batch, and waits at a gate before each."""

    def __init__(self, steps: int = 1) -> None:
        self.gate, self.steps = threading.Event(), steps
        self.batches: list[list] = []
        self.turns: list[Hashable] = []

    def __call__(self, key: Hashable, jobs: Sequence[Job]) -> Generator[None, None, None]:
        self.batches.append([job.payload for job in jobs])
        assert self.gate.wait(PATIENCE_S)
        for step in range(self.steps):
            self.turns.append(key)
            for job in jobs:
                job.piece(step)
            yield
        if "poison" in [job.payload for job in jobs]:
            raise ValueError("poison")
        for job in jobs:
            job.finish(job.payload)


@pytest.fixture
def worker() -> Worker:
    return Worker()


def results(jobs: Sequence[Job]) -> list:
    return [job.future.result(PATIENCE_S) for job in jobs]


def occupied(queue: WorkQueue) -> Job:
    """A job that keeps the worker busy until the gate opens."""
    job = queue.submit("first", "first")
    while not queue.working:
        time.sleep(0.001)
    return job


def test_equal_keys_share_batches_in_order(worker: Worker) -> None:
    queue = WorkQueue(worker, batch_size=3, at_once=1, gather_s=0.0)
    first = occupied(queue)
    jobs = [queue.submit(key, number) for number, key in enumerate("aabaab")]
    alone = queue.submit("a", "alone", alone=True)
    worker.gate.set()
    assert results([first, *jobs, alone]) == ["first", 0, 1, 2, 3, 4, 5, "alone"]
    assert worker.batches == [["first"], [0, 1, 3], [2, 5], [4], ["alone"]]
    assert queue.close()


def test_a_full_queue_says_when_to_come_back(worker: Worker) -> None:
    queue = WorkQueue(worker, waiting=2, weight=100, at_once=1)
    first = occupied(queue)
    jobs = [queue.submit("a", 0, weight=60)]
    with pytest.raises(Busy, match="1 requests are waiting") as caught:
        queue.submit("a", 1, weight=60)
    assert 1 <= caught.value.wait_s <= 60
    jobs.append(queue.submit("a", 1, weight=40))
    with pytest.raises(Busy, match="2 requests are waiting"):
        queue.submit("a", 2)
    jobs[0].future.cancel()
    jobs[0] = queue.submit("a", 3, weight=60)
    worker.gate.set()
    assert results([first, *jobs]) == ["first", 3, 1]
    assert queue.close() and len(queue) == 0


def test_who_leaves_costs_nothing(worker: Worker) -> None:
    queue = WorkQueue(worker, at_once=1, gather_s=0.0)
    first = occupied(queue)
    jobs = [queue.submit("a", number) for number in range(4)]
    jobs[1].future.cancel()
    jobs[2].future.cancel()
    worker.gate.set()
    assert results([first, jobs[0], jobs[3]]) == ["first", 0, 3]
    assert worker.batches == [["first"], [0, 3]]
    queue.close()


def test_a_running_job_stops_when_all_have_left() -> None:
    worker = Worker(steps=100_000)
    worker.gate.set()
    queue = WorkQueue(worker, gather_s=0.0)
    job = occupied(queue)
    job.future.cancel()
    assert queue.close(PATIENCE_S)
    assert len(worker.turns) < 100_000


def test_batches_take_turns() -> None:
    worker = Worker(steps=50)
    queue = WorkQueue(worker, at_once=2, gather_s=0.0)
    first = occupied(queue)
    second = queue.submit("second", "second")
    worker.gate.set()
    assert results([first, second]) == ["first", "second"]
    assert worker.turns.index("second") < 45
    queue.close()


def test_one_bad_request_does_not_take_its_neighbours_along(worker: Worker) -> None:
    queue = WorkQueue(worker, at_once=1, gather_s=0.0)
    first = occupied(queue)
    good, bad, other = [queue.submit("a", payload) for payload in (1, "poison", 2)]
    worker.gate.set()
    assert results([first, good, other]) == ["first", 1, 2]
    with pytest.raises(ValueError, match="poison"):
        bad.future.result(PATIENCE_S)
    assert queue.alive
    queue.close()


def test_pieces_are_heard_once_even_if_the_batch_fails(worker: Worker) -> None:
    queue = WorkQueue(worker, at_once=1, gather_s=0.0)
    first, heard = occupied(queue), []
    listener = queue.submit("a", 1, on_piece=heard.append)
    poison = queue.submit("a", "poison")
    worker.gate.set()
    assert results([first]) == ["first"]
    for job in (listener, poison):
        with pytest.raises(ValueError, match="poison"):
            job.future.result(PATIENCE_S)
    assert heard == [0]
    queue.close()


def test_closing_finishes_what_is_queued(worker: Worker) -> None:
    queue = WorkQueue(worker, at_once=1)
    first = occupied(queue)
    jobs = [queue.submit("a", number) for number in range(20)]
    threading.Timer(0.05, worker.gate.set).start()
    assert queue.close(PATIENCE_S)
    assert results([first, *jobs]) == ["first", *range(20)]
    with pytest.raises(Closed):
        queue.submit("a", 1)


def test_closing_in_a_hurry_tells_everybody(worker: Worker) -> None:
    queue = WorkQueue(worker, at_once=1)
    jobs = [occupied(queue), *(queue.submit("a", number) for number in range(3))]
    assert not queue.close(0.05)
    for job in jobs:
        with pytest.raises(Closed):
            job.future.result(PATIENCE_S)
    worker.gate.set()


def test_work_without_an_answer_is_a_failure() -> None:
    queue = WorkQueue(lambda key, jobs: (None for _ in ()))
    with pytest.raises(RuntimeError, match="without an answer"):
        queue.submit("a", 1).future.result(PATIENCE_S)
    queue.close()


def test_a_job_that_would_wait_too_long_is_refused() -> None:
    def slow(key: Hashable, jobs: Sequence[Job]) -> Generator[None, None, None]:
        time.sleep(0.05)
        jobs[0].finish(None)
        yield

    queue = WorkQueue(slow, batch_size=1, patience_s=0.2, gather_s=0.0)
    queue.submit("a", 0).future.result(PATIENCE_S)
    with pytest.raises(Busy):
        for number in range(60):
            queue.submit("a", number)
    assert len(queue) < 20
    queue.close()


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        WorkQueue(lambda key, jobs: (None for _ in ()), batch_size=0)
