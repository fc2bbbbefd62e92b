"""SAT (`array/SAT`, MIT): questions about one or two views of ProcTHOR rooms, in Parquet.

The columns are those that the authors' loader reads (arijitray1993/SAT; card of `array/SAT`): `image_bytes` (a list of
encoded pictures), `question`, `answers` (the options, a list), `correct_answer` (the text of one of them) and
`question_type`; one file per split, `SAT_train.parquet` and so on. A row group may hold the whole file, so it is read
as a stream. The authors' loader strikes "in the first frame" from answers, left there by mistake in generation; so does
this one, and says so in the record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.conversations import TurnRules, make_turn, read_name, read_text
from gemvlm.curation.sources.folder import read_frame, resolve_folder
from gemvlm.curation.sources.records import RawRecord, RecordError, imported, parquet_parts, parquet_records
from gemvlm.sample import Provenance, Sample

STRAY = "in the first frame"
MOST_IMAGES = 32


@dataclass(frozen=True)
class Sat:
    """The files of one `split` ("train", "val", "static"; "test" is a benchmark of its own) at or below `path`."""

    path: Path | str = "array/SAT"
    revision: str = ""
    split: str = "train"

    @property
    def name(self) -> str:
        return "sat"

    @cached_property
    def root(self) -> Path:
        return resolve_folder(self.path, self.revision, [f"*{self.split}*.parquet"])

    def parts(self) -> Sequence[str]:
        files = sorted(self.root.rglob(f"*{self.split}*.parquet"))
        if not files:
            raise ValueError(f"{self.root}: no *{self.split}*.parquet; check the split, or fetch the files")
        return [part for file in files for part in parquet_parts(file, file.relative_to(self.root).as_posix())]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        return imported(parquet_records(self.root, part), self._sample)

    def _sample(self, raw: RawRecord, row: dict[str, Any]) -> Sample:
        pictures = row["image_bytes"]
        if not isinstance(pictures, list) or not 1 <= len(pictures) <= MOST_IMAGES:
            told = f"{len(pictures)} pictures" if isinstance(pictures, list) else "no list of pictures"
            raise RecordError("missing_file", f"{told} in this row; expected 1..{MOST_IMAGES}", "image_bytes")
        frames = tuple(read_frame(_bytes(picture), field="image_bytes") for picture in pictures)
        answers = row["answers"]
        if not isinstance(answers, list) or len(answers) < 2:
            raise RecordError("no_options", f"expected a list of options, found {answers!r:.80}", "answers")
        published = [*answers, row["correct_answer"]]
        *options, answer = (read_text(text, "answers").replace(STRAY, "").strip() for text in published)
        family = read_name(row["question_type"], "question_type")
        question = read_text(row["question"], "question")
        listed = f"{question} Choose between the following options: {', '.join(options[:-1])} or {options[-1]}."
        turn = make_turn(listed, answer, TurnRules(family, choices="required"), frames[0].image.shape[:2], options)
        id = f"{self.name}:{raw.file}:{raw.row}"
        return Sample(
            id=id,
            frames=frames,
            turns=(turn,),
            scene=id,
            source=self.name,
            meta={"record": {"question": question, "answers": answers, "correct_answer": row["correct_answer"]}},
            provenance=Provenance(self.revision, self.split, "MIT", f"{raw.file}:{raw.row}"),
        )


def _bytes(picture: object) -> bytes:
    """Encoded bytes, or what the hub's image type wraps them in."""
    content = picture.get("bytes") if isinstance(picture, dict) else picture
    if not isinstance(content, bytes):
        raise RecordError(
            "image_unreadable", f"expected the bytes of a picture, found {type(picture).__name__}", "image_bytes"
        )
    return content
