"""Where2Place (hub `wentao-yuan/where2place`): point into the free place that a sentence describes.

Publisher: wentaoyuan/RoboPoint, `robopoint/eval/model_vqa.py` and `summarize_vqa.py` (9d54aac). Read from the hub's
folder (97bf68d), 100 real pictures: `point_questions.jsonl` with `question_id`, `image` (a file of `images/`), `text`
(question and the reply's form), `category`; the mask of line N is `masks/NN.jpg`. Or from the copy FlagEval/Where2Place
(864360a): `data/test-*.parquet` with `question_id` str, `question` (without the form), `question_type`, `image`,
`mask`.

Rule: the mean of the mask's grey levels under all marked pixels. Masks are JPEG and are not made binary, so their
ringing counts. Pairs in which a number has a decimal point are fractions of 640 x 480, others pixels; tuples of four
are filled boxes, fractions if the first number has a point, cut off at the image. The mean over all items is the
headline.

Protocols: `official`; `official_skip` drops items where the publisher's parser raises; `lmms_eval`
(EvolvingLMMs-Lab/lmms-eval 75571cfe, `tasks/where2place`): all pairs fractions, no boxes, mask rounded;
`lmms_eval_json` asks for JSON, where integers are thousandths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from gemvlm.evaluation.benchmark import Convention, Item, Media, Score, means
from gemvlm.evaluation.benchmarks.folder import FolderBenchmark
from gemvlm.evaluation.benchmarks.lettered import mean
from gemvlm.evaluation.coordinates import size_of
from gemvlm.evaluation.pointing import (
    FRACTION,
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
)
from gemvlm.evaluation.published import need, picture, rows

WIDTH, HEIGHT = 640, 480
"""The size that the publisher's parser takes every picture to have."""
QUESTIONS = "point_questions.jsonl"
FORM = (
    "Your answer should be formatted as a list of tuples, i.e. [(x1, y1), (x2, y2), ...], where each tuple contains "
    "the x and y coordinates of a point satisfying the conditions above. The coordinates should be between 0 and 1, "
    "indicating the normalized pixel locations of the points in the image."
)
JSON_FORM = (
    "Your answer should be JSON format. The coordinates should be between 0 and 1000, indicating the normalized pixel "
    "locations of the points in the image."
)


def read_official(reply: str, width: int, height: int) -> Marks:
    """RoboPoint's `text2pts`; TypeError for a box whose first number alone is whole, as its script."""
    points, boxes = [], []
    for numbers in tuples(reply):
        if len(numbers) == 2:
            x, y = numbers
            fraction = isinstance(x, float) or isinstance(y, float)
            points.append((int(x * WIDTH), int(y * HEIGHT)) if fraction else (int(x), int(y)))
        elif len(numbers) == 4:
            if isinstance(numbers[0], float):
                numbers = [int(v * end) for v, end in zip(numbers, (WIDTH, HEIGHT) * 2, strict=True)]
            columns = slice(numbers[0], numbers[2]).indices(WIDTH)
            lines = slice(numbers[1], numbers[3]).indices(HEIGHT)
            boxes.append((columns[0], lines[0], columns[1], lines[1]))
    return Marks(tuple(points), tuple(boxes))


PROTOCOLS: dict[str, tuple[Convention, Reader]] = {
    "official": (FRACTION, read_official),
    "official_skip": (FRACTION, read_official),
    "lmms_eval": (FRACTION, lmms_eval_tuples),
    "lmms_eval_json": (THOUSAND, lmms_eval_json),
}
"""The convention in which the publisher's own parser reads, and the parser."""


@dataclass(frozen=True)
class Where2Place(FolderBenchmark):
    """The publisher's folder, or FlagEval's copy."""

    name = "where2place"
    hub_id = "wentao-yuan/where2place"
    protocols = PROTOCOLS

    def read(self) -> Iterator[Item]:
        return self._published() if (self.folder / QUESTIONS).is_file() else self._copied()

    def _published(self) -> Iterator[Item]:
        for number, (where, row) in enumerate(rows(self.folder, QUESTIONS)):
            image = picture(f"images/{need(row, 'image', str, where)}", self.folder, f"{where} image")
            mask = picture(f"masks/{number:02d}.jpg", self.folder, f"{where} mask")
            question, asked, form = need(row, "text", str, where).partition(" Your answer should")
            category = need(row, "category", str, where)
            name = str(need(row, "question_id", (int, str), where))
            yield self._item(where, name, image, mask, question, (asked + form).strip() or FORM, category)

    def _copied(self) -> Iterator[Item]:
        for where, row in rows(self.folder, "data/test-*.parquet"):
            image = picture(row.get("image"), self.folder, f"{where} image")
            mask = picture(row.get("mask"), self.folder, f"{where} mask")
            name, question, kind = (need(row, f, str, where) for f in ("question_id", "question", "question_type"))
            yield self._item(where, name, image, mask, question, FORM, kind)

    def _item(self, where: str, name: str, image: Media, mask: Media, question: str, form: str, category: str) -> Item:
        width, height = size_of(image)
        forms = {
            "lmms_eval": f"{FORM} Return only list of tuples, don't add anything else.",
            "lmms_eval_json": JSON_FORM,
        }
        return Item(
            id=name,
            media=(image,),
            prompt=f"{question} {forms.get(self.protocol, form)}",
            truth=mask_truth(mask, f"{where} mask"),
            category=category,
            scene=name,
            meta={"width": width, "height": height},
            max_new_tokens=1024,
        )

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        native, read = PROTOCOLS[self.protocol]
        score = score_marks(item, reply, convention, native, read, self._mask(item))
        if self.protocol == "official_skip" and convention == native and raises(reply, read, self._mask(item)):
            return replace(score, counted=False)
        return score

    def _mask(self, item: Item) -> Float[np.ndarray, "H W"]:
        return mask_of(item.truth, "half" if "lmms_eval" in self.protocol else "grey")

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """The mean over all items, and by category."""
        return {"overall": mean(scores)} | means(items, scores)

    def oracle(self, item: Item, convention: Convention) -> str:
        def value(reply: str) -> float:
            return self.score(item, reply, convention).value

        return point_at(self._mask(item), item, convention, value, self.protocol == "lmms_eval_json")

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        return point_anywhere(item, rng, convention, self.protocol == "lmms_eval_json")

    def chance(self, item: Item) -> float:
        """The mask's mean level."""
        return float(self._mask(item).mean())
