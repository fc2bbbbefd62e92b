"""VSI-Bench: questions about videos of rooms, answered by a letter or by a number.

Published as hub data set nyu-visionx/VSI-Bench, split test: `test.jsonl` (all), `test_debiased.parquet`,
`test_pruned.parquet`, and arkitscenes.zip, scannet.zip, scannetpp.zip, to be unpacked beside them. Fields: id, dataset,
scene_name, question_type, question, options, ground_truth; the video is DATASET/SCENE_NAME.mp4.
Loader and rule: vision-x-nyu/thinking-in-space, lmms_eval/tasks/vsibench/utils.py, commit e6a72f3.

Letters count when equal. Numbers count by mean relative accuracy: the share of the ten thresholds t = 0.50, 0.55, ...,
0.95 with |p - g| / g <= 1 - t (the paper writes "<", the code "<="). Overall is the mean of eight tasks, of which the
three directions are one. No protocol drops a reply. Protocols, each also with "/debiased" or "/pruned" for that subset:

- `official`: what stands before the first space, without full stops at its end, is the letter or the number.
- `lmms_eval` (0.7.3): a number is the first one anywhere, in digits or in English words.
- `vlmevalkit` (160057c, vlmeval/dataset/vsibench.py): `vlmevalkit_spatial` reads both; another prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import isfinite
from typing import Any, ClassVar

import numpy as np

from gemvlm.evaluation.benchmark import Convention, Item, Score, means
from gemvlm.evaluation.benchmarks.folder import FolderBenchmark
from gemvlm.evaluation.benchmarks.lettered import letters_of, mean_of, texts, truth_letter
from gemvlm.evaluation.benchmarks.vlmevalkit_spatial import vlmevalkit_spatial_letter, vlmevalkit_spatial_number
from gemvlm.evaluation.choices import TENS, UNITS, number_in_words, thinking_in_space_number, thinking_in_space_word
from gemvlm.evaluation.published import need, rows, video

DIRECTIONS = ("object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard")
CHOICES = (*DIRECTIONS, "object_rel_distance", "route_planning", "obj_appearance_order")
NUMBERS = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")
SUBSETS = {"": "test.jsonl", "/debiased": "test_debiased.parquet", "/pruned": "test_pruned.parquet"}
PROTOCOLS = tuple(rule + subset for rule in ("official", "lmms_eval", "vlmevalkit") for subset in SUBSETS)

THRESHOLDS = np.linspace(0.5, 0.95, 10)
GUESSES = tuple(range(1, 11))
"""What someone says who only knows that a number is asked for."""

BEFORE = "These are frames of a video."
ASKS_LETTER = "Answer with the option's letter from the given choices directly."
ASKS_NUMBER = "Please answer the question using a single word or phrase."
ASKS_FLOAT = "Answer briefly and directly in one float number."

_DIGITS = re.compile(r"-?\d+(?:\.\d+)?")
_WORDS = re.compile(r"[a-z]+")
_NUMERALS = {*UNITS, *TENS, "hundred", "thousand"}


@dataclass(frozen=True)
class VsiBench(FolderBenchmark):
    """VSI-Bench in `folder` under one of `PROTOCOLS`; 32 frames of each video, as the official run."""

    name: ClassVar[str] = "vsi_bench"
    hub_id: ClassVar[str] = "nyu-visionx/VSI-Bench"
    protocols = PROTOCOLS

    @property
    def rule(self) -> str:
        return self.protocol.partition("/")[0]

    def read(self) -> Iterator[Item]:
        subset = self.protocol.removeprefix(self.rule)
        for where, row in rows(self.folder, SUBSETS[subset]):
            scene = f"{need(row, 'dataset', str, where)}/{need(row, 'scene_name', str, where)}"
            kind = need(row, "question_type", str, where)
            options: tuple[str, ...] = ()
            truth: str | float
            if kind in CHOICES:
                options = texts(need(row, "options", list, where), "options", where)
                truth = truth_letter(need(row, "ground_truth", str, where), options, where)
            elif kind in NUMBERS:
                truth = _number(need(row, "ground_truth", (str, int, float), where), where)
            else:
                raise ValueError(
                    f"{where}: question_type {kind!r} is unknown; known are {', '.join(CHOICES + NUMBERS)}"
                )
            yield Item(
                id=str(need(row, "id", (int, str), where)),
                media=(video(f"{scene}.mp4", self.folder, where),),
                prompt=_prompt(need(row, "question", str, where), options, self.rule),
                truth=truth,
                category=kind,
                scene=scene,
                options=options,
                max_new_tokens=16,
            )

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        if item.category in CHOICES:
            letter = vlmevalkit_spatial_letter(reply) if self.rule == "vlmevalkit" else thinking_in_space_word(reply)
            letter = (letter or "").upper()
            return Score(float(letter == item.truth), letter if letter in letters_of(item) else None)
        value = _NUMBER_READERS[self.rule](reply)
        if value is None or not isfinite(value):
            return Score(0.0, None)
        return Score(mean_relative_accuracy(value, item.truth), value)

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """Each task, the parts of direction too, and the unweighted mean of the (eight) tasks that are there."""
        kinds = means(items, scores)
        tasks = {kind: value for kind, value in kinds.items() if kind not in DIRECTIONS}
        if directions := [kinds[kind] for kind in DIRECTIONS if kind in kinds]:
            tasks["object_rel_direction"] = mean_of(directions)
        return (
            {"overall": mean_of([*tasks.values()])}
            | tasks
            | {kind: kinds[kind] for kind in DIRECTIONS if kind in kinds}
        )

    def oracle(self, item: Item, convention: Convention) -> str:
        return item.truth if item.category in CHOICES else np.format_float_positional(item.truth, trim="-")

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        """A random letter, or a whole number from 1 to 10."""
        return str(rng.choice(letters_of(item) if item.category in CHOICES else GUESSES))

    def chance(self, item: Item) -> float:
        if item.category in CHOICES:
            return 1 / len(item.options)
        return float(np.mean([mean_relative_accuracy(float(guess), item.truth) for guess in GUESSES]))


def mean_relative_accuracy(value: float, truth: float) -> float:
    """The share of thresholds that the relative error of `value` keeps, in [0, 1]; a truth of 0 must be met exactly."""
    error = abs(value - truth) / truth if truth else (0.0 if value == truth else float("inf"))
    return float(np.mean(error <= 1 - THRESHOLDS))


def first_number_or_words(reply: str) -> float | None:
    """lmms-eval's number: digits or English numerals ("three hundred and two"), whichever stand first in the reply."""
    text = reply.lower()
    digits = _DIGITS.search(text)
    words = list(_WORDS.finditer(text))
    start = next((place for place, word in enumerate(words) if word[0] in _NUMERALS), None)
    if digits and (start is None or digits.start() < words[start].start()):
        return float(digits[0])
    if start is None:
        return None
    number = number_in_words(" ".join(takewhile(_is_numeral, (word[0] for word in words[start:]))))
    return None if number is None else float(number)


_NUMBER_READERS = {
    "official": thinking_in_space_number,
    "lmms_eval": first_number_or_words,
    "vlmevalkit": vlmevalkit_spatial_number,
}


def _is_numeral(word: str) -> bool:
    return word in _NUMERALS or word == "and"


def _prompt(question: str, options: Sequence[str], rule: str) -> str:
    if rule == "vlmevalkit":
        return "\n".join([BEFORE, question, *options, ASKS_LETTER if options else ASKS_FLOAT])
    return "\n".join([BEFORE, question, *(["Options:", *options, ASKS_LETTER] if options else [ASKS_NUMBER])])


def _number(written: Any, where: str) -> float:
    try:
        value = float(written)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{where}: field 'ground_truth' must be a number of at least 0, found {written!r:.80}")
    return value
