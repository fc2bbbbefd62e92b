"""A plan carried out: parts by an engine, decisions about the whole, one folder that is there whole or not at all.

    OUT.work/<key>/<source>-000000/ ...   parts (`part.py`), each appears by one rename
    OUT.work/<key>/set/                   the set as it is being written: stored bytes are copied as they are
    OUT/                                  the set, after one rename at the end; the work folder is then removed

The key is a hash of the plan, the folders of its data, the code that makes samples and the versions of the libraries it
leans on: what another plan or other code has made is never taken up. Killed at any moment, the same call goes on and
gives the same bytes. Work folder and result lie on one file system, which every node of a cluster must see.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import gemvlm
from gemvlm.curation.card import CARD, README, Card
from gemvlm.curation.decide import Decisions, Loss, decide
from gemvlm.curation.engine import Engine
from gemvlm.curation.facts import Facts
from gemvlm.curation.funnel import Funnel, rejection_fields
from gemvlm.curation.part import COUNTS, PICTURES, REJECTIONS, Task, make_part, small_picture
from gemvlm.curation.plan import Plan
from gemvlm.curation.stages import teacher_of
from gemvlm.data.quarantine import find_bad, leave_verdict
from gemvlm.shards import MANIFEST, Manifest, SampleError, ShardReader, ShardWriter, files
from gemvlm.shards.record import sample_of, to_json, turn_rows

ROOMS = ("curation", "worlds", "shards", "data", "depth_map", "sample.py", "camera.py")
"""The code that a set's bytes depend on."""

TEACHERS_ROOMS = ("model", "inference")
"""The code that a teacher's depth depends on besides."""

LIBRARIES = ("numpy", "pillow", "pyarrow", "mujoco")
TEACHERS_LIBRARIES = ("torch", "transformers", "diffusers")
PICTURES_PER_REASON = 6
READ_AT_ONCE = 256

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is at most."""


@dataclass(frozen=True)
class Curated:
    """A finished set. `made` is False if it was there already."""

    folder: Path
    manifest: Manifest
    funnel: Funnel
    made: bool = True


def curate(plan: Plan, out: Path, engine: Engine, command: str = "", progress: Progress | None = None) -> Curated:
    """Makes the set of `plan` in the new folder `out`, or goes on with it.

    `command` is written into the card. ValueError if `out` is something else, if no source can be read, or if the data
    is not what it was when the work began.
    """
    tell = progress or (lambda what, done, total: None)
    if not plan.present():
        names = ", ".join(use.name for use in plan.missing())
        raise ValueError(
            f"plan {plan.name!r}: none of its data is here; give folders with --root NAME=FOLDER ({names})"
        )
    identity = _identity(plan)
    out = out.absolute()  # workers of a cluster stand elsewhere
    work = out.with_name(out.name + ".work") / _key(plan, identity)
    if out.exists() and any(out.iterdir()):
        there = _finished(out, identity)
        shutil.rmtree(work.parent, ignore_errors=True)
        return there
    files.make_folder(work)
    with _alone(work), engine:
        # Drafts of a killed run stay until the end: a worker that outlived its parent may still be writing one.
        decisions = decide(plan, partial(_parts, plan, work, engine, tell), lambda task: task.folder(work))
        draft = work / "set"
        shutil.rmtree(draft, ignore_errors=True)
        writer = ShardWriter(draft)
        facts = _copy(decisions, work, writer, tell)
        funnel = _account(decisions, work, draft)
        card = Card(plan, identity, facts, funnel, command)
        files.put(draft / CARD, card.to_bytes())
        files.put(draft / README, card.to_markdown().encode())
        manifest = writer.finish()
        leave_verdict(draft, _read_back(draft, manifest.samples, engine, tell))
        files.rename(draft, out)
        files.fsync(out.parent)
    shutil.rmtree(work.parent, ignore_errors=True)
    return Curated(out, manifest, funnel)


def _parts(plan: Plan, work: Path, engine: Engine, tell: Progress, source: str) -> Iterator[Task]:
    """The parts of a source, made in their order."""
    use = next(use for use in plan.sources if use.name == source)
    names = list(use.open().parts())
    _remember(work / f"{source}.parts.json", names)
    tasks = [Task(source, number, name) for number, name in enumerate(names)]
    quota, stored = plan.quotas()[source], 0
    for task in engine.run(partial(make_part, plan, work), tasks):
        stored += _counts(task.folder(work)).kept[source]
        tell(source, *((task.number + 1, len(tasks)) if quota is None else (min(stored, quota), quota)))
        yield task


def _remember(path: Path, names: list[str]) -> None:
    content = to_json({"parts": names})
    if not path.exists():
        files.put(path, content)
    elif path.read_bytes() != content:
        raise ValueError(
            f"{path}: the data's parts are not those that this work began with; remove {path.parent} to begin again"
        )


def _copy(decisions: Decisions, work: Path, writer: ShardWriter, tell: Progress) -> Facts:
    """Stored samples to the set, as bytes, and what is to be said about them."""
    facts, done, total = Facts(), 0, sum(map(len, decisions.kept.values()))
    for task, indices in decisions.kept.items():
        reader = ShardReader(task.folder(work))
        for index in indices:
            row, turns = reader.record(index), None
            if (task, index) in decisions.turns_out:
                out = decisions.turns_out[task, index]
                turns = [turn for i, turn in enumerate(sample_of(row, ()).turns) if i not in out]
                row = {**row, **turn_rows(turns)}
            writer.copy(reader, index, turns)
            facts.add(row)
            done += 1
        tell("writing", done, total)
    return facts


def _read_back(draft: Path, samples: int, engine: Engine, tell: Progress) -> list[tuple[int, SampleError]]:
    """What of the written set can't be read: nothing, on a sound disk. Training then need not look again."""
    tasks = [range(start, min(start + READ_AT_ONCE, samples)) for start in range(0, samples, READ_AT_ONCE)]
    bad: list[tuple[int, SampleError]] = []
    for done, found in zip(tasks, engine.run(partial(find_bad, draft), tasks), strict=True):
        bad += found
        tell("reading back", done.stop, samples)
    return bad


def _account(decisions: Decisions, work: Path, draft: Path) -> Funnel:
    """Writes every rejection of the parts and of the decisions, some with a picture; returns the counts, checked."""
    funnel, pictures = Funnel(), _Pictures(draft / PICTURES)
    for task in decisions.tasks:
        funnel.add(_counts(task.folder(work)))
    path = draft / REJECTIONS
    with path.open("wb") as file:
        for task in decisions.tasks:
            _take_over(task.folder(work), file, pictures)
        for loss in decisions.losses:
            _count(loss, funnel)
            fields = rejection_fields(loss.rejection, loss.task.source, loss.task.part)
            shown = partial(_stored_picture, loss, work)
            picture = pictures.keep(loss.rejection.stage, loss.rejection.reason, shown)
            file.write(to_json({**fields, "picture": picture}) + b"\n")
    files.fsync(path)
    funnel.check()
    return funnel


def _counts(folder: Path) -> Funnel:
    """The funnel of a part."""
    return Funnel.from_json(json.loads((folder / COUNTS).read_bytes()))


def _take_over(folder: Path, file: BinaryIO, pictures: _Pictures) -> None:
    """The rejections of a part."""
    with (folder / REJECTIONS).open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            if fields["picture"]:
                shown = (folder / fields["picture"]).read_bytes
                fields["picture"] = pictures.keep(fields["stage"], fields["reason"], shown)
            file.write(to_json(fields) + b"\n")


def _count(loss: Loss, funnel: Funnel) -> None:
    source = loss.task.source
    key = (source, loss.rejection.stage, loss.rejection.reason)
    if loss.whole:
        funnel.kept[source] -= 1
        funnel.rejected[key] += 1
    if loss.turns:
        funnel.turns_kept[source] -= loss.turns
        funnel.turns_rejected[key] += loss.turns


def _stored_picture(loss: Loss, work: Path) -> bytes | None:
    return small_picture(ShardReader(loss.task.folder(work), depth=False)[loss.index])


class _Pictures:
    """A few pictures of each reason, numbered in the order they come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: Counter[tuple[str, str]] = Counter()

    def keep(self, stage: str, reason: str, picture: Callable[[], bytes | None]) -> str:
        """The name of the picture within the set; "" if there are enough of this reason, or nothing to show."""
        if self._kept[stage, reason] >= PICTURES_PER_REASON or (content := picture()) is None:
            return ""
        name = f"{self._kept.total():05d}.jpg"
        self._kept[stage, reason] += 1
        files.make_folder(self._folder)
        files.put(self._folder / name, content)
        return f"{self._folder.name}/{name}"


def _finished(out: Path, identity: dict[str, Any]) -> Curated:
    """The set that is there, if it is the one that was asked for."""
    try:
        card = json.loads((out / CARD).read_bytes())
        same = card["identity"] == identity and (out / MANIFEST).is_file()
        funnel = Funnel.from_json(card["funnel"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{out}: exists and is no curated set ({error}); choose another folder") from error
    if not same:
        raise ValueError(f"{out}: holds a set of another plan or another version; remove it or choose another folder")
    return Curated(out, Manifest.from_folder(out), funnel, made=False)


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """ValueError if another process works in the folder. The lock goes with the process, however it ends."""
    import fcntl

    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{work}: another process is making this set; wait for it or stop it") from error
        yield


def _key(plan: Plan, identity: dict[str, Any]) -> str:
    return hashlib.sha256(to_json({**identity, "located": plan.digest()})).hexdigest()[:16]


def _identity(plan: Plan) -> dict[str, Any]:
    """What a set's bytes depend on besides its data."""
    taught = plan.depth.teacher is not None
    identity: dict[str, Any] = {
        "plan": plan.to_json(),
        "code": _code_digest(ROOMS + TEACHERS_ROOMS if taught else ROOMS),
        "libraries": _versions(LIBRARIES + TEACHERS_LIBRARIES if taught else LIBRARIES),
    }
    if plan.depth.teacher is not None:
        identity["teacher"] = teacher_of(
            plan.depth.teacher, json.dumps(dict(plan.depth.options), sort_keys=True)
        ).weights
    if plan.benchmarks:
        identity["benchmarks"] = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in plan.benchmarks]
    return identity


@cache
def _code_digest(rooms: tuple[str, ...]) -> str:
    """SHA-256 of the files that make samples."""
    root = Path(gemvlm.__file__).parent
    digest = hashlib.sha256()
    for room in rooms:
        for path in sorted((root / room).rglob("*.py")) if (root / room).is_dir() else [root / room]:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """Versions of this package and of the libraries whose output goes into a set; "" if one is not installed."""
    found = {}
    for name in ("gemvlm", *libraries):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found
