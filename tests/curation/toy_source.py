"""A source of small made-up samples, good and bad, for tests of the pipeline; child processes import it by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gemvlm.camera import Camera, View
from gemvlm.curation.source import Rejection
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame, Provenance, Sample, Turn

SIDE = 48


@dataclass(frozen=True)
class Toy:
    """`count` records in parts of `size`; of every ten one is unreadable, one blank, one a copy, one badly licensed."""

    count: int = 40
    size: int = 8
    seed: int = 0
    name: str = "toy"

    def parts(self) -> list[str]:
        return [str(start) for start in range(0, self.count, self.size)]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        for number in range(int(part), min(self.count, int(part) + self.size)):
            yield self.record(number)

    def record(self, number: int) -> Sample | Rejection:
        kind = number % 10
        if kind == 3:
            return Rejection("import", "bad_json", "no { in line " + "9" * 2000, f"toy-{number}", f"toy.jsonl:{number}")
        like = number - 1 if kind == 5 else number
        rng = np.random.default_rng((self.seed, like))
        image = rng.integers(0, 255, (6, 6, 3)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        if kind == 6:
            image[:] = 128
        values = rng.uniform(0.5, 3.0, (SIDE, SIDE)).astype(np.float32)
        view = View(Camera.from_fov(SIDE, SIDE, 60.0), np.eye(4))
        side = "left" if like % 3 else "right"
        turns = (
            Turn("Where is the ball, left or right?", side, "side", "reasoning", "choice", options=("left", "right")),
            Turn(f"Is ball {like} red?", "yes" if like % 4 else "no", "red", "reasoning", "yes_no"),
            Turn(" " if kind == 8 else "How many balls are there?", str(1 + like % 5), "count", "reasoning", "number"),
        )
        licence = "LicenseRef-closed" if kind == 7 else "CC-BY-4.0"
        frames = (Frame(image, DepthMap.from_values(values, source="toy"), view),)
        terms = Provenance("1", "train", licence, f"toy.jsonl:{number}")
        return Sample(f"toy-{number}", frames, turns, f"scene-{number // 3}", self.name, {}, terms)
