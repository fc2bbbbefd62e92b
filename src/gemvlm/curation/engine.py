"""Who carries the work out: processes of this machine, or a Ray cluster. Results come in the order of the tasks.

    with engine_of("local", processes=2) as engine:
        for result in engine.run(work, tasks): ...

`work(task)` must be picklable and write what it makes to disk, all or nothing: an engine may begin a task twice, or one
whose result nobody waits for any more (the reader of `run` may stop early).
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Literal, Protocol, runtime_checkable

EngineName = Literal["local", "ray"]

AHEAD = 4
"""Results per process that may wait for the reader: a slow part holds nobody up, and memory stays bounded."""

RAY_BLOCKS = 2000
"""Blocks that Ray schedules at most; more tasks than that share blocks."""

RAY_RETRIES = 3
"""How often Ray begins a task again whose worker died."""


@runtime_checkable
class Engine(Protocol):
    """A context: its workers live while it is open, over several calls of `run`."""

    def __enter__(self) -> Engine: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: Any) -> None: ...

    def run(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]: ...


def engine_of(name: EngineName, processes: int = 1, address: str | None = None) -> Engine:
    """The engine of that name; `address` is a Ray cluster's, by default one is started on this machine."""
    if processes < 1:
        raise ValueError(f"engine: {processes} processes can do no work; give 1 or more")
    if name == "ray":
        return RayEngine(processes, address)
    if address is not None:
        raise ValueError(f"engine {name!r} runs on this machine; for the cluster at {address} add --engine ray")
    return LocalEngine(processes)


class LocalEngine:
    """Spawned processes, each with one task at a time; with one process the work is done in this one.

    ChildProcessError, naming the task, if a process dies in its work; an error of the work itself is raised as it is.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._workers: list[_Worker] = []

    def __enter__(self) -> LocalEngine:
        if self._processes > 1:
            self._workers = [_Worker() for _ in range(self._processes)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers = []

    def run(self, work: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """Results in order; at most `AHEAD` per process are made before they are asked for."""
        if not self._workers:
            yield from map(work, tasks)
            return
        waiting = enumerate(tasks)
        busy: dict[_Worker, int] = {}
        done: dict[int, Any] = {}
        turn = 0
        try:
            while True:
                for worker in self._workers:
                    if worker in busy or len(busy) + len(done) >= AHEAD * self._processes:
                        continue
                    if (item := next(waiting, None)) is None:
                        break
                    worker.begin(work, item[1])
                    busy[worker] = item[0]
                if turn in done:
                    yield done.pop(turn)
                    turn += 1
                elif busy:
                    for worker in _ready(busy):
                        number = busy.pop(worker)
                        done[number] = worker.result()
                else:
                    return
        finally:
            for worker in busy:
                worker.forget()


class _Worker:
    """A process that does one piece of work after another."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self._task: Any = None
        self._forgotten = 0

    def begin(self, work: Callable[[Any], Any], task: Any) -> None:
        self._task = task
        try:
            self.connection.send((work, task))
        except OSError as error:
            raise self._death() from error

    def result(self) -> Any:
        """Waits for the task. Results that were forgotten come first, and are dropped."""
        while True:
            try:
                good, value, trace = self.connection.recv()
            except (EOFError, OSError) as error:
                raise self._death() from error
            if self._forgotten:
                self._forgotten -= 1
                continue
            if not good:
                raise _noted(value, f"while a worker made {self._task}", trace)
            return value

    def forget(self) -> None:
        """Nobody will ask for the result of the task at hand."""
        self._forgotten += 1

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()

    def _death(self) -> ChildProcessError:
        self.process.join(5)
        code = self.process.exitcode
        how = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        return ChildProcessError(
            f"the process that made {self._task} died ({how}); if it was killed for memory, use fewer processes: the "
            "same command goes on where it stopped"
        )


def _ready(busy: Iterable[_Worker]) -> list[_Worker]:
    """Workers that have something to say, or never will again; at least one, after a wait."""
    by_handle: dict[Any, _Worker] = {}
    for worker in busy:
        by_handle |= {worker.connection: worker, worker.process.sentinel: worker}
    return list(dict.fromkeys(by_handle[handle] for handle in wait(list(by_handle))))


def _serve(connection: Connection) -> None:
    """The life of a worker process; it ends when nobody is left at the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            work, task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(_answer(work, task))
        except OSError:
            return


def _answer(work: Callable[[Any], Any], task: Any) -> tuple[bool, Any, str]:
    """(True, result, "") or (False, error, its traceback)."""
    try:
        return True, work(task), ""
    except Exception as error:
        return False, _sendable(error), traceback.format_exc()


def _noted(error: Exception, where: str, trace: str) -> Exception:
    error.add_note(f"{where}:\n{trace}")
    return error


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class RayEngine:
    """Ray Data: one row per task, streamed in order. The work folder must be one that every node sees.

    Needs the extra `curate`. Without an address a cluster of this machine alone is started, with `processes` slots.
    """

    def __init__(self, processes: int, address: str | None) -> None:
        self._processes, self._address = processes, address

    def __enter__(self) -> RayEngine:
        ray = _import_ray()
        local = {} if self._address else {"num_cpus": self._processes, "include_dashboard": False}
        ray.init(self._address or "local", log_to_driver=False, logging_level="ERROR", **local)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _import_ray().shutdown()

    def run(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        """Results in order. An error of the work is raised as it is; ChildProcessError if workers keep dying."""
        if not tasks:
            return
        ray = _import_ray()
        rows = [{"task": pickle.dumps(task)} for task in tasks]
        blocks = min(len(rows), RAY_BLOCKS)
        dataset = ray.data.from_items(rows, override_num_blocks=blocks)
        with warnings.catch_warnings():
            # Ray means to name all options of a task, and has no name yet for its retries, which are endless otherwise.
            warnings.filterwarnings("ignore", message=".*ray_remote_args")
            dataset = dataset.map(_Row(work), max_retries=RAY_RETRIES)
        try:
            for row in dataset.iter_rows():
                good, value, trace = pickle.loads(row["answer"])
                if not good:
                    raise _noted(value, "a Ray worker failed", trace)
                yield value
        except ray.exceptions.RayError as error:
            raise ChildProcessError(
                f"Ray gave up ({type(error).__name__}: {str(error).splitlines()[0]}); the same command goes on where "
                "it stopped"
            ) from error


class _Row:
    """The work on one row of a data set of Ray's."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        return {"answer": pickle.dumps(_answer(self._work, pickle.loads(row["task"])))}


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f"engine 'ray' needs {error.name}; pip install 'gemvlm[curate]'", name=error.name) from error
    return ray
