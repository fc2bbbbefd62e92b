"""All tasks of an experiment, several at once, each in a process of its own that this one looks after.

A signal to stop (SIGTERM, SIGINT) is passed on: every training ends after the step it is in and saves, and only then
does this process end. Children have a process group of their own, so that Ctrl-C reaches them once, from here. If this
process is killed, its children see their standard input end, and stop in the same way.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

from gemvlm.runtime import available_cores, get_log
from gemvlm.training.signals import Stopped, StopRequest

PAUSE_S = 1.0
LOG = "log.txt"
LOOKED_AFTER = "GEMVLM_LOOKED_AFTER"
"""Set for children, whose standard input ends when the parent does."""


@runtime_checkable
class Named(Protocol):
    """A task: a name by which the command line knows it, and a folder in the experiment's."""

    @property
    def name(self) -> str: ...

    def folder(self, out: Path) -> Path: ...


T = TypeVar("T", bound=Named)


@dataclass(frozen=True)
class Work(Generic[T]):
    """All tasks in their order, whether one is finished, and whether what it stands on is."""

    tasks: Sequence[T]
    is_finished: Callable[[T], bool]
    is_ready: Callable[[T], bool]

    def left(self) -> list[T]:
        return [task for task in self.tasks if not self.is_finished(task)]


Words = Callable[[T, float | None], list[str]]
"""The command line that carries a task out within so many minutes."""


def carry_all_out(
    name: str,
    work: Work[T],
    out: Path,
    *,
    options: Sequence[str] = (),
    jobs: int = 1,
    minutes: float | None = None,
) -> list[T]:
    """All tasks of experiment `name` that are not finished, `jobs` at once, until `minutes` are over.

    `options` are those of its command that every task needs. Returns those that failed: a task that fails leaves its
    log and does not stop those that need it not. `Stopped` after a signal, when every child has ended.
    """

    def words(task: T, left: float | None) -> list[str]:
        found = [sys.executable, "-m", "gemvlm", "experiment", name, "--out", str(out), "--task", task.name, *options]
        return found + ([] if left is None else ["--minutes", f"{left:.2f}"])

    with StopRequest() as stop:
        return look_after(work, out, words, jobs, minutes, stop)


def end_with_parent() -> None:
    """In a child of `look_after`: told to stop once the parent has ended, in whatever way. Nothing elsewhere."""
    if os.environ.get(LOOKED_AFTER) != "1":
        return

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="gemvlm-parent", daemon=True).start()


def look_after(
    work: Work[T], out: Path, words: Words[T], jobs: int, minutes: float | None, stop: StopRequest
) -> list[T]:
    """Starts what is ready and waits for it; whatever is raised here, no child is left behind."""
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    running: dict[T, subprocess.Popen[bytes]] = {}
    failed: list[T] = []
    try:
        while not stop.signal:
            failed += _ended(running, out)
            left = None if deadline is None else (deadline - time.monotonic()) / 60
            if left is None or left > 0:
                waiting = [task for task in work.left() if task not in failed and task not in running]
                for task in [task for task in waiting if work.is_ready(task)][: jobs - len(running)]:
                    running[task] = _start(task, words(task, left), out, max(1, available_cores() // jobs))
            if not running:
                return failed
            time.sleep(PAUSE_S)
        get_log().warning("told to stop: %d trainings save and end; the same command goes on", len(running))
        raise Stopped(stop.signal)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _ended(running: dict[T, subprocess.Popen[bytes]], out: Path) -> list[T]:
    """Takes those out that have ended; returns those of them that failed."""
    failed = []
    for task, process in list(running.items()):
        if process.poll() is not None:
            del running[task]
            if process.returncode:
                failed.append(task)
                get_log().error("%s failed (exit status %d); see %s", task.name, process.returncode, log_of(task, out))
    return failed


def log_of(task: Named, out: Path) -> Path:
    """What the task's process said."""
    return task.folder(out) / LOG


def _start(task: Named, words: list[str], out: Path, threads: int) -> subprocess.Popen[bytes]:
    task.folder(out).mkdir(parents=True, exist_ok=True)
    get_log().info("%s begins", task.name)
    with log_of(task, out).open("ab") as log:
        own = {"OMP_NUM_THREADS": str(threads)} | os.environ | {LOOKED_AFTER: "1"}
        return subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, process_group=0, env=own
        )
