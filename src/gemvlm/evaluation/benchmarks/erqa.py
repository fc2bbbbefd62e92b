"""ERQA: embodied reasoning in pictures, several of them put into the text of the question.

Published by embodiedreasoning/ERQA as data/erqa.tfrecord; read here from its copy FlagEval/ERQA on the hub, split test:
data/test-*.parquet. Fields: question_id, question (with its options and the instruction), question_type, images, answer
(a letter), visual_indices (the place of each image in the question; 0 is before it).
Rule: embodiedreasoning/ERQA, eval_harness.py, as its derived tasks cite it; places of images as FlagEvalMM's
tasks/erqa/process.py, commit 6702b79. Accuracy over questions. No protocol drops a reply. Protocols:

- `official`: the reply without full stops is the letter, any case.
- `lmms_eval` (0.7.3, _task_utils/mcq_extract.py): the best-ranked place of a letter A to D; images before the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gemvlm.evaluation.benchmark import Item
from gemvlm.evaluation.benchmarks.folder import IMAGE
from gemvlm.evaluation.benchmarks.lettered import LetterBenchmark, Reader, truth_letter
from gemvlm.evaluation.published import need, picture, rows

LETTERS = ("A", "B", "C", "D")
PHRASES = (
    *(f"{which}answer is" for which in ("", "the ", "my ", "correct ", "the correct ", "best ", "the best ")),
    *(f"{which}option is" for which in ("correct ", "the correct ", "best ", "the best ")),
    *(f"{which}choice is" for which in ("", "the ", "my ", "correct ", "the correct ")),
    *("i choose", "i select", "i pick", "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
"""After the first of each, lmms-eval looks for a letter."""


def erqa_letter(reply: str, item: Item) -> str:
    return reply.replace(".", "").strip().upper()


def lmms_eval_letter(reply: str, item: Item) -> str | None:
    """The last of the highest rank of what looks like an answer: a letter that opens the reply, closes it, follows a
    phrase, stands in brackets, before a full stop, a colon, a bracket or a space; without any of these, any letter.
    """
    text = reply.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    bare, text = text.strip(), f" {text} "
    found: list[tuple[int, int, str]] = []
    for letter in LETTERS:
        forms = {6: f"({letter})", 5: f"{letter}.", 4: f"{letter}:", 3: f"{letter})", 2: f"{letter} "}
        found += [(rank, text.rfind(form), letter) for rank, form in forms.items() if form in text]
        if bare.startswith(letter) and not bare[1:2].isalpha():
            found.append((10, 0, letter))
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            found.append((9, len(text) - 1, letter))
    lower = text.lower()
    for phrase in PHRASES:
        if phrase in lower:
            after = lower.find(phrase) + len(phrase)
            found += [(7, text.find(letter, after), letter) for letter in LETTERS if letter in text[after:]]
    found = found or [(0, text.rfind(letter), letter) for letter in LETTERS if letter in text]
    return max(found, key=lambda each: each[:2])[2] if found else None


@dataclass(frozen=True)
class Erqa(LetterBenchmark):
    name: ClassVar[str] = "erqa"
    hub_id: ClassVar[str] = "FlagEval/ERQA"
    readers: ClassVar[dict[str, Reader]] = {"official": erqa_letter, "lmms_eval": lmms_eval_letter}

    def read(self) -> Iterator[Item]:
        for where, row in rows(self.folder, "data/test-*.parquet"):
            images, question = need(row, "images", list, where), need(row, "question", str, where)
            if not images:
                raise ValueError(f"{where}: field 'images' is empty; fetch the file again")
            places = need(row, "visual_indices", list, where) or [0] * len(images)
            if len(places) != len(images) or not all(isinstance(place, int) and place >= 0 for place in places):
                raise ValueError(
                    f"{where}: visual_indices {places} must be a place in the question for each of {len(images)} images"
                )
            media = [picture(image, self.folder, where) for image in images]
            order = sorted(range(len(images)), key=lambda image: places[image])
            interleaved = self.protocol == "official" and any(places)
            index = str(need(row, "question_id", (str, int), where))
            yield Item(
                id=index,
                media=tuple(media[image] for image in order) if interleaved else tuple(media),
                prompt=with_images(question, sorted(places)) if interleaved else question,
                truth=truth_letter(need(row, "answer", str, where), LETTERS, where),
                category=need(row, "question_type", str, where),
                scene=index,
                options=LETTERS,
                max_new_tokens=1024,
            )


def with_images(question: str, places: Sequence[int]) -> str:
    """The question with a mark for an image at each of the ascending `places`, in characters."""
    ends = [*places[1:], len(question)]
    parts = [IMAGE + question[place:end] for place, end in zip(places, ends, strict=True)]
    return question[: places[0]] + "".join(parts)
