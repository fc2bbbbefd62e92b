"""Published files of a benchmark → rows with their places, fields with their types, pictures within bounds.

What is wrong with a file is said as a ValueError that names the file, the row, the field and what was found: a test set
with a hole in it is no test set, so nothing is skipped here.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar, cast

from PIL import Image

from gemvlm.evaluation.benchmark import Media

LARGEST_DOWNLOAD = 100 * 2**30
"""Bytes of a hub data set: the largest benchmark here is some 20 GiB of videos."""
LARGEST_RECORD = 256 * 2**20
"""Bytes of one row: a question with its pictures as base64 text."""
LARGEST_FILE = 2 * 2**30
"""Bytes of one picture or video."""
LARGEST_PIXELS = 128 * 2**20
PARQUET_ROWS = 16

UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OSError, SyntaxError, ArithmeticError, RecursionError)
"""What parsing bad bytes can raise; those of Arrow, of csv and of Pillow among them."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_DATA_URL = re.compile(r"data:[\w.+/-]*;base64,")

T = TypeVar("T")


def folder_of(place: str, hub_id: str) -> Path:
    """The local folder `place`, or the snapshot of the hub data set that it names: "owner/name", "owner/name@commit".

    `hub_id` is where the benchmark is published; errors name it. ValueError if `place` is neither, or is too large.
    """
    folder = Path(place)
    if place and folder.is_dir():
        return folder
    remedy = f"give the folder of a copy of {hub_id}, or the hub id {hub_id!r} itself"
    if place and folder.exists():
        raise ValueError(f"{place}: a file, not the folder of a benchmark; {remedy}")
    name, _, revision = place.partition("@")
    if not _HUB_ID.fullmatch(name):
        raise ValueError(f"{place}: no such folder; {remedy}")
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError as error:
        raise ValueError(f"{place}: reading from the hub needs huggingface_hub; or {remedy}") from error
    try:
        found = HfApi().dataset_info(name, revision=revision or None, files_metadata=True, timeout=60)
        total = sum(file.size or 0 for file in found.siblings or ())
        if total > LARGEST_DOWNLOAD:
            raise ValueError(
                f"{total / 2**30:.0f} GiB are more than {LARGEST_DOWNLOAD / 2**30:.0f}; download it yourself"
            )
        return Path(snapshot_download(name, repo_type="dataset", revision=found.sha))
    except Exception as error:  # the hub's client raises those of its transport, which differ between its versions
        raise ValueError(f"{place}: no such folder, and not to be had from the hub ({error}); {remedy}") from error


def rows(folder: Path, pattern: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of every record in the files that match `pattern`, in the order of their names; where is "file:row".

    By suffix: `.parquet`, `.json` (an array, or one object per line), `.jsonl`, `.csv` and `.tsv` (a header, all values
    text). Only one record, or one small batch, is held at a time. ValueError if no file matches, or at the record that
    is damaged.
    """
    paths = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not paths:
        raise ValueError(f"{folder}: no file matches {pattern!r}; is this the whole benchmark? fetch it again")
    for path in paths:
        name, row = path.relative_to(folder).as_posix(), -1
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            raise ValueError(f"{path}: {path.suffix!r} is no table that is read here: {', '.join(_READERS)}")
        try:
            for row, record in enumerate(reader(path)):
                if not isinstance(record, dict):
                    raise TypeError(f"expected an object with fields, found a {type(record).__name__}")
                yield f"{name}:{row}", record
        except GeneratorExit:
            raise
        except UNREADABLE as error:
            raise ValueError(f"{folder / name}:{row + 1}: not readable ({error}); fetch the file again") from error


def need(row: Mapping[str, Any], field: str, kind: type[T] | tuple[type[T], ...], where: str) -> T:
    """`row[field]`, checked to be a `kind`: an int passes for a float, a bool for neither.

    ValueError naming file, row, field and what was found.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = " or ".join(each.__name__ for each in kinds)
    if field not in row:
        there = ", ".join(sorted(map(str, row))[:20])
        raise ValueError(f"{where}: field {field!r} is missing (there is {there}); is this the published format?")
    value = row[field]
    if isinstance(value, bool) and bool not in kinds:
        raise ValueError(f"{where}: field {field!r} must be {names}, found the bool {value}")
    if isinstance(value, int) and float in kinds and int not in kinds:
        return cast(T, float(value))
    if not isinstance(value, kinds):
        raise ValueError(f"{where}: field {field!r} must be {names}, found {type(value).__name__} {value!r:.80}")
    return value


def picture(value: object, folder: Path, where: str) -> Media:
    """A picture: a path inside `folder`, the bytes of a file, {"bytes": ..., "path": ...} of Parquet, or base64 text.

    Only its head is read. ValueError naming `where` if it is absent, leads out of the folder, or is no picture.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and (encoded := _from_base64(value)) is not None:
        value = encoded
    content = value if isinstance(value, bytes) else inside(folder, value, where)
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as opened:
            pixels = opened.width * opened.height
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        name = "the picture's bytes" if isinstance(content, bytes) else str(content)
        raise ValueError(f"{where}: {name}: not a picture ({error}); fetch it again") from error
    if not 0 < pixels <= LARGEST_PIXELS:
        raise ValueError(f"{where}: a picture of {pixels} pixels; at most {LARGEST_PIXELS} are taken")
    return Media(content)


def video(value: object, folder: Path, where: str) -> Media:
    """A video: a path inside `folder`, the bytes of a file, or {"bytes": ..., "path": ...}; opened when it is shown."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    return Media(value if isinstance(value, bytes) else inside(folder, value, where), "video")


def inside(folder: Path, relative: object, where: str) -> Path:
    """The file `relative` under `folder`; links may lead to anywhere in it, and in a hub snapshot to the blobs beside.

    ValueError naming `where` for what is no text, is absent, is too large, or leads out of the folder.
    """
    if not isinstance(relative, str) or not relative or "\0" in relative or len(relative) > 4096:
        raise ValueError(f"{where}: expected the path of a file, found {type(relative).__name__} {relative!r:.80}")
    parts = PurePosixPath(relative)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(f"{where}: {relative!r} leads out of the benchmark's folder")
    path = folder / parts
    if not path.is_file():
        raise ValueError(f"{where}: {path} is missing; unpack or fetch the benchmark's pictures and videos")
    root = folder.parents[1] if folder.parent.name == "snapshots" else folder
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{where}: {relative!r} is a link that leads out of the benchmark's folder")
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{where}: {relative!r} has {path.stat().st_size} bytes, more than {LARGEST_FILE}")
    return path


def _from_base64(text: str) -> bytes | None:
    """The bytes that a long text or a data URL stands for; None for the path of a file."""
    opening = _DATA_URL.match(text)
    if opening is None and len(text) <= 512:
        return None
    try:
        return base64.b64decode(text[opening.end() :] if opening else text, validate=not any(c.isspace() for c in text))
    except (binascii.Error, ValueError):
        return b""


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=PARQUET_ROWS):
            yield from batch.to_pylist()


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        while line := file.readline(LARGEST_RECORD + 1):
            if len(line) > LARGEST_RECORD:
                raise ValueError(f"a line of more than {LARGEST_RECORD} bytes")
            if line.strip():
                yield json.loads(line)


def _json_array(path: Path) -> Iterator[Any]:
    """The elements of an array, one at a time: a file may hold gigabytes of base64 pictures."""
    decode = json.JSONDecoder().raw_decode
    with path.open(encoding="utf-8-sig") as file:
        text = file.read(2**20).lstrip()
        if text.startswith("{"):
            yield from _json_lines(path)
            return
        if not text.startswith("["):
            raise ValueError("expected an array of objects")
        text = text[1:].lstrip()
        while True:
            if text.startswith("]"):
                return
            step = max(2**20, len(text))
            try:
                element, end = decode(text)
                rest = text[end:].lstrip()
                if not rest:
                    raise ValueError("the array is not closed")
            except ValueError:
                more = file.read(step)
                if not more or len(text) > LARGEST_RECORD:
                    raise
                text = (text + more).lstrip()
                continue
            if rest[0] not in ",]":
                raise ValueError(f"expected ',' or ']' after an element, found {rest[:1]!r}")
            yield element
            text = rest[1:].lstrip() if rest[0] == "," else rest


def _separated(path: Path, separator: Literal[",", "\t"]) -> Iterator[Any]:
    before = csv.field_size_limit(LARGEST_RECORD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for record in csv.DictReader(file, delimiter=separator, strict=True):
                if None in record or None in record.values():
                    raise ValueError("it has other fields than the header")
                yield record
    except csv.Error as error:
        raise ValueError(str(error)) from error
    finally:
        csv.field_size_limit(before)


_READERS = {
    ".parquet": _parquet,
    ".json": _json_array,
    ".jsonl": _json_lines,
    ".csv": lambda path: _separated(path, ","),
    ".tsv": lambda path: _separated(path, "\t"),
}
