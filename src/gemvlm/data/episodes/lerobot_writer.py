"""Episodes written as a LeRobot v3.0 folder, depth included; `lerobot` reads it back (extra `curate`).

State and action come back exactly, depth to half a step of its code, colour within the error of the video codec. The
tables of tasks carry pandas' index description, because LeRobot looks texts up by index. `meta/info.json` is written
last: a folder whose writing was broken off has none and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gemvlm.data.episodes.depth_codes import LARGEST_CODE, DepthCodes
from gemvlm.data.episodes.episode import Episode, EpisodeSet
from gemvlm.data.episodes.lerobot_stats import Levels, of_numbers
from gemvlm.data.episodes.video import VideoWriter

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILES_PER_CHUNK = 1000
FRAMES_PER_FILE = 50_000
"""A data or video file takes whole episodes until it holds more frames than this."""
FRAMES_AT_ONCE = 32


def write_lerobot(
    path: Path, episodes: EpisodeSet, codes: DepthCodes | None = None, frames_per_file: int = FRAMES_PER_FILE
) -> None:
    """Writes `episodes` to the new folder `path`; memory holds one episode's numbers and some frames at a time, and at
    the end all states or all actions, of which statistics are made.

    ValueError if the folder is not empty, if the episodes differ in cameras, names or rate or store chunks, which the
    format can't hold, or if depths are outside the range of `codes`.
    """
    if path.exists() and any(path.iterdir()):
        raise ValueError(f"{path}: not empty; give a new folder")
    if not len(episodes):
        raise ValueError(f"{path}: no episodes to write")
    schema = _Schema.of(episodes)
    writer = _Writer(path, schema, codes or DepthCodes(), frames_per_file)
    for number in range(len(episodes)):
        writer.add(number, episodes[number])
    writer.finish()


@dataclass(frozen=True)
class _Schema:
    """What all episodes share."""

    first: Episode
    has_subtasks: bool
    has_success: bool
    has_wordings: bool
    licences: tuple[str, ...]

    @classmethod
    def of(cls, episodes: EpisodeSet) -> _Schema:
        first = episodes[0]
        subtasks = success = worded = False
        licences: dict[str, None] = {}
        for episode in (episodes[number] for number in range(len(episodes))):
            for name in ("fps", "cameras", "state_names", "action_names", "robot"):
                if getattr(episode, name) != getattr(first, name):
                    raise ValueError(
                        f"episode {episode.id!r}: {name} is {getattr(episode, name)} but that of {first.id!r} is "
                        f"{getattr(first, name)}; one folder holds episodes of one kind: write them apart"
                    )
            if episode.chunk_length:
                raise ValueError(
                    f"episode {episode.id!r}: stores {episode.chunk_length} actions for every frame; LeRobot holds one "
                    "action a frame: train on the episode as it is"
                )
            worded = worded or bool(episode.wordings)
            subtasks, success = subtasks or bool(episode.subtasks), success or episode.success is not None
            licences[episode.licence] = None
        return cls(first, subtasks, success, worded, tuple(licences))

    @property
    def keys(self) -> Mapping[str, str]:
        """The feature of each camera."""
        prefix = "observation.images."
        return {name: name if name.startswith("observation.") else prefix + name for name in self.first.cameras}

    def features(self, codes: DepthCodes) -> dict[str, Any]:
        first = self.first
        features: dict[str, Any] = {}
        for key, names in (("observation.state", first.state_names), ("action", first.action_names)):
            if names:
                units = [first.units.get(name, "") for name in names]
                features[key] = {"dtype": "float32", "shape": [len(names)], "names": list(names), "units": units}
        for name, key in self.keys.items():
            camera = first.cameras[name]
            features[key] = _picture_feature(camera.height, camera.width, 3, first.fps, "h264", "yuv420p", {})
            if camera.has_depth:
                info = {**codes.to_info(), "depth_unit": "m"}
                depth = _picture_feature(camera.height, camera.width, 1, first.fps, "hevc", "gray12le", info)
                features[f"{key}_depth"] = depth
        if self.has_success:
            features["next.success"] = {"dtype": "bool", "shape": [1], "names": None}
        integers = ["frame_index", "episode_index", "index", "task_index"] + ["subtask_index"] * self.has_subtasks
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        return features | {name: {"dtype": "int64", "shape": [1], "names": None} for name in integers}


@dataclass
class _Writer:
    path: Path
    schema: _Schema
    codes: DepthCodes
    frames_per_file: int
    tasks: dict[str, int] = field(default_factory=dict)
    subtasks: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    levels: dict[str, Levels] = field(default_factory=dict)
    total: int = 0
    file: int = 0
    in_file: int = 0
    table: Any = None
    videos: dict[str, VideoWriter] = field(default_factory=dict)

    def add(self, number: int, episode: Episode) -> None:
        if self.in_file and self.in_file + episode.length > self.frames_per_file:
            self._close_files()
            self.file, self.in_file = self.file + 1, 0
        place = {"chunk_index": self.file // FILES_PER_CHUNK, "file_index": self.file % FILES_PER_CHUNK}
        row: dict[str, Any] = {"episode_index": number, "tasks": [episode.instruction], "length": episode.length}
        if self.schema.has_wordings:  # a column of ours, which lerobot leaves alone
            row["wordings"] = list(episode.wordings)
        row |= {f"data/{name}": value for name, value in place.items()}
        row |= {"dataset_from_index": self.total, "dataset_to_index": self.total + episode.length}
        self._add_rows(number, episode, place)
        for key in self._add_frames(episode, place):
            start = self.in_file / episode.fps
            row |= {f"videos/{key}/{name}": value for name, value in place.items()}
            row |= {
                f"videos/{key}/from_timestamp": start,
                f"videos/{key}/to_timestamp": start + episode.length / episode.fps,
            }
        self.rows.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self.total, self.in_file = self.total + episode.length, self.in_file + episode.length

    def finish(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._close_files()
        meta = self.path / "meta"
        (meta / "episodes" / "chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self.rows), meta / "episodes" / "chunk-000" / "file-000.parquet")
        pq.write_table(_indexed(self.tasks, "task"), meta / "tasks.parquet")
        if self.subtasks:
            pq.write_table(_indexed(self.subtasks, "subtask"), meta / "subtasks.parquet")
        (meta / "stats.json").write_text(json.dumps(self._statistics(), indent=2) + "\n")
        licence = " AND ".join(self.schema.licences)
        (self.path / "README.md").write_text(f"---\nlicense: {licence}\ntags:\n- LeRobot\n---\n")
        (meta / "info.json").write_text(json.dumps(self._info(), indent=2) + "\n")

    def _statistics(self) -> dict[str, Any]:
        import pyarrow.parquet as pq

        files = sorted((self.path / "data").rglob("*.parquet"))
        found: dict[str, Any] = {}
        for key in ("observation.state", "action"):
            if key in pq.read_schema(files[0]).names:
                columns = [pq.read_table(file, columns=[key])[key].combine_chunks() for file in files]
                width = columns[0].type.list_size
                found[key] = of_numbers(np.concatenate([c.values.to_numpy().reshape(-1, width) for c in columns]))
        colours, metres = np.arange(256) / 255, self.codes.metres()
        for key, levels in self.levels.items():
            if told := levels.statistics(colours if levels.counts.shape[1] == 256 else metres):
                found[key] = told
        return found

    def _info(self) -> dict[str, Any]:
        first = self.schema.first
        return {
            "codebase_version": "v3.0",
            "robot_type": first.robot,
            "total_episodes": len(self.rows),
            "total_frames": self.total,
            "total_tasks": len(self.tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 500,
            "fps": int(first.fps) if first.fps.is_integer() else first.fps,
            "splits": {"train": f"0:{len(self.rows)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": self.schema.features(self.codes),
        }

    def _add_rows(self, number: int, episode: Episode, place: Mapping[str, int]) -> None:
        """The episode's numbers, as one row group."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        length, steps = episode.length, np.arange(episode.length)
        columns: dict[str, Any] = {}
        for key, values in (("observation.state", episode.state()), ("action", episode.action())):
            if values.shape[1]:
                flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
                columns[key] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        if self.schema.has_success:
            ended = [None if episode.success is None else False] * (length - 1) + [episode.success]
            columns["next.success"] = pa.array(ended, pa.bool_())
        columns["timestamp"] = pa.array((steps / episode.fps).astype(np.float32))
        columns["frame_index"] = pa.array(steps)
        columns["episode_index"] = pa.array(np.full(length, number))
        columns["index"] = pa.array(self.total + steps)
        columns["task_index"] = pa.array(np.full(length, self.tasks.setdefault(episode.instruction, len(self.tasks))))
        if self.schema.has_subtasks:
            indices = np.full(length, -1)
            for part in episode.subtasks:
                indices[part.start : part.stop] = self.subtasks.setdefault(part.text, len(self.subtasks))
            columns["subtask_index"] = pa.array(indices)
        table = pa.table(columns)
        if self.table is None:
            file = self.path / DATA_PATH.format(**place)
            file.parent.mkdir(parents=True, exist_ok=True)
            self.table = pq.ParquetWriter(file, table.schema)
        self.table.write_table(table, row_group_size=length)

    def _add_frames(self, episode: Episode, place: Mapping[str, int]) -> Iterator[str]:
        """Appends the pictures to the open videos; yields each video's feature."""
        for name, key in self.schema.keys.items():
            camera = episode.cameras[name]
            size = (camera.height, camera.width)
            colour = self._video(key, place, size, episode.fps, depth=False)
            depth = self._video(f"{key}_depth", place, size, episode.fps, depth=True) if camera.has_depth else None
            for start in range(0, episode.length, FRAMES_AT_ONCE):
                for frame in episode.frames(name, range(start, min(start + FRAMES_AT_ONCE, episode.length))):
                    if frame.image.shape[:2] != size or (depth is not None and frame.depth is None):
                        raise ValueError(f"episode {episode.id!r}: a frame of {name} is not {size} or has no depth")
                    colour.write(frame.image)
                    self.levels.setdefault(key, Levels(3, 256)).add(frame.image)
                    if depth is not None and frame.depth is not None:
                        codes = self.codes.encode(frame.depth)
                        depth.write(codes)
                        self.levels.setdefault(f"{key}_depth", Levels(1, LARGEST_CODE + 1)).add(codes)
            yield from [key] if depth is None else [key, f"{key}_depth"]

    def _video(self, key: str, place: Mapping[str, int], size: tuple[int, int], fps: float, depth: bool) -> VideoWriter:
        if key not in self.videos:
            path = self.path / VIDEO_PATH.format(video_key=key, **place)
            self.videos[key] = VideoWriter(path, *size, fps, depth)
        return self.videos[key]

    def _close_files(self) -> None:
        if self.table is not None:
            self.table.close()
        for video in self.videos.values():
            video.close()
        self.table, self.videos = None, {}


def _picture_feature(
    height: int, width: int, channels: int, fps: float, codec: str, pixels: str, info: Mapping[str, Any]
) -> dict[str, Any]:
    stream = {"height": height, "width": width, "codec": codec, "pix_fmt": pixels, "fps": fps, "channels": channels}
    info = {f"video.{name}": value for name, value in stream.items()} | {
        "has_audio": False,
        "is_depth_map": False,
        **info,
    }
    return {
        "dtype": "video",
        "shape": [height, width, channels],
        "names": ["height", "width", "channels"],
        "info": info,
    }


def _indexed(texts: Mapping[str, int], name: str) -> Any:
    """A table of texts whose index, for pandas, is the text."""
    import pyarrow as pa

    columns = [
        {"name": f"{name}_index", "field_name": f"{name}_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": name, "field_name": name, "pandas_type": "unicode", "numpy_type": "object"},
    ]
    described = {
        "index_columns": [name],
        "column_indexes": [],
        "columns": [column | {"metadata": None} for column in columns],
        "pandas_version": "2.0.0",
    }
    table = pa.table({f"{name}_index": pa.array(list(texts.values()), pa.int64()), name: list(texts)})
    return table.replace_schema_metadata({"pandas": json.dumps(described)})
