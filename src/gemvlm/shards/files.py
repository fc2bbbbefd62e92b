"""Files at a local path or at any fsspec URL: read in ranges, written whole or not at all.

Every change on disk goes through `write`, `fsync`, `rename` and `remove`: who wants to see what a crash leaves behind
replaces one of them. `put` is the only way to make a file: its name appears when its content is safe.
"""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

Location = Path | str
"""A local path, or a URL such as "s3://bucket/set" or "memory://set"."""

PARTIAL = ".partial"
OPEN_FILES = 64


def located(location: Location) -> Location:
    """A `Path` unless it is a URL."""
    return location if "://" in str(location) else Path(location)


def join(folder: Location, name: str) -> Location:
    """The file `name` in a folder."""
    return folder / name if isinstance(folder, Path) else f"{str(folder).rstrip('/')}/{name}"


def put(location: Location, content: bytes) -> None:
    """Makes or replaces a file so that it is either as before or whole, also after a power cut."""
    partial = _beside(location, PARTIAL)
    write(partial, content)
    fsync(partial)
    rename(partial, location)
    fsync(_parent(location))


def write(location: Location, content: bytes) -> None:
    if isinstance(location, Path):
        location.write_bytes(content)
    else:
        _remote(location).pipe_file(location, content)


def fsync(location: Location) -> None:
    """Waits until a local file or folder is on its disk; a remote store has done so when `write` returns."""
    if not isinstance(location, Path) or (location.is_dir() and os.name == "nt"):
        return
    descriptor = os.open(location, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(old: Location, new: Location) -> None:
    if isinstance(old, Path):
        old.replace(new)
    else:
        _remote(old).mv(old, str(new))


def remove(location: Location) -> None:
    """Removes a file; it may be absent."""
    if isinstance(location, Path):
        location.unlink(missing_ok=True)
    elif exists(location):
        _remote(location).rm_file(location)


def make_folder(folder: Location) -> None:
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
    else:
        _remote(folder).makedirs(folder, exist_ok=True)


def exists(location: Location) -> bool:
    return location.exists() if isinstance(location, Path) else bool(_remote(location).exists(location))


def names(folder: Location) -> list[str]:
    """Names of the files in a folder, sorted; none if there is no such folder."""
    if not exists(folder):
        return []
    if isinstance(folder, Path):
        return sorted(path.name for path in folder.iterdir() if path.is_file())
    return sorted(str(path).rsplit("/", 1)[-1] for path in _remote(folder).ls(folder, detail=False))


def size(location: Location) -> int:
    return location.stat().st_size if isinstance(location, Path) else int(_remote(location).size(location))


def read(location: Location) -> bytes:
    return location.read_bytes() if isinstance(location, Path) else _remote(location).cat_file(location)


def opened(location: Location) -> tuple[BinaryIO, int]:
    """A file for `read_at` and its length in bytes; of a remote one a copy that goes when it is closed."""
    if isinstance(location, Path):
        return location.open("rb"), size(location)
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as its reader
    copy.write(read(location))
    copy.flush()
    return copy, copy.tell()


def read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Up to `length` bytes from `offset` on; where the system can, without moving the place that processes share."""
    if hasattr(os, "pread"):
        return os.pread(file.fileno(), length, offset)
    file.seek(offset)
    return file.read(length)


class OpenFiles:
    """Ranges of many files; the last ones read stay open, a bounded number of them. Forked workers may share it."""

    def __init__(self) -> None:
        self._open: OrderedDict[Location, tuple[BinaryIO | None, int]] = OrderedDict()

    def read(self, location: Location, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset` on. ValueError if the file ends before."""
        if location not in self._open:
            self._open[location] = opened(location) if isinstance(location, Path) else (None, size(location))
            if len(self._open) > OPEN_FILES:
                oldest, _ = self._open.popitem(last=False)[1]
                if oldest is not None:
                    oldest.close()
        self._open.move_to_end(location)
        file, there = self._open[location]
        if offset + length > there:
            raise ValueError(
                f"{location}: has {there} bytes but a member would end at byte {offset + length}; it is truncated, or "
                "belongs to another index"
            )
        if file is None:
            return _remote(location).cat_file(location, offset, offset + length)
        return read_at(file, offset, length)

    def __getstate__(self) -> dict[str, Any]:
        return {"_open": OrderedDict()}


def _beside(location: Location, suffix: str) -> Location:
    return location.with_name(location.name + suffix) if isinstance(location, Path) else location + suffix


def _parent(location: Location) -> Location:
    return location.parent if isinstance(location, Path) else location.rsplit("/", 1)[0]


def _remote(url: Location) -> Any:
    """The fsspec file system of a URL."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ImportError(f"{url}: URLs need fsspec; pip install 'gemvlm[curate]'") from error
    return url_to_fs(str(url))[0]
