"""Who answers without looking, or knows the answer: what a score must be compared with."""

from __future__ import annotations

import io
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from gemvlm.evaluation.answerers.answerer import Answerer, Reply, without_media
from gemvlm.evaluation.answerers.media import show
from gemvlm.evaluation.benchmark import Benchmark, Convention, Item, Media

BaselineKind = Literal["random", "majority", "oracle"]
CONSTANTS = 32
"""Replies that are tried as the constant one."""
GREY = (128, 128, 128)


class Baseline:
    """`random`: the benchmark's own guess, drawn by seed and item. `oracle`: a right reply. `majority`: in each
    category the one reply, of the most frequent right ones, that scores most over all of it. It knows the test's
    answers, and so bounds what a constant reply can reach.
    """

    batch_size = 64

    def __init__(self, kind: BaselineKind, convention: Convention | None = None, seed: int = 0) -> None:
        self.kind: BaselineKind = kind
        self.name: str = kind
        self.seed = seed
        self.convention = convention or Convention()
        self._benchmark: Benchmark | None = None
        self._constants: dict[str, str] = {}

    def describe(self) -> Mapping[str, Any]:
        return {"kind": self.kind, **({"seed": self.seed} if self.kind == "random" else {})}

    def meet(self, benchmark: Benchmark, items: Sequence[Item]) -> None:
        self._benchmark = benchmark
        if self.kind != "majority":
            return
        for category in dict.fromkeys(item.category for item in items):
            members = [item for item in items if item.category == category]
            right = Counter(benchmark.oracle(item, self.convention) for item in members)
            tried = [reply for reply, _ in right.most_common(CONSTANTS)]
            scores = [sum(benchmark.score(item, reply, self.convention).value for item in members) for reply in tried]
            self._constants[category] = tried[int(np.argmax(scores))]

    def answer(self, items: Sequence[Item]) -> list[Reply]:
        if self._benchmark is None:
            raise ValueError(f"baseline {self.kind}: it has to meet a benchmark before it answers")
        return [Reply(self._reply(self._benchmark, item)) for item in items]

    def _reply(self, benchmark: Benchmark, item: Item) -> str:
        if self.kind == "oracle":
            return benchmark.oracle(item, self.convention)
        if self.kind == "majority":
            return self._constants[item.category]
        rng = np.random.default_rng((self.seed, zlib.crc32(item.id.encode())))
        return benchmark.guess(item, rng, self.convention)


class Blind:
    """The same model that sees nothing: images `withheld` altogether, or `grey` ones of the same sizes in their place.

    What it scores is what the words give away. A video becomes one grey picture.
    """

    def __init__(self, seeing: Answerer, how: Literal["withheld", "grey"] = "withheld") -> None:
        self.seeing, self.how = seeing, how
        self.name = f"{seeing.name}, images {how}"
        self.convention, self.batch_size = seeing.convention, seeing.batch_size

    def describe(self) -> Mapping[str, Any]:
        return {**self.seeing.describe(), "images": self.how}

    def meet(self, benchmark: Benchmark, items: Sequence[Item]) -> None:
        self.seeing.meet(benchmark, items)

    def answer(self, items: Sequence[Item]) -> list[Reply]:
        hidden = []
        for item in items:
            try:
                hidden.append(without_media(item) if self.how == "withheld" else _greyed(item))
            except ValueError:
                hidden.append(item)  # unreadable media fail where the model reads them, with their own words
        return self.seeing.answer(hidden)


def _greyed(item: Item) -> Item:
    """A video's frames become one grey picture: which of equal frames is shown when tells nothing."""
    return replace(item, media=tuple(_grey(media) for media in item.media))


def _grey(media: Media) -> Media:
    height, width = show(media, 1)[0].shape[:2]
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), GREY).save(buffer, "PNG")
    return Media(buffer.getvalue())
