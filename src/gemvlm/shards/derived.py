"""What is computed from pictures and depth, kept beside a set: latents, say, joined by `StoredFrame.media`.

A folder `<set>/<name>/` holds tar shards with an index like those of the set, `stamp.json`, which says exactly what
made them, and `manifest.json`, written last. Who reads it states what it expects: a difference is refused with both
stamps. Writing goes on where it was interrupted, and the bytes are those of a write that was not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gemvlm.shards import files
from gemvlm.shards.archive import Archive, ArchiveWriter, shard_name, verify_file
from gemvlm.shards.files import Location
from gemvlm.shards.manifest import MANIFEST, StoredFile
from gemvlm.shards.record import to_json

STAMP = "stamp.json"
STEM = "members"
MEMBERS_PER_SHARD = 4096

Stamp = Mapping[str, Any]
"""Plain JSON values by name."""


class StampError(ValueError):
    """What is stored was made by something else than what is asked for."""


class DerivedWriter:
    """Members by media, in the order they are given, `MEMBERS_PER_SHARD` to a file.

    StampError if the folder holds members with another stamp. `done` says what is there already; give the rest in the
    order of the first attempt and call `finish`. An empty member says that the frame has nothing of this kind; a
    refused frame, which could not be computed, counts as such.
    """

    def __init__(self, folder: Location, stamp: Stamp, suffix: str, members_per_shard: int = MEMBERS_PER_SHARD) -> None:
        self.folder = files.located(folder)
        self._suffix = suffix
        files.make_folder(self.folder)
        if files.exists(files.join(self.folder, STAMP)):
            check_stamp(self.folder, stamp)
        else:
            files.put(files.join(self.folder, STAMP), _stamp_bytes(stamp))
        self.finished = files.exists(files.join(self.folder, MANIFEST))
        self._archive = ArchiveWriter(self.folder, STEM, members_per_shard=members_per_shard)
        self._refused: list[str] = []
        if not self.finished:
            self._take_up()

    def done(self, media: str) -> bool:
        return self.finished or bytes.fromhex(media) in self._archive

    def add(self, media: str, content: bytes) -> None:
        self._archive.add(bytes.fromhex(media), media + self._suffix, content)

    def refuse(self, media: str) -> None:
        """Says that the frame's member could not be computed."""
        self._refused.append(media)

    def finish(self) -> None:
        """Writes the last shard, the index and the manifest."""
        if not self.finished:
            manifest = {"files": [asdict(file) for file in self._archive.finish()], "refused": self._refused}
            files.put(files.join(self.folder, MANIFEST), (json.dumps(manifest, indent=1) + "\n").encode())
            self.finished = True

    def _take_up(self) -> None:
        """Whole shards of an interrupted write; a file is either whole or absent."""
        number = 0
        while files.exists(path := files.join(self.folder, shard_name(STEM, number))):
            self._archive.take_up(files.read(path), lambda name: bytes.fromhex(name.split(".")[0]))
            number += 1


class Derived:
    """Finished members by media. StampError unless they were made by `stamp`; ValueError if they are unfinished."""

    def __init__(self, folder: Location, stamp: Stamp) -> None:
        self.folder = files.located(folder)
        check_stamp(self.folder, stamp)
        path = files.join(self.folder, MANIFEST)
        if not files.exists(path):
            raise ValueError(f"{path}: missing; the encoding is unfinished: run `encode` again, it goes on from there")
        try:
            manifest = json.loads(files.read(path))
            self._stored = tuple(StoredFile(**file) for file in manifest["files"])
            self._refused = frozenset(manifest["refused"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a manifest that can be read ({error}); encode again") from error
        self._archive = Archive(self.folder, STEM, len(self._stored) - 1)  # the last is the index

    def __len__(self) -> int:
        return len(self._archive.index)

    def get(self, media: str) -> bytes:
        """The member of a frame, empty if the frame has nothing of this kind. ValueError if it was never computed."""
        entry = self._archive.index.find(bytes.fromhex(media))
        if entry is not None:
            return self._archive.read(entry)
        if media in self._refused:
            return b""
        raise ValueError(
            f"{self.folder}: knows no media {media}; the set has changed since: remove this folder and encode again"
        )

    def verify(self) -> None:
        """Reads everything. ValueError naming the first file whose bytes are not those that were written."""
        for stored in self._stored:
            verify_file(self.folder, stored)
        self._archive.index.verify()


def check_stamp(folder: Location, wanted: Stamp) -> None:
    """StampError naming the fields that differ, with both stamps; ValueError if there is no stamp."""
    path = files.join(folder, STAMP)
    if not files.exists(path):
        raise ValueError(f"{path}: missing; nothing was encoded here: run `encode`")
    try:
        there = json.loads(files.read(path))
        differing = sorted(name for name in {*there, *wanted} if there.get(name) != _plain(wanted).get(name))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a stamp ({error}); remove {folder} and encode again") from error
    if differing:
        raise StampError(
            f"{folder}: {', '.join(differing)} differ. Stored: {to_json(there).decode()}. Wanted: "
            f"{to_json(_plain(wanted)).decode()}. Encode into another folder, or remove this one and encode again"
        )


def _plain(stamp: Stamp) -> dict[str, Any]:
    """As JSON gives it back: tuples are lists."""
    return json.loads(to_json(dict(stamp)))


def _stamp_bytes(stamp: Stamp) -> bytes:
    return (json.dumps(_plain(stamp), indent=1, sort_keys=True) + "\n").encode()
