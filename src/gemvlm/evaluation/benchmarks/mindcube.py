"""MindCube: the layout of a scene from a few views of it.

Published as hub data set MLL-Lab/MindCube: data.zip, to be unpacked, with raw/MindCube_tinybench.jsonl (the usual test
set), raw/MindCube.jsonl (21,154 questions) and the images beside raw. Fields: id, category, type, meta_info, question
(its options are in it, "A. ... B. ..."), images, gt_answer. The authors fixed data in March 2026.
Rule: mll-lab-nu/MindCube, src/evaluation/core/extractors.py, commit 8650074; prompt: "raw_qa" of
src/prompt_generation/templates.py, commit 8f7cbe9. Accuracy over questions; the id says the setting of the scene. No
protocol drops a reply.
Protocols, each also with "/full" for all questions:

- `official`: the last "B.", else what an <Answer> tag says, else the last match of the first pattern that matches.
- `lmms_eval` (0.7.3): as official without its pattern for a capital before a space ("A chair" is then no A at once).
- `vlmevalkit` (160057c): `vlmevalkit_spatial` reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gemvlm.evaluation.benchmark import Item
from gemvlm.evaluation.benchmarks.lettered import LetterBenchmark, Reader, truth_letter
from gemvlm.evaluation.benchmarks.vlmevalkit_spatial import vlmevalkit_spatial_letter
from gemvlm.evaluation.published import need, picture, rows

FILES = {"": "MindCube_tinybench.jsonl", "/full": "MindCube.jsonl"}
SETTINGS = ("around", "rotation", "translation", "among")
"""In the order in which they are looked for in an id."""

INSTRUCTION = """[Task]
Your task is to analyze the spatial arrangement of objects in the scene by examining the provided images, which show the scene from different viewpoints.
[Answer Instruction]
You only need to provide *ONE* correct answer selecting from the options listed below. For example, if you think the correct answer is 'A. Above' from 'A. Above B. Under C. Front D. Behind', your response should **only** be '<answer>A. Above</answer>'.

[Question]
"""  # noqa: E501

_DOTTED = re.compile(r"([A-E])\.")
_TAG = re.compile(r"<Answer>(.*?)(?:<|$)", re.DOTALL)
_IN_TAG = [re.compile(p) for p in (r"[Mm]y answer is ([A-E])", r"[Tt]he answer is ([A-E])", r"\b([A-E])\b")]
_BEFORE_SPACE = re.compile(r"([A-E])(?:$|\s)")
_PATTERNS = [
    re.compile(pattern)
    for pattern in (
        r"(?:^|\n)(?:Answer: )?([A-E])(?:$|\s)",
        r"[*\"]([A-E])[*\"]",
        r"\bAnswer:?\s*([A-E])\b",
        r"[Mm]y answer is ([A-E])",
        r"answer is ([A-E])",
    )
]
_LONE = re.compile(r"\b([A-E])\b")
_OPTION = re.compile(r"(?<!\S)([A-E])\.(?=\s)")


def mindcube_letter(reply: str, before_space: bool = True) -> str | None:
    """MindCube's: of the first way that matches, the last letter. (Its patterns with a full stop can't match later.)"""
    if dotted := _DOTTED.findall(reply):
        return str(dotted[-1])
    if tag := _TAG.search(reply):
        for pattern in _IN_TAG:
            if found := pattern.findall(tag[1]):
                return str(found[-1])
    for pattern in (*([_BEFORE_SPACE] if before_space else []), *_PATTERNS):
        if found := pattern.findall(reply):
            return str(found[-1])
    for line in reversed(reply.split("\n")):
        if lone := _LONE.search(line):
            return lone[1]
    return None


@dataclass(frozen=True)
class MindCube(LetterBenchmark):
    name: ClassVar[str] = "mindcube"
    hub_id: ClassVar[str] = "MLL-Lab/MindCube"
    readers: ClassVar[dict[str, Reader]] = {
        rule + subset: reader
        for rule, reader in {
            "official": lambda reply, item: mindcube_letter(reply),
            "lmms_eval": lambda reply, item: mindcube_letter(reply.strip(), before_space=False),
            "vlmevalkit": lambda reply, item: vlmevalkit_spatial_letter(reply),
        }.items()
        for subset in FILES
    }

    def read(self) -> Iterator[Item]:
        name = FILES["/full" if self.protocol.endswith("/full") else ""]
        data = self.folder / "data" if (self.folder / "data").is_dir() else self.folder
        for where, row in rows(data, f"raw/{name}"):
            paths = need(row, "images", list, where)
            if not paths:
                raise ValueError(f"{where}: field 'images' is empty; fetch the annotations again")
            question, index = need(row, "question", str, where), need(row, "id", str, where)
            options = options_in(question)
            yield Item(
                id=index,
                media=tuple(picture(path, data, where) for path in paths),
                prompt=INSTRUCTION + question,
                truth=truth_letter(need(row, "gt_answer", str, where), options, where),
                category=next((setting for setting in SETTINGS if setting in index.lower()), "other"),
                scene=str(paths[0]).rpartition("/")[0],
                options=options,
                max_new_tokens=4096,
            )

    def written(self, item: Item, letter: str) -> str:
        return f"<answer>{letter}. {item.options[ord(letter) - ord('A')]}</answer>"


def options_in(question: str) -> tuple[str, ...]:
    """The texts of "A. ... B. ..." in a question, in order as long as the letters follow each other."""
    marks = list(_OPTION.finditer(question))
    starts = [mark for mark in marks if mark[1] == "A"][-1:]
    for mark in marks:
        if starts and mark.start() > starts[-1].start() and ord(mark[1]) == ord(starts[-1][1]) + 1:
            starts.append(mark)
    ends = [*(mark.start() for mark in starts[1:]), len(question)][: len(starts)]
    return tuple(question[mark.end() : end].strip() for mark, end in zip(starts, ends, strict=True))
