"""Opening a set of 4,000,000 samples and reading from it at random, in two worker processes.

    python benchmarks/storage.py                             # about a minute, 1 GB of disk
    python benchmarks/storage.py --samples 40000 4000000     # each worker's memory at two sizes

The set is synthetic but of the real form: every shard, index and manifest entry that a set of this size has. To be
quick to make, all shards of one kind are hard links to the same 64 MB file, so opening, searching, checking and
decoding are measured and the disk is not: bytes come from the system's cache. Workers are fresh processes (spawned, not
forked). Times are told twice, as they passed and as this process had the core, in case others work on the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import multiprocessing
import os
import resource
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame, Sample, Turn
from gemvlm.shards import MANIFEST, Manifest, ShardReader, table
from gemvlm.shards.archive import BLOCK, HEADER, INDEX_VERSION, MAGIC, SHARD_BYTES, shard_name, tar_member
from gemvlm.shards.manifest import FILES, StoredFile, files_bytes
from gemvlm.shards.media import encode_depth
from gemvlm.shards.reader import ARCHIVES
from gemvlm.shards.record import Row, depth_row, frame_row, sample_row, to_json

SIZE = (480, 640)
PICTURES = 64
"""Different pictures and depth maps; the rest of a shard repeats them under other names."""
TURNS = 6
INDEX_ROW = np.dtype([("key", "V32"), ("shard", "<u4"), ("offset", "<u8"), ("length", "<u8"), ("crc", "<u4")])


# ---- the set ----


@dataclass(frozen=True)
class Shard:
    """One full tar file: its bytes, and where its members lie."""

    content: bytes
    places: np.ndarray


def picture(seed: int) -> tuple[bytes, DepthMap]:
    """A JPEG and a depth map, smooth with some texture, as photographs are."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(
        SIZE[::-1], Image.Resampling.BICUBIC
    )
    noisy = np.array(rough, np.int16) + rng.integers(-6, 7, (*SIZE, 3), dtype=np.int16)
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    depth = Image.fromarray(rng.uniform(0.5, 4, (12, 16)).astype(np.float32)).resize(
        SIZE[::-1], Image.Resampling.BILINEAR
    )
    return buffer.getvalue(), DepthMap.from_values(np.array(depth).round(3), source="simulator")


def full_shard(members: Callable[[int], tuple[str, bytes]]) -> Shard:
    """Members 0, 1, ... until the file is full."""
    content, places = bytearray(), []
    while True:
        name, body = members(len(places))
        member = tar_member(name, body)
        if len(content) + len(member) + 2 * BLOCK > SHARD_BYTES:
            break
        places.append((len(content) + BLOCK, len(body), zlib.crc32(body)))
        content += member
    return Shard(bytes(content) + bytes(2 * BLOCK), np.array(places, dtype=np.uint64))


@dataclass(frozen=True)
class Kit:
    """What sets of any size are put together from. `images` and `media` are the keys that the records name."""

    records: Shard
    pictures: Shard
    depth: Shard
    table: bytes
    images: list[bytes]
    media: list[bytes]


def make_kit() -> Kit:
    pictures = [picture(seed) for seed in range(PICTURES)]
    depths = [encode_depth(depth) for _, depth in pictures]
    blank = Frame(np.broadcast_to(np.uint8(0), (*SIZE, 3)))
    frames = [
        frame_row(blank, content, depth_row(depth, *stored))
        for (content, depth), stored in zip(pictures, depths, strict=True)
    ]
    turns = tuple(
        Turn(f"How far is object {n}, in metres?", f"{n}.5", "distance", "reasoning", "number", unit="m")
        for n in range(TURNS)
    )
    rows: list[Row] = []

    def record(number: int) -> tuple[str, bytes]:
        names = {name: hashlib.sha256(f"{name} {number}".encode()).hexdigest() for name in ("image", "media")}
        sample = Sample(f"sample-{number:07d}", (), turns, f"scene-{number // 8}", "synthetic")
        rows.append(sample_row(sample, [{**frames[number % PICTURES], **names}]))
        return f"{number:010d}.json", to_json(rows[-1])

    records = full_shard(record)
    shown = [row["frames"][0] for row in rows[: len(records.places)]]
    return Kit(
        records,
        full_shard(lambda n: (f"{n:064x}.jpg", pictures[n % PICTURES][0])),
        full_shard(lambda n: (f"{n:064x}.depth.png", depths[n % PICTURES][0])),
        table.table_bytes([table.batch(row) for row in rows[: table.ROWS_PER_TABLE]]),
        [bytes.fromhex(frame["image"]) for frame in shown],
        [bytes.fromhex(frame["media"]) for frame in shown],
    )


def make_set(kit: Kit, folder: Path, samples: int) -> None:
    """A folder that `ShardReader` takes for a set of that many samples, each with a picture and depth of its own."""
    names = [table.table_name(number) for number in range(-(-samples // table.ROWS_PER_TABLE))]
    files = [
        *linked(folder, names, kit.table, table.ROWS_PER_TABLE),
        *repeated(folder, "records", kit.records, samples, None),
        *repeated(folder, "images", kit.pictures, samples, kit.images),
        *repeated(folder, "depth", kit.depth, samples, kit.media),
    ]
    (folder / FILES).write_bytes(files_bytes(files))
    shards = {stem: sum(file.file.startswith(f"{stem}-") for file in files) for stem in (table.STEM, *ARCHIVES)}
    counts = (samples, samples * TURNS, samples, samples, samples)
    hashed = hashlib.sha256(files_bytes(files)).hexdigest()
    (folder / MANIFEST).write_bytes(Manifest(*counts, {}, {}, {}, shards, hashed).to_bytes())


def repeated(folder: Path, stem: str, shard: Shard, count: int, known: list[bytes] | None) -> list[StoredFile]:
    """As many links to `shard` as hold `count` members, and the index over all of them.

    Keys are random except those that records name; with those the rows are in order of their keys, else of writing.
    """
    per_shard = len(shard.places)
    at = np.arange(count)
    rows = np.zeros(count, INDEX_ROW)
    rows["key"] = np.frombuffer(np.random.default_rng(0).bytes(32 * count), "V32")
    rows["shard"] = at // per_shard
    for name, column in zip(("offset", "length", "crc"), shard.places.T, strict=True):
        rows[name] = column[at % per_shard]
    if known is not None:
        rows["key"][: len(known)] = np.array(known, "V32")[:count]
        rows = rows[np.argsort(np.frombuffer(rows["key"].tobytes(), ">u8")[::4])]
    content = rows.tobytes()
    index = HEADER.pack(MAGIC, INDEX_VERSION, zlib.crc32(content), count) + content
    (folder / f"{stem}.index").write_bytes(index)
    names = [shard_name(stem, number) for number in range(-(-count // per_shard))]
    return [*linked(folder, names, shard.content, per_shard), StoredFile(f"{stem}.index", count, len(index), "")]


def linked(folder: Path, names: list[str], content: bytes, members: int) -> list[StoredFile]:
    (folder / names[0]).write_bytes(content)
    for name in names[1:]:
        os.link(folder / names[0], folder / name)
    stored = StoredFile.of(names[0], members, content)
    return [StoredFile(name, members, stored.bytes, stored.sha256) for name in names]


# ---- the measurement ----


def memory() -> dict[str, float]:
    """Megabytes of this process: its own (`anon`), and of files that all processes share (`file`)."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return {"anon": int(lines["RssAnon"].split()[0]) / 1024, "file": int(lines["RssFile"].split()[0]) / 1024}


def timed(read: Callable[[int], object], places: np.ndarray) -> list[tuple[float, float]]:
    """(seconds that passed, seconds of this core) of each read."""
    seconds = []
    for index in places.tolist():
        start = time.perf_counter(), time.process_time()
        read(index)
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return seconds


@dataclass(frozen=True)
class Found:
    """What one worker sees. Memory is that before opening, after it, and after all reads."""

    opened: float
    memory: tuple[dict[str, float], ...]
    annotations: list[tuple[float, float]]
    samples: list[tuple[float, float]]


def work(folder: str, seed: int, reads: int) -> Found:
    before = memory()
    start = time.perf_counter()
    reader = ShardReader(folder)
    opened = time.perf_counter() - start
    after = memory()
    places = np.random.default_rng(seed).integers(0, len(reader), (2, reads))
    annotations, samples = timed(reader.record, places[0]), timed(reader.__getitem__, places[1])
    return Found(opened, (before, after, memory()), annotations, samples)


def report(samples: int, found: list[Found]) -> None:
    print(f"\n{samples:,} samples, load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for number, one in enumerate(found):
        print(f"  worker {number}: opened in {1e3 * one.opened:.0f} ms; MB before, opened, after all reads:")
        for name in one.memory[0]:
            print(f"    {name:<6}" + "".join(f"{at[name]:9.1f}" for at in one.memory))
    for words, seconds in (
        ("annotations alone", [pair for one in found for pair in one.annotations]),
        (f"samples, {SIZE[1]}x{SIZE[0]} JPEG and depth decoded", [pair for one in found for pair in one.samples]),
    ):
        print(f"  {len(seconds):,} random reads of {words}")
        for name, column in zip(("passed", "of the core"), np.array(seconds).T, strict=True):
            p50, p99, worst = 1e3 * np.percentile(column, [50, 99, 100])
            print(f"    ms {name:<12} p50 {p50:7.3f}   p99 {p99:7.3f}   worst {worst:7.1f}")


def run(kit: Kit, samples: int, workers: int, reads: int, folder: Path) -> list[Found]:
    start = time.perf_counter()
    make_set(kit, folder, samples)
    print(f"\nmade in {time.perf_counter() - start:.0f} s: {sum(1 for _ in folder.iterdir()):,} files", end="")
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        found = pool.starmap(work, [(str(folder), seed, reads) for seed in range(workers)], chunksize=1)
    report(samples, found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[40_000, 4_000_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reads", type=int, default=1000, help="of each kind, by each worker")
    parser.add_argument("--folder", type=Path, default=None, help="where to make the set (default: a temporary folder)")
    options = parser.parse_args()
    kit = make_kit()
    for samples in options.samples:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            run(kit, samples, options.workers, options.reads, Path(folder))


if __name__ == "__main__":
    main()
