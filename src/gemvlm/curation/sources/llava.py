"""Any folder of LLaVA- or Qwen-style JSON or JSONL with images, videos and depth, and what its relatives share.

The fields are those of `conversations.py`; besides, `depth` may name a depth file for each image, `id` and all other
fields are kept in `Sample.meta["record"]`, as JSON whose messages have lost their text to the turns. `meta["media"]`
lists the files in the order of their tags, each with its number of frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.conversations import (
    TurnRules,
    file_names,
    lay_out,
    make_turns,
    read_conversation,
    tags_in,
)
from gemvlm.curation.sources.folder import DepthFormat, inside, read_depth, read_frame, resolve_folder
from gemvlm.curation.sources.records import RawRecord, RecordError, imported, json_parts, json_records
from gemvlm.curation.sources.video import REFERENCE_SAMPLING, VideoSampling, read_frame_folder, read_video
from gemvlm.data.conversation import IMAGE_PLACEHOLDER
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame, Provenance, Sample

AS_TEXT = TurnRules("llava")
DepthOf = Callable[[Mapping[str, Any], int, str], DepthMap | None]
"""(record, index of the image, name of the image) to its depth, if there is any."""


@dataclass(frozen=True)
class LlavaFolder:
    """Records of `annotations` (by default every `.json` and `.jsonl` at the top of `path`) as samples.

    `path` is a folder or a hub id with `revision`. Pictures lie under `media`, depth files under `depth_media`; they
    are read if `depth` says what they hold. `rules` tell choices and coordinates, `sampling` how videos become frames.
    With `tags` "optional" a record may name files without tags for them. `name` is the source that samples tell.
    """

    path: Path | str
    annotations: tuple[str, ...] = ()
    media: str = ""
    depth: DepthFormat | None = None
    depth_media: str = ""
    rules: TurnRules = AS_TEXT
    sampling: VideoSampling = REFERENCE_SAMPLING
    tags: Literal["exact", "optional"] = "exact"
    upright: bool = False
    name: str = "llava"
    revision: str = ""
    split: str = ""
    licence: str = "unknown"

    @cached_property
    def root(self) -> Path:
        return resolve_folder(self.path, self.revision)

    def parts(self) -> Sequence[str]:
        names = self.annotations or tuple(
            sorted(path.name for path in self.root.iterdir() if path.suffix in (".json", ".jsonl"))
        )
        if not names:
            raise ValueError(f"{self.root}: no .json or .jsonl file; name the annotations")
        return [part for name in names for part in json_parts(_annotation(self.root, name), name)]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        return imported(json_records(self.root, part), self._sample)

    def _sample(self, raw: RawRecord, record: dict[str, Any]) -> Sample:
        return self.sample(raw, record, self._depth)

    def _depth(self, record: Mapping[str, Any], index: int, name: str) -> DepthMap | None:
        files = file_names(record, "depth", "depths")
        if self.depth is None or all(record.get(field) is None for field in ("depth", "depths")):
            return None
        images = file_names(record, "image", "images")
        if len(files) != len(images):
            raise RecordError("depth_count", f"{len(files)} depth files for {len(images)} images", "depth")
        return read_depth(inside(self.root / self.depth_media, files[index], "depth"), self.depth)

    def sample(self, raw: RawRecord, record: dict[str, Any], depth_of: DepthOf) -> Sample:
        """One record as a sample; `depth_of` finds the depth of each image."""
        said = read_conversation(record)
        images = said.images or file_names(record, "image", "images")
        videos = said.videos or file_names(record, "video", "videos")
        media = self.root / self.media
        pictures = [
            read_frame(inside(media, name, "image"), depth_of(record, index, name), upright=self.upright)
            for index, name in enumerate(images)
        ]
        clips = [self._clip(media, name) for name in videos]
        exchanges, frames = lay_out(said.exchanges, pictures, clips, tags=self.tags)
        files = _in_order(tags_in(said.exchanges[0][0]), images, videos, clips)
        files = [{**file, "path": str(PurePosixPath(self.media) / file["path"])} for file in files]
        size = frames[0].image.shape[:2] if frames else None
        id = f"{self.name}:{raw.file}:{raw.row}"
        return Sample(
            id=id,
            frames=frames,
            turns=make_turns(exchanges, self.rules, size),
            scene=scene_of(self.name, files[0]["path"]) if files else id,
            source=self.name,
            meta={"record": without_text(record), "media": files},
            provenance=Provenance(self.revision, self.split, self.licence, f"{raw.file}:{raw.row}"),
            dialogue=len(exchanges) > 1,
            system=said.system,
        )

    def _clip(self, media: Path, name: str) -> tuple[Frame, ...]:
        if name and not name.startswith("/") and ".." not in PurePosixPath(name).parts and (media / name).is_dir():
            return read_frame_folder(media / name, self.sampling)
        return read_video(inside(media, name, "video"), self.sampling)


def _annotation(root: Path, name: str) -> Path:
    """An annotation file that the caller named. ValueError if it is not there."""
    path = root / name
    if not path.is_file():
        raise ValueError(f"{path}: no such file of records; check the folder, or fetch and unpack it")
    return path


def _in_order(
    tags: Sequence[str], images: Sequence[str], videos: Sequence[str], clips: Sequence[Sequence[Frame]]
) -> list[dict[str, Any]]:
    """The files in the order of their tags (images first where there are none), with the frames that each gave."""
    pictures = [{"path": name, "kind": "image", "frames": 1} for name in images]
    films = [{"path": name, "kind": "video", "frames": len(clip)} for name, clip in zip(videos, clips, strict=True)]
    waiting, playing = iter(pictures), iter(films)
    ordered = [next(waiting) if tag == IMAGE_PLACEHOLDER else next(playing) for tag in tags]
    return ordered or [*pictures, *films]


def scene_of(source: str, file: str) -> str:
    """What groups samples of one picture or video: the file's path without its ending."""
    return f"{source}:{PurePosixPath(file).with_suffix('')}"


def without_text(record: Mapping[str, Any]) -> str:
    """The record as JSON with its keys in their order, each message's text null: the turns hold it."""
    shape = dict(record)
    for field in ("conversations", "conversation", "messages"):
        if isinstance(shape.get(field), list):
            shape[field] = [
                {key: None if key in ("value", "content") else value for key, value in message.items()}
                for message in shape[field]
            ]
    return json.dumps(shape, ensure_ascii=False, allow_nan=False)
