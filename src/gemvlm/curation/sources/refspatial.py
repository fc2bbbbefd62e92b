"""RefSpatial (`JingkunAn/RefSpatial`, Apache-2.0): pointing and spatial questions with depth, unpacked as on its card.

The layout is that of the data card and of RoboRefer's data registration (Zhoues/RoboRefer, README.md at 9e83279):
`2D/`, `3D/` and `Simulator/`, each with annotation files that name pictures and depth **without their folders**;
`_FILES` says which folders belong to which file. Records are LLaVA's: `id`, `image` [names], `depth` [names],
`conversations` of many turns whose one `<image>` per picture stands in the first. The simulator's have `thinking`, a
list of {"question_type", "thinking"}, which is kept in the record. Points are "(0.407, 0.852)": fractions.

What the depth PNGs hold is not stated (RoboRefer feeds relative maps of 8 bits), so they are read only if `depth` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.conversations import TurnRules
from gemvlm.curation.sources.folder import DepthFormat, resolve_folder
from gemvlm.curation.sources.llava import LlavaFolder
from gemvlm.curation.sources.places import Coordinates
from gemvlm.sample import Sample

_FILES = {
    "2D/choice_qa.json": ("2D/image", "2D/depth"),
    "2D/reasoning_template_qa.json": ("2D/image", "2D/depth"),
    "3D/choice_qa.json": ("3D/image", "3D/depth"),
    "3D/multi_view_qa.json": ("3D/image_multi_view", "3D/depth_multi_view"),
    "3D/reasoning_template_qa.json": ("3D/image", "3D/depth"),
    "3D/vacant_qa.json": ("3D/image", "3D/depth"),
    "3D/visual_choice_qa.json": ("3D/image_visual_choice", "3D/depth"),
    "Simulator/metadata.json": ("Simulator/image", "Simulator/depth"),
}


@dataclass(frozen=True)
class RefSpatial:
    """Those of the annotation files that the folder has. ValueError from `parts` if it has none."""

    path: Path | str = "JingkunAn/RefSpatial"
    revision: str = ""
    depth: DepthFormat | None = None

    @property
    def name(self) -> str:
        return "refspatial"

    @cached_property
    def root(self) -> Path:
        return resolve_folder(self.path, self.revision)

    def parts(self) -> Sequence[str]:
        files = [file for file in _FILES if (self.root / file).is_file()]
        if not files:
            raise ValueError(f"{self.root}: none of {', '.join(_FILES)}; unpack the set as its card says")
        return [part for file in files for part in self._records(file).parts()]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        return self._records(part.rsplit(":", 2)[0]).read(part)

    def _records(self, file: str) -> LlavaFolder:
        images, depths = _FILES[file]
        family = file.removesuffix(".json").replace("/", "_").lower()
        return LlavaFolder(
            self.root,
            (file,),
            media=images,
            depth=self.depth,
            depth_media=depths,
            rules=TurnRules(f"refspatial_{family}", coordinates=Coordinates("fractions")),
            name=self.name,
            revision=self.revision,
            split="train",
            licence="Apache-2.0",
        )
