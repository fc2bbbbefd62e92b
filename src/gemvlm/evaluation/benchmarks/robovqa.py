"""RoboVQA: questions about long tasks of robots and people, on their videos, answered in words.

Publisher: google-deepmind/robovqa, `data_loading_and_eval.ipynb` (6545695). Read from the hub's mirror
`Tianli/robovqa`: `json/val*/*.json`, rows of `uid`, `video` (the name of a file somewhere in the folder) and `text`, a
run of tasks "<task:TYPE> CONTEXT Q: QUESTION <PRED>A: ANSWER</PRED>" with tags inside answers that say of which kind
they are.

Rule: the mean of BLEU-1 to BLEU-4 of a sentence (Papineni et al. 2002), as RoboBrain and MiMo-Embodied report it; to
the letter that of XiaomiMiMo/MiMo-Embodied, `lmms_eval/tasks/robovqa/utils.py` (0bee4b6), which calls NLTK: words are
what stands between spaces, in lower case; truths of one to three words are scored by shorter n-grams; if the truth is
yes or no, every word with "yes" in it is yes, and every word with "no" in it is no. The publisher's notebook only shows
a call of sacrebleu with truth and reply exchanged, which sacrebleu 2 refuses: no number in a paper is that.

Protocols: `official` asks every task of a text in its words; `mimo` the first of each text, in MiMo-Embodied's words.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemvlm.evaluation.benchmark import Convention, Item, Score, means
from gemvlm.evaluation.benchmarks.folder import FolderBenchmark
from gemvlm.evaluation.benchmarks.lettered import mean, mean_of
from gemvlm.evaluation.choices import LONGEST_REPLY, mimo_after_thought
from gemvlm.evaluation.published import need, rows, video

PROTOCOLS = ("official", "mimo")
WEIGHTS = {
    1: ((1.0,), (1.0,), (1.0,), (1.0,)),
    2: ((1.0,), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5)),
    3: ((1.0,), (0.5, 0.5), (0.33, 0.33, 0.33), (0.33, 0.33, 0.33)),
    4: ((1.0,), (0.5, 0.5), (0.33, 0.33, 0.33), (0.25, 0.25, 0.25, 0.25)),
}
"""The n-gram weights of BLEU-1 to BLEU-4, by the truth's words (4 stands for more). A third is 0.33."""
MIMO_WORDS = {
    "Q: immediate next step": "what is the immediate next step",
    "Q: next 5 step": "what are the next 5 step",
    "Q: satisfied": "is it satisfied",
    "Q: possible right now": "is it possible right now",
}
GUESSES = ("yes", "no")

_TASK = re.compile(r"<task:([\w:]*)>", re.IGNORECASE)
_ANSWER = re.compile(r"<PRED>A:", re.IGNORECASE)
_TAG = re.compile(r"</?[\w:]+>")
_FORMS = {"discrete", "binary", "freeform", "true", "false", "positive", "negative"}
"""Words of a type that tell the answer's form or content, not what is asked."""


@dataclass(frozen=True)
class RoboVqa(FolderBenchmark):
    """The validation part of the mirror's folder."""

    name = "robovqa"
    hub_id = "Tianli/robovqa"
    protocols = PROTOCOLS

    def read(self) -> Iterator[Item]:
        videos = {path.name: path.relative_to(self.folder).as_posix() for path in sorted(self.folder.rglob("*.mp4"))}
        for where, row in rows(self.folder, "json/val*/*.json"):
            tasks = list(_tasks(need(row, "text", str, where), where))
            shown = need(row, "video", str, where)
            media = video(videos.get(Path(shown).name, shown), self.folder, f"{where} video")
            uid = str(need(row, "uid", (str, int), where))
            for number, (kind, question, answer) in enumerate(tasks if self.protocol == "official" else tasks[:1]):
                yield Item(
                    id=f"{uid}/{number}",
                    media=(media,),
                    prompt=_mimo_question(question) if self.protocol == "mimo" else question,
                    truth=answer,
                    category=kind,
                    scene=uid,
                    frames=8,
                    max_new_tokens=256,
                )

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        said = _cleaned(reply[:LONGEST_REPLY], item.truth)
        return Score(mean_of(bleus(said, item.truth)), said) if said else Score(0.0, None)

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """The mean of the four, each of them, and the mean by what is asked."""
        found = [
            bleus(score.parsed or "", item.truth) for item, score in zip(items, scores, strict=True) if score.counted
        ]
        each = {f"bleu_{n + 1}": mean_of([values[n] for values in found]) for n in range(4)}
        return {"overall": mean(scores), **each, **means(items, scores)}

    def oracle(self, item: Item, convention: Convention) -> str:
        return str(item.truth)

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        return str(rng.choice(GUESSES))

    def chance(self, item: Item) -> float:
        return mean_of([self.score(item, guess, Convention()).value for guess in GUESSES])


def bleus(reply: str, truth: str) -> tuple[float, ...]:
    """BLEU-1 to BLEU-4 of a reply."""
    said, true = reply.split(" "), truth.lower().split(" ")
    return tuple(bleu(said, true, weights) for weights in WEIGHTS[min(len(true), 4)])


def bleu(reply: Sequence[str], truth: Sequence[str], weights: Sequence[float]) -> float:
    """NLTK's `sentence_bleu` without smoothing: 0 if no word is shared; other n-grams that are not shared have the
    smallest float as their precision, which makes a score of some 1e-77 rather than 0."""
    logs = []
    for n, weight in enumerate(weights, 1):
        said, true = _grams(reply, n), _grams(truth, n)
        shared = (said & true).total()
        if n == 1 and not shared:
            return 0.0
        logs.append(weight * math.log(shared / said.total() if shared else sys.float_info.min))
    brevity = 1.0 if len(reply) > len(truth) else math.exp(1 - len(truth) / len(reply))
    return brevity * math.exp(math.fsum(logs))


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))


def _cleaned(reply: str, truth: str) -> str:
    text = re.sub(r"<[^>]++>", "", mimo_after_thought(reply.strip()))
    text = re.sub(r"\n+", " ", text).strip().lower()
    if truth.lower() in GUESSES:
        for word in GUESSES:
            text = re.sub(rf"\b\w*{word}\w*\b", word, text)
    return text


def _tasks(text: str, where: str) -> Iterator[tuple[str, str, str]]:
    """What is asked (such as "planning"), question and answer of each task. ValueError naming `where` without any."""
    pieces = _TASK.split(text)
    blocks = list(zip(pieces[1::2], pieces[2::2], strict=True)) or [("", text)]
    if not any(block.strip() for _, block in blocks):
        raise ValueError(f"{where}: field 'text' holds no task: {text[:80]!r}")
    for kind, block in blocks:
        if not block.strip():
            continue
        question, *rest = _ANSWER.split(block, maxsplit=1)
        answer = _plain(rest[0].split("</PRED>", 1)[0]) if rest else ""
        if not answer or not _plain(question):
            raise ValueError(f"{where}: field 'text' has a task without question or answer: {block.strip()[:120]!r}")
        words = [word for word in kind.lower().split(":") if word and word not in _FORMS]
        yield "_".join(words) or "other", _plain(question), answer


def _plain(text: str) -> str:
    return " ".join(_TAG.sub("", text).split())


def _mimo_question(question: str) -> str:
    replacements: Mapping[str, Any] = {f"{before} {a}": f". {b}" for before in (".", "") for a, b in MIMO_WORDS.items()}
    for asked, words in replacements.items():
        question = question.replace(asked, words)
    question = question.replace("Q: ", "")
    return f"{question} Please answer yes or no. " if ". is it" in question else question
