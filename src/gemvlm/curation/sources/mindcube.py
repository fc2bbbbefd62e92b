"""MindCube: questions about a place seen in a few pictures, with the options inside the question.

Stated by mll-lab-nu/MindCube, README.md and `src/training/data_formatters.py` (commit 31de2d54, 8f7cbe9c), hub data set
`Inevitablevalor/MindCube`: `data/raw/MindCube_train.jsonl` (10,000 rows; `MindCube.jsonl` and its `_tinybench` are the
benchmark), a row being {id, category, type, meta_info, question, images, gt_answer}: `question` ends in "A. ... B. ...
C. ... D. ...", `gt_answer` is a letter, `images` are paths below `data/`. Licence MIT (the repository's).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.conversations import TurnRules, file_names, make_turn, read_text
from gemvlm.curation.sources.folder import inside, read_frame, resolve_folder
from gemvlm.curation.sources.records import RawRecord, RecordError, imported, json_parts, json_records
from gemvlm.sample import Provenance, Sample

TRAIN = "raw/MindCube_train.jsonl"
MOST_IMAGES = 32


@dataclass(frozen=True)
class MindCube:
    """`path` is the unpacked `data` folder (or the one around it), or the hub id with a `revision`."""

    path: Path | str = "Inevitablevalor/MindCube"
    revision: str = ""
    annotations: str = TRAIN

    @property
    def name(self) -> str:
        return "mindcube"

    def parts(self) -> Sequence[str]:
        root = self._root()
        if not (root / self.annotations).is_file():
            raise ValueError(f"{root}: no {self.annotations}; unpack data.zip there")
        return json_parts(root / self.annotations, self.annotations)

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        yield from imported(json_records(self._root(), part), self._sample)

    def _root(self) -> Path:
        folder = resolve_folder(self.path, self.revision)
        return folder / "data" if (folder / "data" / self.annotations).is_file() else folder

    def _sample(self, raw: RawRecord, fields: Mapping[str, Any]) -> Sample:
        id, question = (read_text(fields.get(name), name) for name in ("id", "question"))
        answer, names = read_text(fields.get("gt_answer"), "gt_answer"), file_names(fields, "images")
        if not 1 <= len(names) <= MOST_IMAGES:
            raise RecordError("bad_path", f"{len(names)} images; expected 1..{MOST_IMAGES}", "images")
        root = self._root()
        frames = tuple(read_frame(inside(root, name, "images"), field="images") for name in names)
        kind = re.match(r"among|around|rotation|translation", id)
        rules = TurnRules(f"mindcube_{kind[0] if kind else 'other'}", "reasoning", choices="required")
        turn = make_turn(question, answer, rules, None)
        scene = f"{self.name}/{PurePosixPath(names[0]).parent}"
        provenance = Provenance(self.revision, "train", "MIT", f"{raw.file}:{raw.row}")
        meta = {key: fields[key] for key in ("category", "type") if key in fields}
        return Sample(f"{self.name}/{id}", frames, (turn,), scene, self.name, meta, provenance)
