"""Sample ⇄ disk: parquet shards with a manifest, written atomically and read at random.

A folder holds `shard-00000.parquet`, ... and `manifest.json` (schema version, counts, SHA-256 of every shard), which is
written last: a folder without it is an interrupted write. One row is one sample. Images are PNG, or the original file's
bytes where they are given. Metric depth is 16-bit PNG whose metres per count (0.1 mm up to 6.5 m, else 1 mm) stand
beside it, 0 = invalid; every other depth is float32 npz. Views, turns and meta are JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Box, Frame, Place, Point, Region, Sample, Turn

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
ROWS_PER_GROUP = 8
CACHED_GROUPS = 256
METRES_PER_COUNT = (0.0001, 0.001)
LARGEST_COUNT = 65535

ImageBytes = Callable[[Sample, int], bytes | None]


@dataclass(frozen=True)
class Shard:
    file: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds. `families` counts turns."""

    samples: int
    turns: int
    frames: int
    families: Mapping[str, int]
    shards: tuple[Shard, ...]
    schema: int = SCHEMA_VERSION

    @classmethod
    def from_folder(cls, folder: Path | str) -> Manifest:
        """ValueError if there is no manifest, or if another version of this file wrote it."""
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise ValueError(f"{path}: missing; there are no shards, or writing them was interrupted: write them again")
        fields = json.loads(path.read_text())
        if fields.get("schema") != SCHEMA_VERSION:
            raise ValueError(
                f"{path}: schema {fields.get('schema')} but {SCHEMA_VERSION} is read here; write the shards again"
            )
        return cls(**{**fields, "shards": tuple(Shard(**shard) for shard in fields["shards"])})


def write_shards(
    samples: Iterable[Sample],
    folder: Path | str,
    samples_per_shard: int = 512,
    image_bytes: ImageBytes | None = None,
) -> Manifest:
    """Writes all samples and returns the manifest. ValueError on a repeated id, or if the folder already holds shards.

    `image_bytes(sample, frame index)` may give the original file of an image (JPEG, say) to be kept as it is; it must
    decode to exactly the frame's pixels.
    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder}: already holds shards; remove the folder or choose another")
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Shard] = []
    seen: set[str] = set()
    families: Counter[str] = Counter()
    frames = 0
    for chunk in _chunks(samples, samples_per_shard):
        for sample in chunk:
            if sample.id in seen:
                raise ValueError(
                    f"sample {sample.id!r} comes twice; ids key the randomness of training: make them unique"
                )
            seen.add(sample.id)
            families.update(turn.family for turn in sample.turns)
            frames += len(sample.frames)
        rows = [_to_row(sample, image_bytes) for sample in chunk]
        shards.append(_write_shard(folder / f"shard-{len(shards):05d}.parquet", rows))
    manifest = Manifest(len(seen), sum(families.values()), frames, dict(sorted(families.items())), tuple(shards))
    _replace(folder / MANIFEST, (json.dumps(asdict(manifest), indent=2) + "\n").encode())
    return manifest


class ShardReader(Sequence[Sample]):
    """The samples of a folder by index, in the order they were written; decoded when asked for.

    Files are memory-mapped and the last row groups kept; `cache=True` keeps every decoded sample (small sets only).
    ValueError names file and row of what can't be read. Safe to send to worker processes.
    """

    def __init__(self, folder: Path | str, cache: bool = False) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.from_folder(folder)
        self._starts = np.cumsum([0] + [shard.samples for shard in self.manifest.shards])
        self._samples: dict[int, Sample] | None = {} if cache else None
        self._files: dict[int, Any] = {}
        self._groups: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def __len__(self) -> int:
        return self.manifest.samples

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in {self.folder}")
        index %= len(self)
        if self._samples is not None and index in self._samples:
            return self._samples[index]
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[shard])
        fields = self._row(shard, row)
        try:
            sample = _from_row(fields)
        except (ValueError, KeyError, TypeError, OSError, SyntaxError, zipfile.BadZipFile) as error:
            where = f"{self.folder / self.manifest.shards[shard].file}, row {row} (sample {fields.get('id')!r})"
            raise ValueError(f"{where}: {type(error).__name__}: {error}; write the shard again") from error
        if self._samples is not None:
            self._samples[index] = sample
        return sample

    def ids(self) -> list[str]:
        """Ids of all samples, without decoding anything else."""
        return [name for shard in range(len(self.manifest.shards)) for name in self._column(shard, "id")]

    def scenes(self) -> list[str]:
        """Scenes of all samples: what splits and bootstraps go by."""
        return [name for shard in range(len(self.manifest.shards)) for name in self._column(shard, "scene")]

    def verify(self) -> None:
        """ValueError naming the first shard whose bytes are not those that were written."""
        for shard in self.manifest.shards:
            path = self.folder / shard.file
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != shard.sha256:
                raise ValueError(f"{path}: missing, or not the bytes that {MANIFEST} names; write the shards again")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_groups": OrderedDict()}

    def _row(self, shard: int, row: int) -> dict[str, Any]:
        with self._opened(shard) as file:
            group, offset = divmod(row, file.metadata.row_group(0).num_rows)
            if (shard, group) not in self._groups:
                self._groups[shard, group] = file.read_row_group(group, use_threads=False)
                if len(self._groups) > CACHED_GROUPS:
                    self._groups.popitem(last=False)
            self._groups.move_to_end((shard, group))
            return self._groups[shard, group].slice(offset, 1).to_pylist()[0]

    def _column(self, shard: int, name: str) -> list[str]:
        with self._opened(shard) as file:
            return file.read(columns=[name], use_threads=False)[name].to_pylist()

    @contextmanager
    def _opened(self, shard: int) -> Iterator[Any]:
        """The parquet file of a shard, kept open; whatever goes wrong inside is a ValueError that names it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        entry = self.manifest.shards[shard]
        path = self.folder / entry.file
        try:
            if shard not in self._files:
                self._files[shard] = pq.ParquetFile(path, memory_map=True)
            rows = self._files[shard].metadata.num_rows
            if rows != entry.samples:
                raise ValueError(f"{path}: {rows} rows but {MANIFEST} says {entry.samples}; write the shards again")
            yield self._files[shard]
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{path}: unreadable ({error}); restore the file or write the shards again") from error


def _chunks(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    chunk: list[Sample] = []
    for sample in samples:
        chunk.append(sample)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _write_shard(path: Path, rows: list[dict[str, Any]]) -> Shard:
    import pyarrow as pa
    import pyarrow.parquet as pq

    bytes_of = [(name, pa.binary()) for name in ("image", "depth")]
    frame = pa.struct([*bytes_of, ("depth_meta", pa.string()), ("view", pa.string())])
    text = [(name, pa.string()) for name in ("id", "scene", "source", "meta", "turns")]
    schema = pa.schema([*text, ("frames", pa.list_(frame))])
    buffer = io.BytesIO()
    compression = {**dict.fromkeys(schema.names, "zstd"), "frames": "none"}
    table = pa.Table.from_pylist(rows, schema)
    pq.write_table(table, buffer, row_group_size=ROWS_PER_GROUP, compression=compression, use_dictionary=False)
    content = buffer.getvalue()
    _replace(path, content)
    return Shard(path.name, len(rows), len(content), hashlib.sha256(content).hexdigest())


def _replace(path: Path, content: bytes) -> None:
    """Writes a file so that it is either absent or whole."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _to_row(sample: Sample, image_bytes: ImageBytes | None) -> dict[str, Any]:
    frames = []
    for index, frame in enumerate(sample.frames):
        depth, depth_meta = (None, None) if frame.depth is None else _depth_to_bytes(frame.depth)
        image = _image_to_bytes(sample, index, None if image_bytes is None else image_bytes(sample, index))
        view = None if frame.view is None else json.dumps(_view_to_json(frame.view))
        frames.append({"image": image, "depth": depth, "depth_meta": depth_meta, "view": view})
    try:
        turns = json.dumps([_turn_to_json(turn) for turn in sample.turns])
        meta = json.dumps(dict(sample.meta))
    except TypeError as error:
        raise ValueError(f"sample {sample.id!r}: turns or meta are not JSON ({error}); use plain numbers") from error
    named = {"id": sample.id, "scene": sample.scene, "source": sample.source}
    return {**named, "meta": meta, "turns": turns, "frames": frames}


def _from_row(row: Mapping[str, Any]) -> Sample:
    return Sample(
        id=row["id"],
        frames=tuple(_frame(fields) for fields in row["frames"]),
        turns=tuple(_turn_from_json(turn) for turn in json.loads(row["turns"])),
        scene=row["scene"],
        source=row["source"],
        meta=json.loads(row["meta"]),
    )


def _frame(fields: Mapping[str, Any]) -> Frame:
    depth = None if fields["depth"] is None else _depth_from_bytes(fields["depth"], json.loads(fields["depth_meta"]))
    view = None if fields["view"] is None else _view_from_json(json.loads(fields["view"]))
    return Frame(_decoded(fields["image"]), depth, view)


def _decoded(content: bytes) -> UInt8[np.ndarray, "H W 3"]:
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image.convert("RGB"))


def _image_to_bytes(sample: Sample, index: int, original: bytes | None) -> bytes:
    if original is not None:
        if not np.array_equal(_decoded(original), sample.frames[index].image):
            raise ValueError(f"sample {sample.id!r}, frame {index}: the original file decodes to other pixels")
        return original
    buffer = io.BytesIO()
    Image.fromarray(sample.frames[index].image).save(buffer, "PNG")
    return buffer.getvalue()


def _depth_to_bytes(depth: DepthMap) -> tuple[bytes, str]:
    meta = {"kind": depth.kind, "unit": depth.unit, "source": depth.source}
    buffer = io.BytesIO()
    for metres_per_count in METRES_PER_COUNT if depth.is_metric else ():
        counts = np.where(depth.valid, np.round(depth.values.astype(np.float64) / metres_per_count), 0)
        if counts.max(initial=0) <= LARGEST_COUNT and np.array_equal(counts > 0, depth.valid):
            Image.fromarray(counts.astype(np.uint16)).save(buffer, "PNG")
            return buffer.getvalue(), json.dumps({**meta, "encoding": "png16", "metres_per_count": metres_per_count})
    np.savez_compressed(buffer, values=depth.values, valid=depth.valid)
    return buffer.getvalue(), json.dumps({**meta, "encoding": "npz"})


def _depth_from_bytes(content: bytes, meta: Mapping[str, Any]) -> DepthMap:
    if meta["encoding"] == "png16":
        with Image.open(io.BytesIO(content)) as image:
            counts = np.array(image)
        values, valid = (counts * meta["metres_per_count"]).astype(np.float32), counts > 0
    else:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            values, valid = arrays["values"], arrays["valid"]
    return DepthMap(values, valid, meta["kind"], meta["unit"], meta["source"])


def _view_to_json(view: View) -> dict[str, Any]:
    return {"camera": asdict(view.camera), "camera_to_world": view.camera_to_world.tolist()}


def _view_from_json(fields: Mapping[str, Any]) -> View:
    return View(Camera(**fields["camera"]), np.array(fields["camera_to_world"], dtype=np.float64))


def _place_to_json(place: Place) -> list[float]:
    return [place.x, place.y] if isinstance(place, Point) else [place.x0, place.y0, place.x1, place.y1]


def _place_from_json(values: Sequence[float]) -> Place:
    return Point(*map(float, values)) if len(values) == 2 else Box(*map(float, values))


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    fields = {name: getattr(turn, name) for name in turn.__dataclass_fields__}
    places = [_place_to_json(place) for place in turn.places]
    return {**fields, "places": places, "region": turn.region and vars(turn.region), "cues": dict(turn.cues)}


def _turn_from_json(fields: dict[str, Any]) -> Turn:
    region = fields["region"]
    return Turn(**{
        **fields,
        "places": tuple(_place_from_json(place) for place in fields["places"]),
        "region": region and Region(region["height"], region["width"], tuple(region["runs"])),
        "options": tuple(fields["options"]),
        "subsets": tuple(fields["subsets"]),
    })  # fmt: skip
