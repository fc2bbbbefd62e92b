"""What a folder holds, and that it is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from gemvlm.shards import files
from gemvlm.shards.files import Location

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"


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
    """Counts and files of a folder. `families`, `sources` and `licences` count turns, samples and samples."""

    samples: int
    turns: int
    frames: int
    images: int
    depths: int
    families: Mapping[str, int]
    sources: Mapping[str, int]
    licences: Mapping[str, int]
    files: tuple[StoredFile, ...]
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
            return cls(**{**fields, "files": tuple(StoredFile(**file) for file in fields["files"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a manifest that can be read ({error}); write the shards again") from error

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @property
    def hash(self) -> str:
        """SHA-256 of the manifest's file, and so of every byte in the folder."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def of(self, stem: str) -> tuple[StoredFile, ...]:
        """The files of one kind ("images", say), in order."""
        return tuple(file for file in self.files if file.file.startswith(stem + "-"))
