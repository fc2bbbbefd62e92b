"""Keeping benchmarks out of the training data: by scene, by picture, by text.

`make_fingerprints` turns a benchmark's folder into one JSON file: scene ids, SHA-256 of picture files and of their
pixels, perceptual hashes, hashes of normalised questions and of their 13-grams. A `Blocklist` read from such files
judges one sample at a time, in any process. Cost per frame: two SHA-256 of its bytes and a scan of all B perceptual
hashes (8 B bytes: 0.3 ms for 100,000 pictures); per question a binary search for each 13-gram. Memory: 8 bytes per
picture, question and 13-gram, and some 100 per SHA-256.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt64
from PIL import Image, ImageOps

from gemvlm.curation.filters import reject
from gemvlm.curation.minhash import ngram_hashes, words
from gemvlm.curation.perceptual_hash import distances, perceptual_hash
from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.records import UNREADABLE
from gemvlm.sample import PLACE_MARKER, Sample
from gemvlm.shards import files

VERSION = 1
NGRAM = 13
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
TEXT_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
QUESTION_FIELDS = ("question", "prompt", "query", "instruction", "problem", "text")
SHORTEST_SCENE = 5
"""Characters: shorter ids found in files ("1", "val") name scenes of every other data set too."""
SCENE_FIELDS = ("scene", "scene_id", "scene_name", "scan_id", "video_id")
LARGEST_FILE = 2 << 30


@dataclass(frozen=True)
class OverlapRules:
    """A picture is a benchmark's within `max_distance` of 64 bits. A question is, if it has `min_words` words and is
    the same after normalisation, or if at least `max_ngram_share` of its 13-grams (one at least) are the benchmark's.

    Shorter questions ("How many chairs are there?") arise anywhere and prove nothing.
    """

    max_distance: int = 8
    min_words: int = 8
    max_ngram_share: float = 0.5


@dataclass(frozen=True)
class Fingerprints:
    """What is known of one benchmark. Digests are hex; perceptual hashes, questions and 13-grams are 64-bit integers.

    `unreadable` names what could not be used, with the reason: what it holds is not protected.
    """

    name: str
    scenes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    pixels: tuple[str, ...] = ()
    pictures: tuple[int, ...] = ()
    questions: tuple[int, ...] = ()
    ngrams: tuple[int, ...] = ()
    unreadable: tuple[str, ...] = ()

    def save(self, path: Path | str) -> None:
        """Writes the file, whole or not at all."""
        content = json.dumps({"version": VERSION, **vars(self)}, indent=0, sort_keys=True) + "\n"
        files.put(Path(path), content.encode())

    @classmethod
    def from_file(cls, path: Path | str) -> Fingerprints:
        """ValueError, naming file and remedy, if it is not what `save` writes."""
        path = Path(path)
        try:
            fields = json.loads(path.read_text())
            version = fields.pop("version")
            name = fields.pop("name")
            read = cls(name, **{key: tuple(values) for key, values in fields.items()})
            sane = version == VERSION and isinstance(read.name, str)
            sane &= all(isinstance(v, str) for v in (*read.scenes, *read.files, *read.pixels, *read.unreadable))
            for digest in (*read.files, *read.pixels):
                bytes.fromhex(digest)
            sane &= all(
                isinstance(v, int) and 0 <= v < 1 << 64 for v in (*read.pictures, *read.questions, *read.ngrams)
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path}: not a file of benchmark fingerprints ({error!r}); make it with `gemvlm fingerprint`"
            ) from error
        if not sane:
            raise ValueError(f"{path}: version {version} or a field of the wrong type; make it again")
        return read


class Blocklist:
    """What several benchmarks forbid. Scenes are compared without case, and a sample's "dataset/scene" by its last part
    too. Safe to send to worker processes.
    """

    def __init__(self, benchmarks: Iterable[Fingerprints], rules: OverlapRules | None = None) -> None:
        self.rules = rules or OverlapRules()
        found = sorted(benchmarks, key=lambda one: one.name)
        self._scenes = {scene.lower(): one.name for one in found for scene in one.scenes}
        self._digests = {bytes.fromhex(d): one.name for one in found for d in (*one.files, *one.pixels)}
        self._pictures = _Named.join([(one.name, one.pictures) for one in found])
        self._questions = _Named.join([(one.name, one.questions) for one in found])
        self._ngrams = _Named.join([(one.name, one.ngrams) for one in found])

    @classmethod
    def from_files(cls, paths: Iterable[Path | str], rules: OverlapRules | None = None) -> Blocklist:
        """ValueError names the file that is not a file of fingerprints."""
        return cls([Fingerprints.from_file(path) for path in paths], rules)

    def check(self, sample: Sample) -> list[Rejection]:
        """The first reason against the sample (scene, file, picture); without one, every turn whose question leaks."""
        whole = self._scene(sample) or next(
            filter(None, (self._frame(sample, i) for i in range(len(sample.frames)))), None
        )
        if whole is not None:
            return [whole]
        return [hit for i in range(len(sample.turns)) if (hit := self._turn(sample, i)) is not None]

    def _scene(self, sample: Sample) -> Rejection | None:
        scene = sample.scene.lower()
        name = self._scenes.get(scene) or self._scenes.get(scene.rsplit("/", 1)[-1])
        if not scene or name is None:
            return None
        return reject(sample, "benchmark_scene", f"scene {sample.scene!r} belongs to {name}", "scene", "overlap")

    def _frame(self, sample: Sample, index: int) -> Rejection | None:
        frame, field = sample.frames[index], f"frames[{index}].image"
        digests = [pixel_digest(frame.image)] if self._digests else []
        if self._digests and frame.encoded is not None:
            digests.append(hashlib.sha256(frame.encoded).hexdigest())
        for digest in digests:
            if name := self._digests.get(bytes.fromhex(digest)):
                return reject(sample, "benchmark_image", f"frame {index} is a picture of {name}", field, "overlap")
        value = perceptual_hash(frame.image) if len(self._pictures.values) else None
        if value is None:
            return None
        apart = distances(value, self._pictures.values)
        nearest = int(apart.argmin())
        if apart[nearest] > self.rules.max_distance:
            return None
        detail = (
            f"frame {index} looks like a picture of {self._pictures.name(nearest)} ({apart[nearest]} of 64 bits apart)"
        )
        return reject(sample, "benchmark_lookalike", detail, field, "overlap")

    def _turn(self, sample: Sample, index: int) -> Rejection | None:
        tokens = question_words(sample.turns[index].question)
        if len(tokens) < self.rules.min_words:
            return None
        if (name := self._questions.find(whole_hash(tokens))) is not None:
            detail = f"turn {index} is a question of {name}"
            return reject(sample, "benchmark_question", detail, f"turns[{index}]", "overlap")
        if len(tokens) < NGRAM:
            return None
        own = ngram_hashes(tokens, NGRAM)
        names = [name for value in own if (name := self._ngrams.find(value)) is not None]
        if not names or len(names) < self.rules.max_ngram_share * len(own):
            return None
        detail = f"turn {index} shares {len(names)} of its {len(own)} runs of {NGRAM} words with {names[0]}"
        return reject(sample, "benchmark_ngrams", detail, f"turns[{index}]", "overlap")


@dataclass(frozen=True, eq=False)
class _Named:
    """Sorted 64-bit values with the benchmark that each comes from."""

    values: UInt64[np.ndarray, "N"]
    owners: UInt8[np.ndarray, "N"]
    names: tuple[str, ...]

    @classmethod
    def join(cls, parts: Sequence[tuple[str, Sequence[int]]]) -> _Named:
        if len(parts) > 256:
            raise ValueError(f"block list: {len(parts)} benchmarks given, 256 at most; join some of their files")
        values = np.concatenate([np.zeros(0, np.uint64), *(np.array(own, np.uint64) for _, own in parts)])
        owners = np.repeat(np.arange(len(parts)), [len(own) for _, own in parts]).astype(np.uint8)
        order = np.argsort(values, kind="stable")
        return cls(values[order], owners[order], tuple(name for name, _ in parts))

    def find(self, value: int | np.uint64) -> str | None:
        at = int(np.searchsorted(self.values, np.uint64(value)))
        return self.name(at) if at < len(self.values) and self.values[at] == np.uint64(value) else None

    def name(self, index: int) -> str:
        return self.names[self.owners[index]]


def question_words(question: str) -> list[str]:
    """The words by which questions are compared: no markers of places, images or videos, no case, no punctuation."""
    bare = PLACE_MARKER.sub(" ", question)
    for placeholder in ("<image>", "<video>"):
        bare = bare.replace(placeholder, " ")
    return words(bare)


def whole_hash(tokens: list[str]) -> int:
    return int(ngram_hashes(tokens, len(tokens))[0])


def pixel_digest(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """SHA-256 (hex) of size and RGB values: the same for any lossless file of a picture."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def make_fingerprints(folder: Path | str, name: str, scenes: Iterable[str] = ()) -> Fingerprints:
    """Fingerprints of everything in a benchmark's folder: pictures (files, or bytes in Parquet), questions, scenes.

    Questions and scenes are the strings under `QUESTION_FIELDS` and `SCENE_FIELDS`, at any depth of JSON, JSONL, CSV,
    TSV and Parquet, and what a "human" or "user" says in a conversation. More `scenes` may be given, of any length;
    those found must have 5 characters. ValueError if the folder holds nothing that can be told apart.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the folder of a benchmark")
    found = _Found(set(map(str, scenes)), set(), set(), set(), set(), set(), set(), [])
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        suffix = path.suffix.lower()
        if suffix not in IMAGE_SUFFIXES + TEXT_SUFFIXES:
            continue
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise ValueError(f"{path.stat().st_size} bytes, {LARGEST_FILE} at most; split it")
            if suffix in IMAGE_SUFFIXES:
                found.add_picture(path.read_bytes())
            else:
                for record in _records(path):
                    found.add_record(record)
        except (*UNREADABLE, csv.Error) as error:
            found.unreadable.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}")
    prints = found.fingerprints(name)
    if not (prints.scenes or prints.files or prints.questions):
        raise ValueError(
            f"{folder}: no picture, question or scene found ({len(found.unreadable)} files unreadable); expected "
            f"{', '.join(IMAGE_SUFFIXES + TEXT_SUFFIXES)} with fields {', '.join(QUESTION_FIELDS)}"
        )
    return prints


@dataclass(frozen=True)
class _Found:
    scenes: set[str]
    files: set[str]
    pixels: set[str]
    pictures: set[int]
    questions: set[int]
    ngrams: set[int]
    short_scenes: set[str]
    unreadable: list[str]

    def add_picture(self, content: bytes) -> None:
        with Image.open(io.BytesIO(content)) as opened:
            image = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
        self.files.add(hashlib.sha256(content).hexdigest())
        self.pixels.add(pixel_digest(image))
        value = perceptual_hash(image)
        if value is not None:
            self.pictures.add(value)

    def add_record(self, record: Any) -> None:
        """Looks through nested lists and mappings without recursion: a hostile file can't exhaust the stack."""
        waiting = [record]
        while waiting:
            item = waiting.pop()
            if isinstance(item, list | tuple):
                waiting.extend(item)
            elif isinstance(item, Mapping):
                waiting.extend(item.values())
                self._add_fields(item)

    def _add_fields(self, fields: Mapping[str, Any]) -> None:
        for scene in (str(fields[key]) for key in SCENE_FIELDS if isinstance(fields.get(key), str | int)):
            (self.scenes if len(scene) >= SHORTEST_SCENE else self.short_scenes).add(scene)
        texts = [fields[key] for key in QUESTION_FIELDS if isinstance(fields.get(key), str)]
        if fields.get("from", fields.get("role")) in ("human", "user"):
            texts += [fields[key] for key in ("value", "content") if isinstance(fields.get(key), str)]
        for text in texts:
            tokens = question_words(text)
            if tokens:
                self.questions.add(whole_hash(tokens))
            if len(tokens) >= NGRAM:
                self.ngrams.update(int(value) for value in ngram_hashes(tokens, NGRAM))
        content = fields.get("bytes")
        if isinstance(content, bytes):
            try:
                self.add_picture(content)
            except UNREADABLE as error:
                self.unreadable.append(f"{fields.get('path') or 'a picture in a table'}: {error}")

    def fingerprints(self, name: str) -> Fingerprints:
        short = [f"scene ids too short to tell apart: {sorted(self.short_scenes)[:8]}"] if self.short_scenes else []
        return Fingerprints(
            name,
            scenes=tuple(sorted(self.scenes)),
            files=tuple(sorted(self.files)),
            pixels=tuple(sorted(self.pixels)),
            pictures=tuple(sorted(self.pictures)),
            questions=tuple(sorted(self.questions)),
            ngrams=tuple(sorted(self.ngrams)),
            unreadable=(*self.unreadable, *short),
        )


def _records(path: Path) -> Iterator[Any]:
    suffix = path.suffix.lower()
    if suffix == ".json":
        yield json.loads(path.read_bytes())
    elif suffix == ".jsonl":
        with path.open("rb") as file:
            yield from (json.loads(line) for line in file if line.strip())
    elif suffix == ".parquet":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(path).iter_batches(batch_size=64):
            yield from batch.to_pylist()
    else:
        csv.field_size_limit(min(sys.maxsize, LARGEST_FILE))
        with path.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",")
