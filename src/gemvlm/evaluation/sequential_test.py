"""A paired test that may be looked at after every pair, and intervals that hold whenever one stops.

Of pairs in which exactly one policy succeeded, A has won W and B L. If both are equally likely to win such a pair, then

    E(W, L) = 2^(W+L) B(W+1, L+1) = 2^n W! L! / (n+1)!,   n = W + L

the uniform mixture's likelihood over the coin's, is a non-negative martingale of mean 1, so that by Ville's inequality
(1939) it ever reaches 1/level with a probability of at most `level`: one may look after each pair and stop at will.
The same for a rate p gives, at every moment at once, the interval of those p with B(s+1, f+1) / (p^s (1-p)^f) < 1/level
(Robbins, 1970). Pairs need not resemble each other: within each the order was drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from gemvlm.statistics import Interval

LEVEL = 0.05
HALVINGS = 40
"""Of the distance in which an interval's end lies."""


def evidence(wins: int, losses: int) -> float:
    """E(W, L): how many times better the outcomes are explained by one of the two being better."""
    return math.exp(_log_mixture(wins, losses) + (wins + losses) * math.log(2))


def decides(outcomes: Sequence[int], level: float = LEVEL) -> int | None:
    """After how many pairs the rule stops, None if it does not; outcomes are 1 (A alone), -1 (B alone), 0 (alike)."""
    wins = losses = 0
    for count, outcome in enumerate(outcomes, start=1):
        wins, losses = wins + (outcome > 0), losses + (outcome < 0)
        if evidence(wins, losses) >= 1 / level:
            return count
    return None


def false_alarm(pairs: int, level: float = LEVEL) -> float:
    """The exact probability that equal policies are told apart within so many pairs that differ: at most `level`."""
    alive, stopped = {0: 1.0}, 0.0
    for count in range(1, pairs + 1):
        following: dict[int, float] = {}
        for wins, chance in alive.items():
            for more in (0, 1):
                following[wins + more] = following.get(wins + more, 0.0) + chance / 2
        alive = {}
        for wins, chance in following.items():
            if evidence(wins, count - wins) >= 1 / level:
                stopped += chance
            else:
                alive[wins] = chance
    return stopped


@dataclass(frozen=True)
class Power:
    """How often a plan tells policies of given rates apart, how often the wrong way round, and after how many pairs.

    `typical_pairs` is the median of those that stopped, NaN if none did.
    """

    decided: float
    wrong: float
    typical_pairs: float


def power(better: float, worse: float, pairs: int, level: float = LEVEL, runs: int = 2000, seed: int = 0) -> Power:
    """By simulation, both policies of a pair succeeding independently of each other."""
    rng = np.random.default_rng(seed)
    outcomes = (rng.random((runs, pairs)) < better).astype(int) - (rng.random((runs, pairs)) < worse)
    wins, losses = np.cumsum(outcomes > 0, axis=1), np.cumsum(outcomes < 0, axis=1)
    factorials = np.cumsum([0.0, *np.log(np.arange(1, pairs + 2))])
    count = wins + losses
    found = factorials[wins] + factorials[losses] - factorials[count + 1] + count * math.log(2) >= -math.log(level)
    stopped, first = found.any(axis=1), found.argmax(axis=1)
    ahead: Int64[np.ndarray, "R"] = np.take_along_axis(wins - losses, first[:, None], axis=1)[:, 0]
    typical = float(np.median(first[stopped] + 1)) if stopped.any() else math.nan
    return Power(float(stopped.mean()), float((stopped & (ahead < 0)).mean()), typical)


def lasting_interval(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """A rate's interval that covers it at every moment at once, so also at the one at which somebody stopped."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials is no rate")
    rate, failures = successes / trials, trials - successes
    limit = _log_mixture(successes, failures) + math.log(level)
    ends = []
    for out, known in ((0.0, not successes), (1.0, not failures)):
        within = out if known else rate
        for _ in range(0 if known else HALVINGS):
            middle = (out + within) / 2
            if successes * math.log(middle) + failures * math.log1p(-middle) > limit:
                within = middle
            else:
                out = middle
        ends.append((out + within) / 2)
    return Interval(rate, ends[0], ends[1], trials)


def _log_mixture(one: int, other: int) -> float:
    return math.lgamma(one + 1) + math.lgamma(other + 1) - math.lgamma(one + other + 2)
