"""Bad samples are set aside with a reason and counted; too many stop the training that would hide them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import GeneratorType

import numpy as np

from gemvlm.data.conversation import CoordinateFormat, render
from gemvlm.sample import Sample
from gemvlm.shards import SampleError, ShardReader, files

REASONS = "quarantine.jsonl"
VERDICT = "verdict.json"
CHECK_VERSION = 1
"""Goes up when `check` looks at more: verdicts of another version are not believed."""


class QuarantineError(ValueError):
    """More samples are bad than the training allows."""


def check(sample: Sample) -> SampleError | None:
    """What would break or mislead training with this sample, or None.

    `Frame` and `DepthMap` refuse depth of another size and values that are NaN, infinite or negative when they are
    made; here is what only the whole sample shows: empty images, no valid depth, placeholders that do not match.
    """
    for index, frame in enumerate(sample.frames):
        height, width = frame.image.shape[:2]
        if not height or not width:
            return SampleError(f"image is {height}x{width}", sample.id, field=f"frames[{index}].image")
        if frame.depth is not None and not frame.depth.valid.any():
            return SampleError("no pixel of the depth is valid", sample.id, field=f"frames[{index}].depth")
    if not sample.frames and not sample.turns:
        return SampleError("neither frames nor turns", sample.id, field="frames")
    try:
        render(sample, range(len(sample.turns)), CoordinateFormat(), sample.system)
    except ValueError as error:
        return SampleError(str(error), sample.id, field="turns")
    return None


def quarantined(samples: Iterable[Sample], folder: Path | str, max_bad_share: float) -> Iterator[Sample]:
    """The good samples, in order. Bad ones become lines {id, file, field, reason} of `folder/quarantine.jsonl`.

    A sample is bad if `check` says so or if making it raises ValueError: give `map(load, names)`, whose next item can
    still be made after an error. A generator can't go on after its own error, so that error is raised. QuarantineError
    at the end if more than `max_bad_share` (0..1) of all samples were bad, with the counts and the file of reasons.
    """
    return (sample for sample in _judged(samples, folder, max_bad_share) if sample is not None)


class Usable(Sequence[Sample]):
    """The good samples of a reader. QuarantineError before any training starts if too many are bad.

    Every sample is read and checked once. What was found is kept in `folder/verdict.json` with the hash of the
    manifest, which hashes every byte of the set: the same set is not read again. A verdict beside the shards, where
    `judge` puts it, is believed as well.
    """

    def __init__(self, reader: ShardReader, folder: Path | str, max_bad_share: float) -> None:
        self._reader = reader
        found = _remembered(reader, folder)
        bad, reasons = found or (judge(reader, folder, max_bad_share), Path(folder) / REASONS)
        _refuse_too_many(len(bad), len(reader), max_bad_share, reasons)
        self._good_before = np.array(bad, dtype=np.int64) - np.arange(len(bad))

    def __len__(self) -> int:
        return len(self._reader) - len(self._good_before)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} usable ones")
        index %= len(self)
        return self._reader[index + int(np.searchsorted(self._good_before, index, side="right"))]


def judge(reader: ShardReader, folder: Path | str, max_bad_share: float) -> list[int]:
    """Reads and checks every sample; returns the indices of the bad ones and leaves the verdict and its reasons.

    QuarantineError, and no verdict, if more than `max_bad_share` of them are bad.
    """
    every = map(reader.__getitem__, range(len(reader)))
    bad = [index for index, sample in enumerate(_judged(every, folder, max_bad_share)) if sample is None]
    _put_verdict(reader, Path(folder), bad)
    return bad


def find_bad(folder: Path, indices: Iterable[int]) -> list[tuple[int, SampleError]]:
    """Those of the samples in a folder of shards that can't be read or used. For `leave_verdict`, in any process."""
    reader, found = ShardReader(folder), []
    for index in indices:
        try:
            defect = check(reader[index])
        except SampleError as error:
            defect = error
        if defect is not None:
            found.append((index, defect))
    return found


def leave_verdict(folder: Path, bad: Sequence[tuple[int, SampleError]]) -> None:
    """Writes what `find_bad` found among all samples of a folder of shards beside them, so that `Usable` believes it.

    However many they are: whoever trains on them says how many may be bad.
    """
    files.put(folder / REASONS, "".join(_line(defect) for _, defect in bad).encode())
    _put_verdict(ShardReader(folder), folder, [index for index, _ in bad])


def _put_verdict(reader: ShardReader, folder: Path, bad: list[int]) -> None:
    verdict = {"manifest": reader.manifest.hash, "check": CHECK_VERSION, "samples": len(reader), "bad": bad}
    files.put(folder / VERDICT, (json.dumps(verdict) + "\n").encode())


def _line(defect: SampleError) -> str:
    record = {"id": defect.id, "file": defect.file, "field": defect.field, "reason": str(defect)}
    return json.dumps(record) + "\n"


def _remembered(reader: ShardReader, folder: Path | str) -> tuple[list[int], files.Location] | None:
    """The bad indices of a verdict about exactly this set, in `folder` or beside the shards, and their reasons."""
    for beside in (Path(folder), reader.folder):
        place = files.join(beside, VERDICT)
        if not files.exists(place):
            continue
        try:
            verdict = json.loads(files.read(place))
            if verdict["manifest"] == reader.manifest.hash and verdict["check"] == CHECK_VERSION:
                return sorted(int(index) for index in verdict["bad"]), files.join(beside, REASONS)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{place}: not a verdict ({error}); remove it, the set is then checked again") from error
    return None


def _judged(samples: Iterable[Sample], folder: Path | str, max_bad_share: float) -> Iterator[Sample | None]:
    """Each sample, or None in the place of a bad one."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    reasons = folder / REASONS
    seen = bad = 0
    iterator = iter(samples)
    with reasons.open("w", encoding="utf-8") as log:
        while True:
            try:
                sample = next(iterator)
                defect = check(sample)
            except StopIteration:
                break
            except ValueError as error:
                if isinstance(iterator, GeneratorType):
                    raise
                defect = error if isinstance(error, SampleError) else SampleError(str(error), f"#{seen}")
            seen += 1
            if defect is None:
                yield sample
                continue
            bad += 1
            log.write(_line(defect))
            log.flush()
            yield None
    _refuse_too_many(bad, seen, max_bad_share, reasons)


def _refuse_too_many(bad: int, seen: int, max_bad_share: float, reasons: files.Location) -> None:
    if bad > max_bad_share * seen:
        raise QuarantineError(
            f"{bad} of {seen} samples are bad, more than the allowed {max_bad_share:.1%}; {reasons} says why: repair "
            "or remove them, or raise max_bad_share"
        )
