"""What a folder holds, and that it is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from gemvlm.shards import files
from gemvlm.shards.files import Location

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
FILES = "files.json"
"""Every other file with its size and hash: as long as the set is large, so only `verify` reads it."""


@dataclass(frozen=True)
class StoredFile:
    """A file of the folder; `members` counts its rows or its tar members."""

    file: str
    members: int
    bytes: int
    sha256: str

    @classmethod
    def of(cls, file: str, members: int, content: bytes) -> StoredFile:
        return cls(file, members, len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """Counts of a folder. `families`, `sources` and `licences` count turns, samples and samples, `shards` the files of
    each kind. `files_sha256` is the hash of `files.json`, which holds the hashes of all others.
    """

    samples: int
    turns: int
    frames: int
    images: int
    depths: int
    families: Mapping[str, int]
    sources: Mapping[str, int]
    licences: Mapping[str, int]
    shards: Mapping[str, int]
    files_sha256: str
    schema: int = SCHEMA_VERSION

    @classmethod
    def from_folder(cls, folder: Location) -> Manifest:
        """ValueError if there is no manifest, if it is damaged, or if another version of this package wrote it."""
        folder = files.located(folder)
        path = files.join(folder, MANIFEST)
        if not files.exists(path):
            raise ValueError(f"{path}: missing; there are no shards, or writing them was interrupted: write them again")
        try:
            fields = json.loads(files.read(path))
            if fields["schema"] != SCHEMA_VERSION:
                raise ValueError(f"schema {fields['schema']} but {SCHEMA_VERSION} is read here")
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a manifest that can be read ({error}); write the shards again") from error

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @property
    def hash(self) -> str:
        """SHA-256 of the manifest's file, and so of every byte in the folder."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def files_bytes(stored: Sequence[StoredFile]) -> bytes:
    """The content of `files.json`."""
    return (json.dumps([asdict(file) for file in stored], indent=1) + "\n").encode()


def read_files(folder: Location, sha256: str) -> tuple[StoredFile, ...]:
    """What `files.json` says. ValueError unless it has the given hash."""
    path = files.join(folder, FILES)
    content = files.read(path) if files.exists(path) else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path}: missing, or not the bytes that {MANIFEST} names; write the shards again")
    return tuple(StoredFile(**file) for file in json.loads(content))
