"""SIGTERM and SIGINT as a wish to stop, granted at the end of a step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Inside, the first SIGTERM or SIGINT is remembered in `signal`; a second one acts as if nobody listened.

    Worker processes inherit the handler, but only the process that made it is stopped so.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._owner = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        worker = os.getpid() != self._owner
        if worker and number == signal.SIGINT:
            return  # the terminal tells every process; a worker ends when its training does
        if worker or self.signal:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.signal = int(number)


class Stopped(SystemExit):
    """A signal ended the run after a checkpoint; the exit code is 128 + the signal's number, as shells have it."""

    def __init__(self, number: int):
        super().__init__(128 + number)
