"""Curates the toy source in processes that are killed and begun again; run by tests in an interpreter of its own.

    python curate_toy.py operations FOLDER STRIDE     killed just before every STRIDE-th write, fsync or rename
    python curate_toy.py moments FOLDER TIMES         killed at so many random times, with two worker processes

Prints a line of JSON for each try: what was done to it, and a hash of every byte of the finished set. A write that is
killed leaves half of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gemvlm.curation.answer_balance import BalanceRules
from gemvlm.curation.engine import engine_of
from gemvlm.curation.pipeline import ROOMS, _code_digest, curate
from gemvlm.curation.plan import Plan, SourceUse
from gemvlm.shards import files


def toy_plan(count: int, size: int) -> Plan:
    """Two sources of `count` records in parts of `size`."""
    sources = (
        SourceUse("one", "toy_source:Toy", {"count": count, "size": size}),
        SourceUse("two", "toy_source:Toy", {"count": count, "size": size, "seed": 1}),
    )
    return Plan("toy", "Made up.", sources, balance=BalanceRules(min_turns=4))


def digest(folder: Path) -> str:
    """SHA-256 over names and bytes of all files."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def make(plan: Plan, out: Path, processes: int = 1) -> None:
    curate(plan, out, engine_of("local", processes), "test")


def wrap(before: Callable[[bool, tuple[Any, ...]], None]) -> None:
    """Calls `before(is it a write, its arguments)` ahead of every operation that changes the disk.

    Nothing is flushed to the disk itself, which takes most of the time: a killed process takes no file system with it.
    """
    for name in ("write", "fsync", "rename"):
        operation = getattr(files, name) if name != "fsync" else lambda location: None

        def step(*arguments: Any, operation: Callable[..., None] = operation, is_write: bool = name == "write") -> None:
            before(is_write, arguments)
            operation(*arguments)

        setattr(files, name, step)


def make_killed(plan: Plan, out: Path, kill_at: int) -> None:
    """Ends this process without any clean-up at the operation of that number; 0 is never."""
    count, write = 0, files.write

    def before(is_write: bool, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        count += 1
        if count == kill_at:
            if is_write:
                write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    wrap(before)
    make(plan, out)


def forked(work: Callable[..., None], *arguments: Any) -> int:
    """The exit code of `work` in a fork of this process, which has everything imported already."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join()
    return int(process.exitcode or 0)


def count_operations(plan: Plan, out: Path, report: Path) -> None:
    count = [0]

    def before(is_write: bool, arguments: tuple[Any, ...]) -> None:
        count[0] += 1

    wrap(before)
    make(plan, out)
    report.write_text(str(count[0]))


def try_operations(folder: Path, stride: int) -> None:
    _code_digest(ROOMS)  # once for all tries: forks inherit it, so code that is edited meanwhile changes nothing
    plan = toy_plan(count=9, size=9)
    assert forked(count_operations, plan, folder / "whole", folder / "count") == 0
    print(json.dumps({"killed": "never", "digest": digest(folder / "whole")}))
    for kill_at in range(1, int((folder / "count").read_text()) + 1, stride):
        out = folder / str(kill_at)
        assert forked(make_killed, plan, out, kill_at) == -signal.SIGKILL
        assert forked(make_killed, plan, out, 0) == 0
        print(json.dumps({"killed": f"at operation {kill_at}", "digest": digest(out)}))


def try_moments(folder: Path, times: int) -> None:
    _code_digest(ROOMS)
    plan, rng = toy_plan(count=60, size=10), random.Random(0)
    start = time.perf_counter()
    assert forked(make, plan, folder / "whole", 2) == 0
    whole_s = time.perf_counter() - start
    print(json.dumps({"killed": "never", "digest": digest(folder / "whole")}))
    for number in range(times):
        out, kills = folder / str(number), 0
        for _ in range(3):
            process = multiprocessing.get_context("fork").Process(target=make, args=(plan, out, 2))
            process.start()
            process.join(rng.uniform(0.05, 0.6) * whole_s)
            kills += process.is_alive()
            process.kill()
            process.join()
        assert forked(make, plan, out, 2) == 0
        print(json.dumps({"killed": f"{kills} times", "digest": digest(out)}))


if __name__ == "__main__":
    {"operations": try_operations, "moments": try_moments}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
