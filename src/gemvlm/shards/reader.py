"""A folder of shards → samples, at random."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence

from gemvlm.sample import Sample
from gemvlm.shards import files, table
from gemvlm.shards.archive import Archive, Entry, verify_file
from gemvlm.shards.files import Location
from gemvlm.shards.manifest import MANIFEST, Manifest, read_files
from gemvlm.shards.media import decode_depth, decode_image
from gemvlm.shards.record import Row, StoredFrame, depth_of, frame_of, sample_of, to_json

ARCHIVES = ("records", "images", "depth")


class SampleError(ValueError):
    """What is wrong with one sample: where it was read and which of its fields is bad."""

    def __init__(self, reason: str, id: str = "", file: str = "", field: str = "") -> None:
        super().__init__(reason)
        self.id, self.file, self.field = id, file, field


class ShardReader(Sequence[Sample]):
    """The samples of a folder by index, in the order they were written; decoded when asked for.

    Opening reads the manifest and the indexes' headers: memory does not grow with the number of samples. `cache=True`
    keeps every decoded sample (small sets only). `depth=False` leaves depth undecoded, for training on cached latents.
    A sample that can't be read is a `SampleError` that names it and its file. Safe to send to worker processes.
    """

    def __init__(self, folder: Location, cache: bool = False, depth: bool = True) -> None:
        self.folder = files.located(folder)
        self.manifest = Manifest.from_folder(self.folder)
        self._records, self._images, self._depths = (
            Archive(self.folder, stem, self.manifest.shards[stem]) for stem in ARCHIVES
        )
        self._samples: dict[int, Sample] | None = {} if cache else None
        self._depth = depth
        for archive, stored in zip(
            (self._records, self._images, self._depths),
            (self.manifest.samples, self.manifest.images, self.manifest.depths),
            strict=True,
        ):
            if len(archive.index) != stored:
                raise ValueError(
                    f"{files.join(self.folder, archive.stem)}.index: {len(archive.index)} rows but {MANIFEST} says "
                    f"{stored}; restore the file or write the shards again"
                )

    def __len__(self) -> int:
        return self.manifest.samples

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        index = self._checked(index)
        if self._samples is not None and index in self._samples:
            return self._samples[index]
        row = self.record(index)
        frames = [self.frame(row, number) for number in range(len(row["frames"]))]
        try:
            sample = sample_of(row, frames)
        except (ValueError, KeyError, TypeError) as error:
            raise self._error(error, self._records, self._records.index[index], row["id"], "turns") from error
        if self._samples is not None:
            self._samples[index] = sample
        return sample

    def record(self, index: int) -> Row:
        """The row of a sample as `record.py` makes it, without decoding a picture. IndexError if there is none."""
        index = self._checked(index)
        entry = self._records.index[index]
        try:
            row = json.loads(self._records.read(entry))
            return {**row, "id": str(row["id"])}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._error(error, self._records, entry, f"#{index}", "") from error

    def image_bytes(self, frame: Row) -> bytes:
        """The file of a frame's picture, as stored. ValueError if it can't be read."""
        return self._images.get(bytes.fromhex(frame["image"]))

    def depth_bytes(self, frame: Row) -> bytes:
        """The file of a frame's depth, as stored. ValueError if it can't be read."""
        return self._depths.get(bytes.fromhex(frame["media"]))

    def ids(self) -> list[str]:
        """Ids of all samples, without decoding anything else; as long as the set."""
        return self._column("id")

    def scenes(self) -> list[str]:
        """Scenes of all samples: what splits and bootstraps go by; as long as the set."""
        return self._column("scene")

    def verify(self) -> None:
        """Reads everything. ValueError naming the first file whose bytes are not those that were written.

        Also if a record and its row in the annotation table disagree.
        """
        for stored in read_files(self.folder, self.manifest.files_sha256):
            verify_file(self.folder, stored)
        for archive in (self._records, self._images, self._depths):
            archive.index.verify()
        start = 0
        for name in self._tables():
            rows = table.to_rows(files.read(files.join(self.folder, name)))
            for number, row in enumerate(rows):
                if to_json(row) != to_json(self.record(start + number)):
                    raise ValueError(
                        f"{files.join(self.folder, name)}, row {number}: not what the record says; write the "
                        "shards again"
                    )
            start += len(rows)

    def frame(self, record: Row, number: int) -> StoredFrame:
        """One frame of a record, decoded. SampleError if it can't be read."""
        row, archive, field = record["frames"][number], self._images, "image"
        try:
            content = self.image_bytes(row)
            image = decode_image(content)
            depth = None
            if self._depth and row["depth"] is not None:
                archive, field = self._depths, "depth"
                fields = row["depth"]
                arrays = decode_depth(self.depth_bytes(row), fields["format"], fields["metres_per_count"])
                depth = depth_of(fields, *arrays)
            return frame_of(row, image, content, depth)
        except (ValueError, KeyError, TypeError, OSError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
            key = bytes.fromhex(row["image" if field == "image" else "media"])
            raise self._error(
                error, archive, archive.index.find(key), record["id"], f"frames[{number}].{field}"
            ) from error

    def _error(self, error: Exception, archive: Archive, entry: Entry | None, id: str, field: str) -> SampleError:
        try:
            file = archive.where(entry) if entry is not None else f"{files.join(self.folder, archive.stem)}.index"
        except ValueError:
            file = f"{files.join(self.folder, archive.stem)}.index"
        reason = f"{file} (sample {id!r}): {type(error).__name__}: {error}; write the shards again"
        return SampleError(reason, id, str(file), field)

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in {self.folder}")
        return index % len(self)

    def _column(self, name: str) -> list[str]:
        return list(table.column(self.folder, self._tables(), name))

    def _tables(self) -> list[str]:
        return [table.table_name(number) for number in range(self.manifest.shards[table.STEM])]
