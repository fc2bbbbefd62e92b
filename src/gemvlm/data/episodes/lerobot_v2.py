"""LeRobot 2.x: a table and a video per episode.

Stated in huggingface/lerobot, `src/lerobot/datasets/utils.py` (commit 00448aa1), as the `LEGACY_` paths:
`meta/episodes.jsonl` {episode_index, tasks, length}, `meta/tasks.jsonl` {task_index, task},
`data/chunk-CCC/episode_EEEEEE.parquet`, `videos/chunk-CCC/KEY/episode_EEEEEE.mp4`, `chunks_size` episodes per chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from gemvlm.data.episodes.lerobot_meta import (
    Layout,
    Placement,
    VideoPlace,
    episode_length,
    read_json_lines,
    task_texts,
    whole,
)


@dataclass(frozen=True)
class LayoutV2(Layout):
    """Episodes by their line in `meta/episodes.jsonl`."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Placement:
        index, tasks, length = self._rows[position]
        size = whole(self.info.get("chunks_size", 1000), f"{self.root}/meta/info.json: chunks_size", least=1)
        place: dict[str, int | str] = {"episode_chunk": index // size, "episode_index": index}
        videos = {key: VideoPlace(self.name("video_path", video_key=key, **place), 0.0) for key in self.video_keys}
        return Placement(index, tasks, length, self.name("data_path", **place), 0, videos)

    @cached_property
    def tasks(self) -> Mapping[int, str]:
        path = self.root / "meta" / "tasks.jsonl"
        found = {}
        for line, row in read_json_lines(path):
            index, text = row.get("task_index"), row.get("task")
            if not isinstance(text, str):
                raise ValueError(f"{path}:{line}: task is {text!r}; expected a text")
            found[whole(index, f"{path}:{line}: task_index")] = text
        return found

    @cached_property
    def _rows(self) -> list[tuple[int, tuple[str, ...], int]]:
        path = self.root / "meta" / "episodes.jsonl"
        rows = []
        for line, row in read_json_lines(path):
            where = f"{path}:{line}"
            index = whole(row.get("episode_index"), f"{where}: episode_index")
            rows.append((index, task_texts(row.get("tasks"), where), episode_length(row.get("length"), where)))
        return rows
