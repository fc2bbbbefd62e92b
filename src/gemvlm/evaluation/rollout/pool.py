"""Lanes side by side, in this process or spread over others: what they answer does not depend on where they are.

Lane number i lives in process i modulo the number of processes. Processes are started afresh (spawned), so that
neither threads nor a simulator's graphics are inherited; one that dies or hangs takes only its lanes' episodes along.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from gemvlm.evaluation.rollout.lane import Job, Lane, Moment, Orders, WorldFacts, WorldMaker

PATIENCE_S = 600.0
"""How long a process may take for one round before it counts as hung."""


class Pool:
    """`lanes` lanes; `workers` 0 keeps them in this process, else they are spread over so many others."""

    def __init__(self, make: WorldMaker, lanes: int, workers: int = 0, patience_s: float = PATIENCE_S) -> None:
        if lanes < 1 or workers < 0:
            raise ValueError(f"{lanes} lanes in {workers} processes: give at least one lane, and 0 processes for this")
        count = min(workers, lanes)
        self._places: list[_Here | _Process] = [_Process(make, patience_s) for _ in range(count)] or [_Here(make)]

    def meet(self, task: str) -> WorldFacts:
        """What the world of a task says about itself. ValueError with the reason if it can't be made."""
        self._places[0].ask("meet", {0: task})
        facts = self._places[0].answer()[0]
        if isinstance(facts, Moment):
            raise ValueError(f"the world of task {task!r} can't be made: {facts.error}")
        return facts

    def begin(self, jobs: Mapping[int, Job]) -> dict[int, Moment]:
        """Puts the named lanes to their starts."""
        return self._all("begin", jobs)

    def execute(self, orders: Mapping[int, Orders]) -> dict[int, Moment]:
        """Lets the named lanes act."""
        return self._all("execute", orders)

    def stop(self, lanes: list[int]) -> None:
        """Ends the episodes of the named lanes."""
        self._all("stop", dict.fromkeys(lanes))

    def close(self) -> None:
        for place in self._places:
            place.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _all(self, verb: str, of_lanes: Mapping[int, Any]) -> dict[int, Any]:
        count = len(self._places)
        parts = [{lane: of for lane, of in of_lanes.items() if lane % count == index} for index in range(count)]
        asked = [(place, part) for place, part in zip(self._places, parts, strict=True) if part]
        for place, part in asked:
            place.ask(verb, part)
        answers: dict[int, Any] = {}
        for place, _ in asked:
            answers |= place.answer()
        return {lane: answers[lane] for lane in of_lanes}


def _carry_out(lanes: dict[int, Lane], make: WorldMaker, verb: str, of_lanes: Mapping[int, Any]) -> dict[int, Any]:
    answers: dict[int, Any] = {}
    for number, argument in of_lanes.items():
        lane = lanes.setdefault(number, Lane(make))
        if verb == "meet":
            try:
                answers[number] = lane.meet(argument)
            except Exception as error:  # whatever a maker raises is told to the user as one line
                answers[number] = Moment(None, over=True, error=f"{type(error).__name__}: {error}")
        elif verb == "begin":
            answers[number] = lane.begin(argument)
        elif verb == "execute":
            answers[number] = lane.execute(argument)
        else:
            lane.stop()
            answers[number] = None
    return answers


class _Here:
    """Lanes in this process."""

    def __init__(self, make: WorldMaker) -> None:
        self._make, self._lanes, self._answers = make, {}, {}  # type: WorldMaker, dict[int, Lane], dict[int, Any]

    def ask(self, verb: str, of_lanes: Mapping[int, Any]) -> None:
        self._answers = _carry_out(self._lanes, self._make, verb, of_lanes)

    def answer(self) -> dict[int, Any]:
        return self._answers

    def close(self) -> None:
        for lane in self._lanes.values():
            lane.close()


class _Process:
    """Lanes in a process of their own, started when first asked and again after it died."""

    def __init__(self, make: WorldMaker, patience_s: float) -> None:
        self._make, self._patience_s = make, patience_s
        self._process: Any = None
        self._pipe: Connection | None = None
        self._asked: list[int] = []
        self._lost = ""

    def ask(self, verb: str, of_lanes: Mapping[int, Any]) -> None:
        self._asked, self._lost = list(of_lanes), ""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._make), daemon=True)
            self._process.start()
            theirs.close()
        assert self._pipe is not None
        try:
            self._pipe.send((verb, dict(of_lanes)))
        except OSError:
            self._lose("ended")

    def answer(self) -> dict[int, Any]:
        if not self._lost and self._pipe is not None:
            try:
                if self._pipe.poll(self._patience_s):
                    return self._pipe.recv()
                self._lose(f"gave no answer in {self._patience_s:.0f} s and was stopped")
            except (EOFError, OSError):
                self._lose("ended")
        return {lane: Moment(None, over=True, error=f"the process of this world {self._lost}") for lane in self._asked}

    def close(self) -> None:
        if self._process is not None and self._pipe is not None:
            try:
                self._pipe.send(None)
                self._process.join(10)
            except OSError:
                pass  # it ended by itself
            self._lose("was closed")

    def _lose(self, how: str) -> None:
        self._process.join(1)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        self._lost = f"{how} (exit code {code})" if code else how
        if self._pipe is not None:
            self._pipe.close()
        self._process, self._pipe = None, None


def _serve(pipe: Connection, make: WorldMaker) -> None:
    lanes: dict[int, Lane] = {}
    try:
        while (asked := pipe.recv()) is not None:
            pipe.send(_carry_out(lanes, make, *asked))
    except (EOFError, KeyboardInterrupt):
        pass  # the one who asks is gone, or the user ends both
    for lane in lanes.values():
        lane.close()
