"""Samples → a folder of shards."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gemvlm.sample import Frame, Sample, Turn
from gemvlm.shards import files, table
from gemvlm.shards.archive import SHARD_BYTES, ArchiveWriter
from gemvlm.shards.files import Location
from gemvlm.shards.manifest import FILES, MANIFEST, Manifest, StoredFile, files_bytes
from gemvlm.shards.media import decode_image, encode_depth, encode_image, image_suffix
from gemvlm.shards.reader import ShardReader
from gemvlm.shards.record import Row, depth_row, frame_row, sample_row, to_json, turn_rows

OURS = ("annotations-", "records-", "images-", "depth-", "records.", "images.", "depth.", FILES)
RECENT_PICTURES = 64


def write_shards(samples: Iterable[Sample], folder: Location, shard_bytes: int = SHARD_BYTES) -> Manifest:
    """Writes all samples. ValueError on a repeated id, or if the folder already holds shards."""
    writer = ShardWriter(folder, shard_bytes)
    for sample in samples:
        writer.add(sample)
    return writer.finish()


class ShardWriter:
    """Writes samples one by one; the folder is whole only after `finish`. Its bytes depend on the samples alone.

    An unfinished write in the folder is cleared away. The writer remembers a hash per sample, picture and depth map:
    some 500 bytes each. ValueError if the folder already holds finished shards.
    """

    def __init__(self, folder: Location, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder = files.located(folder)
        if files.exists(files.join(self.folder, MANIFEST)):
            raise ValueError(f"{self.folder}: already holds shards; remove the folder or choose another")
        files.make_folder(self.folder)
        for name in files.names(self.folder):
            if name.startswith(OURS):
                files.remove(files.join(self.folder, name))
        self._records = ArchiveWriter(self.folder, "records", shard_bytes, in_order=True)
        self._images = ArchiveWriter(self.folder, "images", shard_bytes)
        self._depths = ArchiveWriter(self.folder, "depth", shard_bytes)
        self._rows: list[Any] = []
        self._tables: list[StoredFile] = []
        self._families, self._sources, self._licences = Counter[str](), Counter[str](), Counter[str]()
        self._frames = 0
        self._pictures: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, sample: Sample) -> None:
        """Appends a sample. ValueError naming it if it can't be stored, and it is then left out whole."""
        key = self._new_key(sample.id)
        try:
            stored = [self._frame(frame, f"frame {i}") for i, frame in enumerate(sample.frames)]
            row = sample_row(sample, [row for row, _, _ in stored])
            content, columns = to_json(row), table.batch(row)
        except (TypeError, RecursionError, UnicodeEncodeError) as error:
            raise ValueError(
                f"sample {sample.id!r}: turns or meta are not JSON ({error}); use plain finite numbers and text"
            ) from error
        except ValueError as error:
            raise ValueError(f"sample {sample.id!r}: {error}") from error
        for frame, image, depth in stored:
            self._store(frame, image, depth)
        self._append(key, row, content, columns)

    def copy(self, reader: ShardReader, index: int, turns: Sequence[Turn] | None = None) -> None:
        """Appends a stored sample, optionally with other turns; its pictures and depth are copied as bytes."""
        row = reader.record(index)
        key = self._new_key(row["id"])
        if turns is not None:
            row |= turn_rows(turns)
        for frame in row["frames"]:
            if bytes.fromhex(frame["image"]) not in self._images:
                self._store(frame, reader.image_bytes(frame), None)
            if frame["depth"] is not None and bytes.fromhex(frame["media"]) not in self._depths:
                self._store(frame, None, reader.depth_bytes(frame))
        self._append(key, row, to_json(row), table.batch(row))

    def finish(self) -> Manifest:
        """Writes what is left, the indexes, and the manifest last."""
        if self._rows:
            self._write_table()
        archives = (self._records, self._images, self._depths)
        listed = files_bytes([*self._tables, *(file for archive in archives for file in archive.finish())])
        manifest = Manifest(
            samples=len(self._records),
            turns=self._families.total(),
            frames=self._frames,
            images=len(self._images),
            depths=len(self._depths),
            families=dict(sorted(self._families.items())),
            sources=dict(sorted(self._sources.items())),
            licences=dict(sorted(self._licences.items())),
            shards={
                table.STEM: len(self._tables),
                **{archive.stem: archive.shards for archive in archives},
            },
            files_sha256=hashlib.sha256(listed).hexdigest(),
        )
        files.put(files.join(self.folder, FILES), listed)
        files.put(files.join(self.folder, MANIFEST), manifest.to_bytes())
        return manifest

    def _new_key(self, name: str) -> bytes:
        key = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        if key in self._records:
            raise ValueError(f"sample {name!r} comes twice; ids key the randomness of training: make them unique")
        return key

    def _frame(self, frame: Frame, where: str) -> tuple[Row, bytes, bytes | None]:
        """The row of a frame, its picture's file and its depth's."""
        image = self._picture(frame, where)
        if frame.depth is None:
            return frame_row(frame, image, None), image, None
        depth, form, metres_per_count = encode_depth(frame.depth)
        return frame_row(frame, image, depth_row(frame.depth, depth, form, metres_per_count)), image, depth

    def _picture(self, frame: Frame, where: str) -> bytes:
        """The publisher's bytes or a PNG; frames that several samples show one after another are encoded once."""
        shape = str(frame.image.shape).encode()
        pixels = hashlib.blake2b(np.ascontiguousarray(frame.image).data, key=shape, digest_size=16).digest()
        known = (pixels + hashlib.sha256(frame.encoded).digest()) if frame.encoded is not None else pixels
        if known not in self._pictures:
            self._pictures[known] = encode_image(frame.image) if frame.encoded is None else _checked(frame, where)
            if len(self._pictures) > RECENT_PICTURES:
                self._pictures.popitem(last=False)
        return self._pictures[known]

    def _store(self, frame: Row, image: bytes | None, depth: bytes | None) -> None:
        digest, media = bytes.fromhex(frame["image"]), bytes.fromhex(frame["media"])
        if image is not None and digest not in self._images:
            self._images.add(digest, frame["image"] + image_suffix(image), image)
        if depth is not None and media not in self._depths:
            suffix = "png" if frame["depth"]["format"] == "png16" else "npz"
            self._depths.add(media, f"{frame['image']}.{frame['media'][:12]}.depth.{suffix}", depth)

    def _append(self, key: bytes, row: Row, content: bytes, columns: Any) -> None:
        self._records.add(key, f"{len(self._records):010d}.json", content)
        self._rows.append(columns)
        self._frames += len(row["frames"])
        self._families.update(turn["family"] for turn in row["turns"])
        self._sources[row["source"]] += 1
        self._licences[row["licence"]] += 1
        if len(self._rows) == table.ROWS_PER_TABLE:
            self._write_table()

    def _write_table(self) -> None:
        name, content = table.table_name(len(self._tables)), table.table_bytes(self._rows)
        files.put(files.join(self.folder, name), content)
        self._tables.append(StoredFile.of(name, len(self._rows), content))
        self._rows = []


def _checked(frame: Frame, where: str) -> bytes:
    """The publisher's bytes. ValueError unless they show exactly the frame's image."""
    assert frame.encoded is not None
    try:
        shown = decode_image(frame.encoded)
    except ValueError as error:
        raise ValueError(f"{where}: `encoded` is {error}; leave it out") from error
    if not np.array_equal(shown, frame.image):
        raise ValueError(f"{where}: `encoded` decodes to other pixels than `image`; leave it out")
    return frame.encoded
