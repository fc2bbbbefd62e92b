"""ViewSpatial-Bench: directions as seen by the camera, or by somebody in the picture.

Published as hub data set lidingm/ViewSpatial-Bench: `ViewSpatial-Bench.json`, 5,712 objects, and scannetv2_val.zip and
val2017.zip, to be unpacked beside it. Fields: question_type, image_path (a list of paths that open with the data set's
name), question, answer ("C. left"), choices ("A. ...", one on each line).
Rule: ZJU-REAL/ViewSpatial-Bench, evaluate.py, commit 0e86b63; its prompt as in 2e85a5e. Accuracy over questions. The
script counts a question that raises an error as wrong; no protocol drops a reply. Protocols:

- `official`, `lmms_eval` (0.7.3, the same rule): the first lone A to D, in any case, in the last line ("a chair" is A).
- `vlmevalkit` (160057c): `vlmevalkit_spatial` reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

from gemvlm.evaluation.benchmark import Item
from gemvlm.evaluation.benchmarks.lettered import LetterBenchmark, Reader, texts, truth_letter
from gemvlm.evaluation.benchmarks.vlmevalkit_spatial import vlmevalkit_spatial_letter
from gemvlm.evaluation.published import need, picture, rows

TYPES = (
    "Camera perspective - Relative Direction",
    "Camera perspective - Object View Orientation",
    "Person perspective - Relative Direction",
    "Person perspective - Object View Orientation",
    "Person perspective - Scene Simulation Relative Direction",
)
PROMPT = "Question: {}\nChoices: {}\nReply only to the corresponding option.\nAnswer:"
OWN_FOLDER = "ViewSpatial-Bench/"
_LONE = re.compile(r"\b([A-D])\b", re.IGNORECASE)


def viewspatial_letter(reply: str, item: Item) -> str | None:
    found = _LONE.search(reply.split("\n")[-1])
    return found[1].upper() if found else None


@dataclass(frozen=True)
class ViewSpatial(LetterBenchmark):
    name: ClassVar[str] = "viewspatial"
    hub_id: ClassVar[str] = "lidingm/ViewSpatial-Bench"
    readers: ClassVar[dict[str, Reader]] = {
        "official": viewspatial_letter,
        "lmms_eval": viewspatial_letter,
        "vlmevalkit": lambda reply, item: vlmevalkit_spatial_letter(reply),
    }

    def read(self) -> Iterator[Item]:
        for index, (where, row) in enumerate(rows(self.folder, "ViewSpatial-Bench.json")):
            kind = need(row, "question_type", str, where)
            if kind not in TYPES:
                raise ValueError(f"{where}: question_type {kind!r} is unknown; known are {', '.join(TYPES)}")
            paths = need(row, "image_path", list, where)
            if not paths or not all(isinstance(path, str) for path in paths):
                raise ValueError(f"{where}: field 'image_path' holds no path, or not only paths: {paths!r:.200}")
            choices = need(row, "choices", str, where)
            options = texts(choices.splitlines(), "choices", where)
            yield Item(
                id=str(index),
                media=tuple(picture(path.removeprefix(OWN_FOLDER), self.folder, where) for path in paths),
                prompt=PROMPT.format(need(row, "question", str, where), choices),
                truth=truth_letter(need(row, "answer", str, where)[:1], options, where),
                category=kind,
                scene=scene_of(paths[0]),
                options=options,
            )


def scene_of(path: str) -> str:
    """ScanNet's scene of an image, or the image itself."""
    return next((part for part in PurePosixPath(path).parts if part.startswith("scene")), path)
