"""Work for tests of engines; worker processes import it by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def work(task: object) -> object:
    """Gives the task back, some later than others; "die" kills the worker, "bad" fails."""
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "bad":
        raise ValueError("bad thing")
    if isinstance(task, int):
        time.sleep(0.002 * (task % 3))
    return task


def noted(folder: Path, task: int) -> int:
    """Leaves a file that says that the task was begun."""
    (folder / str(task)).touch()
    return task
