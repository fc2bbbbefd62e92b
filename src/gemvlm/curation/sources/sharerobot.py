"""ShareRobot (`BAAI/ShareRobot`): planning questions, affordance boxes and trajectories over Open-X episodes.

The layout is that of FlagOpen/ShareRobot, README.md at 03173a9. Three kinds of JSON lists, told apart by their fields:

    planning     `id`, `task`, `selected_step`, `conversations` ("<image 0-25> After <move ...>, what's next?"), `image`
    affordance   `id`, `meta_data` {original_dataset, original_width, original_height}, `instruction`,
                 `affordance` {x, y, width, height}, absolute pixels of the original
    trajectory   the same with `points`, a list of [x, y] (or {x, y}) in absolute pixels of the original

"<image A-B>" says that frames A to B of the episode are shown: `image` names a folder of them (or lists them); of these
VideoSampling takes some, and the tag becomes one `<image>` each. Pixels are divided by the *original* size, since
pictures may be stored in another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.conversations import (
    TurnRules,
    file_names,
    make_turns,
    read_conversation,
    read_name,
    read_text,
)
from gemvlm.curation.sources.folder import inside, read_frame, resolve_folder
from gemvlm.curation.sources.llava import scene_of, without_text
from gemvlm.curation.sources.places import Coordinates
from gemvlm.curation.sources.records import RawRecord, RecordError, imported, json_parts, json_records
from gemvlm.curation.sources.video import REFERENCE_SAMPLING, VideoSampling
from gemvlm.data.conversation import IMAGE_PLACEHOLDER
from gemvlm.sample import Frame, Provenance, Sample, Turn

PICTURES = (".jpg", ".png", ".jpeg")
PIXELS = Coordinates("pixels", "xywh")
_SHOWN = re.compile(r"<image (\d{1,5})-(\d{1,5})>\s*")


@dataclass(frozen=True)
class ShareRobot:
    """All JSON files under `path`, or those named. Pictures lie under `media`."""

    path: Path | str = "BAAI/ShareRobot"
    revision: str = ""
    annotations: tuple[str, ...] = ()
    media: str = ""
    sampling: VideoSampling = REFERENCE_SAMPLING

    @property
    def name(self) -> str:
        return "sharerobot"

    @cached_property
    def root(self) -> Path:
        return resolve_folder(self.path, self.revision)

    def parts(self) -> Sequence[str]:
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*.json"))
        names = self.annotations or tuple(sorted(found))
        if not names:
            raise ValueError(f"{self.root}: no .json file; fetch and unpack the set")
        return [part for name in names for part in json_parts(self.root / name, name)]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        return imported(json_records(self.root, part), self._sample)

    def _sample(self, raw: RawRecord, record: dict[str, Any]) -> Sample:
        if "conversations" in record:
            return self._planning(raw, record)
        if "affordance" in record or "points" in record:
            return self._grounding(raw, record)
        raise RecordError("unknown_record", f"neither conversations, affordance nor points among {sorted(record)}")

    def _planning(self, raw: RawRecord, record: dict[str, Any]) -> Sample:
        said = read_conversation(record)
        names = file_names(record, "image")
        if not names:
            raise RecordError("missing_file", "no pictures are named", "image")
        shown = _SHOWN.findall(said.exchanges[0][0])
        if len(shown) != 1 or any(_SHOWN.search(question) for question, _ in said.exchanges[1:]):
            raise RecordError("placeholders", "expected one <image A-B> in the first question only", "conversations")
        first, last = map(int, shown[0])
        pictures = self._episode(names, first, last)
        frames = tuple(read_frame(path) for path in pictures)
        question = _SHOWN.sub(IMAGE_PLACEHOLDER * len(frames) + "\n", said.exchanges[0][0], count=1)
        exchanges = ((question, said.exchanges[0][1]), *said.exchanges[1:])
        family = read_name(record.get("task", "planning"), "task").lower()
        turns = make_turns(exchanges, TurnRules(family, "planning"), None)
        meta = {"record": without_text(record), "frames": [path.name for path in pictures]}
        return self._made(raw, record, frames, turns, scene_of(self.name, names[0]), meta)

    def _episode(self, names: Sequence[str], first: int, last: int) -> list[Path]:
        """The chosen pictures of frames `first` to `last`: of those that are listed, or of the one folder that is."""
        if len(names) == 1 and PurePosixPath(names[0]).suffix == "":
            listed = self._listed(names[0])
        else:
            listed = [inside(self.root / self.media, name, "image") for name in names]
        if not first <= last or len(listed) < last - first + 1:
            told = f"<image {first}-{last}> but there are {len(listed)} pictures"
            raise RecordError("placeholders", f"{told}; fetch the missing ones", "image")
        span = listed[first : last + 1] if len(listed) > last else listed[: last - first + 1]
        chosen = self.sampling.indices(len(span), len(span) / self.sampling.fps)
        return [span[index] for index in chosen]

    def _listed(self, name: str) -> list[Path]:
        folder = self.root / self.media / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise RecordError("outside_folder", f"{name!r} leads out of the data folder", "image")
        if not folder.is_dir():
            raise RecordError("missing_file", f"{name!r}: no such folder of frames; unpack or fetch it", "image")
        ordered = sorted(folder.iterdir(), key=lambda path: (len(path.stem), path.stem))
        names = [path.name for path in ordered if path.suffix.lower() in PICTURES]
        return [inside(self.root / self.media, f"{name}/{each}", "image") for each in names]

    def _grounding(self, raw: RawRecord, record: dict[str, Any]) -> Sample:
        name, picture = self._picture(record)
        frame = read_frame(picture, field="id")
        meta_data = record["meta_data"]
        width, height = (_number(meta_data[f"original_{side}"], "meta_data") for side in ("width", "height"))
        if not (1 <= width <= 1 << 16 and 1 <= height <= 1 << 16):
            raise RecordError("image_shape", f"original size {width} x {height} is no picture's", "meta_data")
        size = (round(height), round(width))
        instruction = read_text(record["instruction"], "instruction")
        if "affordance" in record:
            values = [_number(record["affordance"][key], "affordance") for key in ("x", "y", "width", "height")]
            question = f"Which area of the image affords this: {instruction}?"
            turn = Turn(question, "<place:0>", "affordance", "grounding", "box", (PIXELS.box(values, size),))
        else:
            turn = _trajectory(instruction, record["points"], size)
        meta = {"record": {key: value for key, value in record.items() if key not in ("points", "affordance")}}
        return self._made(raw, record, (frame,), (turn,), scene_of(self.name, name), meta)

    def _picture(self, record: Mapping[str, Any]) -> tuple[str, Path]:
        """The picture that `id` names, as a path or as a number to which a file's ending has to be found."""
        name = record["id"]
        if isinstance(name, int) and not isinstance(name, bool):
            files = [f"{name}{ending}" for ending in PICTURES]
            name = next((file for file in files if (self.root / self.media / file).is_file()), files[0])
        return name, inside(self.root / self.media, name, "id")

    def _made(
        self,
        raw: RawRecord,
        record: Mapping[str, Any],
        frames: tuple[Frame, ...],
        turns: tuple[Turn, ...],
        scene: str,
        meta: dict[str, Any],
    ) -> Sample:
        provenance = Provenance(self.revision, "train", "unknown", f"{raw.file}:{raw.row}")
        id = f"{self.name}:{raw.file}:{raw.row}"
        return Sample(id, frames, turns, scene, self.name, meta, provenance, dialogue=len(turns) > 1)


def _trajectory(instruction: str, points: Any, size: tuple[int, int]) -> Turn:
    if not isinstance(points, list) or not 2 <= len(points) <= 1000:
        raise RecordError("bad_points", f"expected a list of points, found {points!r:.80}", "points")
    pairs = [(point["x"], point["y"]) if isinstance(point, dict) else tuple(point) for point in points]
    if any(len(pair) != 2 for pair in pairs):
        raise RecordError("bad_points", f"a point has not two numbers: {points!r:.80}", "points")
    places = tuple(PIXELS.point(_number(x, "points"), _number(y, "points"), size) for x, y in pairs)
    answer = ", ".join(f"<place:{index}>" for index in range(len(places)))
    question = f"By which points does the gripper move to do this: {instruction}?"
    return Turn(question, answer, "trajectory", "planning", "trajectory", places)


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecordError("bad_number", f"expected a number, found {value!r:.80}", field)
    return float(value)
