"""Samples to one packed `Batch`: turns chosen, text encoded, images cut into patches, targets tied to their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import prod
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from gemvlm.batch import Batch, Target
from gemvlm.data.conversation import CoordinateFormat, ImageSlot, Segment, render, render_prompt
from gemvlm.data.encoding import Encoded, Encoder
from gemvlm.data.frames import ImageConfig, patches, position_ids
from gemvlm.data.naming import Naming
from gemvlm.sample import Frame, Sample, Turn

Picture = tuple[Float[Tensor, "3 h w"], Bool[Tensor, "h w"]]
Cached = tuple[Float[Tensor, "3 h w"], Bool[Tensor, "h w"], Float[Tensor, "C hl wl"]]
"""With the latent of the picture, whose pixels may then be anything."""


@runtime_checkable
class TargetMaker(Protocol):
    """Makes one kind of target; `data/targets/` holds them, one file each. A `LatentCache` stands in for one."""

    @property
    def kind(self) -> str: ...

    def make(self, frame: Frame) -> Picture | Cached | None:
        """The picture in [-1, 1] that a generator must paint and where it is valid, or None if the frame has none."""
        ...


def keyed(*parts: object) -> int:
    """A 63-bit number that depends on `parts` alone: the same on every rank, in every worker and after every resume."""
    digest = blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class TurnSampler:
    """Chooses the turns that a sample shows in an epoch: another choice and order each epoch, the same on every rank.

    `families` weights turns by family, and those not named are never chosen; None weights all alike. What has infinite
    weight is always chosen, and stands last: it may tell what the others ask. 0 turns shows the images alone.
    """

    turns_per_sample: int
    families: Mapping[str, float] | None = None

    def __call__(self, turns: Sequence[Turn], key: int) -> list[int]:
        weights = np.array([1.0 if self.families is None else self.families.get(turn.family, 0.0) for turn in turns])
        # the k largest u^(1/w) are a weighted draw without replacement (Efraimidis and Spirakis 2006), as logarithms
        draws = np.log(np.random.Generator(np.random.PCG64(key)).random(len(turns)) + np.finfo(float).tiny)
        ranks = np.where(weights > 0, draws / np.maximum(weights, 1e-12), -np.inf)
        chosen = np.argsort(-ranks, kind="stable")[: self.turns_per_sample]
        return sorted(
            (int(index) for index in chosen if weights[index] > 0), key=lambda index: np.isinf(weights[index])
        )


@dataclass(frozen=True)
class Prompt:
    """A question about frames that waits for its answer; `history` holds earlier (question, answer) pairs.

    `system` stands in for the collator's own text.
    """

    frames: Sequence[Frame]
    question: str
    history: Sequence[tuple[str, str]] = ()
    system: str | None = None


class Collator:
    """Samples of one step to a `Batch`; a function of the samples, the epoch and `seed` alone.

    Without a `turns` sampler every turn is shown in the sample's order. The sampler never takes a dialogue apart: it is
    shown whole and in order if any of its turns is chosen. A conversation longer than `max_tokens` loses whole turns
    from its end, so a span is never cut; ValueError if its images and one turn are still too long. A sample's own
    `system` text goes before the collator's. `cache` keeps target pictures in memory (12 bytes per pixel and kind), for
    small sets whose frames come again every epoch. `naming` labels image tokens, too.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        coordinates: CoordinateFormat,
        images: ImageConfig,
        targets: Sequence[TargetMaker] = (),
        *,
        seed: int = 0,
        turns: TurnSampler | None = None,
        max_tokens: int = 16384,
        system: str | None = None,
        cache: bool = False,
        naming: Naming | None = None,
    ) -> None:
        self.coordinates, self.images, self.targets = coordinates, images, tuple(targets)
        self.seed, self.turns, self.max_tokens, self.system = seed, turns, max_tokens, system
        self.naming = naming
        self._encode = Encoder(tokenizer)
        self._cache: dict[tuple[str, int, str], Picture | Cached | None] | None = {} if cache else None

    def __call__(self, samples: Sequence[Sample], epoch: int | Sequence[int] = 0) -> Batch:
        """`epoch` is one for all samples, or one for each."""
        epochs = [epoch] * len(samples) if isinstance(epoch, int) else epoch
        encoded: list[Encoded] = []
        frames: list[Frame] = []
        targets: list[Target] = []
        for sample, its_epoch in zip(samples, epochs, strict=True):
            encoded.append(self.conversation(sample, its_epoch))
            for index, frame in enumerate(sample.frames):
                targets += self.frame_targets(sample.id, its_epoch, index, frame, image=len(frames))
                frames.append(frame)
        return self.pack(encoded, frames, tuple(targets), tuple(sample.id for sample in samples))

    def conversation(self, sample: Sample, epoch: int) -> Encoded:
        """What the sample shows in an epoch, as tokens."""
        conversation = self._fit(sample, epoch)
        if self.naming is not None:
            conversation = self.naming(sample, conversation, keyed(self.seed, epoch, sample.id, "naming"))
        return conversation

    def encode(self, parts: Sequence[Segment | ImageSlot], frames: Sequence[Frame]) -> Encoded:
        """Parts of a conversation about these frames, as tokens. ValueError unless every frame has one slot."""
        return self._encode(parts, self._image_tokens(frames))

    def cost(self, sample: Sample) -> tuple[int, int, int]:
        """The most (tokens, vision patches, targets) that the sample can bring, whichever of its turns are drawn.

        Of a frame nothing is looked at but its size. ValueError as for the sample itself.
        """
        drawn = self.turns is not None and not (sample.dialogue and self.turns.turns_per_sample)
        chosen = self._longest(sample) if drawn else list(range(len(sample.turns)))
        tokens = len(self._encoded(sample, chosen).input_ids)
        if tokens > self.max_tokens and drawn:
            for index in chosen:
                self._shortened(sample, [index])  # an epoch may draw it first
            tokens = self.max_tokens
        elif tokens > self.max_tokens:
            tokens = len(self._shortened(sample, chosen).input_ids)
        patches = sum(prod(self.images.grid(*frame.image.shape[:2])) for frame in sample.frames)
        return tokens, patches, len(self.targets) * len(sample.frames)

    def _longest(self, sample: Sample) -> list[int]:
        """The turns that take most tokens among those that an epoch may draw together."""
        assert self.turns is not None
        most, weights = self.turns.turns_per_sample, self.turns.families
        turns = range(len(sample.turns)) if most else range(0)
        drawable = [i for i in turns if weights is None or weights.get(sample.turns[i].family, 0.0) > 0]
        if len(drawable) <= most:
            return drawable
        length = {index: len(self._encoded(sample, [index]).input_ids) for index in drawable}
        return sorted(drawable, key=lambda index: -length[index])[:most]

    def encode_prompt(self, request: Prompt) -> Encoded:
        """The tokens of a conversation; no pixel is looked at. ValueError as for `prompts`."""
        system = self.system if request.system is None else request.system
        parts = render_prompt(len(request.frames), request.question, request.history, system)
        return self.encode(parts, request.frames)

    def prompts(self, requests: Sequence[Prompt]) -> Batch:
        """Conversations, packed like samples, that end where the model must begin to answer; labels are all ignored.

        ValueError for other images than the questions have places for (`render_prompt`).
        """
        encoded = [self.encode_prompt(request) for request in requests]
        frames = [frame for request in requests for frame in request.frames]
        return self.pack(encoded, frames, (), tuple(str(number) for number in range(len(requests))))

    def _fit(self, sample: Sample, epoch: int) -> Encoded:
        """The sample's conversation with as many of its chosen turns as `max_tokens` holds."""
        chosen = list(range(len(sample.turns)))
        if self.turns is not None:
            drawn = self.turns(sample.turns, keyed(self.seed, epoch, sample.id, "turns"))
            chosen = chosen if sample.dialogue and drawn else drawn
        return self._shortened(sample, chosen)

    def _shortened(self, sample: Sample, chosen: list[int]) -> Encoded:
        """As many of these turns, the first ones, as `max_tokens` holds."""
        encoded = self._encoded(sample, chosen)
        while len(encoded.input_ids) > self.max_tokens:
            if len(chosen) <= 1:
                image_tokens = self._image_tokens(sample.frames)
                raise ValueError(
                    f"sample {sample.id!r}: {len(encoded.input_ids)} tokens ({sum(image_tokens)} of "
                    f"{len(image_tokens)} images) with {len(chosen)} turns are more than max_tokens "
                    f"{self.max_tokens}; lower max_pixels, give fewer frames or raise max_tokens"
                )
            chosen = chosen[:-1]
            encoded = self._encoded(sample, chosen)
        return encoded

    def _encoded(self, sample: Sample, chosen: Sequence[int]) -> Encoded:
        system = self.system if sample.system is None else sample.system
        return self.encode(render(sample, chosen, self.coordinates, system), sample.frames)

    def frame_targets(self, sample_id: str, epoch: int, index: int, frame: Frame, image: int) -> list[Target]:
        """One target of each kind that frame `index` can give; `image` is its place among the batch's images."""
        targets = []
        for maker in self.targets:
            made = self._made(maker, sample_id, index, frame)
            if made is not None:
                key = keyed(self.seed, epoch, sample_id, index, maker.kind)
                picture, valid, *latent = made
                targets.append(Target(maker.kind, image, picture, valid, key, *latent))
        return targets

    def _image_tokens(self, frames: Sequence[Frame]) -> list[int]:
        return [self.images.tokens(self.images.grid(*frame.image.shape[:2])) for frame in frames]

    def _pixels(self, frames: Sequence[Frame]) -> tuple[Float[Tensor, "P patch"], Int64[Tensor, "N 3"]]:
        """The patches of all images, each written where it belongs, and their grids."""
        grids = [self.images.grid(*frame.image.shape[:2]) for frame in frames]
        ends = np.cumsum([prod(grid) for grid in grids], dtype=np.int64)
        # numpy asks for large pages, torch does not: touching a fresh batch of eight takes a third of the time
        values = np.empty((ends[-1] if grids else 0, self.images.patch_values), np.float32)
        for frame, place in zip(frames, np.split(values, ends[:-1]) if grids else (), strict=True):
            patches(frame.image, self.images, place)
        return torch.from_numpy(values), torch.tensor(grids, dtype=torch.int64).reshape(-1, 3)

    def pack(
        self, encoded: Sequence[Encoded], frames: Sequence[Frame], targets: tuple[Target, ...], ids: tuple[str, ...]
    ) -> Batch:
        """Conversations one after the other, with all their frames in order."""
        pixels, grids = self._pixels(frames)
        lengths = torch.tensor([len(part.input_ids) for part in encoded])
        starts = torch.cumsum(lengths, 0) - lengths
        grids_of = torch.split(grids, [len(part.spans) for part in encoded])
        return Batch(
            input_ids=torch.cat([part.input_ids for part in encoded]),
            segment_ids=torch.arange(len(encoded)).repeat_interleave(lengths),
            position_ids=torch.cat(
                [
                    position_ids(len(part.input_ids), part.spans, own, self.images.merge_size)
                    for part, own in zip(encoded, grids_of, strict=True)
                ],
                dim=1,
            ),
            labels=torch.cat([part.labels for part in encoded]),
            pixel_values=pixels,
            image_grid_thw=grids,
            spans=torch.cat([part.spans + start for part, start in zip(encoded, starts, strict=True)]),
            targets=targets,
            sample_ids=ids,
        )

    def _made(self, maker: TargetMaker, sample_id: str, index: int, frame: Frame) -> Picture | Cached | None:
        if self._cache is None:
            return maker.make(frame)
        key = (sample_id, index, maker.kind)
        if key not in self._cache:
            self._cache[key] = maker.make(frame)
        return self._cache[key]
