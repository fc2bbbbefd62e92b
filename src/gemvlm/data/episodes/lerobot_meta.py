"""What a LeRobot folder says about itself, whatever its version; `lerobot_v2` and `lerobot_v3` find the episodes.

Stated in huggingface/lerobot, `src/lerobot/datasets/utils.py` (commit 00448aa1): `meta/info.json` holds
`codebase_version`, `fps`, `robot_type`, `features` (name to dtype, shape, names, info) and the path templates
`data_path` and `video_path`.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

LARGEST_META_BYTES = 64 << 20
LONGEST_EPISODE = 10_000_000
_FIELD = re.compile(r"\{(\w+)(?::0(\d)d)?\}")


@dataclass(frozen=True)
class VideoPlace:
    """A video file, relative to the dataset's folder, and where in it the episode starts."""

    path: str
    from_s: float


@dataclass(frozen=True)
class Placement:
    """Where one episode lies: rows `first_row` .. `first_row + length` of `table`, and its videos by feature key.

    `wordings` are other ways of saying its task, where a writer of ours kept them.
    """

    index: int
    tasks: tuple[str, ...]
    length: int
    table: str
    first_row: int
    videos: Mapping[str, VideoPlace]
    wordings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout(ABC):
    """`meta/` of a folder. ValueError names the file and field that is missing, damaged or leads out of the folder."""

    root: Path
    info: Mapping[str, Any]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, position: int) -> Placement: ...

    @property
    @abstractmethod
    def tasks(self) -> Mapping[int, str]:
        """The tasks' texts by their index."""

    @cached_property
    def subtasks(self) -> Mapping[int, str]:
        """The sub-tasks' texts by their index; empty if the folder annotates none."""
        return read_texts(self.root / "meta" / "subtasks.parquet", "subtask")

    @property
    def video_keys(self) -> tuple[str, ...]:
        return tuple(key for key, spec in self.info["features"].items() if spec.get("dtype") == "video")

    def file(self, relative: str) -> Path:
        """A path inside the folder; ValueError if it would leave it."""
        pure = PurePosixPath(relative)
        if pure.is_absolute() or ".." in pure.parts or "\\" in relative or "\0" in relative:
            raise ValueError(
                f"{self.root}: the path {relative!r} leaves the folder; paths must be relative, without .."
            )
        return self.root / pure

    def name(self, template: str, **values: int | str) -> str:
        """Fills a path template of `info` without str.format, whose widths could ask for any amount of memory."""
        where = f"{self.root}/meta/info.json: {template}"
        text = self.info.get(template)
        if not isinstance(text, str):
            raise ValueError(f"{where} is {text!r}; it must be a path template")

        def fill(match: re.Match[str]) -> str:
            if match[1] not in values:
                raise ValueError(f"{where} names {match[0]}; known are {sorted(values)}")
            return str(values[match[1]]).zfill(int(match[2] or 0))

        return _FIELD.sub(fill, text)


def read_info(root: Path) -> Mapping[str, Any]:
    """`meta/info.json`, checked as far as every version needs it."""
    path = root / "meta" / "info.json"
    if not path.is_file():
        folder = "" if root.is_dir() else ", as is the folder"
        raise ValueError(f"{root}: meta/info.json is missing{folder}; is this a LeRobot folder?")
    try:
        info = json.loads(read_text(path))
        features, version = info["features"], info["codebase_version"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a LeRobot folder's info (features, codebase_version, ...): {error}") from error
    if not isinstance(features, dict) or not all(isinstance(spec, dict) for spec in features.values()):
        raise ValueError(f"{path}: `features` must map names to their dtype and shape")
    if not isinstance(version, str) or not version.startswith(("v2.", "v3.")):
        raise ValueError(f"{path}: codebase_version {version!r} is not v2.x or v3.x; convert it with LeRobot's script")
    fps = info.get("fps")
    if not isinstance(fps, (int, float)) or not 0 < fps <= 1000:
        raise ValueError(f"{path}: fps is {fps!r}; write the recording's frames per second")
    return dict(info)


def read_text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_META_BYTES:
            raise ValueError(f"{path}: more than {LARGEST_META_BYTES >> 20} MiB, which no description needs")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: can't be read ({error}); is this a LeRobot folder?") from error


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line that is not blank."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: not a line of JSON ({error}); fetch it again") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: expected an object, found {type(row).__name__}")
        yield number, row


def read_table(path: Path, drop: str | None = None) -> Any:
    """A whole small Parquet table, without the columns that start with `drop`. ValueError names the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if drop is None or not name.startswith(drop)]
            return file.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file ({error}); fetch it again") from error


def read_texts(path: Path, column: str) -> Mapping[int, str]:
    """A table of texts by `<column>_index`, empty if there is none; the texts are pandas' index, named or not."""
    if not path.is_file():
        return {}
    table = read_table(path)
    texts = next((name for name in (column, "__index_level_0__") if name in table.column_names), None)
    if texts is None or f"{column}_index" not in table.column_names:
        raise ValueError(f"{path}: needs {column}_index and {column}, has {table.column_names}")
    indices = table.column(f"{column}_index").to_pylist()
    return dict(zip(indices, map(str, table.column(texts).to_pylist()), strict=True))


def whole(value: object, where: str, least: int = 0) -> int:
    """`value` if it is a whole number from `least`, else ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{where} is {value!r}; expected a whole number from {least}")
    return value


def episode_length(value: object, where: str) -> int:
    length = whole(value, f"{where}: length", least=1)
    if length > LONGEST_EPISODE:
        raise ValueError(f"{where}: length {length} is more than {LONGEST_EPISODE} frames")
    return length


def task_texts(value: object, where: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where}: tasks is {value!r}; expected a list of texts")
    return tuple(texts)
