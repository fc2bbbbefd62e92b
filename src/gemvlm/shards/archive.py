"""Tar shards with an index: many small members, each read with one seek.

A tar file is what any tool reads (POSIX ustar, as POSIX.1-1988 and Python's `tarfile` state it; WebDataset groups
members by the name before the first dot). Beside it lies `<stem>.index`: a header of 32 bytes, then 56 bytes for each
member, little-endian and without padding:

    header    magic "GEMINDEX", uint32 version, uint32 CRC-32 of the rows, uint64 count, 8 zeros
    row       32 bytes SHA-256 key, uint32 shard, uint64 offset, uint64 length, uint32 CRC-32 of the content

Rows stand in order of their key, or in the order of writing where position means something. Of an index only the rows
that are asked for are read: opening it and keeping it open costs the same for any number of members.
"""

from __future__ import annotations

import hashlib
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from math import isqrt
from typing import Any, NamedTuple

from gemvlm.shards import files
from gemvlm.shards.files import Location, OpenFiles
from gemvlm.shards.manifest import StoredFile

MAGIC, INDEX_VERSION = b"GEMINDEX", 1
HEADER, ROW = struct.Struct("<8sIIQ8x"), struct.Struct("<32sIQQI")
BLOCK = tarfile.BLOCKSIZE
SHARD_BYTES = 64 << 20
FEW_ROWS = 64
"""Of an index: read at once, they cost less than the last six halvings."""


class Entry(NamedTuple):
    """Where a member's content lies."""

    key: bytes
    shard: int
    offset: int
    length: int
    crc: int


def shard_name(stem: str, number: int) -> str:
    return f"{stem}-{number:05d}.tar"


class ArchiveWriter:
    """Members into `<stem>-00000.tar`, ... of at most `shard_bytes` each (a larger member has one to itself).

    Or of `members_per_shard` at most, if given. The writer remembers every key: about 200 bytes for each member.
    """

    def __init__(
        self,
        folder: Location,
        stem: str,
        shard_bytes: int = SHARD_BYTES,
        members_per_shard: int | None = None,
        in_order: bool = False,
    ) -> None:
        self._folder, self.stem, self._in_order = folder, stem, in_order
        self._shard_bytes, self._members_per_shard = shard_bytes, members_per_shard
        self._rows: list[bytes] = []
        self._keys: set[bytes] = set()
        self._shards: list[StoredFile] = []
        self._content, self._members = bytearray(), 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shards(self) -> int:
        """Tar files written so far."""
        return len(self._shards)

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def add(self, key: bytes, name: str, content: bytes) -> None:
        """`name` is the member's name in the tar file, at most 100 characters; `key` must be new."""
        member = tar_member(name, content)
        if self._full(len(member)):
            self._flush()
        offset = len(self._content) + BLOCK
        self._rows.append(ROW.pack(key, len(self._shards), offset, len(content), zlib.crc32(content)))
        self._keys.add(key)
        self._content += member
        self._members += 1

    def take_up(self, content: bytes, key_of: Callable[[str], bytes]) -> None:
        """Counts a whole shard of an earlier, interrupted write as written."""
        for name, offset, member in members(content):
            key = key_of(name)
            self._rows.append(ROW.pack(key, len(self._shards), offset, len(member), zlib.crc32(member)))
            self._keys.add(key)
            self._members += 1
        self._shards.append(StoredFile.of(shard_name(self.stem, len(self._shards)), self._members, content))
        self._members = 0

    def finish(self) -> tuple[StoredFile, ...]:
        """Writes what is left and the index; returns all files."""
        if self._members:
            self._flush()
        rows = b"".join(self._rows if self._in_order else sorted(self._rows))
        content = HEADER.pack(MAGIC, INDEX_VERSION, zlib.crc32(rows), len(self._rows)) + rows
        name = f"{self.stem}.index"
        files.put(files.join(self._folder, name), content)
        return (*self._shards, StoredFile.of(name, len(self._rows), content))

    def _full(self, more: int) -> bool:
        if self._members == self._members_per_shard:
            return True
        return self._members > 0 and len(self._content) + more + 2 * BLOCK > self._shard_bytes

    def _flush(self) -> None:
        name, content = shard_name(self.stem, len(self._shards)), bytes(self._content) + bytes(2 * BLOCK)
        files.put(files.join(self._folder, name), content)
        self._shards.append(StoredFile.of(name, self._members, content))
        self._content, self._members = bytearray(), 0


def tar_member(name: str, content: bytes) -> bytes:
    """Header, content and padding of a member that belongs to nobody and has no time."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


class Index(Sequence[Entry]):
    """The rows of an index file, read where they are asked for; none is kept in memory.

    ValueError if it is no index, or not as long as it says.
    """

    def __init__(self, location: Location) -> None:
        if not files.exists(location):
            raise ValueError(f"{location}: missing; restore it or write the shards again")
        self._location = location
        self._file, length = files.opened(location)
        start = files.read_at(self._file, 0, HEADER.size)
        if len(start) < HEADER.size or start[:8] != MAGIC or HEADER.unpack(start)[1] != INDEX_VERSION:
            raise ValueError(f"{location}: empty, or not an index of ours; write the shards again")
        _, _, self._crc, self._count = HEADER.unpack(start)
        if length != HEADER.size + self._count * ROW.size:
            raise ValueError(
                f"{location}: {length} bytes but its {self._count} rows need {HEADER.size + self._count * ROW.size}; "
                "the file is truncated: restore it or write the shards again"
            )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Entry:  # type: ignore[override]
        if not 0 <= index < self._count:
            raise IndexError(f"row {index} of {self._count} in {self._location}")
        return Entry(*ROW.unpack(files.read_at(self._file, HEADER.size + index * ROW.size, ROW.size)))

    def find(self, key: bytes) -> Entry | None:
        """The row of a key, in an index that is ordered by keys."""
        # Hashes lie evenly: a key's place is known to within a few times the square root of their number.
        guess, step = int.from_bytes(key[:8], "big") * self._count >> 64, isqrt(self._count) + 1
        low, high = max(0, guess - step), min(self._count, guess + step)
        while low > 0 and self[low].key >= key:
            low = max(0, low - step)
        while high < self._count and self[high - 1].key < key:
            high = min(self._count, high + step)
        while high - low > FEW_ROWS:
            middle = (low + high) // 2
            low, high = (middle, high) if self[middle].key <= key else (low, middle)
        rows = files.read_at(self._file, HEADER.size + low * ROW.size, (high - low) * ROW.size)
        return next((entry for row in ROW.iter_unpack(rows) if (entry := Entry(*row)).key == key), None)

    def verify(self) -> None:
        """ValueError if a bit of the rows has changed."""
        crc, offset = 0, HEADER.size
        while part := files.read_at(self._file, offset, SHARD_BYTES):
            crc, offset = zlib.crc32(part, crc), offset + len(part)
        if crc != self._crc:
            raise ValueError(f"{self._location}: its checksum does not match; restore it or write the shards again")


class Archive:
    """Members of `<stem>-00000.tar`, ..., `shards` files, by key or by position. Each read is checked by its CRC."""

    def __init__(self, folder: Location, stem: str, shards: int) -> None:
        self.folder, self.stem = folder, stem
        self._shards = shards
        self._files = OpenFiles()
        self._index: Index | None = None

    @property
    def index(self) -> Index:
        if self._index is None:
            self._index = Index(files.join(self.folder, f"{self.stem}.index"))
        return self._index

    def get(self, key: bytes) -> bytes:
        """ValueError if there is no such member or its content is not what was written."""
        entry = self.index.find(key)
        if entry is None:
            raise ValueError(f"{files.join(self.folder, self.stem)}.index: knows no member {key.hex()}")
        return self.read(entry)

    def read(self, entry: Entry) -> bytes:
        """The content of a member. ValueError names the tar file and the member."""
        path = self.where(entry)
        try:
            content = self._files.read(path, entry.offset, entry.length)
        except OSError as error:
            raise ValueError(f"{path}: unreadable ({error})") from error
        if zlib.crc32(content) != entry.crc:
            raise ValueError(f"{path}: member {entry.key.hex()} is not what was written (CRC-32 differs)")
        return content

    def where(self, entry: Entry) -> Location:
        """The tar file of a member. ValueError if the index names a shard that the manifest does not."""
        if entry.shard >= self._shards:
            raise ValueError(
                f"{files.join(self.folder, self.stem)}.index: member {entry.key.hex()} lies in shard {entry.shard} of "
                f"{self._shards}; index and manifest don't belong together"
            )
        return files.join(self.folder, shard_name(self.stem, entry.shard))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}


def verify_file(folder: Location, stored: StoredFile) -> None:
    """ValueError if a file's bytes are not those that the manifest names."""
    path = files.join(folder, stored.file)
    if not files.exists(path) or hashlib.sha256(files.read(path)).hexdigest() != stored.sha256:
        raise ValueError(f"{path}: missing, or not the bytes that the manifest names; write the shards again")


def members(content: bytes) -> Iterator[tuple[str, int, bytes]]:
    """(name, offset of the content, content) of each member of a tar file that `ArchiveWriter` wrote."""
    offset = 0
    while content[offset : offset + BLOCK].strip(b"\0"):
        info = tarfile.TarInfo.frombuf(content[offset : offset + BLOCK], "utf-8", "strict")
        start = offset + BLOCK
        yield info.name, start, content[start : start + info.size]
        offset = start + info.size + -info.size % BLOCK
