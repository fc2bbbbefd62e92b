"""One part of a source, through every stage that needs nothing but the part itself.

    read → check → depth → filter → licence → overlap → other words → prints

Questions are written by the sources, which know the truth that they ask about.

What comes of it lies in one folder, which is there whole or not at all:

    manifest.json, *.tar, ...   the samples that passed (`gemvlm.shards`)
    prints.jsonl                one line per sample, in their order: what decisions about the whole set need
    rejections.jsonl            everything that was left out, with stage and reason
    rejected/NNN.jpg            small pictures of the first few of each reason
    counts.json                 the part's funnel
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from gemvlm.curation.answer_balance import Group, TurnPrint, turn_prints
from gemvlm.curation.duplicates import MediaPrint, media_print
from gemvlm.curation.funnel import Funnel, rejection_fields
from gemvlm.curation.plan import Plan
from gemvlm.curation.source import Rejection, Source
from gemvlm.curation.sources.records import UNREADABLE
from gemvlm.curation.stages import Stage, after_depth, before_depth, with_depth, with_words
from gemvlm.sample import Sample
from gemvlm.shards import ShardWriter, files
from gemvlm.shards.record import to_json

PRINTS, REJECTIONS, COUNTS, PICTURES = "prints.jsonl", "rejections.jsonl", "counts.json", "rejected"
DRAFT = ".draft-"
REPLIES = "replies"
"""Within the work folder: what an annotator has said."""

PICTURES_PER_REASON = 3
PICTURE_SIDE = 192


@dataclass(frozen=True)
class Task:
    """A part to make: the `number`-th of the source of that name in a plan."""

    source: str
    number: int
    part: str

    def __str__(self) -> str:
        return f"{self.source}, part {self.number} ({self.part})"

    def folder(self, work: Path) -> Path:
        return work / f"{self.source}-{self.number:06d}"


@dataclass(frozen=True)
class SamplePrint:
    """What is remembered of a stored sample while decisions about the whole set are made."""

    media: MediaPrint
    turns: int
    balance: tuple[TurnPrint, ...]

    def to_json(self) -> dict[str, Any]:
        text = base64.b64encode(self.media.text).decode()
        balance = [[item.turn, *item.group, item.answer] for item in self.balance]
        return {**asdict(self.media), "text": text, "turns": self.turns, "balance": balance}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> SamplePrint:
        name, record = fields["id"], fields["record"]
        balance = (
            # one group and one answer for all turns that share it: millions of them are in memory at once
            TurnPrint(name, turn, _group(family, kind, options), sys.intern(answer), record)
            for turn, family, kind, options, answer in fields["balance"]
        )
        media = MediaPrint(name, tuple(fields["images"]), base64.b64decode(fields["text"]), record)
        return cls(media, fields["turns"], tuple(balance))


_group = lru_cache(maxsize=4096)(Group)


def make_part(plan: Plan, work: Path, task: Task) -> Task:
    """Makes the part's folder in `work`, unless it is there. Safe to be killed, and to be done twice at once."""
    folder = task.folder(work)
    if folder.exists():
        return task
    draft = work / f"{folder.name}{DRAFT}{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    writer, log = ShardWriter(draft), PartLog(task)
    prints = []
    for sample, refused in with_words(plan.annotator, work / REPLIES, _passed(plan, task, log)):
        for rejection in refused:
            log.reject_words(rejection)
        try:
            remembered = SamplePrint(media_print(sample), len(sample.turns), turn_prints(sample))
            writer.add(sample)
        except ValueError as error:
            log.reject(Rejection("import", "not_storable", str(error), sample.id, sample.provenance.record), sample)
            continue
        log.keep(sample)
        prints.append(remembered)
    files.put(draft / PRINTS, b"".join(to_json(item.to_json()) + b"\n" for item in prints))
    log.write(draft)
    writer.finish()
    try:
        files.rename(draft, folder)
    except OSError:
        # Somebody else has made the same part in the meantime.
        if not folder.exists():
            raise
        shutil.rmtree(draft, ignore_errors=True)
    files.fsync(work)
    return task


def read_prints(folder: Path) -> Iterator[SamplePrint]:
    """The prints of a part that `make_part` made."""
    with (folder / PRINTS).open(encoding="utf-8") as lines:
        for line in lines:
            yield SamplePrint.from_json(json.loads(line))


class PartLog:
    """The funnel of a part, its rejections and their pictures."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.funnel = Funnel()
        self._lines: list[dict[str, Any]] = []
        self._pictures: list[bytes] = []
        self._pictured: Counter[tuple[str, str]] = Counter()

    def read(self, item: Sample | Rejection) -> None:
        self.funnel.read[self._task.source] += 1
        if isinstance(item, Sample):
            self.funnel.turns_read[self._task.source] += len(item.turns)

    def keep(self, sample: Sample) -> None:
        self.funnel.kept[self._task.source] += 1
        self.funnel.turns_kept[self._task.source] += len(sample.turns)

    def reject(self, rejection: Rejection, sample: Sample | None = None) -> None:
        """A whole record; with the sample it was, if it got that far."""
        key = (self._task.source, rejection.stage, rejection.reason)
        self.funnel.rejected[key] += 1
        if sample is not None and sample.turns:
            self.funnel.turns_rejected[key] += len(sample.turns)
        self._note(rejection, sample)

    def reject_turn(self, rejection: Rejection, sample: Sample) -> None:
        """One question of a sample that goes on without it."""
        self.funnel.turns_rejected[self._task.source, rejection.stage, rejection.reason] += 1
        self._note(rejection, sample)

    def reject_words(self, rejection: Rejection) -> None:
        """An annotator's words for a question, which keeps its own."""
        self.funnel.words_rejected[self._task.source, rejection.stage, rejection.reason] += 1

    def write(self, folder: Path) -> None:
        """Writes rejections, pictures and counts."""
        if self._pictures:
            files.make_folder(folder / PICTURES)
        for number, content in enumerate(self._pictures):
            files.put(folder / PICTURES / f"{number:03d}.jpg", content)
        files.put(folder / REJECTIONS, b"".join(to_json(line) + b"\n" for line in self._lines))
        files.put(folder / COUNTS, to_json(self.funnel.to_json()) + b"\n")

    def _note(self, rejection: Rejection, sample: Sample | None) -> None:
        line = {**rejection_fields(rejection, self._task.source, self._task.part), "picture": ""}
        key = (rejection.stage, rejection.reason)
        if sample is not None and self._pictured[key] < PICTURES_PER_REASON and (content := small_picture(sample)):
            self._pictured[key] += 1
            line["picture"] = f"{PICTURES}/{len(self._pictures):03d}.jpg"
            self._pictures.append(content)
        self._lines.append(line)


def small_picture(sample: Sample) -> bytes | None:
    """The first frame as a JPEG of at most 192 pixels; None if there is no picture to show."""
    if not sample.frames or not sample.frames[0].image.size:
        return None
    image = Image.fromarray(sample.frames[0].image)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _passed(plan: Plan, task: Task, log: PartLog) -> Iterator[Sample]:
    """Samples of a part that pass every stage."""
    use = next(use for use in plan.sources if use.name == task.source)
    stages = after_depth(plan)
    for whole, item in with_depth(plan.depth, _usable(use.open(), task, log)):
        if isinstance(item, Rejection):
            log.reject(item, whole)
        elif (sample := _through(stages, item, log)) is not None:
            yield sample


def _usable(source: Source, task: Task, log: PartLog) -> Iterator[Sample]:
    stages = before_depth()
    for item in _read(source, task):
        log.read(item)
        if isinstance(item, Rejection):
            log.reject(item)
        elif (sample := _through(stages, item, log)) is not None:
            yield sample


def _through(stages: Sequence[Stage], sample: Sample, log: PartLog) -> Sample | None:
    for stage in stages:
        left, rejections = stage(sample)
        if left is None:
            log.reject(rejections[0], sample)
            return None
        for rejection in rejections:
            log.reject_turn(rejection, sample)
        sample = left
    return sample


def _read(source: Source, task: Task) -> Iterator[Sample | Rejection]:
    """What the source gives, every id beginning with its name in the plan so that those of two sources never meet.

    A source must not raise for bad content; one that does loses the rest of the part, and says so.
    """
    try:
        for item in source.read(task.part):
            named = isinstance(item, Rejection) or item.id.startswith(task.source)
            yield item if named else replace(item, id=f"{task.source}/{item.id}")
    except UNREADABLE as error:
        detail = f"{task}: {type(error).__name__}: {error}; the rest of the part was not read: mend the source"
        yield Rejection("import", "source_failed", detail, file=task.part)
