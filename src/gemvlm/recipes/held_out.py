"""The held-out test of tabletop models: scenes of no training, enough questions of every family, a fair headline."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

from gemvlm.curation.questions import FAMILIES
from gemvlm.curation.questions.balance import HEADLINE, mark_headline
from gemvlm.curation.sources.tabletop import tabletop_samples
from gemvlm.data.collate import keyed
from gemvlm.evaluation.run import Evaluation, evaluate_model
from gemvlm.inference import GemPipeline
from gemvlm.recipes.recipe import TEST_SEED
from gemvlm.recipes.run import progress
from gemvlm.runtime import available_cores
from gemvlm.sample import Sample, Turn

COMPARED = ("left_right", "above_below", "closer", "larger", "nearer_to", "perspective")
"""Families of two answers: many are written, so that enough are left once every shortcut is balanced out."""
CANDIDATES = 6
VIEWS_PER_SCENE = 2
FITTED_SCENES = 150
"""Training scenes that the blind baselines are fitted on."""

GOALS = {
    "colour": 0.95,
    "shape": 0.95,
    "object_at": 0.95,
    "point": 0.80,
    "object_depth": 0.75,
    **{f"{family}, {HEADLINE}": 0.85 for family in COMPARED},
}


def held_out_samples(scenes: int, per_family: int, depth_views: int, first_seed: int = TEST_SEED) -> list[Sample]:
    """Views of `scenes` test scenes, at most `per_family` questions of each family and as many of its headline.

    Which questions are kept depends on their scene and place in it alone. The first
    `depth_views` views keep their depth.
    """
    counts = {name: CANDIDATES if name in COMPARED else 2 for name in FAMILIES} | {"scan": 0}
    seeds = range(first_seed, first_seed + scenes)
    made = tabletop_samples(seeds, VIEWS_PER_SCENE, processes=available_cores(), turns_per_family=counts)
    samples = mark_headline(list(progress(made, scenes * VIEWS_PER_SCENE, "making test scenes")))
    kept = _chosen(samples, per_family)
    chosen = []
    for index, sample in enumerate(samples):
        frames = sample.frames
        if index >= depth_views:
            frames = tuple(dataclasses.replace(frame, depth=None) for frame in frames)
        turns = tuple(turn for place, turn in enumerate(sample.turns) if (index, place) in kept)
        if turns or index < depth_views:
            chosen.append(dataclasses.replace(sample, frames=frames, turns=turns))
    return chosen


def _chosen(samples: list[Sample], per_family: int) -> set[tuple[int, int]]:
    """(sample, turn) places: in an order fixed by hashing, until each family and each headline has `per_family`."""
    places = [(keyed(s.id, j), i, j) for i, s in enumerate(samples) for j in range(len(s.turns))]
    taken: Counter[tuple[str, str]] = Counter()
    kept: set[tuple[int, int]] = set()
    # Headline questions first: they count for their family as well.
    for _, i, j in sorted(places, key=lambda place: (HEADLINE not in samples[place[1]].turns[place[2]].subsets, place)):
        names = _names(samples[i].turns[j])
        if any(taken[name] < per_family for name in names):
            taken.update(names)
            kept.add((i, j))
    return kept


def _names(turn: Turn) -> list[tuple[str, str]]:
    """What a question counts for; a headline question is part of its family's other scores only by chance."""
    return [(turn.family, subset) for subset in turn.subsets] or [(turn.family, "")]


def evaluate_held_out(
    pipeline: GemPipeline,
    out: Path,
    *,
    scenes: int,
    per_family: int,
    depth_views: int,
    steps: int,
    guidance: float,
    seed: int,
) -> Evaluation:
    """Scores a model on the held-out test; writes answers, scores and a page to `out`."""
    test = held_out_samples(scenes, per_family, depth_views)
    seeds = range(FITTED_SCENES)
    fitted = list(tabletop_samples(seeds, VIEWS_PER_SCENE, processes=available_cores(), turns_per_family=2))
    evaluation = evaluate_model(pipeline, test, fitted, out, steps=steps, guidance=guidance, seed=seed)
    evaluation.write(out, f"{pipeline.card.recipe} on {scenes} held-out scenes")
    return evaluation
