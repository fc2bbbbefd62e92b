"""LeRobot folders of versions 2.x and 3.0 as episodes; their layouts are told in `lerobot_v2` and `lerobot_v3`.

Columns of the data tables: `observation.state`, `action` (lists of floats, or a float where the shape is (1,)),
`task_index`, `episode_index`, `frame_index`, `timestamp`, optionally `next.success`, `subtask_index` (into
`meta/subtasks.parquet`; -1 = not annotated) and `language_persistent`, whose rows of style "subtask" hold from their
`timestamp` on until the next (huggingface/lerobot, `src/lerobot/datasets/language.py`, commit 16831978). Pictures are
videos or, for features of dtype "image", bytes in the table. Depth is told apart by `is_depth_map` in a feature's
`info`; it is given to the colour camera of the same name and size. Depth whose code is not stated is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from gemvlm.data.episodes.depth_codes import DepthCodes
from gemvlm.data.episodes.episode import CameraInfo, Episode, SubTask
from gemvlm.data.episodes.lerobot_features import (
    camera_name,
    decoded,
    depth_picture,
    dimension_names,
    feature_info,
    is_depth,
    picture_size,
)
from gemvlm.data.episodes.lerobot_meta import Layout, Placement, read_info
from gemvlm.data.episodes.lerobot_tables import read_column
from gemvlm.data.episodes.lerobot_v2 import LayoutV2
from gemvlm.data.episodes.lerobot_v3 import LayoutV3
from gemvlm.data.episodes.video import decode_frames
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.origin import DepthOrigin
from gemvlm.sample import Frame

SENSOR = DepthOrigin("sensor")
LARGEST_HEAD = 1 << 16
TOGETHER = 32
"""Rows of pictures that are read at once."""


@dataclass(frozen=True)
class LeRobotFolder:
    """The episodes of a folder. `state_keys` and `action_keys` name the columns that make up state and action.

    `fps`, `state_names` and `action_names` are what is true where the files say something else: published LIBERO sets
    state 10 frames a second for steps of a twentieth, and some call two columns alike.

    ValueError for what is not a LeRobot folder, and from an episode for what is damaged in it; others stay readable.
    The licence is that of the folder's README.md unless given. `unused_depth` says why a depth feature can't be used.
    """

    path: Path
    licence: str | None = None
    state_keys: tuple[str, ...] = ("observation.state",)
    action_keys: tuple[str, ...] = ("action",)
    depth_origin: DepthOrigin = SENSOR
    fps: float | None = None
    state_names: tuple[str, ...] | None = None
    action_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.layout)

    def __getitem__(self, position: int) -> Episode:
        if not -len(self) <= position < len(self):
            raise IndexError(f"{self.path}: episode {position} of {len(self)}")
        place = self.layout[position % len(self)]
        tasks, parts = self._texts(place)
        return Episode(
            id=f"{self.path.name}/{place.index:06d}",
            instruction=tasks[0] if len(tasks) == 1 else "",
            length=place.length,
            fps=self.rate,
            cameras=self.cameras,
            data=_Reader(self, place),
            subtasks=parts,
            state_names=self.names("state"),
            action_names=self.names("action"),
            units=self._units,
            success=self._success(place),
            robot=str(self.layout.info.get("robot_type") or "unknown"),
            licence=self.licence or self._stated_licence,
            wordings=place.wordings,
        )

    def __iter__(self) -> Iterator[Episode]:
        return (self[position] for position in range(len(self)))

    @cached_property
    def layout(self) -> Layout:
        info = read_info(self.path)
        layout = LayoutV3 if info["codebase_version"].startswith("v3") else LayoutV2
        return layout(self.path, info)

    def keys(self, signal: str) -> tuple[str, ...]:
        """The columns of "state" or "action" that the folder has."""
        wanted = self.state_keys if signal == "state" else self.action_keys
        return tuple(key for key in wanted if key in self.layout.info["features"])

    @property
    def rate(self) -> float:
        """Frames a second, in truth."""
        return self.fps or float(self.layout.info["fps"])

    def names(self, signal: str) -> tuple[str, ...]:
        """ValueError if there are more or fewer than was said."""
        found = tuple(name for key in self.keys(signal) for name in dimension_names(key, self.feature(key)))
        said = self.state_names if signal == "state" else self.action_names
        if said is None:
            return found
        if len(said) != len(found):
            raise ValueError(f"{self.path}: {len(said)} {signal}_names for {len(found)} columns {list(found)}")
        return said

    @cached_property
    def _units(self) -> Mapping[str, str]:
        units: dict[str, str] = {}
        for signal in ("state", "action"):
            names = iter(self.names(signal))
            for key in self.keys(signal):
                stated = self.feature(key).get("units")
                own = [next(names) for _ in dimension_names(key, self.feature(key))]
                if isinstance(stated, list) and len(stated) == len(own):
                    units |= {name: str(unit) for name, unit in zip(own, stated, strict=True) if unit}
        return units

    @cached_property
    def _stated_licence(self) -> str:
        card = self.path / "README.md"
        head = card.read_bytes()[:LARGEST_HEAD].decode(errors="replace") if card.is_file() else ""
        stated = re.search(r"\A---\n(?:.*\n)*?license:[ \t]*(\S.*)\n(?:.*\n)*?---", head)
        return stated[1].strip() if stated else "unknown"

    @cached_property
    def cameras(self) -> Mapping[str, CameraInfo]:
        """The colour cameras by feature key."""
        return {
            key: CameraInfo(*self._size(key), has_depth=key in self.depth_of)
            for key, spec in self.layout.info["features"].items()
            if spec.get("dtype") in ("video", "image") and not is_depth(spec)
        }

    @cached_property
    def unused_depth(self) -> Mapping[str, str]:
        return {key: reason for key, (_, reason) in self._depth_keys.items() if reason}

    @cached_property
    def depth_of(self) -> Mapping[str, str]:
        """The depth feature of each colour camera that has one."""
        return {camera: key for key, (camera, reason) in self._depth_keys.items() if not reason}

    @cached_property
    def _depth_keys(self) -> Mapping[str, tuple[str, str]]:
        """Each depth feature with its colour camera and, if it can't be used, the reason."""
        features = self.layout.info["features"]
        pictures = {key: spec for key, spec in features.items() if spec.get("dtype") in ("video", "image")}
        found = {}
        for key in (key for key, spec in pictures.items() if is_depth(spec)):
            name = camera_name(key)
            colours = [k for k, spec in pictures.items() if not is_depth(spec) and camera_name(k) == name]
            stated = any(k.removeprefix("video.") == "depth_max" for k in feature_info(features[key]))
            if len(colours) != 1:
                found[key] = ("", f"{len(colours)} colour cameras are called {name!r}; exactly one is needed")
            elif self._size(key) != self._size(colours[0]):
                sizes = f"{self._size(key)} and {self._size(colours[0])}"
                found[key] = (colours[0], f"depth and colour differ in size ({sizes}) and no calibration is stored")
            elif features[key]["dtype"] == "video" and not stated:
                found[key] = (
                    colours[0],
                    "its info does not say which metres its codes stand for (video.depth_max, ...)",
                )
            else:
                found[key] = (colours[0], "")
        return found

    def feature(self, key: str) -> Mapping[str, Any]:
        """What `meta/info.json` says about a column."""
        return self.layout.info["features"][key]

    def _size(self, key: str) -> tuple[int, int]:
        return picture_size(self.feature(key), f"{self.path}/meta/info.json: feature {key}")

    def _texts(self, place: Placement) -> tuple[tuple[str, ...], tuple[SubTask, ...]]:
        """The episode's tasks, and its sub-tasks from whichever column annotates them."""
        features = self.layout.info["features"]
        tasks = tuple(dict.fromkeys(text.strip() for text in place.tasks if text.strip()))
        if "subtask_index" in features:
            return tasks, _runs(self._integers(place, "subtask_index"), self.layout.subtasks)
        if "language_persistent" in features:
            return tasks, self._spoken(place)
        if len(tasks) > 1:  # the task changes on the way: what is done when is all that is known
            return tasks, _runs(self._integers(place, "task_index"), self.layout.tasks)
        return tasks, ()

    def _spoken(self, place: Placement) -> tuple[SubTask, ...]:
        rows = self.column(place, "language_persistent", 0, 1).to_pylist()[0] or []
        fps = float(self.layout.info["fps"])
        begins = sorted(
            (round(float(r["timestamp"]) * fps), str(r["content"]).strip()) for r in rows if r["style"] == "subtask"
        )
        ends = [start for start, _ in begins[1:]] + [place.length]
        return tuple(
            SubTask(text, start, min(end, place.length))
            for (start, text), end in zip(begins, ends, strict=True)
            if text and 0 <= start < min(end, place.length)
        )

    def _success(self, place: Placement) -> bool | None:
        if "next.success" not in self.layout.info["features"]:
            return None
        said = [value for value in self.column(place, "next.success", 0, place.length).to_pylist() if value is not None]
        return any(map(bool, said)) if said else None

    def _integers(self, place: Placement, name: str) -> list[int]:
        return [-1 if value is None else int(value) for value in self.column(place, name, 0, place.length).to_pylist()]

    def column(self, place: Placement, name: str, start: int, stop: int) -> Any:
        """Rows `start` .. `stop` of the episode's column, as an Arrow array; only their row groups are read."""
        return read_column(self.layout.file(place.table), place, name, start, stop)


@dataclass(frozen=True)
class _Reader:
    """Reads one episode of a folder."""

    folder: LeRobotFolder
    place: Placement

    def signal(self, name: str, start: int, stop: int) -> Float32[np.ndarray, "T D"]:
        keys = self.folder.keys(name)
        if not keys:
            return np.zeros((stop - start, 0), np.float32)
        return np.concatenate([self._vectors(key, start, stop) for key in keys], axis=1)

    def frames(self, camera: str, indices: Sequence[int]) -> tuple[Frame, ...]:
        images, encoded = self._pictures(camera, indices)
        depth_key = self.folder.depth_of.get(camera)
        depths: Sequence[DepthMap | None] = (
            [None] * len(indices) if depth_key is None else self._depths(depth_key, indices)
        )
        return tuple(
            Frame(image, depth, encoded=data, time_s=index / self.folder.rate)
            for image, depth, data, index in zip(images, depths, encoded, indices, strict=True)
        )

    def _vectors(self, key: str, start: int, stop: int) -> Float32[np.ndarray, "T D"]:
        size = len(dimension_names(key, self.folder.feature(key)))
        where = f"{self.folder.layout.file(self.place.table)}: {key} of episode {self.place.index}"
        column = self.folder.column(self.place, key, start, stop)
        try:
            flat = column.flatten() if hasattr(column, "flatten") and column.type.num_fields else column
            values = np.asarray(flat.to_numpy(zero_copy_only=False), np.float32)
            values = values.reshape(stop - start, size)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: rows are not all of {size} numbers ({error}); repair the table") from error
        if not np.isfinite(values).all():
            frame = start + int(np.argwhere(~np.isfinite(values))[0, 0])
            raise ValueError(f"{where}: frame {frame} holds NaN or infinity; repair or drop the episode")
        return values

    def _pictures(self, key: str, indices: Sequence[int]) -> tuple[list[Any], list[bytes | None]]:
        if self.folder.feature(key)["dtype"] == "image":
            encoded = self._bytes(key, indices)
            return [np.array(decoded(data, self._where(key)).convert("RGB")) for data in encoded], list(encoded)
        return self._video(key, indices, depth=False), [None] * len(indices)

    def _depths(self, key: str, indices: Sequence[int]) -> list[DepthMap]:
        spec = self.folder.feature(key)
        info, where = feature_info(spec), self._where(key)
        if spec["dtype"] == "video":
            codes = DepthCodes.from_info(info)
            maps = [codes.decode(picture, where) for picture in self._video(key, indices, depth=True)]
        else:
            unit = info.get("depth_unit")
            maps = [depth_picture(decoded(data, where), unit, where) for data in self._bytes(key, indices)]
        return [replace(depth, origin=self.folder.depth_origin) for depth in maps]

    def _video(self, key: str, indices: Sequence[int], depth: bool) -> list[Any]:
        place = self.place.videos[key]
        fps = float(self.folder.layout.info["fps"])
        path = self.folder.layout.file(place.path)
        return decode_frames(path, [place.from_s + index / fps for index in indices], fps, depth)

    def _bytes(self, key: str, indices: Sequence[int]) -> list[bytes]:
        """Files of frames. Those close together are read at once: a table is read from the begin of a row group."""
        found: dict[int, bytes] = {}
        for index in sorted(set(indices)):
            if index in found:
                continue
            rows = self.folder.column(self.place, key, index, min(index + TOGETHER, max(indices) + 1)).to_pylist()
            for frame, value in enumerate(rows, start=index):
                data = value.get("bytes") if isinstance(value, dict) else None
                if isinstance(data, bytes):
                    found[frame] = data
                elif frame in indices:
                    raise ValueError(f"{self._where(key)}: frame {frame} holds no picture; fetch the file again")
        return [found[index] for index in indices]

    def _where(self, key: str) -> str:
        return f"{self.folder.path}: {key} of episode {self.place.index}"


def _runs(indices: Sequence[int], texts: Mapping[int, str]) -> tuple[SubTask, ...]:
    """Stretches of equal index that have a text."""
    parts, at = [], 0
    for index, run in groupby(indices):
        length = len(list(run))
        if texts.get(index, "").strip():
            parts.append(SubTask(texts[index].strip(), at, at + length))
        at += length
    return tuple(parts)
