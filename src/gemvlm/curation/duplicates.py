"""Near-duplicates over a whole data set: the same pictures with the same text, seen again.

Two phases. A worker turns each sample into a `MediaPrint` (some 200 bytes); `find_duplicates` takes the prints in the
data set's order and names every sample that an earlier one, itself kept, already covers. The outcome depends on the
order of the prints alone, not on how many processes made them.

Time: a look-up per print among the candidates that share a 16-bit band, 68 bands for pictures and 16 for texts: about
a thousand 8-byte comparisons at a million prints, so O(N) up to there and O(N²/65,536) beyond. Memory per million kept
prints: 8 MB of picture hashes, 128 MB of text signatures, 16 MB (pictures) or 64 MB (texts without picture) of bands.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from gemvlm.curation.minhash import ENTRIES, signature
from gemvlm.curation.perceptual_hash import distances, perceptual_hash
from gemvlm.curation.source import Rejection
from gemvlm.data.conversation import CoordinateFormat
from gemvlm.sample import Sample

IMAGE_BANDS = 4
"""Of 16 bits each."""
ENTRIES_PER_BAND = 4
LARGEST_DISTANCE = 2 * IMAGE_BANDS - 1
COORDINATES = CoordinateFormat(scale=100)


@dataclass(frozen=True)
class MediaPrint:
    """What is remembered of a sample: a hash per frame (None if flat) and the signature of all its text, 128 bytes."""

    id: str
    images: tuple[int | None, ...]
    text: bytes
    record: str = ""


@dataclass(frozen=True)
class DuplicateRules:
    """Pictures match within `max_distance` of 64 bits (7 at most), texts from `min_similarity` (Jaccard) on.

    With `images_alone` a sample whose pictures all match is a duplicate whatever it says: one question set per picture.
    """

    max_distance: int = 6
    min_similarity: float = 0.8
    images_alone: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_distance <= LARGEST_DISTANCE or not 0 < self.min_similarity <= 1:
            raise ValueError(
                f"duplicates: max_distance {self.max_distance} must lie in 0..{LARGEST_DISTANCE} and min_similarity "
                f"{self.min_similarity} in (0, 1]"
            )


def media_print(sample: Sample) -> MediaPrint:
    """The print of one sample; its places count as text, to the hundredth of the image."""
    turns = (COORDINATES.fill(f"{turn.question} {turn.answer}", turn.places) for turn in sample.turns)
    text = signature(" ".join(turns)).astype("<u2").tobytes()
    hashes = tuple(perceptual_hash(frame.image) for frame in sample.frames)
    return MediaPrint(sample.id, hashes, text, sample.provenance.record)


def find_duplicates(prints: Iterable[MediaPrint], rules: DuplicateRules | None = None) -> Iterator[Rejection]:
    """A rejection for each print that an earlier kept one covers; the order of the prints is the order of preference.

    Samples with pictures are compared with such samples of as many frames, in order; those without by text alone. A
    sample whose first frame is flat (`None`) is never a duplicate: the filter for blank frames judges it.
    """
    rules = rules or DuplicateRules()
    pictured, written = _Kept(IMAGE_BANDS), _Kept(ENTRIES // ENTRIES_PER_BAND)
    for item in prints:
        text = np.frombuffer(item.text, dtype="<u2")
        if item.images and item.images[0] is None:
            continue
        kept = pictured if item.images else written
        keys = _image_keys(item.images[0]) if item.images and item.images[0] is not None else _text_keys(text)
        twin = _twin(item, text, kept, keys, rules)
        if twin is None:
            kept.add(item, keys[0])
        else:
            detail = f"sample {item.id!r}: nearly the same as {kept.ids[twin]!r}, which comes first"
            yield Rejection("duplicate", "near_duplicate", detail, item.id, item.record)


def _twin(
    item: MediaPrint, text: np.ndarray, kept: _Kept, keys: Sequence[Sequence[int]], rules: DuplicateRules
) -> int | None:
    """The earliest kept print that covers this one."""
    candidates = kept.candidates(keys)
    if item.images:
        first = item.images[0]
        assert first is not None
        candidates = candidates[distances(first, kept.hashes[candidates]) <= rules.max_distance]
        candidates = candidates[[_frames_match(item.images, kept.frames[i], rules) for i in candidates]]
    if not (item.images and rules.images_alone):
        candidates = candidates[(kept.texts[candidates] == text).mean(axis=1) >= rules.min_similarity]
    return int(candidates.min()) if len(candidates) else None


def _frames_match(own: tuple[int | None, ...], other: tuple[int | None, ...], rules: DuplicateRules) -> bool:
    return len(own) == len(other) and all(
        (a is None and b is None) or (a is not None and b is not None and (a ^ b).bit_count() <= rules.max_distance)
        for a, b in zip(own, other, strict=True)
    )


def _image_keys(value: int) -> list[list[int]]:
    """The four bands of a hash, then each of them with one bit turned: two hashes within 7 bits share one of these.

    Of 7 differing bits some band has at most one, which the turned bit undoes.
    """
    bands = [value >> 16 * i & 0xFFFF for i in range(IMAGE_BANDS)]
    return [bands, *([band ^ (1 << bit) for band in bands] for bit in range(16))]


def _text_keys(text: np.ndarray) -> list[list[int]]:
    """Sixteen bands of four entries: texts of Jaccard 0.8 share one with a probability of 0.9998, of 0.3 with 0.12."""
    mixed = text.astype(np.uint64).reshape(-1, ENTRIES_PER_BAND) * np.array(
        [1, 0x9E37, 0x79B9, 0x7F4A], dtype=np.uint64
    )
    folded = mixed.sum(axis=1)
    return [[int(key) for key in (folded ^ folded >> np.uint64(16)) & np.uint64(0xFFFF)]]


class _Kept:
    """The prints that stay, found again by their bands; arrays grow by doubling."""

    def __init__(self, bands: int) -> None:
        self.ids: list[str] = []
        self.frames: list[tuple[int | None, ...]] = []
        self.hashes = np.zeros(1024, np.uint64)
        self.texts = np.zeros((1024, ENTRIES), np.uint16)
        self._buckets: list[dict[int, array[int]]] = [{} for _ in range(bands)]

    def add(self, item: MediaPrint, keys: Sequence[int]) -> None:
        at = len(self.ids)
        if at == len(self.hashes):
            self.hashes = np.concatenate([self.hashes, np.zeros_like(self.hashes)])
            self.texts = np.concatenate([self.texts, np.zeros_like(self.texts)])
        self.ids.append(item.id)
        self.frames.append(item.images)
        self.hashes[at] = (item.images[0] or 0) if item.images else 0
        self.texts[at] = np.frombuffer(item.text, dtype="<u2")
        for bucket, key in zip(self._buckets, keys, strict=True):
            bucket.setdefault(key, array("I")).append(at)

    def candidates(self, keys: Sequence[Sequence[int]]) -> Int64[np.ndarray, "C"]:
        """Positions, sorted and distinct, of all that share a band under any of the keys."""
        found = [
            np.array(bucket[key])
            for probe in keys
            for bucket, key in zip(self._buckets, probe, strict=True)
            if key in bucket
        ]
        return np.unique(np.concatenate(found)).astype(np.int64) if found else np.zeros(0, np.int64)
