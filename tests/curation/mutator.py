"""Damage of any kind to any file: it knows bytes, JSON and Parquet, and no importer.

`damage(folder, rng)` changes one file under `folder` and says what it did. Bytes are flipped, cut off, cut out,
doubled, inserted, zeroed; files vanish, become empty or another's copy; values of JSON and Parquet are deleted,
retyped, renamed, blown up or made hostile; rows are deleted and doubled.
"""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HOSTILE = [
    None, True, -1, 0, 2**70, 1e308, -0.5, "", [], {}, [[[]]], "../../../etc/passwd", "/etc/passwd", "\0", "\ud800",
    "<image>", "<image><image><image>", "<video>", "<place:0>", "(5.0, 7.0)", "[(1.5, -3)]", "Z", "(Q) none", "human",
    "a\u202eb", "NaN", "x" * 100_000, list(range(2000)), {"bytes": "x"}, 3.14159,
]  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """`file` was damaged by `how`; `bytes` says that it was done blindly, so that a checksum must notice."""

    file: Path
    how: str
    bytes: bool


def damage(folder: Path, rng: np.random.Generator) -> Damage:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[int(rng.integers(len(files)))]
    structured = [each for each in files if each.suffix in (".json", ".jsonl", ".parquet")]
    if structured and rng.random() < 0.5:
        path = structured[int(rng.integers(len(structured)))]
        if rng.random() < 0.75:
            return Damage(path, _fields(path, rng), False)
    if rng.random() < 0.15:
        return Damage(path, _whole(path, files, rng), False)
    return Damage(path, _bytes(path, rng), True)


def _bytes(path: Path, rng: np.random.Generator) -> str:
    content = bytearray(path.read_bytes())
    at = int(rng.integers(max(len(content), 1)))
    length = int(min(rng.integers(1, 65), max(len(content) - at, 1)))
    noise = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    acts: dict[str, Callable[[], bytes]] = {
        "flip": lambda: (
            bytes(content[:at]) + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + bytes(content[at + 1 :])
        ),
        "overwrite": lambda: bytes(content[:at]) + noise + bytes(content[at + length :]),
        "truncate": lambda: bytes(content[:at]),
        "cut out": lambda: bytes(content[:at]) + bytes(content[at + length :]),
        "double": lambda: bytes(content[: at + length]) + bytes(content[at:]),
        "insert": lambda: bytes(content[:at]) + noise + bytes(content[at:]),
        "zero": lambda: bytes(content[:at]) + bytes(length) + bytes(content[at + length :]),
    }
    how = sorted(acts)[int(rng.integers(len(acts)))]
    if content:
        path.write_bytes(acts[how]())
    return f"{how} {length} bytes at {at} of {len(content)}"


def _whole(path: Path, files: list[Path], rng: np.random.Generator) -> str:
    how = ("delete", "empty", "copy of another", "rename", "folder instead")[int(rng.integers(5))]
    if how == "empty":
        path.write_bytes(b"")
    elif how == "copy of another":
        path.write_bytes(files[int(rng.integers(len(files)))].read_bytes())
    elif how == "rename":
        path.rename(path.with_name(path.name + ".old"))
    else:
        path.unlink()
        if how == "folder instead":
            path.mkdir()
    return how


def _fields(path: Path, rng: np.random.Generator) -> str:
    if path.suffix == ".parquet":
        return _parquet(path, rng)
    lines = path.suffix == ".jsonl"
    text = path.read_text()
    rows = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    if not isinstance(rows, list) or not rows:
        return _bytes(path, rng)
    how = _mutate(rows, rng)
    dumped = [json.dumps(row) for row in rows]
    path.write_text("".join(row + "\n" for row in dumped) if lines else "[" + ",\n".join(dumped) + "]")
    return how


def _parquet(path: Path, rng: np.random.Generator) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    how = _mutate(rows, rng)
    try:
        written = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), written, row_group_size=2)
    except (pa.ArrowException, AttributeError, TypeError, ValueError, OverflowError):  # rows that no table can hold
        return _bytes(path, rng)
    path.write_bytes(written.getvalue())
    return how


def _mutate(rows: list[Any], rng: np.random.Generator) -> str:
    """Changes one row, or one value anywhere inside one."""
    index = int(rng.integers(len(rows)))
    if rng.random() < 0.15:
        if rng.random() < 0.5 and len(rows) > 1:
            del rows[index]
            return f"row {index} deleted"
        rows.insert(index, copy.deepcopy(rows[index]))
        return f"row {index} doubled"
    places = list(_places(rows, index))
    parent, key = places[int(rng.integers(len(places)))]
    act = ("delete", "retype", "retype", "rename", "blow up")[int(rng.integers(5))]
    value = parent[key]
    if act == "delete" and not (parent is rows and len(rows) == 1):
        del parent[key]
    elif act == "rename" and isinstance(parent, dict):
        parent[f"{key}_"] = parent.pop(key)
    elif act == "blow up":
        parent[key] = _blown(value)
    else:
        parent[key] = copy.deepcopy(HOSTILE[int(rng.integers(len(HOSTILE)))])
    return f"{act} {key!r} in row {index}"


def _places(parent: Any, key: Any) -> Iterator[tuple[Any, Any]]:
    yield parent, key
    value = parent[key]
    for inner in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from _places(value, inner)


def _blown(value: Any) -> Any:
    if isinstance(value, (str, bytes, list)):
        return value * max(2, min(1000, 100_000 // max(len(value), 1)))
    if isinstance(value, dict):
        return [value] * 50
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value * 1e6 + 7.5
    return [value] * 1000
