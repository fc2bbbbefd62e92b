"""RefSpatial-Bench (hub `BAAI/RefSpatial-Bench`): point at the thing or free place that several relations single out.

Publisher: Zhoues/RoboRefer, `Evaluation/summarize_acc.py`, `Evaluation/test_benchmark.py` (d97a995). Read from the
parquet files of the hub (371cbfa), `data/{location,placement,unseen}-*.parquet`: 100, 100 and 77 rows of `id` int,
`image`, `mask`, `object` (what to find, a noun phrase), `prompt`, `suffix` (the reply's form), `step` int (relations).

Rule: an item scores the share of marked pixels inside the mask (mask > 0). Pairs with a decimal point are fractions,
others pixels; tuples of four are filled boxes, always taken for fractions. The card reports each split; papers average
location and placement. `unseen` is for models that trained on RefSpatial, as GEM did.

Protocols: `official`; `official_skip` drops items where the publisher's parser raises; `official_qwen` asks as the
publisher asks Qwen, for JSON. `lmms_eval` (EvolvingLMMs-Lab/lmms-eval 75571cfe, `tasks/refspatial`): points only, all
fractions, mask rounded, mean over all splits; `lmms_eval_json`: its JSON variant, integers thousandths. `vlmevalkit`
(open-compass/VLMEvalKit e8e78f05, class RefSpatialBench on EASI's data): JSON, where numbers up to 1.5 are fractions,
to 1000 thousandths, else pixels; what lies outside is moved to the image's border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from gemvlm.evaluation.benchmark import Convention, Item, Score, means
from gemvlm.evaluation.benchmarks.folder import FolderBenchmark
from gemvlm.evaluation.benchmarks.lettered import mean, mean_of
from gemvlm.evaluation.coordinates import size_of
from gemvlm.evaluation.pointing import (
    FRACTION,
    JSON_FORM,
    THOUSAND,
    Marks,
    Reader,
    lmms_eval_json,
    lmms_eval_tuples,
    mask_of,
    mask_truth,
    point_anywhere,
    point_at,
    raises,
    score_marks,
    tuples,
    vlmevalkit_vectors,
)
from gemvlm.evaluation.published import need, picture, rows

SPLITS = ("location", "placement", "unseen")


def read_official(reply: str, width: int, height: int) -> Marks:
    """RoboRefer's `text2pts`: ValueError for a box that is inside out, as its script."""
    points, boxes = [], []
    for numbers in tuples(reply):
        if len(numbers) == 2:
            x, y = numbers
            fraction = isinstance(x, float) or isinstance(y, float)
            points.append((int(x * width), int(y * height)) if fraction else (int(x), int(y)))
        elif len(numbers) == 4:
            x0, y0, x1, y1 = (int(v * end) for v, end in zip(numbers, (width, height) * 2, strict=True))
            if x1 < x0 or y1 < y0:
                raise ValueError("a box inside out")
            boxes.append((x0, y0, x1, y1))
    return Marks(tuple(points), tuple(boxes))


def read_vlmevalkit(reply: str, width: int, height: int) -> Marks:
    """VLMEvalKit's points, moved to the border where they lie outside."""
    points, boxes = [], []
    for vector in vlmevalkit_vectors(reply, width, height):
        if len(vector) == 2:
            x, y = (min(max(v * end, 0), end - 1) for v, end in zip(vector, (width, height), strict=True))
            points.append((round(x), round(y)) if x == x and y == y else (-1, -1))
        else:
            x0, y0, x1, y1 = (round(v * end) for v, end in zip(vector, (width, height) * 2, strict=True))
            boxes.append((x0, y0, x1, y1))
    return Marks(tuple(points), tuple(boxes), clipped=True)


PROTOCOLS: dict[str, tuple[Convention | None, Reader]] = {
    "official": (FRACTION, read_official),
    "official_skip": (FRACTION, read_official),
    "official_qwen": (None, read_official),
    "lmms_eval": (FRACTION, lmms_eval_tuples),
    "lmms_eval_json": (THOUSAND, lmms_eval_json),
    "vlmevalkit": (THOUSAND, read_vlmevalkit),
}
"""The convention in which the publisher's own parser reads (None: never, it finds no JSON), and the parser."""
JSON_PROTOCOLS = ("official_qwen", "lmms_eval_json", "vlmevalkit")


@dataclass(frozen=True)
class RefSpatialBench(FolderBenchmark):
    """The three splits of the hub's folder."""

    name = "refspatial_bench"
    hub_id = "BAAI/RefSpatial-Bench"
    protocols = PROTOCOLS

    def read(self) -> Iterator[Item]:
        for split in SPLITS:
            for where, row in rows(self.folder, f"data/{split}-*.parquet"):
                yield self._item(split, where, row)

    def _item(self, split: str, where: str, row: dict[str, Any]) -> Item:
        image = picture(row.get("image"), self.folder, f"{where} image")
        mask = picture(row.get("mask"), self.folder, f"{where} mask")
        width, height = size_of(image)
        return Item(
            id=f"{split}/{need(row, 'id', int, where)}",
            media=(image,),
            prompt=self._prompt(row, where),
            truth=mask_truth(mask, f"{where} mask"),
            category=split,
            scene=f"{split}/{row['id']}",
            meta={"width": width, "height": height, "step": need(row, "step", int, where)},
            max_new_tokens=1024,
        )

    def _prompt(self, row: dict[str, Any], where: str) -> str:
        thing, prompt, suffix = (need(row, field, str, where) for field in ("object", "prompt", "suffix"))
        if self.protocol in ("official_qwen", "lmms_eval_json"):
            return f"Locate {thing} in this image and output the point coordinates in JSON format."
        if self.protocol == "vlmevalkit":
            return prompt + JSON_FORM
        closing = " Return only list of tuples, don't add anything else." if self.protocol == "lmms_eval" else ""
        return f"{prompt} {suffix}{closing}"

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        native, read = PROTOCOLS[self.protocol]
        score = score_marks(item, reply, convention, native, read, self._mask(item))
        if self.protocol == "official_skip" and convention == native and raises(reply, read, self._mask(item)):
            return replace(score, counted=False)
        return score

    def _mask(self, item: Item) -> Float[np.ndarray, "H W"]:
        return mask_of(item.truth, "half" if "lmms_eval" in self.protocol else "any")

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """`overall` is the mean of location and placement; under lmms-eval and VLMEvalKit the mean of all items."""
        splits = means(items, scores)
        if self.protocol in ("lmms_eval", "lmms_eval_json", "vlmevalkit"):
            return {"overall": mean(scores), **splits}
        headline = [splits[split] for split in ("location", "placement") if split in splits]
        return {"overall": mean_of(headline or [*splits.values()]), **splits}

    def oracle(self, item: Item, convention: Convention) -> str:
        def value(reply: str) -> float:
            return self.score(item, reply, convention).value

        return point_at(self._mask(item), item, convention, value, self.protocol in JSON_PROTOCOLS)

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        return point_anywhere(item, rng, convention, self.protocol in JSON_PROTOCOLS)

    def chance(self, item: Item) -> float:
        """The mask's share of the image."""
        return float(self._mask(item).mean())
