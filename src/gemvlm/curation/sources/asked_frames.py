"""RGB-D frames as samples: what the RGB-D sources share once each has found and read its own files.

A frame is asked about by `questions/from_depth.py`; the questions depend on the seed and the frame's id alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gemvlm.curation.questions.from_depth import questions_from_depth
from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.records import UNREADABLE, RecordError, rejection
from gemvlm.data.quarantine import check
from gemvlm.depth_map.origin import DepthOrigin
from gemvlm.sample import Frame, Provenance, Sample

FRAMES_PER_PART = 100
Direction = tuple[float, float, float]


@dataclass(frozen=True)
class Asking:
    """How frames are asked about: up to `turns` questions each; `up` (world frame) adds those that need gravity."""

    turns: int = 8
    seed: int = 0
    up: Direction | None = None


@dataclass(frozen=True)
class Shot:
    """One frame that waits to be read: its name within the scene, its file for the record, and how to read it."""

    name: str
    record: str
    read: Callable[[], Frame]


def frame_parts(scene: str, count: int) -> list[str]:
    """`SCENE:START-STOP` for each hundred frames."""
    return [f"{scene}:{at}-{min(at + FRAMES_PER_PART, count)}" for at in range(0, count, FRAMES_PER_PART)]


def part_range(part: str) -> tuple[str, int, int]:
    scene, span = part.rsplit(":", 1)
    start, stop = map(int, span.split("-"))
    return scene, start, stop


def asked_frames(
    source: str, scene: str, shots: Sequence[Shot], asking: Asking, provenance: Provenance
) -> Iterator[Sample | Rejection]:
    """A sample per frame with its questions. A frame that can't be read, or offers no question, is a `Rejection`."""
    for number, shot in enumerate(shots):
        try:
            yield _sample(source, scene, shot, asking, provenance)
        except UNREADABLE as error:
            fault = rejection(error, shot.record, number)
            yield replace(fault, id=f"{scene}/{shot.name}", file=shot.record)


def _sample(source: str, scene: str, shot: Shot, asking: Asking, provenance: Provenance) -> Sample:
    frame = shot.read()
    if frame.depth is None:
        raise RecordError("no_depth", f"{shot.name} has no depth; add it, or leave the frame out", "depth")
    origin = DepthOrigin("sensor", licence=provenance.licence)
    frame = replace(frame, depth=replace(frame.depth, origin=origin))
    id = f"{scene}/{shot.name}"
    rng = np.random.default_rng((asking.seed, zlib.crc32(id.encode())))
    turns = questions_from_depth(frame, rng, asking.turns, None if asking.up is None else np.array(asking.up))
    if not turns:
        raise RecordError("no_question", f"the depth of {shot.name} offers no question with a clear answer", "depth")
    sample = Sample(id, (frame,), turns, scene, source, {}, replace(provenance, record=shot.record))
    if (defect := check(sample)) is not None:
        raise RecordError("unusable", str(defect), defect.field)
    return sample
