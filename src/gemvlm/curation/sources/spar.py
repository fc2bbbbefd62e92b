"""SPAR-7M with depth: questions about marked points and boxes in one picture, several, or a video.

Stated by fudan-zvg/spar, README.md of the data set and `datasets/toy_dataset.py` (read in its copy
zhangjiayi-ootd/SPARtest, commit 04f6b558), hub data set `jasonzhango/SPAR-7M-RGBD`:

    spar/SET/qa_jsonl/train/TYPE/FORM/FORM_COUNT.jsonl    SET scannet, scannetpp, structured3d, rxr;
                                                          FORM fill (a value), select (options), sentence
    spar/SET/images/SCENE/image_color, image_depth, video_color, video_depth, pose, intrinsic

A row is {id, conversations, image[], type, depth[], red_point, ..., point_img_idx, bbox_img_idx}; paths are below
`spar/SET/images`, lists of marks are wrapped once more (see `spar_markers`). Texts hold no `<image>`: up to 10 images
come before the question, more are a video whose frames are introduced as "Frame-1: <image>". Depth is 16-bit
millimetres; where it has another size than the picture, ScanNet's `intrinsic/` registers it. Annotations are MIT; the
pictures keep the terms of the set that they come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.conversations import TurnRules, file_names, make_turn, read_conversation
from gemvlm.curation.sources.folder import MILLIMETRE_PNG, inside, read_depth, read_frame, resolve_folder
from gemvlm.curation.sources.places import Coordinates
from gemvlm.curation.sources.records import RawRecord, RecordError, imported, json_parts, json_records
from gemvlm.curation.sources.scannet import read_calibration
from gemvlm.curation.sources.spar_markers import draw_marks, read_marks
from gemvlm.data.conversation import IMAGE_PLACEHOLDER
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.origin import DepthOrigin
from gemvlm.sample import Frame, Provenance, Sample, Turn

MOST_STILLS = 10
MOST_FRAMES = 64
NUMBER_TOLERANCE = 0.1
Form = Literal["fill", "select", "sentence"]
TERMS = {
    "scannet": "LicenseRef-ScanNet-non-commercial",
    "scannetpp": "LicenseRef-ScanNetpp-non-commercial",
    "structured3d": "LicenseRef-Structured3D-non-commercial",
    "rxr": "LicenseRef-Matterport3D-non-commercial",
}
RENDERED = ("structured3d",)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WITH_PLACES = ("position_matching", "camera_motion_infer")
"""Types whose answers hold coordinates, in thousandths."""


@dataclass(frozen=True)
class Spar:
    """`path` holds `spar/` (or is it), locally or as a hub id with a `revision` whose archives were unpacked."""

    path: Path | str
    revision: str = ""
    forms: tuple[Form, ...] = ("fill", "select", "sentence")
    split: str = "train"

    @property
    def name(self) -> str:
        return "spar"

    def parts(self) -> Sequence[str]:
        root = self._root()
        files = [path for form in self.forms for path in sorted(root.glob(f"*/qa_jsonl/{self.split}/*/{form}/*.jsonl"))]
        if not files:
            raise ValueError(f"{root}: no SET/qa_jsonl/{self.split}/TYPE/FORM/*.jsonl; unpack the archives there")
        return [part for path in files for part in json_parts(path, path.relative_to(root).as_posix())]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        yield from imported(json_records(self._root(), part), self._sample)

    def _root(self) -> Path:
        folder = resolve_folder(self.path, self.revision)
        return folder / "spar" if (folder / "spar").is_dir() else folder

    def _sample(self, raw: RawRecord, fields: Mapping[str, Any]) -> Sample:
        set_name, form = raw.file.split("/")[0], raw.file.split("/")[-2]
        images = self._root() / set_name / "images"
        frames = _frames(fields, images, "simulator" if set_name in RENDERED else "sensor")
        marks = read_marks(fields, [frame.image.shape[:2] for frame in frames])
        frames = tuple(_marked(frame, [mark for mark in marks if mark.image == i]) for i, frame in enumerate(frames))
        spoken = read_conversation(fields)
        if len(spoken.exchanges) != 1:
            raise RecordError("speakers", f"{len(spoken.exchanges)} questions; SPAR asks one", "conversations")
        question, answer = spoken.exchanges[0]
        kind = str(fields["type"])
        turn = _turn(_with_images(question, len(frames), kind), answer, kind, form, frames[0].image.shape[:2])
        terms = f"MIT AND {TERMS[set_name]}" if set_name in TERMS else "unknown"
        record = f"{raw.file}:{raw.row}"
        scene = f"{set_name}/{file_names(fields, 'image')[0].split('/')[0]}"
        provenance = Provenance(self.revision, self.split, terms, record)
        return Sample(
            f"{self.name}/{record}", frames, (turn,), scene, self.name, {"type": kind, "form": form}, provenance
        )


def _frames(fields: Mapping[str, Any], images: Path, measured: Literal["sensor", "simulator"]) -> tuple[Frame, ...]:
    names, depths = file_names(fields, "image"), file_names(fields, "depth")
    if not 1 <= len(names) <= MOST_FRAMES:
        raise RecordError("bad_path", f"{len(names)} images; expected 1..{MOST_FRAMES}", "image")
    if len(depths) not in (0, len(names)):
        raise RecordError("bad_path", f"{len(depths)} depth files for {len(names)} images; one for each", "depth")
    frames = [read_frame(inside(images, name, "image")) for name in names]
    for i, name in enumerate(depths):
        depth = read_depth(inside(images, name, "depth"), replace(MILLIMETRE_PNG, origin=DepthOrigin(measured)))
        frames[i] = replace(frames[i], depth=_registered(depth, frames[i], images / name.split("/")[0]))
    return tuple(frames)


def _registered(depth: DepthMap, frame: Frame, scene: Path) -> DepthMap:
    height, width = frame.image.shape[:2]
    if depth.values.shape == (height, width):
        return depth
    if not (scene / "intrinsic" / "intrinsic_depth.txt").is_file():
        told = f"depth is {depth.values.shape}, the picture {(height, width)} (height, width), and the scene has no"
        raise RecordError("depth_size", f"{told} intrinsic/ to register it by; fetch it", "depth")
    return read_calibration(scene / "intrinsic").register(depth, width, height)


def _marked(frame: Frame, marks: list[Any]) -> Frame:
    """The frame with its marks drawn; the publisher's bytes no longer are its picture."""
    return replace(frame, image=draw_marks(frame.image, marks), encoded=None) if marks else frame


def _with_images(question: str, count: int, kind: str) -> str:
    if IMAGE_PLACEHOLDER in question:
        return question
    if count > MOST_STILLS or kind == "nav":
        return "\n".join(f"Frame-{i + 1}: {IMAGE_PLACEHOLDER}" for i in range(count)) + f"\n{question}"
    return f"{IMAGE_PLACEHOLDER}\n" * count + question


def _turn(question: str, answer: str, kind: str, form: str, size: tuple[int, int]) -> Turn:
    coordinates = Coordinates("thousandths") if kind in _WITH_PLACES and form != "select" else None
    rules = TurnRules(f"spar_{kind}", "reasoning", "required" if form == "select" else "ignored", coordinates)
    turn = make_turn(question, answer, rules, size)
    if form == "fill" and turn.kind == "text" and _NUMBER.fullmatch(answer.strip()):
        unit = "m" if re.search(r"\bmet(?:er|re)s?\b", question) else None
        return replace(turn, kind="number", unit=unit, tolerance=NUMBER_TOLERANCE)
    return turn
