"""A benchmark of a few grey pictures with a bright square: which side is it on, and where."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gemvlm.evaluation.benchmark import Convention, Item, Media, Score, means
from gemvlm.evaluation.coordinates import read_places, size_of, write_points

SIDE = 64


def square(x: int, y: int) -> bytes:
    picture = np.full((SIDE, SIDE, 3), 90, np.uint8)
    picture[y - 6 : y + 6, x - 6 : x + 6] = (250, 220, 40)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class ToyBenchmark:
    """`count` scenes of two items each: "side" (A or B) and "point" (inside the square)."""

    count: int = 6
    name: str = "toy"
    protocol: str = "official"

    def items(self) -> Sequence[Item]:
        made = []
        for scene in range(self.count):
            rng = np.random.default_rng((7, scene))
            x, y = int(rng.integers(8, 56)), int(rng.integers(8, 56))
            media, truth = (Media(square(x, y)),), "A" if x < SIDE / 2 else "B"
            options = ("left", "right")
            asked = "On which side is the square?\nA. left\nB. right"
            made.append(Item(f"{scene}-side", media, asked, truth, "side", f"s{scene}", options, max_new_tokens=8))
            made.append(
                Item(
                    f"{scene}-point", media, "Point at <image> the square.", [x / SIDE, y / SIDE], "point", f"s{scene}"
                )
            )
        return made

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        if item.category == "side":
            letter = reply.strip()[:1]
            return Score(float(letter == item.truth), letter if letter in ("A", "B") else None)
        places = read_places(reply, convention, size_of(item.media[0]))
        if not places.points:
            return Score(0.0, None)
        (x, y), (true_x, true_y) = places.points[0], item.truth
        return Score(float(max(abs(x - true_x), abs(y - true_y)) <= 6 / SIDE), [x, y], outside=places.outside)

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        by_category = means(items, scores)
        return {"overall": sum(by_category.values()) / len(by_category), **by_category}

    def oracle(self, item: Item, convention: Convention) -> str:
        if item.category == "side":
            return str(item.truth)
        return write_points([tuple(item.truth)], convention, (SIDE, SIDE))

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        if item.category == "side":
            return str(rng.choice(["A", "B"]))
        return write_points([tuple(rng.random(2))], convention, (SIDE, SIDE))

    def chance(self, item: Item) -> float:
        return 0.5 if item.category == "side" else (12 / SIDE) ** 2
