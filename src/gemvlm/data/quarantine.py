"""Bad samples are set aside with a reason and counted; too many stop the training that would hide them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import GeneratorType

from gemvlm.data.conversation import CoordinateFormat, render
from gemvlm.sample import Sample
from gemvlm.shards import ShardReader

REASONS = "quarantine.jsonl"


class SampleError(ValueError):
    """What is wrong with one sample: where it was read and which of its fields is bad."""

    def __init__(self, reason: str, id: str = "", file: str = "", field: str = "") -> None:
        super().__init__(reason)
        self.id, self.file, self.field = id, file, field


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
        render(sample, range(len(sample.turns)), CoordinateFormat())
    except ValueError as error:
        return SampleError(str(error), sample.id, field="turns")
    return None


def quarantined(samples: Iterable[Sample], folder: Path | str, max_bad_share: float) -> Iterator[Sample]:
    """The good samples, in order. Bad ones become lines {id, file, field, reason} of `folder/quarantine.jsonl`.

    A sample is bad if `check` says so or if making it raises ValueError: give `map(load, names)`, whose next item can
    still be made after an error. A generator can't go on after its own error, so that error is raised. QuarantineError
    at the end if more than `max_bad_share` (0..1) of all samples were bad, with the counts and the file of reasons.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    reasons = folder / REASONS
    seen = bad = 0
    iterator = iter(samples)
    with reasons.open("w") as log:
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
            record = {"id": defect.id, "file": defect.file, "field": defect.field, "reason": str(defect)}
            log.write(json.dumps(record) + "\n")
            log.flush()
    if bad > max_bad_share * seen:
        raise QuarantineError(
            f"{bad} of {seen} samples are bad, more than the allowed {max_bad_share:.1%}; {reasons} says why: repair "
            "or remove them, or raise max_bad_share"
        )


class Usable(Sequence[Sample]):
    """The good samples of a reader, found by reading every sample once; QuarantineError before any training starts."""

    def __init__(self, reader: ShardReader, folder: Path | str, max_bad_share: float) -> None:
        self._reader = reader
        every = map(reader.__getitem__, range(len(reader)))
        good = {sample.id for sample in quarantined(every, folder, max_bad_share)}
        self._indices = [index for index, name in enumerate(reader.ids()) if name in good]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self._reader[self._indices[index]]
