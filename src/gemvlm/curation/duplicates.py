"""Near-duplicates over a whole data set: the same pictures with the same text, seen again.

Two phases. A worker turns each sample into a `MediaPrint` (some 200 bytes); `find_duplicates` takes the prints in the
data set's order and names every sample that an earlier one, itself kept, already covers. The outcome depends on the
order of the prints alone, not on how many processes made them.

Kept prints are found by 16-bit bands: four of a picture's hash, each also with one bit turned, or sixteen of a text's
signature. A look-up meets N / 65,536 of N kept prints per band, and all of the last few, which wait to be sorted in.
Memory per million kept prints: 280 MB (128 of signatures, 8 of hashes, 16 or 64 of bands, the rest ids); some
50 µs of processor time per print at 150,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt16, UInt32

from gemvlm.curation.minhash import ENTRIES, signature, similarities
from gemvlm.curation.perceptual_hash import distances, perceptual_hash
from gemvlm.curation.source import Rejection
from gemvlm.data.conversation import CoordinateFormat
from gemvlm.sample import Sample

IMAGE_BANDS, TEXT_BANDS = 4, 16
BAND = 1 << 16
LARGEST_DISTANCE = 2 * IMAGE_BANDS - 1
COORDINATES = CoordinateFormat(scale=100)
WAITING = 256
"""Prints that wait to be sorted in; a 64th of all where that is more."""
ONE_BIT_TURNED = np.array([0, *(1 << bit for bit in range(16))], dtype=np.uint16)
_MIX = np.array([1, 0x9E37, 0x79B9, 0x7F4A], dtype=np.uint64)


@dataclass(frozen=True, slots=True)
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

    Print by print: a rejection is given before the next print is asked for. Samples with pictures are compared with
    such samples of as many frames, in order; those without by text alone. A sample whose first frame is flat (`None`)
    is never a duplicate: the filter for blank frames judges it.
    """
    rules = rules or DuplicateRules()
    pictured, written = _Pictured(rules), _Kept(rules)
    for item in prints:
        if item.images and item.images[0] is None:
            continue
        twin = (pictured if item.images else written).twin_or_keep(item)
        if twin is not None:
            detail = f"sample {item.id!r}: nearly the same as {twin!r}, which comes first"
            yield Rejection("duplicate", "near_duplicate", detail, item.id, item.record)


class _Kept:
    """The prints that stay, found again by their text."""

    probes = np.zeros(1, np.uint16)
    """What to turn in each band of a print to find those like it."""

    def __init__(self, rules: DuplicateRules) -> None:
        self.rules = rules
        self.ids: list[str] = []
        self._texts = np.zeros((WAITING, ENTRIES), np.uint16)
        self._sorted = 0
        self._order: UInt32[np.ndarray, "bands N"] = np.zeros((0, 0), np.uint32)
        self._first: Int64[np.ndarray, "bands 65537"] = np.zeros((0, BAND + 1), np.int64)

    def twin_or_keep(self, item: MediaPrint) -> str | None:
        """The id of the earliest kept print that covers this one; it is kept if there is none."""
        at = len(self.ids)
        if at == len(self._texts):
            self._grow()
        self._put(at, item)
        candidates = np.concatenate([self._found(at), np.arange(self._sorted, at)])
        matches = candidates[self._match(at, candidates)]
        if len(matches):
            return self.ids[int(matches.min())]
        self.ids.append(item.id)
        if at + 1 - self._sorted >= max(WAITING, at // 64):
            self._sort(at + 1)
        return None

    def _grow(self) -> None:
        self._texts = np.concatenate([self._texts, np.zeros_like(self._texts)])

    def _put(self, at: int, item: MediaPrint) -> None:
        self._texts[at] = np.frombuffer(item.text, "<u2")

    def _keys(self, start: int, end: int) -> UInt16[np.ndarray, "bands N"]:
        """Sixteen bands of four entries: of texts of Jaccard 0.8, 99.98 % share one; of 0.3, 12 %."""
        mixed = (self._texts[start:end].reshape(-1, TEXT_BANDS, len(_MIX)) * _MIX).sum(axis=2)
        return (mixed ^ mixed >> np.uint64(16)).astype(np.uint16).T

    def _sort(self, end: int) -> None:
        keys = self._keys(0, end)
        self._order = np.stack([np.argsort(band, kind="stable").astype(np.uint32) for band in keys])
        counts = np.stack([np.bincount(band, minlength=BAND) for band in keys])
        self._first = np.concatenate([np.zeros((len(keys), 1), np.int64), np.cumsum(counts, axis=1)], axis=1)
        self._sorted = end

    def _found(self, at: int) -> Int64[np.ndarray, "C"]:
        """Sorted prints that share a band with the print at position `at`, some of them several times."""
        if not self._sorted:
            return np.zeros(0, np.int64)
        wanted = (self._keys(at, at + 1) ^ self.probes).astype(np.int64)
        band = np.arange(len(wanted))[:, None]
        low, high = self._first[band, wanted] + band * self._sorted, self._first[band, wanted + 1] + band * self._sorted
        low, count = low.ravel(), (high - low).ravel()
        starts = np.repeat(low - np.cumsum(count) + count, count)
        return self._order.ravel()[starts + np.arange(len(starts))].astype(np.int64)

    def _match(self, at: int, candidates: Int64[np.ndarray, "C"]) -> Bool[np.ndarray, "C"]:
        return similarities(self._texts[at], self._texts[candidates]) >= self.rules.min_similarity


class _Pictured(_Kept):
    """The prints that stay, found again by their first picture."""

    def __init__(self, rules: DuplicateRules) -> None:
        super().__init__(rules)
        self._hashes = np.zeros(WAITING, np.uint64)
        self._further: dict[int, tuple[int | None, ...]] = {}
        if rules.max_distance >= IMAGE_BANDS:
            self.probes = ONE_BIT_TURNED

    def _grow(self) -> None:
        super()._grow()
        self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])

    def _put(self, at: int, item: MediaPrint) -> None:
        super()._put(at, item)
        self._hashes[at] = item.images[0] or 0
        self._further.pop(at, None)
        if len(item.images) > 1:
            self._further[at] = item.images[1:]

    def _keys(self, start: int, end: int) -> UInt16[np.ndarray, "bands N"]:
        """Of 7 differing bits in 4 bands, some band holds one at most; of 3, some band none."""
        shifts = np.arange(IMAGE_BANDS, dtype=np.uint64)[:, None] * np.uint64(16)
        return (self._hashes[start:end] >> shifts).astype(np.uint16)

    def _match(self, at: int, candidates: Int64[np.ndarray, "C"]) -> Bool[np.ndarray, "C"]:
        match = distances(int(self._hashes[at]), self._hashes[candidates]) <= self.rules.max_distance
        near = np.flatnonzero(match)
        if self._further:
            match[near] = [self._frames_match(at, int(i)) for i in candidates[near]]
            near = np.flatnonzero(match)
        if not self.rules.images_alone:
            match[near] = super()._match(at, candidates[near])
        return match

    def _frames_match(self, one: int, other: int) -> bool:
        ours, theirs = self._further.get(one, ()), self._further.get(other, ())
        return len(ours) == len(theirs) and all(
            a is b if a is None or b is None else (a ^ b).bit_count() <= self.rules.max_distance
            for a, b in zip(ours, theirs, strict=True)
        )
