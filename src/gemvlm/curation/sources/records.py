"""Records of big annotation files, one at a time: parts with byte offsets, parsing, and the one place that catches.

A part of a JSON or JSONL file is `FILE:START-STOP:ROW`: bytes START to STOP hold whole records of which the first is
row ROW (from 0); STOP past the file's end says that its array is not closed. A part of a Parquet file is
`FILE:GROUP:ROW`: one row group, since rows inside it can't be sought.
Nothing here holds more than one record (or one Parquet batch) in memory.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from gemvlm.curation.source import Rejection
from gemvlm.data.quarantine import check
from gemvlm.sample import Sample

RECORDS_PER_PART = 100
LARGEST_RECORD = 16 * 2**20
"""Bytes of one JSON record; what is longer is two records whose border is damaged, or no annotation at all."""
PARQUET_BATCH = 16

UNREADABLE = (
    ValueError, LookupError, TypeError, AttributeError, OSError, SyntaxError, ArithmeticError, RecursionError,
    MemoryError, EOFError, NotImplementedError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile,
    Image.DecompressionBombError,
)  # fmt: skip
"""What parsing bad bytes can raise: numbers, text, JSON, pictures, archives, videos, Arrow (whose errors are these)."""

_SCAN = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_OPENING = re.compile(rb"(?:\xef\xbb\xbf)?\s*")
_FIRST_KEY = re.compile(rb'(?:\xef\xbb\xbf)?\s*\[\s*\{\s*("[^"\\]*")\s*:')
_SPACES = re.compile(rb"[\s,]*")
_STRUCTURE = re.compile(rb'"(?:[^"\\\n]|\\.)*"|[\[\]{}]')


class RecordError(ValueError):
    """Why one record can't be imported: a short `reason` to count by, the message, and the `field` that is to blame."""

    def __init__(self, reason: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.reason, self.field = reason, field


@dataclass(frozen=True)
class RawRecord:
    """One record as it was found: bytes of JSON, or a row of a Parquet file. `row` counts from 0 in `file`."""

    file: str
    row: int
    content: bytes | Mapping[str, Any]

    def fields(self) -> dict[str, Any]:
        """The record as an object. RecordError if it is not one, or if a key comes twice (one value would be lost)."""
        if not isinstance(self.content, bytes):
            return dict(self.content)
        if not self.content:
            raise RecordError("file_cut_off", "the array of records is not closed: the rest of the file is missing")
        if len(self.content) > LARGEST_RECORD:
            raise RecordError("record_too_long", f"{len(self.content)} bytes in one record; the file is damaged here")
        try:
            record = json.loads(self.content, object_pairs_hook=_object, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            fault = error if isinstance(error, RecordError) else RecordError("bad_json", f"not JSON: {error}")
            raise fault from error
        if not isinstance(record, dict):
            raise RecordError("not_an_object", f"expected an object with fields, found a {type(record).__name__}")
        return record


def imported(
    raws: Iterable[RawRecord], make: Callable[[RawRecord, dict[str, Any]], Sample | list[Sample]]
) -> Iterator[Sample | Rejection]:
    """What `make` makes of each record (one sample or several), and a `Rejection` for each record that it refuses.

    Samples that training could not use (see `data.quarantine.check`) are refused too. Nothing is raised for bad
    content: if the file itself stops being readable, one last `Rejection` says from which row on.
    """
    place = ("", -1)
    try:
        for raw in raws:
            place = (raw.file, raw.row)
            try:
                made = make(raw, raw.fields())
                samples = made if isinstance(made, list) else [made]
                for sample in samples:
                    if (defect := check(sample)) is not None:
                        raise RecordError("unusable", str(defect), defect.field)
            except UNREADABLE as error:
                yield rejection(error, raw.file, raw.row)
                continue
            yield from samples
    except UNREADABLE as error:
        file, row = place
        remedy = f"everything after row {row} of this part is lost; fetch the file again"
        yield Rejection("import", "file_unreadable", f"{file}: {_told(error)}; {remedy}", file=f"{file}:{row + 1}")


def rejection(error: BaseException, file: str, row: int) -> Rejection:
    """The record in row `row` of `file` left out because of `error`."""
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        error = RecordError("missing_field", f"there is no field {error.args[0]!r}", error.args[0])
    reason = error.reason if isinstance(error, RecordError) else f"bad_{type(error).__name__}"
    field = error.field if isinstance(error, RecordError) else ""
    where = f"{file}, row {row}" + (f", field {field!r}" if field else "")
    return Rejection(
        "import", reason, f"{where}: {_told(error)}", id=f"{file}:{row}", file=f"{file}:{row}", field=field
    )


def json_parts(path: Path, file: str) -> list[str]:
    """Parts of `path` (`.jsonl`: one object per line; else a JSON array), named with `file`. ValueError if empty."""
    try:
        with _mapped(path) as content:
            borders = _lines(content) if path.suffix == ".jsonl" else _elements(content, path)
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error}); check the name, or fetch the file again") from error
    if not borders:
        raise ValueError(f"{path}: no records in it; fetch the file again")
    return [
        f"{file}:{borders[row][0]}-{borders[min(row + RECORDS_PER_PART, len(borders)) - 1][1]}:{row}"
        for row in range(0, len(borders), RECORDS_PER_PART)
    ]


def json_records(root: Path, part: str) -> Iterator[RawRecord]:
    """The records of a part that `json_parts` named, `file` being relative to `root`."""
    file, span, first = part.rsplit(":", 2)
    start, stop = map(int, span.split("-"))
    path = root / file
    with _mapped(path) as content:
        scan = _lines if path.suffix == ".jsonl" else _objects
        borders = scan(content, start, stop)
        for row, (begin, end) in enumerate(borders, int(first)):
            yield RawRecord(file, row, content[begin : min(end, begin + LARGEST_RECORD + 1)])


def parquet_parts(path: Path, file: str) -> list[str]:
    """One part per row group. ValueError if the file's end, where Parquet keeps its plan, is unreadable."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            rows = [table.metadata.row_group(group).num_rows for group in range(table.metadata.num_row_groups)]
    except UNREADABLE as error:
        raise ValueError(f"{path}: not a readable Parquet file ({error}); fetch it again") from error
    return [f"{file}:{group}:{sum(rows[:group])}" for group in range(len(rows))]


def parquet_records(root: Path, part: str) -> Iterator[RawRecord]:
    """The rows of a part that `parquet_parts` named, in small batches, with checksums verified where there are any."""
    import pyarrow.parquet as pq

    file, group, first = part.rsplit(":", 2)
    with pq.ParquetFile(root / file, page_checksum_verification=True) as table:
        row = int(first)
        for batch in table.iter_batches(PARQUET_BATCH, row_groups=[int(group)], use_threads=False):
            for fields in batch.to_pylist():
                yield RawRecord(file, row, fields)
                row += 1


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap | bytes]:
    """The bytes of a file without reading them all into memory."""
    if path.stat().st_size == 0:
        yield b""
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _lines(content: mmap.mmap | bytes, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
    """Where the lines that hold anything begin and end."""
    borders = []
    stop = len(content) if stop is None else min(stop, len(content))
    while start < stop:
        newline = content.find(b"\n", start, stop)
        end = stop if newline < 0 else newline
        if content[start : min(end, start + 64)].strip() or content[start:end].strip():
            borders.append((start, end))
        start = end + 1
    return borders


def _elements(content: mmap.mmap | bytes, path: Path) -> list[tuple[int, int]]:
    """Where the elements of a JSON array begin and end; one empty element past the end if the array is not closed."""
    start = len(_OPENING.match(content)[0])  # type: ignore[index]
    if content[start : start + 1] != b"[":
        raise ValueError(f"{path}: a JSON file of records is an array and starts with '['; is it a .jsonl?")
    size = len(content)
    tail = content[max(start + 1, size - 4096) : size].rstrip()
    closed = tail.endswith(b"]")
    stop = max(start + 1, size - 4096) + len(tail) - 1 if closed else size + 1
    return _objects(content, start + 1, stop)


def _objects(content: mmap.mmap | bytes, start: int, stop: int) -> list[tuple[int, int]]:
    """Borders of what stands between the commas of an array's inside.

    What is no value becomes an element of its own, which then won't parse: damage is reported and not stepped over. A
    broken object ends where its brackets close, or before the next one that begins with the key of the file's first.
    """
    borders: list[tuple[int, int]] = []
    text, at, end = _Text(content), start, min(stop, len(content))
    while (at := _SPACES.match(content, at, end).end()) < end:  # type: ignore[union-attr]
        closed = text.value_end(at, end) or _broken_end(content, at, end)
        borders.append((at, closed))
        at = closed
    if stop > len(content):
        borders.append((len(content), stop))
    return borders


class _Text:
    """A window of a file as text of one character per byte, in which places are places in the file."""

    def __init__(self, content: mmap.mmap | bytes) -> None:
        self._content, self._base, self._text = content, 0, ""

    def value_end(self, at: int, end: int) -> int | None:
        """Where the JSON value that begins at byte `at` ends; None if none does, or not before `end`."""
        for base in dict.fromkeys((self._base, at)):
            if base != self._base or not self._text:
                self._base, self._text = at, str(self._content[at : min(at + LARGEST_RECORD, end)], "latin-1")
            try:
                closed = self._base + _SCAN(self._text, at - self._base)[1]
            except (StopIteration, ValueError, RecursionError):
                continue
            return closed if closed <= end else None
        return None


def _broken_end(content: mmap.mmap | bytes, at: int, end: int) -> int:
    first = _FIRST_KEY.match(content)
    following = (
        re.compile(rb",\s*(?=\{\s*" + re.escape(first[1]) + rb"\s*:)").search(content, at, end) if first else None
    )
    end = following.start() if following else end
    depth = 0
    for token in _STRUCTURE.finditer(content, at, end):
        depth += (token[0] in b"[{") - (token[0] in b"]}")
        if depth <= 0 and token[0] in b"]}":
            return token.end()
    return end


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise RecordError("repeated_key", f"key {twice[0]!r} stands twice in one object", twice[0])
    return record


def _no_constant(name: str) -> float:
    raise RecordError("not_finite", f"{name} is not a number that JSON knows")


def _told(error: BaseException) -> str:
    message = str(error) or type(error).__name__
    return message if len(message) <= 500 else message[:500] + " ..."
