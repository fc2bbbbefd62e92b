"""CV-Bench: counting and relations in 2D, depth order and distance in 3D, each question on one image.

Published as hub data set nyu-visionx/CV-Bench, split test: `test_2d.parquet`, `test_3d.parquet`, 2,638 rows. Fields:
idx, type, task, image, question, choices, answer ("(A)"), prompt, filename, source, source_filename, ...
The headline is the card's formula; the reader is cambrian-mllm/cambrian's, eval/eval/coco/coco_test.py, commit a220b3f
(that of eval/omni gives the same letters). No protocol drops a reply. Protocols:

- `official`: the first character after the last "answer is" or "answer:" and opening brackets: "Apple" is A, "answer
  is: B" no letter. Overall is ((ADE20K + COCO) / 2 + Omni3D) / 2.
- `lmms_eval` (0.7.3): the letter that opens the reply, in brackets or not ("The" is T); another prompt, a plain mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from gemvlm.evaluation.benchmark import Item, Score, means
from gemvlm.evaluation.benchmarks.lettered import (
    LetterBenchmark,
    Reader,
    grouped,
    letters_of,
    mean,
    mean_of,
    opening_letter,
    texts,
    truth_letter,
)
from gemvlm.evaluation.published import need, picture, rows

SOURCES = ("ADE20K", "COCO", "Omni3D")
BEFORE_ANSWERS = ("answer is", "answer:")
ASKS = "Answer with the option's letter from the given choices directly."
NOTE = "Note: You only need to respond with {} without providing any additional information.\n\n"
_ANSWER = re.compile(r"\(([A-Z])\)")


def cambrian_letter(reply: str, item: Item) -> str:
    """Cambrian's: the first character of what is left, upper case."""
    text = reply.lower()
    for words in BEFORE_ANSWERS:
        text = text.rpartition(words)[2]
    return text.strip().lstrip("(")[:1].upper()


@dataclass(frozen=True)
class CvBench(LetterBenchmark):
    name: ClassVar[str] = "cv_bench"
    hub_id: ClassVar[str] = "nyu-visionx/CV-Bench"
    readers: ClassVar[dict[str, Reader]] = {"official": cambrian_letter, "lmms_eval": opening_letter}

    def read(self) -> Iterator[Item]:
        for where, row in rows(self.folder, "test*.parquet"):
            options = texts(need(row, "choices", list, where), "choices", where)
            answer = _ANSWER.fullmatch(need(row, "answer", str, where))
            source, index = need(row, "source", str, where), need(row, "idx", int, where)
            if source not in SOURCES:
                raise ValueError(f"{where}: source {source!r} is unknown; known are {', '.join(SOURCES)}")
            item = Item(
                id=str(index),
                media=(picture(need(row, "image", object, where), self.folder, where),),
                prompt=need(row, "prompt", str, where),
                truth=truth_letter(answer[1] if answer else "", options, where),
                category=need(row, "task", str, where),
                scene=str(row.get("source_filename") or index),
                options=options,
                meta={"source": source, "type": need(row, "type", str, where)},
                max_new_tokens=512 if self.protocol == "official" else 1024,
            )
            yield replace(item, prompt=self._prompt(item))

    def _prompt(self, item: Item) -> str:
        if self.protocol == "lmms_eval":
            return NOTE.format(", ".join(letters_of(item))) + item.prompt
        return f"{item.prompt}\n{ASKS}"

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """By the card's formula, over the sources that are there; each source, each type and each task."""
        sources = grouped(scores, [item.meta["source"] for item in items])
        types = grouped(scores, [item.meta["type"] for item in items])
        flat = [sources[name] for name in ("ADE20K", "COCO") if name in sources]
        dimensions = [mean_of(part) for part in (flat, [sources["Omni3D"]] if "Omni3D" in sources else []) if part]
        overall = mean_of(dimensions) if self.protocol == "official" else mean(scores)
        if flat and self.protocol == "official":
            types["2D"] = mean_of(flat)
        return {"overall": overall} | types | sources | means(items, scores)
