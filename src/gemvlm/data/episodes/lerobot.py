"""LeRobot folders of versions 2.x and 3.0 as episodes; their layouts are told in `lerobot_v2` and `lerobot_v3`.

Columns of the data tables: `observation.state`, `action` (lists of floats, or a float where the shape is (1,)),
`task_index`, `episode_index`, `frame_index`, `timestamp`, optionally `next.success`, `subtask_index` (into
`meta/subtasks.parquet`; -1 = not annotated) and `language_persistent`, whose rows of style "subtask" hold from their
`timestamp` on until the next (huggingface/lerobot, `src/lerobot/datasets/language.py`, commit 16831978). Pictures are
videos or, for features of dtype "image", bytes in the table. Depth is told apart by `is_depth_map` in a feature's
`info`; it is given to the colour camera of the same name and size. Depth whose code is not stated is not guessed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from gemvlm.data.episodes.depth_codes import DepthCodes
from gemvlm.data.episodes.episode import CameraInfo, Episode, SubTask
from gemvlm.data.episodes.lerobot_meta import Layout, Placement, read_info
from gemvlm.data.episodes.lerobot_v2 import LayoutV2
from gemvlm.data.episodes.lerobot_v3 import LayoutV3
from gemvlm.data.episodes.video import LARGEST_SIDE, decode_frames
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.origin import DepthOrigin
from gemvlm.sample import Frame

SENSOR = DepthOrigin("sensor")
LARGEST_VECTOR = 4096
ROWS_AT_ONCE = 256
OPEN_TABLES = 8
LARGEST_HEAD = 1 << 16
_CAMERA_WORDS = re.compile(r"(^|[._])(?:images?|rgb|color|depth)(?=[._]|$)")


@dataclass(frozen=True)
class LeRobotFolder:
    """The episodes of a folder. `state_keys` and `action_keys` name the columns that make up state and action.

    ValueError for what is not a LeRobot folder, and from an episode for what is damaged in it; others stay readable.
    The licence is that of the folder's README.md unless given. `unused_depth` says why a depth feature can't be used.
    """

    path: Path
    licence: str | None = None
    state_keys: tuple[str, ...] = ("observation.state",)
    action_keys: tuple[str, ...] = ("action",)
    depth_origin: DepthOrigin = SENSOR

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
            fps=float(self.layout.info["fps"]),
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

    def names(self, signal: str) -> tuple[str, ...]:
        return tuple(name for key in self.keys(signal) for name in _dimension_names(key, self.feature(key)))

    @cached_property
    def _units(self) -> Mapping[str, str]:
        units: dict[str, str] = {}
        for key in (*self.keys("state"), *self.keys("action")):
            names, stated = _dimension_names(key, self.feature(key)), self.feature(key).get("units")
            if isinstance(stated, list) and len(stated) == len(names):
                units |= {name: str(unit) for name, unit in zip(names, stated, strict=True) if unit}
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
            if spec.get("dtype") in ("video", "image") and not _is_depth(spec)
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
        for key in (key for key, spec in pictures.items() if _is_depth(spec)):
            name = _camera_name(key)
            colours = [k for k, spec in pictures.items() if not _is_depth(spec) and _camera_name(k) == name]
            stated = any(k.removeprefix("video.") == "depth_max" for k in _feature_info(features[key]))
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
        """(height, width), whichever way round the feature names its axes."""
        spec = self.feature(key)
        shape, names = spec.get("shape"), spec.get("names")
        where = f"{self.path}/meta/info.json: feature {key}"
        if not isinstance(shape, list) or len(shape) not in (2, 3) or not all(isinstance(n, int) for n in shape):
            raise ValueError(f"{where}: shape {shape!r} is not that of a picture")
        first = isinstance(names, list) and len(names) == 3 and str(names[0]).startswith("channel")
        first = first or (names is None and len(shape) == 3 and shape[0] in (1, 3) and shape[2] > 4)
        height, width = shape[1:] if first else shape[:2]
        if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
            raise ValueError(f"{where}: {width} x {height} pixels is not a picture's size")
        return height, width

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
        import pyarrow as pa

        path = self.layout.file(place.table)
        try:
            file = _open_table(path, path.stat().st_mtime_ns)
            first, last = place.first_row + start, place.first_row + stop
            rows = pa.concat_arrays(list(_pieces(file, name, first, last)) or [pa.array([])])
            episode = next(iter(_pieces(file, "episode_index", first, min(first + 1, last))), None)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise ValueError(f"{path}: column {name} can't be read ({error}); fetch the file again") from error
        if len(rows) != stop - start:
            raise ValueError(
                f"{path}: episode {place.index} should have rows {first}..{last}, {len(rows)} of {stop - start} are "
                "there; meta/ and data/ don't match: fetch both again"
            )
        if episode is not None and len(episode) and episode[0].as_py() != place.index:
            raise ValueError(
                f"{path}: row {first} belongs to episode {episode[0].as_py()}, not {place.index} as meta/ says; "
                "fetch meta/ and data/ again"
            )
        return rows


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
        fps = float(self.folder.layout.info["fps"])
        return tuple(
            Frame(image, depth, encoded=data, time_s=index / fps)
            for image, depth, data, index in zip(images, depths, encoded, indices, strict=True)
        )

    def _vectors(self, key: str, start: int, stop: int) -> Float32[np.ndarray, "T D"]:
        size = len(_dimension_names(key, self.folder.feature(key)))
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
            encoded = [self._bytes(key, index) for index in indices]
            return [np.array(_decoded(data, self._where(key)).convert("RGB")) for data in encoded], list(encoded)
        return self._video(key, indices, depth=False), [None] * len(indices)

    def _depths(self, key: str, indices: Sequence[int]) -> list[DepthMap]:
        spec = self.folder.feature(key)
        info, where = _feature_info(spec), self._where(key)
        if spec["dtype"] == "video":
            codes = DepthCodes.from_info(info)
            maps = [codes.decode(picture, where) for picture in self._video(key, indices, depth=True)]
        else:
            maps = [
                _depth_picture(_decoded(self._bytes(key, i), where), info.get("depth_unit"), where) for i in indices
            ]
        return [replace(depth, origin=self.folder.depth_origin) for depth in maps]

    def _video(self, key: str, indices: Sequence[int], depth: bool) -> list[Any]:
        place = self.place.videos[key]
        fps = float(self.folder.layout.info["fps"])
        path = self.folder.layout.file(place.path)
        return decode_frames(path, [place.from_s + index / fps for index in indices], fps, depth)

    def _bytes(self, key: str, index: int) -> bytes:
        value = self.folder.column(self.place, key, index, index + 1).to_pylist()[0]
        data = value.get("bytes") if isinstance(value, dict) else None
        if not isinstance(data, bytes):
            raise ValueError(f"{self._where(key)}: frame {index} holds no picture; fetch the file again")
        return data

    def _where(self, key: str) -> str:
        return f"{self.folder.path}: {key} of episode {self.place.index}"


@lru_cache(maxsize=OPEN_TABLES)
def _open_table(path: Path, changed: int) -> Any:
    """An open table; `changed` makes a rewritten file another entry."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)


def _pieces(file: Any, name: str, first: int, last: int) -> Iterator[Any]:
    """Arrays of column `name` that together are its rows `first` .. `last`."""
    begin = 0
    for group in range(file.num_row_groups):
        end = begin + file.metadata.row_group(group).num_rows
        if end > first and begin < last:
            at = begin
            for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[name]):
                low, high = max(first, at), min(last, at + len(batch))
                if low < high:
                    yield batch.column(0).slice(low - at, high - low)
                at += len(batch)
                if at >= last:
                    break
        begin = end


def _runs(indices: Sequence[int], texts: Mapping[int, str]) -> tuple[SubTask, ...]:
    """Stretches of equal index that have a text."""
    parts, at = [], 0
    for index, run in groupby(indices):
        length = len(list(run))
        if texts.get(index, "").strip():
            parts.append(SubTask(texts[index].strip(), at, at + length))
        at += length
    return tuple(parts)


def _feature_info(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    info = spec.get("info") or spec.get("video_info") or {}
    return info if isinstance(info, dict) else {}


def _is_depth(spec: Mapping[str, Any]) -> bool:
    info = _feature_info(spec)
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def _camera_name(key: str) -> str:
    """`observation.images.front`, `observation.images.front_depth` and `observation.depth.front` name one camera."""
    return _CAMERA_WORDS.sub("", key).strip("._")


def _dimension_names(key: str, spec: Mapping[str, Any]) -> tuple[str, ...]:
    shape, names = spec.get("shape"), spec.get("names")
    if (
        not isinstance(shape, list)
        or len(shape) != 1
        or not isinstance(shape[0], int)
        or not 0 < shape[0] <= LARGEST_VECTOR
    ):
        raise ValueError(
            f"meta/info.json: feature {key}: shape {shape!r} is not that of a vector of 1..{LARGEST_VECTOR}"
        )
    if isinstance(names, dict) and len(names) == 1:
        names = next(iter(names.values()))
    if isinstance(names, list) and len(names) == shape[0]:
        return tuple(map(str, names))
    return tuple(f"{key}_{i}" for i in range(shape[0]))


def _decoded(data: bytes, where: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where}: not a readable picture ({error}); fetch the file again") from error


def _depth_picture(image: Image.Image, unit: str | None, where: str) -> DepthMap:
    """Floats are metres and integers millimetres unless the feature's `depth_unit` says otherwise; 0 is no value."""
    values = np.array(image)
    if values.ndim != 2:
        raise ValueError(f"{where}: a depth picture has one channel, this has mode {image.mode!r}")
    metres = values.astype(np.float32)
    if unit == "mm" or (unit is None and not np.issubdtype(values.dtype, np.floating)):
        metres /= 1000
    valid = np.isfinite(metres) & (metres > 0)
    return DepthMap(np.where(valid, metres, 0).astype(np.float32), valid, "metric_z", "m", where)
