"""RoboVQA: robot and human videos of 16 frames with many planning questions each.

Stated by google-deepmind/robovqa, `data_loading_and_eval.ipynb` (commit 65456957): TFRecords
`tfrecord/train/train*` and `tfrecord/val/val*` of SequenceExamples whose feature lists are `images` (JPEG, a feature
per frame) and `texts` (one text). The text is a run of blocks `<task:TYPE> CONTEXT Q: ... <PRED>A: ...</PRED>`; inside
an answer, tags such as <PRED:ANSWER>, <PRED:DISCRETE>, <PRED:BINARY> say of which kind it is. The publisher's loader
removes all tags and splits at the first "A:". Licence CC BY 4.0. The split `val` is a benchmark: train on `train` only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.conversations import read_text
from gemvlm.curation.sources.folder import read_frame, resolve_folder
from gemvlm.curation.sources.records import RawRecord, RecordError, imported
from gemvlm.curation.sources.tfrecord import feature_lists, tfrecord_parts, tfrecord_records
from gemvlm.sample import Provenance, Sample, Turn

MOST_FRAMES = 64
_TASK = re.compile(r"<task:([\w:]*)>", re.IGNORECASE)
_TAG = re.compile(r"</?\w[:\w]*>")
_ANSWER = re.compile(r"(?:^|(?<=\s)|(?<=>))A:")
_FORMS = {"discrete", "binary", "freeform", "true", "false", "positive", "negative"}
"""Words of a type that tell the answer's form or content, not what is asked."""


@dataclass(frozen=True)
class RoboVqa:
    """The folder that holds `train/` and `val/` (or `tfrecord/` with both)."""

    path: Path | str
    split: Literal["train", "val"] = "train"

    @property
    def name(self) -> str:
        return "robovqa"

    def parts(self) -> Sequence[str]:
        root = resolve_folder(self.path)
        files = sorted(path for path in root.glob(f"**/{self.split}/{self.split}*") if path.is_file())
        if not files:
            raise ValueError(f"{root}: no files {self.split}/{self.split}*; give the folder that holds {self.split}/")
        return [part for path in files for part in tfrecord_parts(path, path.relative_to(root).as_posix())]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        yield from imported(tfrecord_records(resolve_folder(self.path), part), self._sample)

    def _sample(self, raw: RawRecord, fields: Mapping[str, Any]) -> Sample:
        if not fields["intact"]:
            raise RecordError("checksum", "the record's bytes do not fit their checksum; fetch the file again")
        lists = feature_lists(fields["payload"])
        images, texts = lists.get("images", []), lists.get("texts", [])
        if not 1 <= len(images) <= MOST_FRAMES or not texts:
            told = f"{len(images)} images and {len(texts)} texts; expected 1..{MOST_FRAMES} and one"
            raise RecordError("bad_example", told, "images")
        frames = tuple(read_frame(data, field="images") for data in images)
        turns = tuple(_turns(read_text(texts[0].decode("utf-8"), "texts")))
        record = f"{raw.file}:{raw.row}"
        provenance = Provenance(split=self.split, licence="CC-BY-4.0", record=record)
        return Sample(f"robovqa/{record}", frames, turns, f"robovqa/{record}", self.name, {}, provenance)


def _turns(text: str) -> Iterator[Turn]:
    pieces = _TASK.split(text)
    if len(pieces) < 3:
        raise RecordError("no_tasks", f"no <task:...> in {text[:80]!r}", "texts")
    for kind, block in zip(pieces[1::2], pieces[2::2], strict=True):
        if block.strip():
            yield _turn(kind, block)


def _turn(kind: str, block: str) -> Turn:
    answers = _ANSWER.search(block)
    if answers is None:
        raise RecordError("no_answer", f"no 'A:' in the task {block.strip()[:120]!r}", "texts")
    question = " ".join(_TAG.sub(" ", block[: answers.start()]).split())
    answer = " ".join(_TAG.sub(" ", block[answers.end() :]).split())
    if not question or not answer:
        raise RecordError("no_answer", f"the task {block.strip()[:120]!r} has no question or no answer", "texts")
    binary = ":BINARY>" in block.upper() and answer.lower() in ("yes", "no")
    words = [word for word in kind.lower().split(":") if word and word not in _FORMS]
    family = "robovqa_" + "_".join(words or ["other"])
    return Turn(question, answer, family, "planning", "yes_no" if binary else "text")
