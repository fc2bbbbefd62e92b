"""MMSI-Bench: spatial reasoning over two and more images.

Published as hub data set RunsenXu/MMSI-Bench: `MMSI_Bench.parquet`, 1,000 rows. Fields: id, images (a list),
question_type, question (with its four options), answer (a letter), thought.
Rule: README of InternRobotics/MMSI-Bench, commit 721d8a2. Accuracy over questions; OpenCompass' board asks in a circle.
No protocol drops a reply. Protocols:

- `official`: `choices.mmsi_letter`: in back-ticks, in braces within, else anywhere, the first lone capital A to D with
  no word after it. What it can't read went to VLMEvalKit's model judge: here it is unread and scores zero.
- `lmms_eval` (0.7.3): as official with the letters A to F in any case ("a" is A).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gemvlm.evaluation.benchmark import Item
from gemvlm.evaluation.benchmarks.folder import IMAGE
from gemvlm.evaluation.benchmarks.lettered import LetterBenchmark, Reader, truth_letter
from gemvlm.evaluation.choices import mmsi_letter
from gemvlm.evaluation.published import need, picture, rows

LETTERS = ("A", "B", "C", "D")
ASKS = "\nAnswer with the option's letter from the given choices directly. Enclose the option's letter within ``."


def official_letter(reply: str, item: Item) -> str | None:
    return mmsi_letter(reply)


def lmms_eval_letter(reply: str, item: Item) -> str | None:
    found = mmsi_letter(reply, "A-Fa-f")
    return found.upper() if found else None


@dataclass(frozen=True)
class Mmsi(LetterBenchmark):
    name: ClassVar[str] = "mmsi"
    hub_id: ClassVar[str] = "RunsenXu/MMSI-Bench"
    readers: ClassVar[dict[str, Reader]] = {"official": official_letter, "lmms_eval": lmms_eval_letter}

    def read(self) -> Iterator[Item]:
        for where, row in rows(self.folder, "MMSI_Bench.parquet"):
            images = need(row, "images", list, where)
            if not images:
                raise ValueError(f"{where}: field 'images' is empty; fetch the file again")
            index = str(need(row, "id", (int, str), where))
            yield Item(
                id=index,
                media=tuple(picture(image, self.folder, where) for image in images),
                prompt=need(row, "question", str, where).replace(IMAGE, "").strip() + ASKS,
                truth=truth_letter(need(row, "answer", str, where).strip(), LETTERS, where),
                category=need(row, "question_type", str, where),
                scene=index,
                options=LETTERS,
                max_new_tokens=2048,
            )

    def written(self, item: Item, letter: str) -> str:
        return f"``{letter}``"
