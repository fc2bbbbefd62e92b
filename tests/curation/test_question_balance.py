"""The headline subset: no shortcut beats a coin there, whatever it beats elsewhere."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from gemvlm.curation.questions.balance import mark_headline, shortcut_free
from gemvlm.evaluation.shortcuts import shortcut_scores
from gemvlm.sample import Frame, Sample, Turn

KINDS, COLOURS = ("ball", "book", "can", "mug"), ("red", "green", "blue", "white")


def sample(name, *turns):
    return Sample(name, (Frame(np.zeros((2, 2, 3), np.uint8)),), turns, name, "made up")


def leaky_samples(count, seed):
    """Questions "which is closer" that three shortcuts answer: height in 8 of 10 cases, size in 7, the kind in most."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        kinds = rng.permutation(len(KINDS))[:2]
        options = tuple(f"{COLOURS[rng.integers(4)]} {KINDS[k]}" for k in kinds)
        right = int(kinds[0] < kinds[1]) if rng.random() < 0.3 else int(rng.random() < 0.5)
        cues = {"height": options[right if rng.random() < 0.8 else 1 - right],
                "size": options[right if rng.random() < 0.7 else 1 - right]}  # fmt: skip
        question = f"Which is closer, the {options[0]} or the {options[1]}?"
        turn = Turn(question, options[right], "closer", "reasoning", "choice", options=options, cues=cues)
        shape = Turn("What is the red object?", KINDS[kinds[0]], "shape", "reasoning", "text")
        samples.append(sample(f"s{seed}-{index}", turn, shape))
    return samples


def items(samples):
    return [(s, turn) for s in samples for turn in s.turns]


def test_every_shortcut_is_at_chance_in_the_headline_subset_and_above_it_elsewhere():
    train = [turn for _, turn in items(leaky_samples(1500, 0)) if turn.family == "closer"]
    everything = items(leaky_samples(3500, 1))
    all_scores = shortcut_scores(train, [turn for _, turn in everything if turn.family == "closer"])
    assert all(all_scores[name].mean() > 0.55 for name in ("text_only", "height", "size"))
    headline = [turn for _, turn in shortcut_free(everything)]
    scores = shortcut_scores(train, headline)
    assert len(headline) >= 500 and {turn.family for turn in headline} == {"closer"}
    for name, values in scores.items():
        assert abs(values.mean() - 0.5) <= 0.03, name
    together = [turn.cues["height"] == turn.cues["size"] == turn.answer for turn in headline]
    agreeing = [turn for turn in headline if turn.cues["height"] == turn.cues["size"]]
    assert sum(together) * 2 == len(agreeing)


def test_yes_and_no_are_equal_for_every_kind_of_object():
    rng = np.random.default_rng(0)
    turns = []
    for _ in range(400):
        kind = KINDS[rng.integers(4)]
        answer = "yes" if rng.random() < (0.9 if kind == "mug" else 0.4) else "no"
        turns.append(Turn(f"Is the red {kind} free to lift?", answer, "can_lift", "planning", "yes_no"))
    shapes = [Turn("What is the red object?", kind, "shape", "reasoning", "text") for kind in KINDS]
    kept = [turn for _, turn in shortcut_free(items([sample("s", *shapes, *turns)]))]
    by_kind = Counter((turn.question.split()[3], turn.answer) for turn in kept)
    assert all(by_kind[kind, "yes"] == by_kind[kind, "no"] > 0 for kind in KINDS)


def test_marking_changes_subsets_only_and_the_same_turns_every_time():
    samples = leaky_samples(300, 2)
    marked = mark_headline(samples)
    assert [s.id for s in marked] == [s.id for s in samples]
    chosen = [turn for s in marked for turn in s.turns if "headline" in turn.subsets]
    assert chosen == [turn for _, turn in shortcut_free(items(samples))]
    assert sum(len(s.turns) for s in marked) == 600


@pytest.mark.slow
def test_the_tabletop_headline_has_no_shortcut():
    """On real scenes, for every comparison: each shortcut within 3 points of chance."""
    pytest.importorskip("mujoco", reason="the tabletop world needs the extra `worlds`")
    from gemvlm.curation.sources.tabletop import tabletop_samples

    families = ("shape", "closer", "left_right", "perspective")
    train = items(tabletop_samples(range(100), families=families, turns_per_family=6))
    headline = [
        turn
        for _, turn in shortcut_free(items(tabletop_samples(range(900, 1150), families=families, turns_per_family=6)))
    ]
    for family in families[1:]:
        test = [turn for turn in headline if turn.family == family]
        scores = shortcut_scores([turn for _, turn in train if turn.family == family], test)
        assert len(test) >= 300
        assert {name: v.mean() for name, v in scores.items() if abs(v.mean() - 0.5) > 0.03} == {}
