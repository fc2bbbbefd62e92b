"""LeRobot 3.0: tables and videos that hold many episodes each.

Stated in huggingface/lerobot, `src/lerobot/datasets/dataset_writer.py` (commit 006ca66a) and `utils.py` (00448aa1):
`meta/tasks.parquet`, and `meta/episodes/chunk-CCC/file-FFF.parquet` with a row per episode: `episode_index`, `tasks`,
`length`, `dataset_from_index`, `data/chunk_index`, `data/file_index` and, for each video KEY, `videos/KEY/chunk_index`,
`videos/KEY/file_index`, `videos/KEY/from_timestamp`; and `wordings`, texts, in folders that were written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gemvlm.data.episodes.lerobot_meta import (
    Layout,
    Placement,
    VideoPlace,
    episode_length,
    read_table,
    read_texts,
    task_texts,
    whole,
)

_FILE_AND_START = ("data/chunk_index", "data/file_index", "dataset_from_index")
_NEEDED = ("episode_index", "tasks", "length", *_FILE_AND_START)


@dataclass(frozen=True)
class LayoutV3(Layout):
    """Episodes by their row in `meta/episodes`, which stays in Arrow's memory and is decoded row by row."""

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, position: int) -> Placement:
        row = self._table.slice(position, 1).to_pylist()[0]
        where = f"{self.root}/meta/episodes row {position}"
        chunk, file, start = (whole(row[name], f"{where}: {name}") for name in _FILE_AND_START)
        return Placement(
            whole(row["episode_index"], f"{where}: episode_index"),
            task_texts(row["tasks"], where),
            episode_length(row["length"], where),
            self.name("data_path", chunk_index=chunk, file_index=file),
            start - self._first_rows[chunk, file],
            {key: self._video(row, key, where) for key in self.video_keys},
            task_texts(row.get("wordings") or [], where),
        )

    @cached_property
    def tasks(self) -> Mapping[int, str]:
        return read_texts(self.root / "meta" / "tasks.parquet", "task")

    def _video(self, row: Mapping[str, Any], key: str, where: str) -> VideoPlace:
        chunk, file = (
            whole(row.get(f"videos/{key}/{n}_index"), f"{where}: {key} {n}_index") for n in ("chunk", "file")
        )
        from_s = row.get(f"videos/{key}/from_timestamp")
        if not isinstance(from_s, (int, float)) or not 0 <= from_s < 1e7:
            raise ValueError(f"{where}: videos/{key}/from_timestamp is {from_s!r}; fetch meta/ again")
        path = self.name("video_path", video_key=key, chunk_index=chunk, file_index=file)
        return VideoPlace(path, float(from_s))

    @cached_property
    def _table(self) -> Any:
        import pyarrow as pa

        folder = self.root / "meta" / "episodes"
        paths = sorted(folder.glob("*/*.parquet"))
        if not paths:
            raise ValueError(f"{folder}: no table of episodes; fetch meta/ again")
        try:
            table = pa.concat_tables([read_table(path, drop="stats/") for path in paths], promote_options="default")
        except pa.ArrowException as error:
            raise ValueError(f"{folder}: the tables of episodes do not agree: {error}") from error
        if missing := [name for name in _NEEDED if name not in table.column_names]:
            raise ValueError(f"{folder}: columns {missing} are missing; fetch meta/ again")
        return table

    @cached_property
    def _first_rows(self) -> Mapping[tuple[int, int], int]:
        """The dataset's index of the first row of each data file."""
        starts: dict[tuple[int, int], int] = {}
        columns = (self._table.column(name).to_pylist() for name in _FILE_AND_START)
        for chunk, file, start in zip(*columns, strict=True):
            starts[chunk, file] = min(start, starts.get((chunk, file), start))
        return starts
