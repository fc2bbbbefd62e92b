"""Samples to layouts that other projects read: GEM's, plain Qwen fine-tuning data, LeRobot episodes.

    gem       `GEM-250K.jsonl`, pictures, and `depth/NAME.png` (16 bits, proportional to depth, 0 = invalid) for each
              picture `.../NAME.*`, as the loader of zhaorw02/GEM (5500948, `qwenvl/data/utils.py`) looks for it
    qwen      `annotations.jsonl` and pictures, without depth
    lerobot   one episode per sample that is a video (`data.episodes`)

Pictures are the publisher's bytes where there are any, and are called by a hash of picture and depth, so that no two
files of one name ever meet. Since the published loader takes the depth of `x.jpg` from `depth/x.jpg`, a picture that
has depth is written as PNG in GEM's layout. A sample that came from GEM's layout keeps its record, its files' names and
its counts. Places are written in thousandths. A video whose file is not given (`media`) becomes one picture per frame.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import UInt16
from PIL import Image

from gemvlm.curation.sources.folder import inside, read_bytes
from gemvlm.data.conversation import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, CoordinateFormat
from gemvlm.depth_map import DepthMap, space_values
from gemvlm.sample import Frame, Sample

Layout = Literal["gem", "qwen", "lerobot"]
ANNOTATIONS: dict[Layout, str] = {"gem": "GEM-250K.jsonl", "qwen": "annotations.jsonl"}
LARGEST_COUNT = 65535
COUNTS_PER_METRE = 1000
RELATIVE_TOP = 60000
"""Counts of the 99.9th percentile of a relative map that is not in counts already."""
SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp"}


def export(reader: Sequence[Sample], out: Path, to: Layout, media: Path | None = None) -> int:
    """Writes every sample of `reader` into the new folder `out`; returns how many records (or episodes) that made.

    `media` is the folder that the samples were imported from: videos are copied from it, and so are pictures whose
    bytes frames don't keep. ValueError for an unknown layout, a folder in use, a sample without turns, and for depth
    that has no linear form.
    """
    if to not in get_args(Layout):
        raise ValueError(f"export: layout {to!r} is none of {', '.join(get_args(Layout))}")
    if to == "lerobot":
        return _export_lerobot(reader, out)
    annotations = out / ANNOTATIONS[to]
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out}: not empty; give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    files = _Files(out, media, with_depth=to == "gem")
    partial = annotations.with_name(annotations.name + ".partial")
    with partial.open("w", encoding="utf-8") as lines:
        for sample in _samples(reader):
            lines.write(json.dumps(_record(sample, files), ensure_ascii=False) + "\n")
    partial.replace(annotations)
    return len(reader)


def _samples(reader: Sequence[Sample]) -> Iterator[Sample]:
    return (reader[index] for index in range(len(reader)))


@dataclass
class _Files:
    """Writes pictures and depth once each and says what they are called."""

    out: Path
    media: Path | None
    with_depth: bool
    written: dict[str, bytes] = field(default_factory=dict)

    def picture(self, frame: Frame, entry: Mapping[str, Any] | None) -> str:
        """The name of a frame's picture, which with its depth is on disk afterwards. `entry` tells names to keep."""
        counts = _png(depth_counts(frame.depth)) if self.with_depth and frame.depth is not None else b""
        content = frame.encoded or self._original(entry) or _png(frame.image)
        digest = hashlib.blake2b(content + counts, digest_size=16)
        if entry is not None and self.written.get(entry["path"], digest.digest()) == digest.digest():
            name, depth = (
                _within(entry["path"]),
                _within(entry.get("depth") or str(PurePosixPath("depth", entry["path"]).with_suffix(".png"))),
            )
        else:
            suffix = next((each for head, each in SUFFIXES.items() if content.startswith(head)), "")
            if counts and suffix != ".png":
                content, suffix = _png(frame.image), ".png"
            name, depth = f"images/{digest.hexdigest()}{suffix}", f"depth/{digest.hexdigest()}.png"
        if name not in self.written:
            self.written[name] = digest.digest()
            self._put(name, content)
            if counts:
                self._put(depth, counts)
        return name

    def _original(self, entry: Mapping[str, Any] | None) -> bytes | None:
        """The file that a frame was read from, where the frame itself has not kept its bytes."""
        if entry is None or self.media is None:
            return None
        return read_bytes(inside(self.media, entry["path"], "image"))

    def video(self, entry: Mapping[str, Any]) -> str | None:
        """The name of a video that is copied from `media`, None if that is not given."""
        if self.media is None:
            return None
        source = inside(self.media, entry["path"], "video")
        target = self.out / _within(entry["path"])
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return str(entry["path"])

    def _put(self, name: str, content: bytes) -> None:
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _within(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"export: a sample's file {name!r} would lie outside the folder")
    return str(path)


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def depth_counts(depth: DepthMap) -> UInt16[np.ndarray, "H W"]:
    """16-bit counts proportional to depth, 0 = invalid: millimetres, or a relative map's own counts if it has any.

    Other relative depth, and metric depth beyond 65.5 m, is scaled to the whole range: GEM's layout knows no unit.
    ValueError for kinds that no scale makes proportional to depth.
    """
    if depth.kind == "ray_distance":
        raise ValueError(f"depth from {depth.source!r} runs along the ray; turn it into z-depth before the export")
    values = space_values(depth, "depth").astype(np.float64)
    known = values[depth.valid]
    if depth.is_metric and known.max(initial=0) * COUNTS_PER_METRE <= LARGEST_COUNT:
        counts = np.maximum(np.round(values * COUNTS_PER_METRE), 1)
    elif known.max(initial=0) > LARGEST_COUNT or not (known == np.round(known)).all():
        top = max(float(np.quantile(known, 0.999)), 1e-12)
        counts = np.clip(np.round(values / top * RELATIVE_TOP), 1, LARGEST_COUNT)
    else:
        counts = values
    return np.where(depth.valid, counts, 0).astype(np.uint16)


def _record(sample: Sample, files: _Files) -> dict[str, Any]:
    """One line: the record that the sample was imported from, as far as it still holds, or a new one."""
    if not sample.turns:
        raise ValueError(f"sample {sample.id!r} has no turns to export; write questions first")
    kept = sample.meta.get("layout") == "gem" and isinstance(sample.meta.get("record"), str)
    entries: list[dict[str, Any]] = list(sample.meta["media"]) if isinstance(sample.meta.get("media"), list) else []
    if sum(entry["frames"] for entry in entries) != len(sample.frames):
        entries = [{"kind": "image", "frames": 1} for _ in sample.frames]
    images: list[str] = []
    videos: list[str] = []
    tags: list[tuple[str, int]] = []
    frames = iter(sample.frames)
    for entry in entries:
        shown = [next(frames) for _ in range(entry["frames"])]
        video = files.video(entry) if entry["kind"] == "video" else None
        if video is not None:
            videos.append(video)
            tags.append((VIDEO_PLACEHOLDER, len(shown)))
            continue
        own = entry if kept and entry["kind"] == "image" else None
        images += [files.picture(frame, own) for frame in shown]
        tags += [(IMAGE_PLACEHOLDER, 1)] * len(shown)
    shape = json.loads(sample.meta["record"]) if kept else {"id": sample.id}
    _name(shape, "image", images)
    _name(shape, "video", videos)
    return _with_text(shape, sample, tags)


def _name(shape: dict[str, Any], key: str, names: Sequence[str]) -> None:
    """Files under `key`: alone where there is one, unless the record has a list there already."""
    if not names:
        shape.pop(key, None)
    else:
        shape[key] = list(names) if len(names) > 1 or isinstance(shape.get(key), list) else names[0]


def _with_text(shape: dict[str, Any], sample: Sample, tags: Sequence[tuple[str, int]]) -> dict[str, Any]:
    texts = [sample.system] if sample.system is not None else []
    write = CoordinateFormat().fill
    for index, turn in enumerate(sample.turns):
        question = write(turn.question, turn.places)
        texts += [_tagged(question, tags) if index == 0 else question, write(turn.answer, turn.places)]
    messages = shape.get("conversations")
    if not isinstance(messages, list) or len(messages) != len(texts):
        speakers = ["system"] * (sample.system is not None) + ["human", "gpt"] * len(sample.turns)
        messages = [{"from": speaker, "value": None} for speaker in speakers]
    shape["conversations"] = [
        {**message, "content" if "content" in message else "value": text}
        for message, text in zip(messages, texts, strict=True)
    ]
    return shape


def _tagged(question: str, tags: Sequence[tuple[str, int]]) -> str:
    """The first question with one tag per file: `frames` tags of a video that is one file become one `<video>`."""
    pieces = question.split(IMAGE_PLACEHOLDER)
    if len(pieces) == 1:
        return "".join(tag for tag, _ in tags) + ("\n" if tags else "") + question
    text, used = pieces[0], 0
    for tag, frames in tags:
        used += frames
        text += tag + "".join(pieces[used - frames + 1 : used + 1])
    return text


def _export_lerobot(reader: Sequence[Sample], out: Path) -> int:
    from gemvlm.data.episodes import write_lerobot

    episodes = [_episode(sample) for sample in _samples(reader)]
    write_lerobot(out, episodes)
    return len(episodes)


def _episode(sample: Sample) -> Any:
    """A sample whose frames are a video at a constant rate; `meta["task"]` is its instruction. ValueError otherwise."""
    from gemvlm.data.episodes import ArrayData, CameraInfo, Episode

    times = np.array([np.nan if frame.time_s is None else frame.time_s for frame in sample.frames])
    steps = np.diff(times)
    if len(times) < 2 or not (np.isfinite(times).all() and (steps > 0).all() and np.ptp(steps) < 1e-3):
        raise ValueError(
            f"sample {sample.id!r} is no video at a constant rate, as LeRobot's episodes are; export it to gem or qwen"
        )
    fps = round(float(1 / steps.mean()), 3)
    depths = [frame.depth for frame in sample.frames if frame.depth is not None]
    has_depth = len(depths) == len(sample.frames)
    images = {"main": np.stack([frame.image for frame in sample.frames])}
    height, width = images["main"].shape[1:3]
    return Episode(
        id=sample.id,
        instruction=str(sample.meta.get("task", "")),
        length=len(times),
        fps=fps,
        cameras={"main": CameraInfo(height, width, has_depth)},
        data=ArrayData(fps, images, {"main": depths} if has_depth else {}),
        licence=sample.provenance.licence,
    )
