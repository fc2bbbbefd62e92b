"""What one training item is: frames, turns about them, and the places that the turns speak of.

Coordinates are floats in [0, 1] of the image's width and height: x to the right, y down, the centre of pixel (row j,
column i) at ((i + 0.5) / width, (j + 0.5) / height). Text never holds coordinates: it holds markers `<place:0>`,
`<place:1>`, ... that index `Turn.places`, and `data/conversation.py` writes them in a model's own convention.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, UInt8

from gemvlm.camera import View
from gemvlm.depth_map import DepthMap

Task = Literal["description", "grounding", "reasoning", "planning"]
AnswerKind = Literal["text", "choice", "yes_no", "number", "point", "points", "box", "trajectory"]

PLACE_MARKER = re.compile(r"<place:(\d+)>")


@dataclass(frozen=True)
class Point:
    """A place in an image, as fractions of its width and height."""

    x: float
    y: float


@dataclass(frozen=True)
class Box:
    """An axis-aligned box (left, top, right, bottom), as fractions of the image's width and height."""

    x0: float
    y0: float
    x1: float
    y1: float


Place = Point | Box


@dataclass(frozen=True)
class Region:
    """A set of pixels as run lengths in row-major order, the first run counting pixels *outside* the set."""

    height: int
    width: int
    runs: tuple[int, ...]

    @classmethod
    def from_mask(cls, mask: Bool[np.ndarray, "H W"]) -> Region:
        flat = np.concatenate([[False], mask.ravel(), [not mask.ravel()[-1]]])
        edges = np.flatnonzero(flat[1:] != flat[:-1])
        runs = np.diff(np.concatenate([[0], edges]))
        return cls(mask.shape[0], mask.shape[1], tuple(int(run) for run in runs))

    def to_mask(self) -> Bool[np.ndarray, "H W"]:
        inside = np.arange(len(self.runs)) % 2 == 1
        return np.repeat(inside, self.runs).reshape(self.height, self.width)

    def contains(self, point: Point) -> bool:
        """True if the pixel under `point` belongs to the set; False for points outside the image."""
        column, row = int(np.floor(point.x * self.width)), int(np.floor(point.y * self.height))
        if not (0 <= column < self.width and 0 <= row < self.height):
            return False
        return bool(self.to_mask()[row, column])


@dataclass(frozen=True)
class Turn:
    """One question about the frames of a sample, with its answer and what is needed to score a reply.

    `cues` holds, for each shortcut that needs no understanding ("height", "size", ...), the answer that it would give:
    evaluation prints the score of every shortcut beside the model's. `tolerance` is relative for numbers, a share
    of the diagonal for trajectories, and not used otherwise. `region` is the set of pixels that a pointing answer must
    hit; `regions` are the sets of an answer of several points, one for each thing to be pointed to.
    """

    question: str
    answer: str
    family: str
    task: Task
    kind: AnswerKind
    places: tuple[Place, ...] = ()
    options: tuple[str, ...] = ()
    unit: str | None = None
    tolerance: float | None = None
    region: Region | None = None
    cues: Mapping[str, str] = field(default_factory=dict)
    subsets: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()

    def __post_init__(self) -> None:
        for marker in PLACE_MARKER.findall(self.question + self.answer):
            if int(marker) >= len(self.places):
                raise ValueError(
                    f"turn of family {self.family!r}: text names <place:{marker}> but only {len(self.places)} "
                    "places are given; add the place or remove the marker"
                )
        if self.kind == "choice" and self.answer not in self.options:
            raise ValueError(f"turn of family {self.family!r}: answer {self.answer!r} is not one of {self.options}")


@dataclass(frozen=True)
class Frame:
    """One image (height, width, 3; uint8 RGB) with what is known about it.

    `encoded` holds the bytes of the publisher's file (JPEG, PNG), which storage keeps as they are; they decode to
    exactly `image`. `time_s` is the moment of a video frame, in seconds from the video's start.
    """

    image: UInt8[np.ndarray, "H W 3"]
    depth: DepthMap | None = None
    view: View | None = None
    encoded: bytes | None = None
    time_s: float | None = None

    def __post_init__(self) -> None:
        if self.depth is not None and self.depth.values.shape != self.image.shape[:2]:
            raise ValueError(
                f"frame: depth is {self.depth.values.shape} but the image is {self.image.shape[:2]} (height, width); "
                "register the depth to the image first"
            )


@dataclass(frozen=True)
class Provenance:
    """Where a sample was read and on what terms.

    `record` names file and line or row; `licence` is an SPDX id where there is one.
    """

    version: str = ""
    split: str = ""
    licence: str = "unknown"
    record: str = ""


@dataclass(frozen=True)
class Sample:
    """Frames and the turns about them. `scene` groups samples of one place: splits and bootstraps go by scene.

    The turns of a `dialogue` are one conversation, shown whole and in order; others stand alone and may be chosen from.
    """

    id: str
    frames: tuple[Frame, ...]
    turns: tuple[Turn, ...]
    scene: str
    source: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance = Provenance()
    dialogue: bool = False
    system: str | None = None
