"""RoboPoint's mix (`wentao-yuan/robopoint-data`, Apache-2.0): pointing, free space, LVIS boxes, and LLaVA's text.

The layout is that of wentaoyuan/RoboPoint, README.md at 9d54aac: `robopoint_1432k.json`, a list of `id`, `image`,
`conversations`, and the pictures under `images/`. Points are "[(0.461, 0.527), ...]", fractions. Answers of four
numbers, from LVIS, are not explained there, and readers disagree: Molmo 2's takes (x, y, width, height), RoboPoint's
evaluation (x0, y0, x1, y1). So the file decides (`box_form`), over all its boxes, and each part's name carries the
verdict; without a clear one boxes are refused. Only answers that hold nothing but coordinates are converted, since the
mix has ordinary text in which brackets mean something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.conversations import TurnRules
from gemvlm.curation.sources.folder import resolve_folder
from gemvlm.curation.sources.llava import LlavaFolder
from gemvlm.curation.sources.places import BoxForm, Coordinates
from gemvlm.curation.sources.records import RawRecord, RecordError, imported, json_records
from gemvlm.sample import Box, Sample

ANNOTATIONS = "robopoint_1432k.json"
ROUNDING = 0.0015
"""Published numbers have three digits: the sum of a corner and a size may be this far off."""
WRONG, RIGHT = 0.01, 0.05
"""A form is taken if at most this share of boxes contradicts it while at least that share contradicts the other."""

_FOUR = re.compile(rb"\(\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+)\s*\)")


@dataclass(frozen=True)
class RoboPoint:
    """`boxes` declares what four numbers are; None lets the file decide."""

    path: Path | str = "wentao-yuan/robopoint-data"
    revision: str = ""
    annotations: str = ANNOTATIONS
    media: str = "images"
    boxes: BoxForm | None = None

    @property
    def name(self) -> str:
        return "robopoint"

    @cached_property
    def root(self) -> Path:
        return resolve_folder(self.path, self.revision)

    def parts(self) -> Sequence[str]:
        parts = self._records("xyxy").parts()
        form = self.boxes or box_form(self._boxes(parts)) or "undecided"
        return [f"{form}:{part}" for part in parts]

    def _boxes(self, parts: Iterable[str]) -> Iterator[tuple[float, float, float, float]]:
        for part in parts:
            for raw in json_records(self.root, part):
                for found in _FOUR.findall(raw.content if isinstance(raw.content, bytes) else b""):
                    if all(number.count(b".") <= 1 and number != b"." for number in found):
                        yield tuple(map(float, found))  # type: ignore[misc]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        form, records = part.split(":", 1)
        return imported(json_records(self.root, records), lambda raw, record: self._sample(raw, record, form))

    def _records(self, form: BoxForm) -> LlavaFolder:
        return LlavaFolder(
            self.root,
            (self.annotations,),
            media=self.media,
            rules=TurnRules("robopoint", coordinates=Coordinates("fractions", form, prose=False, slack=ROUNDING)),
            name=self.name,
            revision=self.revision,
            split="train",
            licence="Apache-2.0",
        )

    def _sample(self, raw: RawRecord, record: dict[str, Any], form: str) -> Sample:
        decided: BoxForm = "xywh" if form == "xywh" else "xyxy"
        sample = self._records(decided).sample(raw, record, lambda *_: None)
        if not any(isinstance(place, Box) for turn in sample.turns for place in turn.places):
            return sample
        if form not in get_args(BoxForm):
            told = "the file's boxes do not show whether they are (x0, y0, x1, y1) or (x, y, width, height)"
            raise RecordError("box_form_undecided", f"{told}; say so with boxes=", "conversations")
        return replace(sample, meta={**sample.meta, "box_form": form, "box_form_declared": self.boxes is not None})


def box_form(boxes: Iterable[tuple[float, float, float, float]]) -> BoxForm | None:
    """What four fractions are, judged over all of them; None without a clear verdict.

    Corners have the third number above the first and the fourth above the second; a size added to its corner stays
    inside the image. A right reading breaks its rule almost never, the wrong one often.
    """
    counted = not_corners = not_sizes = 0
    for a, b, c, d in boxes:
        counted += 1
        not_corners += c <= a or d <= b
        not_sizes += a + c > 1 + ROUNDING or b + d > 1 + ROUNDING
    if not_corners <= WRONG * counted and not_sizes >= RIGHT * counted and counted:
        return "xyxy"
    return "xywh" if not_sizes <= WRONG * counted and not_corners >= RIGHT * counted and counted else None
