"""All tasks of an experiment, several at once, each in a process of its own that this one looks after.

A signal to stop (SIGTERM, SIGINT) is passed on: every training ends after the step it is in and saves, and only then
does this process end. Children have a process group of their own, so that Ctrl-C reaches them once, from here.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from gemvlm.experiments.arm import get_arm
from gemvlm.experiments.execute import NOTHING, Given, is_done, is_finished, prepare
from gemvlm.experiments.experiment import Experiment, Task
from gemvlm.runtime import get_log
from gemvlm.training.signals import Stopped, StopRequest

PAUSE_S = 1.0
LOG = "log.txt"

Children = dict[Task, subprocess.Popen[bytes]]
Words = Callable[[Task, float | None], list[str]]
"""The command line that carries a task out within so many minutes."""


def carry_all_out(
    experiment: Experiment,
    out: Path,
    *,
    jobs: int = 1,
    minutes: float | None = None,
    device: str | None = None,
    given: Given = NOTHING,
) -> list[Task]:
    """All tasks that are not finished, `jobs` at once, until `minutes` are over. Returns those that failed.

    A task that fails leaves its log and does not stop those that need it not. `Stopped` after a signal, when every
    child has ended.
    """

    def words(task: Task, left: float | None) -> list[str]:
        found = [sys.executable, "-m", "gemvlm", "experiment", experiment.name, "--out", str(out), "--task", task.name]
        found += [] if device is None else ["--device", device]
        return found + given.words() + ([] if left is None else ["--minutes", f"{left:.2f}"])

    prepare(experiment, out, given)
    with StopRequest() as stop:
        return look_after(experiment, out, words, jobs, minutes, stop)


def look_after(
    experiment: Experiment, out: Path, words: Words, jobs: int, minutes: float | None, stop: StopRequest
) -> list[Task]:
    """Starts what is ready and waits for it; whatever happens here, no child is left behind."""
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    running: Children = {}
    failed: list[Task] = []
    try:
        while not stop.signal:
            failed += _ended(running, out)
            left = None if deadline is None else (deadline - time.monotonic()) / 60
            if left is None or left > 0:
                waiting = [t for t in experiment.tasks() if t not in failed and t not in running]
                for task in _ready(waiting, experiment, out)[: jobs - len(running)]:
                    running[task] = _start(task, words(task, left), out)
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


def _ended(running: Children, out: Path) -> list[Task]:
    """Takes those out that have ended; returns those of them that failed."""
    failed = []
    for task, process in list(running.items()):
        if process.poll() is not None:
            del running[task]
            if process.returncode:
                failed.append(task)
                get_log().error("%s failed (exit status %d); see %s", task.name, process.returncode, log_of(task, out))
    return failed


def _ready(waiting: Iterable[Task], experiment: Experiment, out: Path) -> list[Task]:
    return [t for t in waiting if not is_finished(t, experiment, out) and is_ready(t, experiment, out)]


def is_ready(task: Task, experiment: Experiment, out: Path) -> bool:
    """Whether what the task stands on is done: its seed's stage 0, the pilot, and the runs that set its length."""
    if task.arm is None:
        return True
    needs = [Task(None, task.seed)] if experiment.pretrains else []
    if task.rate is None and len(experiment.rates) > 1:
        needs += [Task(arm, experiment.pilot_seed, rate) for arm in experiment.tuned for rate in experiment.rates]
    if get_arm(task.arm).matching == "compute":
        needs += [Task(arm, experiment.seeds[0]) for arm in ("text", "depth")]
    return all(is_done(need, experiment, out) for need in needs)


def log_of(task: Task, out: Path) -> Path:
    """What the task's process said."""
    return task.folder(out) / LOG


def _start(task: Task, words: list[str], out: Path) -> subprocess.Popen[bytes]:
    task.folder(out).mkdir(parents=True, exist_ok=True)
    get_log().info("%s begins", task.name)
    with log_of(task, out).open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, process_group=0)
