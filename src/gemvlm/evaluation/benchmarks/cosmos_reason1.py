"""Cosmos-Reason1's embodied benchmark (hub `nvidia/Cosmos-Reason1-Benchmark`): choices on videos of robots and people.

Publisher: nvidia-cosmos/cosmos-reason1, `examples/benchmark/tools/eval/` with `evaluate.py`, `utils/input.py`,
`utils/output.py` (1f1ce3f). Read from the hub's folder (dc73eea): `SET/SET_benchmark_qa_pairs.json` of bridgev2 (100
rows), robovqa (110), agibot (100), holoassist (100), robofail (100), and of av where it is there: arrays of `video`
("clips/NAME.mp4", in SET) and `qa_pairs`, one object or a list of them, with `question`, `index2ans` (text by letter)
and `answer`. Some clips must be made from their sources with the publisher's tools.

Rule: the first capital in the first answer tag; accuracy pooled over all questions. The script keeps one question of
each video, so that of robovqa it asks 101; here all are asked. It samples at temperature 0.6, shows 4 frames a second,
and asks again up to ten times where no letter is read; here each question is asked once.

Protocols: `official`, with a thought before the answer; `official_letter`, the script's other mode: the first capital
of the reply, greedily, without thought.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gemvlm.evaluation.benchmark import Item
from gemvlm.evaluation.benchmarks.lettered import LetterBenchmark, Reader, truth_letter
from gemvlm.evaluation.choices import LONGEST_REPLY, cosmos_answer, first_capital
from gemvlm.evaluation.published import need, rows, video

SETS = ("bridgev2", "robovqa", "agibot", "holoassist", "robofail")
LETTER_FORM = "\nAnswer with the option's letter from the given choices directly."
THOUGHT_FORM = (
    "\nPlease answer the question in the following format: <think> your reasoning </think> <answer> your single letter "
    "answer </answer>."
)


def _tagged(reply: str, item: Item) -> str | None:
    return first_capital(cosmos_answer(reply) or "", string.ascii_uppercase)


def _plain(reply: str, item: Item) -> str | None:
    return first_capital(reply[:LONGEST_REPLY], string.ascii_uppercase)


@dataclass(frozen=True)
class CosmosReason1(LetterBenchmark):
    """The five sets, and the sixth where it is there."""

    name: ClassVar[str] = "cosmos_reason1"
    hub_id: ClassVar[str] = "nvidia/Cosmos-Reason1-Benchmark"
    readers: ClassVar[dict[str, Reader]] = {"official": _tagged, "official_letter": _plain}

    def read(self) -> Iterator[Item]:
        for part in (*SETS, *(["av"] if (self.folder / "av").is_dir() else [])):
            for number, (where, row) in enumerate(rows(self.folder, f"{part}/{part}_benchmark_qa_pairs.json")):
                asked = need(row, "qa_pairs", (dict, list), where)
                for k, pair in enumerate(asked if isinstance(asked, list) else [asked]):
                    yield self._item(part, f"{part}/{number}/{k}", row, pair, where)

    def _item(self, part: str, name: str, row: dict[str, Any], pair: Any, where: str) -> Item:
        if not isinstance(pair, Mapping):
            raise ValueError(f"{where}: field 'qa_pairs' must hold objects, found {pair!r:.80}")
        shown, choices = need(row, "video", str, where), need(pair, "index2ans", dict, where)
        options = tuple(need(choices, letter, str, where) for letter in choices)
        if "".join(choices) != string.ascii_uppercase[: len(choices)] or not options:
            raise ValueError(f"{where}: field 'index2ans' has the letters {list(choices)}; expected A, B, ... in order")
        answer = need(pair, "answer" if "answer" in pair else "correct_answer", str, where)
        listed = "\n".join(f"({letter}) {option}" for letter, option in choices.items())
        thinks = self.protocol == "official"
        return Item(
            id=name,
            media=(video(f"{part}/{shown}", self.folder, f"{where} video"),),
            prompt=f"{need(pair, 'question', str, where)}\n{listed}{LETTER_FORM}{THOUGHT_FORM if thinks else ''}",
            truth=truth_letter(answer.upper(), options, where),
            category=part,
            scene=f"{part}/{shown}",
            options=options,
            system="Answer the questions.",
            max_new_tokens=1024 if thinks else 10,
        )

    def written(self, item: Item, letter: str) -> str:
        return f"<answer>{letter}</answer>" if self.protocol == "official" else letter
