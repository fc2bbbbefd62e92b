"""BLINK: fourteen tasks of perception on one to four images.

Published as hub data set BLINK-Benchmark/BLINK, split val (the answers of test are hidden): TASK/val-*.parquet, 1,901
rows. Fields: idx, question, sub_task, image_1 ... image_4, choices, answer ("(A)"), prompt, explanation.
Rule: zeyofu/BLINK_Benchmark, eval/test_benchmark.py and eval/evaluate.py, commit 0cca9a3. Overall is the mean of the
tasks; `depth_and_relation` (RoboBrain's "BLINK") and `five_spatial` (FlagEvalMM's) are means of theirs. Protocols:

- `official`: the reply is the letter ("A" or "(A)"), or only one "(A)" of the options is a word of its last paragraph,
  or else of the whole. Other replies went to a GPT-3.5 judge: here they are unread and score zero. The disclaimer about
  people, which the script puts before three tasks, is left out.
- `lmms_eval` (0.7.3): a bare letter in the first line, else the last "answer is B", else the last "(B)", else a letter
  that opens the reply; only the options' letters; another prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gemvlm.evaluation.benchmark import Item, Media, Score, means
from gemvlm.evaluation.benchmarks.lettered import (
    LetterBenchmark,
    Reader,
    letters_of,
    mean_of,
    texts,
    truth_letter,
)
from gemvlm.evaluation.published import need, picture, rows

TASKS = (
    "Art_Style",
    "Counting",
    "Forensic_Detection",
    "Functional_Correspondence",
    "IQ_Test",
    "Jigsaw",
    "Multi-view_Reasoning",
    "Object_Localization",
    "Relative_Depth",
    "Relative_Reflectance",
    "Semantic_Correspondence",
    "Spatial_Relation",
    "Visual_Correspondence",
    "Visual_Similarity",
)
PARTS = {
    "depth_and_relation": ("Relative_Depth", "Spatial_Relation"),
    "five_spatial": ("Counting", "Multi-view_Reasoning", "Relative_Depth", "Spatial_Relation", "Visual_Correspondence"),
}
IMAGES = ("image_1", "image_2", "image_3", "image_4")
NOTE = "Note: You only need to respond with {} without providing any additional information.\n"
_ANSWER = re.compile(r"\(([A-Z])\)")


def blink_letter(reply: str, item: Item) -> str | None:
    """BLINK's own, without its judge."""
    if re.fullmatch("[A-E]", reply):
        return reply
    options = {f"({letter})" for letter in letters_of(item)}
    for words in (reply.split("\n\n")[-1].split(), reply.split()):
        named = options.intersection(words)
        if len(named) == 1:
            return named.pop()[1]
    return None


def lmms_eval_letter(reply: str, item: Item) -> str | None:
    """lmms-eval's for BLINK."""
    text, letters = reply.strip(), "".join(letters_of(item))
    first_line = text.split("\n", 1)[0].strip()
    if len(first_line) <= 4 and (bare := re.match(rf"\(?([{letters}])\)?[.\s:,)]*$", first_line, re.IGNORECASE)):
        return bare[1].upper()
    stated = re.findall(rf"answers?(?:\s+is)?\s*(?:[:-]\s*)?\(?([{letters}])\)?(?![a-z])", text, re.IGNORECASE)
    if found := stated or re.findall(rf"\(([{letters}])\)", text):
        return str(found[-1]).upper()
    opening = re.match(rf"[(\s]*([{letters}])", text, re.IGNORECASE)
    return opening[1].upper() if opening else None


@dataclass(frozen=True)
class Blink(LetterBenchmark):
    name: ClassVar[str] = "blink"
    hub_id: ClassVar[str] = "BLINK-Benchmark/BLINK"
    readers: ClassVar[dict[str, Reader]] = {"official": blink_letter, "lmms_eval": lmms_eval_letter}

    def read(self) -> Iterator[Item]:
        for where, row in rows(self.folder, "*/val-*.parquet"):
            task = need(row, "sub_task", str, where)
            if task not in TASKS:
                raise ValueError(f"{where}: sub_task {task!r} is unknown; known are {', '.join(TASKS)}")
            options = texts(need(row, "choices", list, where), "choices", where)
            answer = _ANSWER.fullmatch(need(row, "answer", str, where))
            letters = ", ".join(chr(ord("A") + i) for i in range(len(options)))
            index = need(row, "idx", str, where)
            yield Item(
                id=index,
                media=self._images(row, where),
                prompt=(NOTE.format(letters) if self.protocol == "lmms_eval" else "") + need(row, "prompt", str, where),
                truth=truth_letter(answer[1] if answer else "", options, where),
                category=task,
                scene=index,
                options=options,
                max_new_tokens=1024,
            )

    def _images(self, row: dict[str, object], where: str) -> tuple[Media, ...]:
        shown = [field for field in IMAGES if row.get(field) is not None]
        if not shown:
            raise ValueError(f"{where}: fields {', '.join(IMAGES)} hold no image; is this the published format?")
        return tuple(picture(row[field], self.folder, where) for field in shown)

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """Each task, their mean, and the two means that embodied papers call BLINK, where all their tasks are there."""
        tasks = means(items, scores)
        parts = {name: mean_of([tasks[task] for task in part]) for name, part in PARTS.items() if {*part} <= {*tasks}}
        return {"overall": mean_of([*tasks.values()])} | parts | tasks
