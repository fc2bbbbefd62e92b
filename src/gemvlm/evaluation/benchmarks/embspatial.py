"""EmbSpatial-Bench: six spatial relations in rooms, each question on one image.

Published as hub data set Phineas476/EmbSpatial-Bench: `embspatial_bench.json`, 3,640 objects with the image as base64
text; its copy FlagEval/EmbSpatial-Bench has data/test-*.parquet. Fields: question_id, question, image, answer_options,
answer (an index, 0 to 3), relation, data_source.
The publisher (mengfeidu/EmbSpatial-Bench, 1421f3e) released no scoring script: accuracy is the paper's metric, and
`official` is lmms-eval's reading of it. No protocol drops a reply. Protocols:

- `official`, `lmms_eval` (0.7.3, lmms_eval/tasks/embspatial/utils.py): the letter that opens the reply ("The" is T).
- `vlmevalkit` (160057c, vlmeval/dataset/embspatialbench.py): `vlmevalkit_spatial` reads; another prompt.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gemvlm.evaluation.benchmark import Item, Score
from gemvlm.evaluation.benchmarks.lettered import LetterBenchmark, Reader, grouped, opening_letter, texts
from gemvlm.evaluation.benchmarks.vlmevalkit_spatial import vlmevalkit_spatial_letter
from gemvlm.evaluation.published import need, picture, rows

RELATIONS = ("above", "close", "far", "left", "right", "under")
NOTE = "Note: You only need to respond with A, B, C, D without providing any additional information.\n"
ASKS = "Give me the answer letter directly. The best answer is:"


@dataclass(frozen=True)
class EmbSpatial(LetterBenchmark):
    name: ClassVar[str] = "embspatial"
    hub_id: ClassVar[str] = "Phineas476/EmbSpatial-Bench"
    readers: ClassVar[dict[str, Reader]] = {
        "official": opening_letter,
        "lmms_eval": opening_letter,
        "vlmevalkit": lambda reply, item: vlmevalkit_spatial_letter(reply),
    }

    def read(self) -> Iterator[Item]:
        own = any(self.folder.glob("embspatial_bench.json"))
        for where, row in rows(self.folder, "embspatial_bench.json" if own else "data/test-*.parquet"):
            options = texts(need(row, "answer_options", list, where), "answer_options", where)
            answer = need(row, "answer", int, where)
            if not 0 <= answer < len(options):
                raise ValueError(f"{where}: field 'answer' must be the index of an option, found {answer}")
            relation = need(row, "relation", str, where)
            if relation not in RELATIONS:
                raise ValueError(f"{where}: relation {relation!r} is unknown; known are {', '.join(RELATIONS)}")
            index = str(need(row, "question_id", (str, int), where))
            yield Item(
                id=index,
                media=(picture(need(row, "image", object, where), self.folder, where),),
                prompt=self._prompt(need(row, "question", str, where), options),
                truth=string.ascii_uppercase[answer],
                category=relation,
                scene=index,
                options=options,
                meta={"source": need(row, "data_source", str, where)},
                max_new_tokens=1024,
            )

    def _prompt(self, question: str, options: Sequence[str]) -> str:
        lettered = zip(string.ascii_uppercase, options, strict=False)
        if self.protocol == "vlmevalkit":
            return "\n".join([f"Question: {question}", "Options:", *(f"{a}: {text}" for a, text in lettered), ASKS])
        return "\n".join([NOTE + question, *(f"{letter}) {text}" for letter, text in lettered)])

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """Accuracy over all questions, by relation, and by the data set that the images are from."""
        return super().summary(items, scores) | grouped(scores, [item.meta["source"] for item in items])
