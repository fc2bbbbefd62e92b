"""Rows of a LeRobot folder's data tables, checked against what `meta/` says of the episode that they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from gemvlm.data.episodes.lerobot_meta import Placement

ROWS_AT_ONCE = 256
OPEN_TABLES = 8


def read_column(path: Path, place: Placement, name: str, start: int, stop: int) -> Any:
    """Rows `start` .. `stop` of an episode's column, as an Arrow array; only their row groups are read.

    ValueError names the table where rows are missing, unreadable or another episode's.
    """
    import pyarrow as pa

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
