"""One line of JSON for each episode, and the files of a run that a kill may tear.

run.json                   who played what, by which protocol, in which simulator: a folder holds one such run only
episodes-RANK-of-N.jsonl   while it runs: each episode's line, written when it ends
episodes.jsonl             when all are played: one line each, in the protocol's order
videos/                    of the first starts of each task
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gemvlm.evaluation.answer_files import held, put

RUN, EPISODES, PARTS, VIDEOS = "run.json", "episodes.jsonl", "episodes-*-of-*.jsonl", "videos"
TIMEOUT = "timeout"
"""The reason of an episode that ran out of steps; one of `LOST` was done before, but not at the last step."""
LOST = "lost"
PLAYED = (None, TIMEOUT, LOST)
"""What `failure` says of an episode that was played to its end; else it begins "policy error" or "world error"."""


@dataclass(frozen=True)
class Episode:
    """How one went. `first_success` is the number of steps after which the task was first done.

    `failure` is None after a success. `seconds` is the wall time of its rounds, the policy's among them; `code` the
    commit or version that played it.
    """

    id: str
    task: str
    start: int
    seed: int
    success: bool
    steps: int
    first_success: int | None
    failure: str | None
    seconds: float
    code: str
    video: str | None = None

    @property
    def broken(self) -> bool:
        """Not played to its end: an error of the policy or of the world, which counts as a failure."""
        return self.failure not in PLAYED

    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: bytes, where: str) -> Episode:
        """ValueError naming the place if the line is not one of ours."""
        try:
            told = json.loads(text)
            if not isinstance(told, dict) or set(told) != {f.name for f in fields(cls)}:
                raise ValueError("other fields than an episode's")
            episode = cls(**told)
            if not isinstance(episode.success, bool) or not isinstance(episode.id, str):
                raise ValueError("success or id of another type")
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{where}: damaged ({error}); remove the line and run again") from error
        return episode


def read_lines(path: Path) -> list[Episode]:
    """The whole lines of a file; a last one that a kill tore is not there. None if there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = content.split(b"\n")[:-1]
    return [Episode.parse(text, f"{path}, line {number}") for number, text in enumerate(lines, start=1)]


def all_episodes(folder: Path) -> dict[str, Episode]:
    """By id: of several lines one that was played to its end, else the last."""
    found: dict[str, Episode] = {}
    for path in (*sorted(folder.glob(PARTS)), folder / EPISODES):
        for line in read_lines(path):
            if line.id not in found or found[line.id].broken:
                found[line.id] = line
    return found


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` says. ValueError if there is none."""
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        if not isinstance(run, dict) or "protocol" not in run:
            raise ValueError("no protocol in it")
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no rollouts here ({RUN}: {error})") from error
    return run


def claim(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Makes the folder this run's. ValueError with each difference if it holds another."""
    wanted = json.loads(json.dumps(wanted))
    if not (folder / RUN).exists():
        put(folder / RUN, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
    there = read_run(folder)
    if differ := [key for key in wanted if there.get(key) != wanted[key]]:
        told = "; ".join(f"{key}: {there.get(key)!r:.200} there, {wanted[key]!r:.200} now" for key in differ)
        raise ValueError(f"{folder}: holds another run ({told}); give another folder, or remove it")


def append(part: Path, episodes: Sequence[Episode]) -> None:
    """On disk when this returns."""
    with part.open("a", encoding="utf-8") as file:
        file.write("".join(episode.line() for episode in episodes))
        file.flush()
        os.fsync(file.fileno())


def gather(folder: Path, ids: Sequence[str]) -> bool:
    """Makes `episodes.jsonl` of all parts if none is missing, and then removes them."""
    parts = sorted(folder.glob(PARTS))
    there = all_episodes(folder)
    if any(name not in there for name in ids):
        return False
    if parts or not (folder / EPISODES).exists():
        put(folder / EPISODES, "".join(there[name].line() for name in ids))
    for part in parts:
        with suppress(ValueError), held(part):  # one that is still written to, as when failures are retried, stays
            part.unlink(missing_ok=True)
    return True
