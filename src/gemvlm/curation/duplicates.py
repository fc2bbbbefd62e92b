"""Near-duplicates over a whole data set: the same pictures with the same text, seen again.

Two phases. A worker turns each sample into a `MediaPrint` (some 200 bytes); `find_duplicates` takes the prints in the
data set's order and names every sample that an earlier one, itself kept, already covers. The outcome depends on the
order of the prints alone, not on how many processes made them.

Kept prints are found by 16-bit bands: four of a picture's hash, each also with one bit turned, or sixteen of a text's
signature. A look-up meets N / 65,536 of N kept prints per band. Memory per million kept prints:
250 MB (128 of signatures, 8 of hashes, the rest ids); time 28 µs per print at 400,000.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Bool, Int64, UInt16, UInt64

from gemvlm.curation.minhash import ENTRIES, signature
from gemvlm.curation.perceptual_hash import perceptual_hash
from gemvlm.curation.source import Rejection
from gemvlm.data.conversation import CoordinateFormat
from gemvlm.sample import Sample

IMAGE_BANDS, TEXT_BANDS = 4, 16
BAND = 1 << 16
LARGEST_DISTANCE = 2 * IMAGE_BANDS - 1
COORDINATES = CoordinateFormat(scale=100)
CHUNK = (2048, 8192)
"""Fewest and most prints that are looked up together; the outcome is the same for any number."""
PAIRS = 1 << 20
"""Pairs that are compared together: bounds the memory where very many samples share a picture."""


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
    pictured, written = _Kept(rules, with_pictures=True), _Kept(rules, with_pictures=False)
    waiting = iter(prints)
    while chunk := list(islice(waiting, min(max(len(pictured.ids) // 64, CHUNK[0]), CHUNK[1]))):
        with_pictures = [item for item in chunk if item.images and item.images[0] is not None]
        without = [item for item in chunk if not item.images]
        twins = pictured.take(with_pictures) | written.take(without)
        for item in chunk:
            if id(item) in twins:
                detail = f"sample {item.id!r}: nearly the same as {twins[id(item)]!r}, which comes first"
                yield Rejection("duplicate", "near_duplicate", detail, item.id, item.record)


class _Kept:
    """The prints that stay, found again by their bands."""

    def __init__(self, rules: DuplicateRules, with_pictures: bool) -> None:
        self.rules = rules
        self.with_pictures = with_pictures
        self.ids: list[str] = []
        self.further: dict[int, tuple[int | None, ...]] = {}
        self._hashes = np.zeros(CHUNK[0], np.uint64)
        self._texts = np.zeros((CHUNK[0], ENTRIES), np.uint16)

    @property
    def hashes(self) -> UInt64[np.ndarray, "N"]:
        return self._hashes[: len(self.ids)]

    @property
    def texts(self) -> UInt16[np.ndarray, "N 64"]:
        return self._texts[: len(self.ids)]

    def take(self, items: Sequence[MediaPrint]) -> dict[int, str]:
        """Keeps what nothing covers; for the others (by `id()`), the id of the sample that covers them."""
        first: dict[tuple[tuple[int | None, ...], bytes], MediaPrint] = {}
        for item in items:
            first.setdefault((item.images, item.text), item)
        distinct = list(first.values())
        start = len(self.ids)
        self._append(distinct)
        twins: dict[int, int] = {}
        for later, earlier in self._alike(start):
            if later not in twins and earlier not in twins:
                twins[later] = earlier
        named = {id(distinct[later - start]): self.ids[earlier] for later, earlier in twins.items()}
        self._drop(start, twins)
        for item in items:
            same = first[item.images, item.text]
            if same is not item:
                named[id(item)] = named.get(id(same), same.id)
        return named

    def _append(self, items: Sequence[MediaPrint]) -> None:
        start, end = len(self.ids), len(self.ids) + len(items)
        while end > len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._texts = np.concatenate([self._texts, np.zeros_like(self._texts)])
        self.ids += [item.id for item in items]
        self.further |= {start + i: item.images[1:] for i, item in enumerate(items) if len(item.images) > 1}
        self._hashes[start:end] = [item.images[0] or 0 if item.images else 0 for item in items]
        self._texts[start:end] = np.frombuffer(b"".join(item.text for item in items), "<u2").reshape(-1, ENTRIES)

    def _drop(self, start: int, gone: Container[int]) -> None:
        """Removes the positions `gone`, all from `start` on, and closes the gaps."""
        kept = [i for i in range(start, len(self.ids)) if i not in gone]
        further = {start + at: self.further[i] for at, i in enumerate(kept) if i in self.further}
        for i in range(start, len(self.ids)):
            self.further.pop(i, None)
        self.further |= further
        end = start + len(kept)
        self._hashes[start:end], self._texts[start:end] = self._hashes[kept], self._texts[kept]
        self.ids[start:] = [self.ids[i] for i in kept]

    def _alike(self, start: int) -> list[tuple[int, int]]:
        """Pairs (later, earlier) that match, of the positions from `start` on with any before them; sorted."""
        count = len(self.ids)
        found = [np.zeros(0, np.int64)]
        for keys, probes in self._bands():
            order = np.argsort(keys, kind="stable")
            first = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=BAND))])
            for probe in probes:
                wanted = (keys[start:] ^ np.uint16(probe)).astype(np.int64)
                for later, earlier in _members(start, first[wanted], first[wanted + 1], order):
                    match = self._match(later, earlier)
                    found.append(later[match] * count + earlier[match])
        pairs = np.unique(np.concatenate(found))
        return [(int(pair) // count, int(pair) % count) for pair in pairs]

    def _bands(self) -> Iterator[tuple[UInt16[np.ndarray, "N"], list[int]]]:
        """Keys of all prints in each band, and what to turn in them for a look-up.

        Of 7 differing bits in 4 bands some band holds at most one; up to 3, some band holds none.
        """
        if self.with_pictures:
            turned = [1 << bit for bit in range(16)] if self.rules.max_distance >= IMAGE_BANDS else []
            for band in range(IMAGE_BANDS):
                yield (self.hashes >> np.uint64(16 * band)).astype(np.uint16), [0, *turned]
        else:
            factors = np.array([1, 0x9E37, 0x79B9, 0x7F4A], dtype=np.uint64)
            for entries in np.split(self.texts, TEXT_BANDS, axis=1):
                mixed = (entries * factors).sum(axis=1)
                yield (mixed ^ mixed >> np.uint64(16)).astype(np.uint16), [0]

    def _match(self, later: Int64[np.ndarray, "P"], earlier: Int64[np.ndarray, "P"]) -> Bool[np.ndarray, "P"]:
        match = later > earlier
        if self.with_pictures:
            match &= np.bitwise_count(self.hashes[later] ^ self.hashes[earlier]) <= self.rules.max_distance
            for i in np.flatnonzero(match) if self.further else ():
                match[i] = self._frames_match(int(later[i]), int(earlier[i]))
        if not (self.with_pictures and self.rules.images_alone):
            close = np.flatnonzero(match)
            same = (self.texts[later[close]] == self.texts[earlier[close]]).mean(axis=1)
            match[close] = same >= self.rules.min_similarity
        return match

    def _frames_match(self, one: int, other: int) -> bool:
        ours, theirs = self.further.get(one, ()), self.further.get(other, ())
        return len(ours) == len(theirs) and all(
            a is b if a is None or b is None else (a ^ b).bit_count() <= self.rules.max_distance
            for a, b in zip(ours, theirs, strict=True)
        )


def _members(
    start: int, low: Int64[np.ndarray, "Q"], high: Int64[np.ndarray, "Q"], order: Int64[np.ndarray, "N"]
) -> Iterator[tuple[Int64[np.ndarray, "P"], Int64[np.ndarray, "P"]]]:
    """For each query `start` + q, the members order[low[q]:high[q]]: as pairs, in slices of about `PAIRS`."""
    counts = high - low
    slices = np.cumsum(counts) // PAIRS
    for part in np.unique(slices):
        queries = np.flatnonzero((slices == part) & (counts > 0))
        repeated = np.repeat(queries, counts[queries])
        within = np.arange(len(repeated)) - np.repeat(np.cumsum(counts[queries]) - counts[queries], counts[queries])
        yield repeated + start, order[low[repeated] + within]
