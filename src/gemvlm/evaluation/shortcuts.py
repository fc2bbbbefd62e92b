"""Blind baselines: what a question family yields to someone who does not understand the picture.

Every baseline learns from training turns and answers test turns of one family:

    chance          a uniform draw from the options, or a random pixel; 0 where there is nothing to draw from
    majority        the best single answer (of a choice: the best position; of a place: the mean place; of a
                    trajectory: the mean path; none of several points)
    text_only       the question's words, and the options', without the image
    height, size, … one measurement in the image (`Turn.cues`): its answer, or for numbers the answer fitted to it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple
from itertools import pairwise
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from gemvlm.data.conversation import ParsedAnswer, parse
from gemvlm.evaluation.scoring import mean_path, score, true_path, true_place
from gemvlm.sample import PLACE_MARKER, Box, Point, Turn

Label = TypeVar("Label", int, str)
"""A class: an answer, or the number of a bin."""

NUMBER_CLASSES = 20
"""Families with more distinct numbers than this are cut into as many bins, each answered by its best member."""
RIDGE = 1.0

Guess = Callable[[Turn], ParsedAnswer | None]
"""None means: no opinion, scored as chance."""


def shortcut_scores(train: Sequence[Turn], test: Sequence[Turn]) -> dict[str, Float[np.ndarray, "N"]]:
    """Scores in [0, 1] of every baseline on each turn of `test`; both hold turns of one family.

    Without training turns only chance and the cues of choices remain.
    """
    families = {turn.family for turn in (*train, *test)}
    if len(families) != 1:
        raise ValueError(f"shortcut_scores: turns of {sorted(families)} given; baselines are fitted family by family")
    train = [turn for turn in train if _is_understood(turn)]
    chance = np.array([_chance(turn, train) for turn in test])
    guesses: dict[str, Guess] = {}
    if train:
        guesses |= {"majority": _majority(train), "text_only": _text_only(train)}
    for cue in sorted({cue for turn in test for cue in turn.cues}):
        if test[0].kind != "number":
            guesses[cue] = _as_said(cue)
        elif known := [turn for turn in train if cue in turn.cues]:
            guesses[cue] = _calibrated(known, cue)
    scores = {"chance": chance}
    for name, guess in guesses.items():
        answers = [guess(turn) for turn in test]
        scores[name] = np.array(
            [c if a is None else score(turn, a) for turn, a, c in zip(test, answers, chance, strict=True)]
        )
    return scores


def words_only(train: Sequence[Turn]) -> Callable[[Turn], str | None]:
    """What `text_only`, fitted on turns of any families, answers to choices and yes/no; None for a family not there."""
    guesses = {
        family: _text_only([turn for turn in train if turn.family == family])
        for family in dict.fromkeys(turn.family for turn in train if turn.kind in ("choice", "yes_no"))
    }

    def answer(turn: Turn) -> str | None:
        guess = guesses[turn.family](turn) if turn.family in guesses else None
        if guess is None or guess.value is None:
            return None
        return {True: "yes", False: "no"}[guess.value] if isinstance(guess.value, bool) else str(guess.value)

    return answer


def _is_understood(turn: Turn) -> bool:
    """Whether something can be learned from a turn: free text always, a number only if its answer is one."""
    return turn.kind != "number" or _parsed(turn, turn.answer).value is not None


def _chance(turn: Turn, train: Sequence[Turn]) -> float:
    if turn.kind == "choice":
        return 1 / len(turn.options)
    if turn.kind == "yes_no":
        return 0.5
    if turn.kind == "point" and turn.region is not None:
        return float(turn.region.to_mask().mean())
    if turn.kind == "text" and train and turn.task != "description":
        return 1 / len({known.answer for known in train})
    return 0.0


def _as_said(cue: str) -> Guess:
    return lambda turn: _parsed(turn, turn.cues[cue]) if cue in turn.cues else None


def _majority(train: Sequence[Turn]) -> Guess:
    first = train[0]
    if first.kind == "choice":
        position = Counter(turn.options.index(turn.answer) for turn in train).most_common(1)[0][0]
        return lambda turn: ParsedAnswer("choice", turn.options[min(position, len(turn.options) - 1)])
    if first.kind in ("point", "box"):
        mean = _place(first, np.mean([astuple(true_place(turn)) for turn in train], axis=0))
        return lambda turn: mean
    if first.kind == "trajectory":
        path = ParsedAnswer("trajectory", mean_path([true_path(turn) for turn in train]))
        return lambda turn: path
    if first.kind == "points":
        return lambda turn: None
    if first.kind == "number":
        best = _best_number(train)
        return lambda turn: best
    answer = Counter(turn.answer for turn in train).most_common(1)[0][0]
    return lambda turn: _parsed(turn, answer)


def _text_only(train: Sequence[Turn]) -> Guess:
    kind = train[0].kind
    if kind in ("point", "box"):
        return _regression(train)
    if kind in ("points", "trajectory"):
        return _majority(train)
    if kind == "choice" and len({frozenset(turn.options) for turn in train}) > 1:
        return _option_odds(train)
    if kind == "number":
        bins = _number_bins(train)
        answers = {i: _best_number([turn for turn, b in zip(train, bins, strict=True) if b == i]) for i in set(bins)}
        which_bin = _naive_bayes([_words(turn) for turn in train], bins)
        return lambda turn: answers[which_bin(_words(turn))]
    predict = _naive_bayes([_words(turn) for turn in train], [turn.answer for turn in train])
    return lambda turn: _parsed(turn, predict(_words(turn)))


def _words(turn: Turn) -> list[str]:
    words = PLACE_MARKER.sub(" ", turn.question).lower().replace("?", " ").replace(",", " ").replace(".", " ").split()
    return [*words, *(f"{a} {b}" for a, b in pairwise(words))]


def _naive_bayes(documents: list[list[str]], labels: list[Label]) -> Callable[[list[str]], Label]:
    """Multinomial naive Bayes over words and pairs of neighbours, with add-one smoothing."""
    classes = sorted(set(labels))
    index = {word: i for i, word in enumerate(sorted({word for words in documents for word in words}))}
    counts = np.ones((len(classes), len(index)))
    prior = np.zeros(len(classes))
    for words, label in zip(documents, labels, strict=True):
        row = classes.index(label)
        prior[row] += 1
        np.add.at(counts[row], [index[word] for word in words], 1)
    log_odds = np.log(counts / counts.sum(axis=1, keepdims=True))
    log_prior = np.log(prior / prior.sum())

    def predict(words: list[str]) -> Label:
        known = [index[word] for word in words if word in index]
        return classes[int(np.argmax(log_prior + log_odds[:, known].sum(axis=1)))]

    return predict


def _option_odds(train: Sequence[Turn]) -> Guess:
    """The option whose words have won most often, by log odds of winning with add-one smoothing."""
    won: Counter[str] = Counter()
    met: Counter[str] = Counter()
    for turn in train:
        for option in turn.options:
            for word in {*option.split(), option}:
                met[word] += 1
                won[word] += option == turn.answer

    def strength(option: str) -> float:
        words = sorted({*option.split(), option})
        return sum(float(np.log((won[word] + 1) / (met[word] - won[word] + 1))) for word in words)

    return lambda turn: ParsedAnswer("choice", max(turn.options, key=strength))


def _regression(train: Sequence[Turn]) -> Guess:
    """Places from the question's words by ridge regression, around the mean place."""
    index = {word: i for i, word in enumerate(sorted({word for turn in train for word in _words(turn)}))}

    def features(turn: Turn) -> Float[np.ndarray, "F"]:
        present = np.zeros(len(index))
        present[[index[word] for word in _words(turn) if word in index]] = 1
        return present

    inputs = np.stack([features(turn) for turn in train])
    outputs = np.array([astuple(true_place(turn)) for turn in train])
    mean_in, mean_out = inputs.mean(axis=0), outputs.mean(axis=0)
    centred = inputs - mean_in
    weights = np.linalg.solve(centred.T @ centred + RIDGE * np.eye(len(index)), centred.T @ (outputs - mean_out))
    return lambda turn: _place(turn, mean_out + (features(turn) - mean_in) @ weights)


def _calibrated(train: Sequence[Turn], cue: str) -> Guess:
    """For numbers: the best answer among training turns whose cue lies in the same of 20 bins."""
    values = np.array([float(turn.cues[cue]) for turn in train])
    edges = np.unique(np.quantile(values, np.linspace(0, 1, NUMBER_CLASSES + 1)[1:-1]))
    places = np.searchsorted(edges, values, side="right")
    overall = _best_number(train)
    best = {int(p): _best_number([turn for turn, q in zip(train, places, strict=True) if q == p]) for p in set(places)}

    def guess(turn: Turn) -> ParsedAnswer | None:
        if cue not in turn.cues:
            return None
        return best.get(int(np.searchsorted(edges, float(turn.cues[cue]), side="right")), overall)

    return guess


def _number_bins(train: Sequence[Turn]) -> list[int]:
    values = np.array([_parsed(turn, turn.answer).value for turn in train], dtype=np.float64)
    if len(set(values.tolist())) <= NUMBER_CLASSES:
        return [int(i) for i in np.unique(values, return_inverse=True)[1]]
    edges = np.quantile(values, np.linspace(0, 1, NUMBER_CLASSES + 1)[1:-1])
    return [int(i) for i in np.searchsorted(edges, values, side="right")]


def _best_number(train: Sequence[Turn]) -> ParsedAnswer:
    """The constant that is within tolerance of most training answers; candidates are 41 of their quantiles."""
    values = np.array([_parsed(turn, turn.answer).value for turn in train], dtype=np.float64)
    tolerance = np.array([turn.tolerance or 0.0 for turn in train])
    candidates = np.quantile(values, np.linspace(0, 1, 41), method="nearest")
    hits = (np.abs(candidates[:, None] - values) <= tolerance * np.abs(values) + 1e-9).sum(axis=1)
    return ParsedAnswer("number", float(candidates[int(np.argmax(hits))]))


def _parsed(turn: Turn, answer: object) -> ParsedAnswer:
    return parse(str(answer), turn.kind, turn.options, turn.unit)


def _place(turn: Turn, values: Float[np.ndarray, "K"]) -> ParsedAnswer:
    numbers = [float(value) for value in values]
    return ParsedAnswer(turn.kind, Point(*numbers) if turn.kind == "point" else Box(*numbers))
