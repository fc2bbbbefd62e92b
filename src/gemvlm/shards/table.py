"""The annotation tables: rows in Parquet, with typed columns that any tool can query.

    SELECT source, count(*) FROM 'annotations-*.parquet' WHERE list_contains(families, 'relative_depth') GROUP BY source

Maps are Parquet maps, `meta` is JSON text because its fields differ by source, hashes are hexadecimal as in the names
of tar members.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gemvlm.shards import files
from gemvlm.shards.files import Location
from gemvlm.shards.record import Row, to_json

STEM = "annotations"
ROWS_PER_TABLE = 8192
ROWS_PER_GROUP = 1024


def table_name(number: int) -> str:
    return f"{STEM}-{number:05d}.parquet"


@cache
def _schema() -> Any:
    """The Arrow schema of an annotation table."""
    import pyarrow as pa

    text, real, whole = pa.string(), pa.float64(), pa.int32()
    texts, words = pa.list_(text), pa.map_(text, text)

    def struct(**fields: Any) -> Any:
        return pa.struct(list(fields.items()))

    alignment = struct(scale=real, shift=real, inliers=real, pixels=pa.int64())
    origin = struct(
        provenance=text, model=text, weights=text, licence=text, alignment=alignment, quality=pa.map_(text, real)
    )
    depth = struct(sha256=text, kind=text, unit=text, source=text, format=text, metres_per_count=real, origin=origin)
    camera = struct(width=whole, height=whole, fx=real, fy=real, cx=real, cy=real)
    frame = struct(
        image=text,
        media=text,
        height=whole,
        width=whole,
        publishers=pa.bool_(),
        time_s=real,
        camera=camera,
        camera_to_world=pa.list_(real),
        depth=depth,
    )
    region = struct(height=whole, width=whole, runs=pa.list_(whole))
    turn = struct(
        question=text,
        answer=text,
        family=text,
        task=text,
        kind=text,
        places=pa.list_(pa.list_(real)),
        options=texts,
        unit=text,
        tolerance=real,
        region=region,
        regions=pa.list_(region),
        cues=words,
        subsets=texts,
    )
    columns = {
        **dict.fromkeys(("id", "source", "scene", "licence", "split", "version", "record"), text),
        "dialogue": pa.bool_(),
        "system": text,
        "families": texts,
        "frames": pa.list_(frame),
        "turns": pa.list_(turn),
        "meta": text,
    }
    return pa.schema(list(columns.items()))


def batch(row: Row) -> Any:
    """One row in Arrow's form. ValueError if a value does not fit its column's type."""
    import pyarrow as pa

    try:
        return pa.RecordBatch.from_pylist([_columns(row)], _schema())
    except (pa.ArrowException, TypeError, OverflowError, ValueError) as error:
        raise ValueError(f"a value does not fit its column ({error}); give the type that `Sample` states") from error


def table_bytes(batches: Sequence[Any]) -> bytes:
    """A Parquet file of rows that `batch` made."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    table = pa.Table.from_batches(batches, _schema()).combine_chunks()
    pq.write_table(table, buffer, row_group_size=ROWS_PER_GROUP, compression="zstd")
    return buffer.getvalue()


def column(folder: Location, tables: Sequence[str], name: str) -> Iterator[Any]:
    """One top-level column of all tables, in order. ValueError names a table that can't be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for table in tables:
        path = files.join(folder, table)
        try:
            source = path if isinstance(path, Path) else io.BytesIO(files.read(path))
            yield from pq.read_table(source, columns=[name], use_threads=False)[name].to_pylist()
        except (OSError, KeyError, pa.ArrowException) as error:
            raise ValueError(f"{path}: unreadable ({error}); restore the file or write the shards again") from error


def to_rows(content: bytes) -> list[Row]:
    """The rows of a Parquet file that `table_bytes` wrote: what `ShardReader.verify` holds against the records."""
    import pyarrow.parquet as pq

    rows = pq.read_table(io.BytesIO(content), use_threads=False).to_pylist(maps_as_pydicts="strict")
    return [{**row, "meta": json.loads(row["meta"])} for row in rows]


def _columns(row: Row) -> Row:
    """A row as Arrow wants it: maps as lists of pairs in order of their keys, `meta` as text."""
    frames = [{**frame, "depth": _depth_columns(frame["depth"])} for frame in row["frames"]]
    turns = [{**turn, "cues": sorted(turn["cues"].items())} for turn in row["turns"]]
    return {**row, "frames": frames, "turns": turns, "meta": to_json(row["meta"]).decode()}


def _depth_columns(depth: Row | None) -> Row | None:
    if depth is None or depth["origin"] is None:
        return depth
    quality = sorted(depth["origin"]["quality"].items())
    return {**depth, "origin": {**depth["origin"], "quality": quality}}
