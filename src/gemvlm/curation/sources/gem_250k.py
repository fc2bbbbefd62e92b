"""GEM-250K, the published sample of the paper's data (`zzzrw/GEM-250K`, MIT): `GEM-250K.jsonl`, media and depth.

The format is what the authors' loader reads: zhaorw02/GEM at 5500948, `GEM-VLM/qwen-vl-finetune/qwenvl/data/`,
`data_processor.py` (records: `image` a string or a list, or `video`; `conversations` of human and gpt; as many tags as
files) and `utils.py` (`get_depth_path`: `<root>/depth/<basename of the image>`; 16-bit PNG, 0 = invalid, proportional
to depth in no stated unit).

The loader's basenames let `a/1.png` and `b/1.png` share one depth map. Here a depth file at the image's own relative
path under `depth/` comes first, then one with its basename, and that is refused if two images have it. Missing depth is
refused as well unless `require_depth` is False: which records have depth should not be a matter of luck.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.conversations import TurnRules
from gemvlm.curation.sources.folder import DepthFormat, inside, read_depth, resolve_folder
from gemvlm.curation.sources.llava import LlavaFolder
from gemvlm.curation.sources.places import Coordinates
from gemvlm.curation.sources.records import RawRecord, RecordError, imported, json_records
from gemvlm.curation.sources.video import REFERENCE_SAMPLING, VideoSampling
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.origin import DepthOrigin
from gemvlm.sample import Sample

PROPORTIONAL = DepthFormat(source="gem-250k", origin=DepthOrigin("unknown", licence="MIT"))
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Gem250K:
    """The folder as it is published, or the hub id with a `revision`.

    `depth` is relative unless you know better and say so. Which of its maps are truth and which are Depth Anything 3's
    is not published, so their origin is unknown. `coordinates` are those of the text if you know them; else text stays.
    """

    path: Path | str = "zzzrw/GEM-250K"
    revision: str = ""
    annotations: str = "GEM-250K.jsonl"
    depth: DepthFormat = PROPORTIONAL
    require_depth: bool = True
    coordinates: Coordinates | None = None
    sampling: VideoSampling = REFERENCE_SAMPLING

    @property
    def name(self) -> str:
        return "gem-250k"

    @cached_property
    def root(self) -> Path:
        return resolve_folder(self.path, self.revision)

    def parts(self) -> Sequence[str]:
        return self._records.parts()

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        return imported(json_records(self.root, part), self._sample)

    @cached_property
    def _records(self) -> LlavaFolder:
        rules = TurnRules("gem-250k", coordinates=self.coordinates)
        return LlavaFolder(
            self.root,
            (self.annotations,),
            rules=rules,
            sampling=self.sampling,
            name=self.name,
            revision=self.revision,
            split="train",
            licence="MIT",
        )

    def _sample(self, raw: RawRecord, record: dict[str, Any]) -> Sample:
        sample = self._records.sample(raw, record, self._depth)
        media = [
            {**file, "depth": self.depth_file(file["path"])} if file["kind"] == "image" else file
            for file in sample.meta["media"]
        ]
        return replace(sample, meta={**sample.meta, "media": media, "layout": "gem"})

    def _depth(self, record: Mapping[str, Any], index: int, name: str) -> DepthMap | None:
        file = self.depth_file(name)
        if file is None:
            if self.require_depth:
                raise RecordError(
                    "missing_depth", f"no depth for {name!r}; require_depth=False takes it without", "image"
                )
            return None
        return read_depth(inside(self.root, file, "image"), self.depth)

    def depth_file(self, image: str) -> str | None:
        """Where the depth of an image lies, relative to the root. RecordError if only an ambiguous basename says so."""
        path = PurePosixPath(image)
        own = (PurePosixPath("depth") / path.with_suffix(".png"), PurePosixPath("depth") / path)
        shared = (PurePosixPath("depth") / path.with_suffix(".png").name, PurePosixPath("depth") / path.name)
        for file in own:
            if len(path.parts) > 1 and (self.root / file).is_file():
                return str(file)
        for file in shared:
            if (self.root / file).is_file():
                if self._images_with_stem[path.stem] > 1:
                    told = f"{self._images_with_stem[path.stem]} images are called {path.stem!r} and share {file}"
                    raise RecordError(
                        "ambiguous_depth", f"{told}; move it to depth/{path.with_suffix('.png')}", "image"
                    )
                return str(file)
        return None

    @cached_property
    def _images_with_stem(self) -> Counter[str]:
        """How many pictures outside of `depth` have each name without its ending."""
        stems: Counter[str] = Counter()
        for folder, folders, files in os.walk(self.root):
            if Path(folder) == self.root and "depth" in folders:
                folders.remove("depth")
            stems.update(Path(file).stem for file in files if Path(file).suffix.lower() in PICTURES)
        return stems
