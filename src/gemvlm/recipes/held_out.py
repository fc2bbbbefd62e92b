"""The held-out test of tabletop models: scenes of no training, enough questions of every family, a fair headline."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gemvlm.curation.questions import CORE_FAMILIES
from gemvlm.curation.questions.balance import HEADLINE, mark_headline
from gemvlm.curation.sources.tabletop import tabletop_samples
from gemvlm.data.collate import keyed
from gemvlm.evaluation.run import Evaluation, evaluate_model
from gemvlm.evaluation.shortcuts import words_only
from gemvlm.inference import GemPipeline
from gemvlm.recipes.data import progress
from gemvlm.recipes.recipe import TEST_SEED
from gemvlm.runtime import available_cores
from gemvlm.sample import Sample
from gemvlm.worlds.tabletop import SceneConfig

COMPARED = ("left_right", "above_below", "closer", "larger", "nearer_to", "perspective")
RARE = ("larger", "occluded", "can_lift", "consequence")
"""Families of which few questions are left once every shortcut is balanced out: further scenes are made for them."""
CANDIDATES = 6
"""Questions written about one view of each family of two answers, so that enough are left."""
FURTHER_SCENES = 1
"""For the rare families, for each scene of all families."""
VIEWS_PER_SCENE = 2
SIZE = (96, 96)
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


def fitted_samples(
    size: tuple[int, int] = SIZE,
    families: Sequence[str] = CORE_FAMILIES,
    scenes: int | None = None,
    config: SceneConfig | None = None,
) -> list[Sample]:
    """Training samples: what the blind baselines learn from."""
    seeds = range(scenes or FITTED_SCENES)
    cores = available_cores()
    return list(tabletop_samples(seeds, VIEWS_PER_SCENE, size, config, cores, families=families, turns_per_family=2))


def held_out_samples(
    fitted: Sequence[Sample],
    scenes: int,
    per_family: int,
    depth_views: int,
    first_seed: int = TEST_SEED,
    *,
    size: tuple[int, int] = SIZE,
    config: SceneConfig | None = None,
    families: Sequence[str] = CORE_FAMILIES,
) -> list[Sample]:
    """Views of `scenes` test scenes, at most `per_family` questions of each family and as many of its headline.

    The headline is drawn in pairs which every shortcut gets half right, the words as read by who learned on `fitted`
    too. Which other questions are kept depends on their scene and place in it alone. The first `depth_views` views keep
    their depth; the last come from scenes made for the rare families.
    """
    counts = {name: CANDIDATES if name in (*COMPARED, *RARE) else 2 for name in families}
    last = first_seed + scenes
    rare = tuple(name for name in RARE if name in families)
    batches = ((range(first_seed, last), families), (range(last, last + FURTHER_SCENES * scenes), rare))
    made = (
        sample
        for seeds, asked in batches
        for sample in tabletop_samples(
            seeds, VIEWS_PER_SCENE, size, config, available_cores(), families=asked, turns_per_family=counts
        )
    )
    total = (1 + FURTHER_SCENES) * scenes * VIEWS_PER_SCENE
    words = words_only([turn for sample in fitted for turn in sample.turns])
    samples = mark_headline(list(progress(made, total, "making test scenes")), per_family, words)
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
    """(sample, turn) places: the whole headline, and of each family as many others, in an order fixed by hashing."""
    places = [(keyed(s.id, j), i, j) for i, s in enumerate(samples) for j in range(len(s.turns))]
    kept: set[tuple[int, int]] = set()
    taken: Counter[str] = Counter()
    for _, i, j in sorted(places):
        turn = samples[i].turns[j]
        if HEADLINE in turn.subsets:
            kept.add((i, j))
        elif taken[turn.family] < per_family:
            taken[turn.family] += 1
            kept.add((i, j))
    return kept


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
    fitted = fitted_samples()
    test = held_out_samples(fitted, scenes, per_family, depth_views)
    evaluation = evaluate_model(pipeline, test, fitted, out, steps=steps, guidance=guidance, seed=seed)
    evaluation.write(out, f"{pipeline.card.recipe} on {scenes} held-out scenes")
    return evaluation
