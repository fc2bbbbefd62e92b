"""The files of a run: lines of answers that a kill may tear, whole files, and one process for each share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RUN, ANSWERS, PARTS = "run.json", "answers.jsonl", "answers-*-of-*.jsonl"
NEEDED = {"id", "failure", "score", "category", "scene"}

Line = dict[str, Any]
"""What is kept of one item."""


def read_answers(folder: Path) -> list[Line]:
    """The lines of a finished run. ValueError if it is not finished, or is no run at all."""
    path = folder / ANSWERS
    if not path.is_file():
        state = "was not finished; start it again" if any(folder.glob(PARTS)) else "has no results"
        raise ValueError(f"{folder}: {state} ({ANSWERS} is missing)")
    lines = read_lines(path)
    if not lines:
        raise ValueError(f"{path}: holds no line that can be read; run the evaluation again")
    return lines


def read_run(folder: Path) -> dict[str, Any]:
    """Who answered what, as `identity` said."""
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        if not isinstance(run, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no results of an evaluation here ({RUN}: {error})") from error
    return run


def all_lines(folder: Path) -> dict[str, Line]:
    """By item: of several lines the last, but an answer before a failure. Parts are read first: they may be gathered
    by another process meanwhile, and then are in `answers.jsonl`.
    """
    found: dict[str, Line] = {}
    for path in (*sorted(folder.glob(PARTS)), folder / ANSWERS):
        for line in read_lines(path):
            if line["id"] not in found or line["failure"] is None or found[line["id"]]["failure"] is not None:
                found[line["id"]] = line
    return found


def read_lines(path: Path) -> list[Line]:
    """The whole lines of a file; a last one that a kill tore is not there. None if there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = []
    for number, text in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            line = json.loads(text)
            missing = NEEDED - set(line)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: damaged ({error}); remove the line and run again") from error
        if missing:
            raise ValueError(f"{path}, line {number}: {', '.join(sorted(missing))} missing; remove it and run again")
        lines.append(line)
    return lines


def mend(part: Path) -> None:
    """Cuts a torn last line off, so that the next one begins on a line of its own."""
    if part.exists():
        content = part.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(part, whole)


def put(path: Path, text: str) -> None:
    """Writes a file that is either as before or whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


@contextmanager
def held(part: Path, wait: bool = False) -> Iterator[None]:
    """One process works on `part`; the system lets go of the lock whatever becomes of it.

    ValueError if another one does, unless that is to be waited for.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two processes of one share would both answer, and the lines be the same
        yield
        return
    with part.with_name(f".{part.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise ValueError(
                f"{part.parent}: another process is at work on {part.name}; wait for it, or end it"
            ) from error
        yield
