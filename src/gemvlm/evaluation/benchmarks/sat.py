"""SAT, its test on real pictures: what moved, where to go, what is seen from elsewhere, on one image or two.

Published as hub data set array/SAT: `SAT_test.parquet`, 150 rows: one question is 0.67 points. Fields: image_bytes (a
list), question, answers (the choices), question_type, correct_answer (the text of one). Positions leak, so the card
asks to shuffle the choices: `official` does, in an order that is fixed for each row.
Rule: arijitray1993/SAT, models/eval_funcs.py, QAAccuracy, commit fa9fedb; prompt: that of the paper (arXiv 2412.07755,
A.3) and of scripts/zero_shot_experiments/evaluate_GPT4_MLMBench.py, 8cfdcdc. No protocol drops a reply. Protocols:

- `official`: the reply must be the text of the right choice, in any case, after the rewritings of `sat_text`. Left out
  are those for questions of other data sets, for echoes of LLaVA's prompt ("###Human:"), and for lost letters, by which
  "night stand" became "nnight stand" and was never right.
- `lmms_eval` (0.7.3): choices lettered as published; the first word without punctuation is the letter; another prompt.
"""

from __future__ import annotations

import re
import string
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gemvlm.evaluation.benchmark import Item
from gemvlm.evaluation.benchmarks.lettered import LetterBenchmark, Reader, letters_of, texts
from gemvlm.evaluation.published import need, picture, rows

ONLY = " Please answer just one of the options and no other text."
HINT = (
    "When multiple images are provided, You want to realize that when camera moves left, the objects in the image move "
    "right, and vice versa. And when you are asked about the movement of the same object captured in different images, "
    "you can compare the position of the object relative to other objects in the image to answer the question.\n"
)
ASKS = "Only output the letter of the correct option and nothing else."


def sat_text(reply: str) -> str | None:
    """What QAAccuracy takes a reply to say, in lower case; None where the script fails with an error.

    Before "(highlighted by"; what follows "1."; the one word after "is located " or "answer: ".
    """
    text = reply.strip().lower()
    if "(highlighted by" in text:
        text = text.partition("(highlighted by")[0].strip()
    if "1." in text:
        text = text.split("1.")[1].strip()
    for mark in ("is located", "answer:"):
        if mark in text:
            if f"{mark} " not in text:
                return None
            text = text.split(f"{mark} ")[1].split(" ")[0].strip()
    return text


def official_letter(reply: str, item: Item) -> str | None:
    """The option that the reply says: the script drops brackets from the truth, but not from a reply."""
    said = sat_text(reply)
    for letter, option in zip(letters_of(item), item.options, strict=True):
        if said == _without_brackets(option).strip().lower():
            return letter
    return None


def lmms_eval_letter(reply: str, item: Item) -> str:
    """The first word (up to a space) of the reply without punctuation, upper case."""
    return re.sub(r"[^\w\s]", "", reply).strip().split(" ")[0].replace("_", "").upper()


@dataclass(frozen=True)
class Sat(LetterBenchmark):
    name: ClassVar[str] = "sat"
    hub_id: ClassVar[str] = "array/SAT"
    readers: ClassVar[dict[str, Reader]] = {"official": official_letter, "lmms_eval": lmms_eval_letter}

    def read(self) -> Iterator[Item]:
        for index, (where, row) in enumerate(rows(self.folder, "SAT_test.parquet")):
            options = texts(need(row, "answers", list, where), "answers", where)
            question = need(row, "question", str, where)
            correct = need(row, "correct_answer", str, where)
            if options.count(correct) != 1:
                raise ValueError(
                    f"{where}: correct_answer {correct!r} must be one of the answers {list(options)!r:.200}"
                )
            if self.protocol == "official":
                order = np.random.default_rng(zlib.crc32(f"{index}:{question}".encode())).permutation(len(options))
                options = tuple(options[place] for place in order)
            images = need(row, "image_bytes", list, where)
            if not images:
                raise ValueError(f"{where}: field 'image_bytes' is empty; fetch the file again")
            yield Item(
                id=str(index),
                media=tuple(picture(image, self.folder, where) for image in images),
                prompt=self._prompt(question, options),
                truth=string.ascii_uppercase[options.index(correct)],
                category=need(row, "question_type", str, where),
                scene=str(index),
                options=options,
                max_new_tokens=16 if self.protocol == "lmms_eval" else 300,
            )

    def _prompt(self, question: str, options: Sequence[str]) -> str:
        if self.protocol == "official":
            return f"{question} Choose between the following options: {', or '.join(options)}.{ONLY}"
        lettered = "".join(f"{letter}. {text}\n" for letter, text in zip(string.ascii_uppercase, options, strict=False))
        return f"{question.strip()}\n{HINT}\n{lettered}\n{ASKS}"

    def written(self, item: Item, letter: str) -> str:
        return _without_brackets(item.options[ord(letter) - ord("A")]) if self.protocol == "official" else letter


def _without_brackets(text: str) -> str:
    return text.replace("(", "").replace(")", "")
