"""Robo2VLM-1: multiple-choice questions on frames of real robot trajectories, answered from the robot's sensors.

Hub data set `keplerccc/Robo2VLM-1` (repository KeplerC/robo2VLM): `data/train-NNNNN-of-00262.parquet` (678,034 rows)
and `data/test-*.parquet` (6,676), columns `id`, `question`, `choices` (a Python list written as a *string*),
`correct_answer` (index from 0), `image` {bytes, path}. The card states no licence for the pictures, which come from
Open-X data sets. The options are listed below the question and the answer is a letter.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.conversations import TurnRules, make_turn, read_text
from gemvlm.curation.sources.folder import read_frame, resolve_folder
from gemvlm.curation.sources.records import RawRecord, RecordError, imported, parquet_parts, parquet_records
from gemvlm.sample import Provenance, Sample

LONGEST_CHOICES = 20_000
LETTERS = "ABCDEFGHIJ"
RULES = TurnRules("robo2vlm", "reasoning", choices="required")


@dataclass(frozen=True)
class Robo2Vlm:
    """`path` is a local folder with `data/`, or the hub id with a `revision`."""

    path: Path | str = "keplerccc/Robo2VLM-1"
    revision: str = ""
    split: Literal["train", "test"] = "train"

    @property
    def name(self) -> str:
        return "robo2vlm"

    def parts(self) -> Sequence[str]:
        root = self._root()
        files = sorted((root / "data").glob(f"{self.split}-*.parquet"))
        if not files:
            raise ValueError(f"{root}/data: no files {self.split}-*.parquet; give the folder that holds data/")
        return [part for path in files for part in parquet_parts(path, path.relative_to(root).as_posix())]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        yield from imported(parquet_records(self._root(), part), self._sample)

    def _root(self) -> Path:
        return resolve_folder(self.path, self.revision, [f"data/{self.split}-*.parquet"])

    def _sample(self, raw: RawRecord, fields: Mapping[str, Any]) -> Sample:
        id = str(read_text(fields.get("id") if isinstance(fields.get("id"), str) else str(fields.get("id")), "id"))
        options, index = _choices(fields.get("choices")), fields.get("correct_answer")
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(options):
            told = f"correct_answer is {index!r} but there are {len(options)} choices, counted from 0"
            raise RecordError("option_not_found", told, "correct_answer")
        image = fields.get("image")
        data = image.get("bytes") if isinstance(image, dict) else None
        if not isinstance(data, bytes):
            raise RecordError("missing_file", "the row holds no picture", "image")
        listed = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))
        question = f"{read_text(fields.get('question'), 'question').strip()}\n{listed}"
        turn = make_turn(question, LETTERS[index], RULES, None, options)
        provenance = Provenance(self.revision, self.split, record=f"{raw.file}:{raw.row}")
        # questions on one trajectory are `..._q0`, `..._q1`, ...
        scene = re.sub(r"_q\d+$", "", id)
        return Sample(
            f"{self.name}/{id}", (read_frame(data),), (turn,), f"{self.name}/{scene}", self.name, {}, provenance
        )


def _choices(value: object) -> tuple[str, ...]:
    """A list of texts written as Python writes it; nothing in it is run."""
    if not isinstance(value, str) or len(value) > LONGEST_CHOICES:
        raise RecordError("no_options", f"choices is {str(value)[:80]!r}; expected a short text", "choices")
    try:
        options = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise RecordError("no_options", f"choices {value[:80]!r} is not a list: {error}", "choices") from error
    if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
        raise RecordError("no_options", f"choices {value[:80]!r} is not a list of 2..{len(LETTERS)}", "choices")
    return tuple(read_text(option, "choices").strip() for option in options)
