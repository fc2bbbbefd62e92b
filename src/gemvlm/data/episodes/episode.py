"""One robot episode: what was asked, what was done when, what the cameras saw, and the numbers of state and action.

An `Episode` is a description of a few hundred bytes; frames, states and actions are read through its `data` when asked
for, any range of them. State and action are float32 arrays (time, dimension) at the episode's rate, in the units that
their `names` and the robot's manual state: the files hold numbers only, so `units` is empty where nobody said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame


@dataclass(frozen=True)
class SubTask:
    """What is being done in the frames `start` <= t < `stop`."""

    text: str
    start: int
    stop: int


@dataclass(frozen=True)
class CameraInfo:
    """A camera's size in pixels and whether its frames carry depth (metres along the optical axis)."""

    height: int
    width: int
    has_depth: bool = False


@runtime_checkable
class EpisodeData(Protocol):
    """Reads one episode's numbers and pictures. `signal` names "state" or "action"."""

    def signal(self, name: str, start: int, stop: int) -> Float32[np.ndarray, "T D"]: ...

    def frames(self, camera: str, indices: Sequence[int]) -> tuple[Frame, ...]: ...


@runtime_checkable
class ChunkData(EpisodeData, Protocol):
    """Of an episode whose chunks of actions are stored, rather than the actions of one frame after the other."""

    def chunk(self, index: int) -> Float32[np.ndarray, "H A"]: ...


@dataclass(frozen=True)
class Episode:
    """A recording of `length` frames at `fps`. `success` is None where nobody judged it.

    `subtasks` are ordered and don't overlap; frames between them are not annotated. `state_names` and `action_names`
    name the columns of the arrays, () where there is none. `wordings` are all ways in which the task was said, where
    there are several; `instruction` is one of them. Where `chunk_length` is not 0 every frame has a chunk of so many
    actions of its own, which no frame's action tells. ValueError if any of it contradicts itself.
    """

    id: str
    instruction: str
    length: int
    fps: float
    cameras: Mapping[str, CameraInfo]
    data: EpisodeData
    subtasks: tuple[SubTask, ...] = ()
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    success: bool | None = None
    robot: str = "unknown"
    licence: str = "unknown"
    wordings: tuple[str, ...] = ()
    chunk_length: int = 0

    def __post_init__(self) -> None:
        if self.length < 1 or not self.fps > 0:
            raise ValueError(
                f"episode {self.id!r}: {self.length} frames at {self.fps} per second; both must be above 0"
            )
        end = 0
        for part in self.subtasks:
            if not (end <= part.start < part.stop <= self.length) or not part.text:
                raise ValueError(
                    f"episode {self.id!r}: sub-task {part.text!r} covers frames {part.start}..{part.stop} of "
                    f"{self.length}, the one before ends at {end}; sub-tasks need a text, their order and no overlap"
                )
            end = part.stop

    def state(self, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, "T D"]:
        """States of frames `start` <= t < `stop` (the whole episode by default), D = len(`state_names`)."""
        return self.data.signal("state", *self._range(start, stop))

    def action(self, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, "T D"]:
        """Actions commanded at frames `start` <= t < `stop`, D = len(`action_names`)."""
        return self.data.signal("action", *self._range(start, stop))

    def chunk(self, index: int) -> Float32[np.ndarray, "H A"]:
        """The `chunk_length` actions from frame `index` on. ValueError if the episode stores none."""
        if not self.chunk_length or not isinstance(self.data, ChunkData) or not 0 <= index < self.length:
            raise ValueError(f"episode {self.id!r}: no chunk is stored for frame {index} of {self.length}")
        return self.data.chunk(index)

    def frames(self, camera: str, indices: Sequence[int]) -> tuple[Frame, ...]:
        """The pictures of `camera` at the given frames, in their order, each with `time_s` from the episode's start."""
        if camera not in self.cameras:
            raise ValueError(f"episode {self.id!r} has no camera {camera!r}; it has {sorted(self.cameras)}")
        if outside := [index for index in indices if not 0 <= index < self.length]:
            raise ValueError(f"episode {self.id!r}: frames {outside} are outside 0..{self.length - 1}")
        return self.data.frames(camera, indices)

    def subtask_at(self, index: int) -> int | None:
        """Which of `subtasks` frame `index` belongs to, None where nothing is annotated."""
        return next((i for i, part in enumerate(self.subtasks) if part.start <= index < part.stop), None)

    def _range(self, start: int, stop: int | None) -> tuple[int, int]:
        stop = self.length if stop is None else stop
        if not 0 <= start <= stop <= self.length:
            raise ValueError(f"episode {self.id!r}: frames {start}..{stop} are outside 0..{self.length}")
        return start, stop


@runtime_checkable
class EpisodeSet(Protocol):
    """Episodes by their number: a list of them, or a folder that describes each when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Episode: ...


def readable_episodes(episodes: EpisodeSet) -> tuple[list[Episode], list[str]]:
    """The episodes that can be described, and for every other one the reason, which names its file."""
    found, reasons = [], []
    for number in range(len(episodes)):
        try:
            found.append(episodes[number])
        except ValueError as error:
            reasons.append(str(error))
    return found, reasons


@dataclass(frozen=True)
class ArrayData:
    """An episode that is in memory: what a simulator records, and what tests write."""

    fps: float
    images: Mapping[str, UInt8[np.ndarray, "T H W 3"]]
    depths: Mapping[str, Sequence[DepthMap]] = field(default_factory=dict)
    signals: Mapping[str, Float32[np.ndarray, "T D"]] = field(default_factory=dict)

    def signal(self, name: str, start: int, stop: int) -> Float32[np.ndarray, "T D"]:
        if name not in self.signals:
            return np.zeros((stop - start, 0), np.float32)
        return self.signals[name][start:stop]

    def frames(self, camera: str, indices: Sequence[int]) -> tuple[Frame, ...]:
        depths = self.depths.get(camera)
        return tuple(
            Frame(self.images[camera][i], None if depths is None else depths[i], time_s=i / self.fps) for i in indices
        )
