"""Samples whose depth says less than it should, or says it in words: what the controls of an experiment learn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, overload

import numpy as np

from gemvlm.curation.depth_teacher import DepthTeacher
from gemvlm.data.collate import keyed
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame, Sample, Turn

DepthSource = Literal["exact", "other_scene", "noise", "noisy", "sparse", "teacher"]
GRID_FAMILY = "depth_grid"
GRID = 6
"""Rows and columns of the depth that is told in words."""
NOISE = 0.1
"""Deviation of the logarithm of noisy depth: errors of about ten per cent, pixel by pixel."""
SPARSE_SHARE = 0.05
"""Share of pixels at which sparse depth is known."""
LABELLED_AT_ONCE = 32


@dataclass(frozen=True)
class Alteration:
    """What becomes of each frame's depth, for the share of samples that keep any.

    `other_scene` is the exact depth of a frame of another scene, `noise` independent pixels over the frame's own range;
    `noisy` and `sparse` are poor measurements of the right one; `teacher` is what a network made of the image, which
    the samples must bring with them (`labelled`). With `in_words` a turn of family `GRID_FAMILY` tells
    the right depth as `GRID` x `GRID` numbers in decimetres.
    """

    depth: DepthSource = "exact"
    share: float = 1.0
    in_words: bool = False


class Altered(Sequence[Sample]):
    """`samples` under an alteration: the same ids, images and questions in the same order. Random access.

    What is random is keyed by `seed` and the sample's id, the same in every epoch. ValueError if `other_scene` is asked
    of a set of one scene.
    """

    def __init__(self, samples: Sequence[Sample], alteration: Alteration, seed: int) -> None:
        self.samples, self.alteration, self.seed = samples, alteration, seed

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        sample = self.samples[index]
        turns = sample.turns
        if self.alteration.in_words and (told := depth_in_words(sample.frames)) is not None:
            turns = (*turns, told)
        return replace(sample, frames=self._frames(sample), turns=turns)

    def _frames(self, sample: Sample) -> tuple[Frame, ...]:
        rng = np.random.default_rng((self.seed, keyed(sample.id, "altered")))
        if rng.random() >= self.alteration.share:
            return tuple(replace(frame, depth=None) for frame in sample.frames)
        if self.alteration.depth in ("exact", "teacher"):
            return sample.frames
        if self.alteration.depth == "other_scene":
            donor = self._donor(sample, rng)
            return tuple(
                replace(frame, depth=donor.frames[place % len(donor.frames)].depth)
                for place, frame in enumerate(sample.frames)
            )
        return tuple(
            frame if frame.depth is None else replace(frame, depth=_worse(frame.depth, self.alteration.depth, rng))
            for frame in sample.frames
        )

    def _donor(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A sample of another scene whose frames have depth of the same size."""
        wanted = {frame.image.shape for frame in sample.frames}
        first = int(rng.integers(len(self)))
        for step in range(len(self)):
            donor = self.samples[(first + step) % len(self)]
            fits = donor.frames and all(f.depth is not None and f.image.shape in wanted for f in donor.frames)
            if donor.scene != sample.scene and fits:
                return donor
        raise ValueError(
            f"sample {sample.id!r}: no other scene among {len(self)} samples has depth of its size; give more scenes"
        )


def labelled(samples: Iterable[Sample], teacher: DepthTeacher) -> Iterator[Sample]:
    """The samples with a teacher's depth in place of their own, in frames that have any."""
    remaining = iter(samples)
    while chunk := list(islice(remaining, LABELLED_AT_ONCE)):
        frames = [frame for sample in chunk for frame in sample.frames if frame.depth is not None]
        focal = [None if frame.view is None else frame.view.camera.fx for frame in frames]
        maps = iter(teacher.predict([frame.image for frame in frames], focal) if frames else [])
        for sample in chunk:
            told = (f if f.depth is None else replace(f, depth=next(maps)) for f in sample.frames)
            yield replace(sample, frames=tuple(told))


def _worse(depth: DepthMap, source: DepthSource, rng: np.random.Generator) -> DepthMap:
    known = depth.values[depth.valid]
    if source == "sparse":
        kept = depth.valid & (rng.random(depth.valid.shape) < SPARSE_SHARE)
        return replace(depth, valid=kept if kept.any() else depth.valid)
    if source == "noisy":
        values = depth.values * np.exp(NOISE * rng.standard_normal(depth.values.shape))
    else:
        values = np.exp(rng.uniform(np.log(known.min()), np.log(known.max()) + 1e-3, depth.values.shape))
    return replace(depth, values=values.astype(np.float32))


def depth_in_words(frames: Sequence[Frame]) -> Turn | None:
    """The depth of the first frame as decimetres, row by row; None if it has none."""
    depth = frames[0].depth if frames else None
    if depth is None or not depth.valid.any():
        return None
    coarse = depth.resized(GRID, GRID)
    numbers = np.where(coarse.valid, np.clip(np.round(10 * coarse.values), 0, 99), 0).astype(int)
    return Turn(
        question=f"Tell the depth of the image in decimetres as {GRID} by {GRID} numbers, row by row.",
        answer=" ".join(map(str, numbers.ravel())),
        family=GRID_FAMILY,
        task="description",
        kind="text",
    )
