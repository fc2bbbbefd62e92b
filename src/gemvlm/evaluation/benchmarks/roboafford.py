"""RoboAfford-Eval: point at the part that affords an action, at the object that is meant, or into the free place.

Publisher: tyb197/RoboAfford, `inference.py` and `evaluation.py` (ae453cd). Read from its folder:
`annotations_normxy.json` (or `annotations_absxy.json`, which asks for pixels), an array of 338 objects with `category`,
`question` (with the reply's form), `answer` (polygons, which do not score), `img` (a file of `images/`), `mask` (of
`masks/`). Or from the hub's copy `Zray26/roboafford-eval`: `data/test-*.parquet` with `category`, `question`, `image`,
`mask`.

Rule: the share of points under which the mask is above one half. Four patterns are searched one after the other, "(x,
y)", "[x, y]", "x y" and "x,y", so that a point may count twice; signs are not read. Coordinates are fractions if none
is above 1, else pixels; both are rounded. The mean over all questions is the headline.

Protocols: `official`, and `official_pixels`, which asks for pixels. In a convention other than the one asked for, each
point of the reply counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from gemvlm.evaluation.benchmark import Convention, Item, Score, means
from gemvlm.evaluation.benchmarks.folder import FolderBenchmark
from gemvlm.evaluation.benchmarks.lettered import mean
from gemvlm.evaluation.coordinates import size_of
from gemvlm.evaluation.pointing import (
    FRACTION,
    Marks,
    mask_of,
    mask_truth,
    point_anywhere,
    point_at,
    score_marks,
)
from gemvlm.evaluation.published import need, picture, rows

PROTOCOLS = {
    "official": (FRACTION, "annotations_normxy.json"),
    "official_pixels": (Convention("pixel"), "annotations_absxy.json"),
}
"""The convention that the questions of a file ask for."""
CATEGORIES = {
    "object affordance": "object affordance prediction",
    "object reference": "object affordance recognition",
    "spatial affordance": "spatial affordance localization",
}
"""What the annotations call a category, and what the tables do."""

_NUMBER = r"(?<!\d)(\d+(?:\.\d*)?)"
_PATTERNS = (
    re.compile(rf"\({_NUMBER}\s*,\s*{_NUMBER}\)"),
    re.compile(rf"\[{_NUMBER}\s*,\s*{_NUMBER}\]"),
    re.compile(rf"{_NUMBER}\s+{_NUMBER}"),
    re.compile(rf"{_NUMBER},{_NUMBER}"),
)


def read_official(reply: str, width: int, height: int) -> Marks:
    """The publisher's points. OverflowError for infinite ones, where its script scores 0."""
    pairs = [(float(x), float(y)) for pattern in _PATTERNS for x, y in pattern.findall(reply)]
    fractions = all(0 <= value <= 1 for pair in pairs for value in pair)
    ends = (width, height) if fractions else (1, 1)
    return Marks(tuple((round(x * ends[0]), round(y * ends[1])) for x, y in pairs))


@dataclass(frozen=True)
class RoboAfford(FolderBenchmark):
    """The publisher's folder, or the hub's copy of it."""

    name = "roboafford"
    hub_id = "Zray26/roboafford-eval"
    protocols = PROTOCOLS

    def read(self) -> Iterator[Item]:
        annotations = PROTOCOLS[self.protocol][1]
        published = self.protocol != "official" or (self.folder / annotations).is_file()
        for number, (where, row) in enumerate(rows(self.folder, annotations if published else "data/test-*.parquet")):
            yield self._item(number, where, row, published)

    def _item(self, number: int, where: str, row: dict[str, Any], published: bool) -> Item:
        paths = {"image": f"images/{row.get('img')}", "mask": f"masks/{row.get('mask')}"} if published else row
        image = picture(paths.get("image"), self.folder, f"{where} image")
        mask = picture(paths.get("mask"), self.folder, f"{where} mask")
        width, height = size_of(image)
        category = need(row, "category", str, where)
        if category not in (*CATEGORIES, *CATEGORIES.values()):
            raise ValueError(f"{where}: category {category!r} is unknown; expected one of {', '.join(CATEGORIES)}")
        return Item(
            id=str(number),
            media=(image,),
            prompt=need(row, "question", str, where),
            truth=mask_truth(mask, f"{where} mask"),
            category=CATEGORIES.get(category, category),
            scene=str(row.get("img", number)),
            meta={"width": width, "height": height},
            max_new_tokens=1024,
        )

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        native = PROTOCOLS[self.protocol][0]
        return score_marks(item, reply, convention, native, read_official, self._mask(item))

    def _mask(self, item: Item) -> Float[np.ndarray, "H W"]:
        return mask_of(item.truth, "half")

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """The mean over all questions, and by category."""
        return {"overall": mean(scores)} | means(items, scores)

    def oracle(self, item: Item, convention: Convention) -> str:
        def value(reply: str) -> float:
            return self.score(item, reply, convention).value

        return point_at(self._mask(item), item, convention, value)

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        return point_anywhere(item, rng, convention)

    def chance(self, item: Item) -> float:
        """The mask's share of the image."""
        return float(self._mask(item).mean())
