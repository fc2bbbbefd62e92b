"""VSI-590K (`nyu-visionx/VSI-590K`, Apache-2.0): spatial questions about videos and images, without depth.

The layout is the data card's: `vsi_590k.jsonl` with `video` or `image`, `conversations` and `question_type` in each
line, and one folder of media for each origin (`arkitscenes/`, `scannet/`, ...), unpacked beside it from its `.tar.gz`.
Questions begin "These are frames of a video."; options stand line by line as "A. ..."; types that start with "absolute"
are answered by a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.conversations import TurnRules, read_name
from gemvlm.curation.sources.folder import resolve_folder
from gemvlm.curation.sources.llava import LlavaFolder
from gemvlm.curation.sources.records import RawRecord, imported, json_records
from gemvlm.curation.sources.video import REFERENCE_SAMPLING, VideoSampling
from gemvlm.sample import Sample, Turn

ANNOTATIONS = "vsi_590k.jsonl"
TOLERANCE = 0.1
"""Relative error that counts as right [ours]; VSI-Bench itself averages over tolerances from 0.05 to 0.5."""

_NUMBER = re.compile(r"^\s*-?\d+(?:\.\d+)?\s*$")
_UNIT = re.compile(r"\b(?:in|of) (square )?(centi)?met(?:er|re)s?\b", re.I)


@dataclass(frozen=True)
class Vsi590K:
    """All records, each with its `question_type` as the turns' family."""

    path: Path | str = "nyu-visionx/VSI-590K"
    revision: str = ""
    sampling: VideoSampling = REFERENCE_SAMPLING

    @property
    def name(self) -> str:
        return "vsi-590k"

    @cached_property
    def root(self) -> Path:
        return resolve_folder(self.path, self.revision)

    def parts(self) -> Sequence[str]:
        return self._records("").parts()

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        return imported(json_records(self.root, part), self._sample)

    def _records(self, family: str) -> LlavaFolder:
        return LlavaFolder(
            self.root,
            (ANNOTATIONS,),
            rules=TurnRules(family),
            sampling=self.sampling,
            name=self.name,
            revision=self.revision,
            split="train",
            licence="Apache-2.0",
        )

    def _sample(self, raw: RawRecord, record: dict[str, Any]) -> Sample:
        family = read_name(record["question_type"], "question_type")
        sample = self._records(family).sample(raw, record, lambda *_: None)
        return replace(sample, turns=tuple(_as_number(turn) for turn in sample.turns))


def _as_number(turn: Turn) -> Turn:
    """A turn of kind number, with metres or centimetres as its unit if the question names one of them."""
    if turn.kind != "text" or not _NUMBER.match(turn.answer):
        return turn
    unit = _UNIT.search(turn.question)
    length = unit is not None and not unit[1]
    return replace(
        turn, kind="number", unit=("cm" if unit[2] else "m") if unit and length else None, tolerance=TOLERANCE
    )
