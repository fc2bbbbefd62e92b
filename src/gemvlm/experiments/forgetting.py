"""What an arm must not forget while it learns: to describe what it sees, and to speak without an image.

    caption     descriptions of held-out scenes, with their image
    text_only   the same descriptions with the image left out: what the model knows of the language itself
    general     short facts about the world, no image: only of models that began with published weights

Each is the surprise of the true words in nats per token (its exponential is the perplexity), one for each item, kept in
`forgetting.json` beside an arm's scores. Stage 0, or the given weights, are measured as well: forgetting is a rise over
them. A model that was trained from nothing on images alone has never seen text without one, so that its `text_only` is
worth comparing between arms only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemvlm.experiments.experiment import Experiment
from gemvlm.experiments.measure import surprise, write_json
from gemvlm.inference.pipeline import GemPipeline
from gemvlm.sample import Sample, Turn

FORGETTING = "forgetting.json"
MEASURES = ("caption", "text_only", "general")

GENERAL = (
    ("What is the capital of France?", "Paris"),
    ("How many legs does a spider have?", "eight"),
    ("What is seven times six?", "42"),
    ("Which planet is closest to the sun?", "Mercury"),
    ("What is the opposite of hot?", "cold"),
    ("Name a metal that is liquid at room temperature.", "mercury"),
    ("What do bees make?", "honey"),
    ("How many days are there in a week?", "seven"),
    ("What gas do plants take in from the air?", "carbon dioxide"),
    ("In which direction does the sun rise?", "in the east"),
    ("What is the plural of mouse?", "mice"),
    ("What is 100 minus 37?", "63"),
    ("At how many degrees Celsius does water boil at sea level?", "100"),
    ("Which ocean lies between Europe and America?", "the Atlantic"),
    ("What is a baby dog called?", "a puppy"),
    ("Who wrote Hamlet?", "William Shakespeare"),
    ("What is the chemical formula of water?", "H2O"),
    ("Which month comes after April?", "May"),
    ("How many sides does a hexagon have?", "six"),
    ("What is the largest animal on Earth?", "the blue whale"),
    ("Translate into Spanish: thank you.", "gracias"),
    ("What do you call frozen water?", "ice"),
    ("If all cats are animals, is a cat an animal?", "yes"),
    ("What is the square root of 81?", "9"),
)
"""Question and answer, in our words."""

Forgetting = Mapping[str, Sequence[tuple[str, float]]]
"""Measure → (scene, nats per token) of each item."""


def write_forgetting(pipeline: GemPipeline, described: Sequence[Sample], general: bool, path: Path) -> None:
    """Measures the model on the descriptions of `described`; `path` appears whole or not at all."""
    captions = [replace(sample, turns=(turn,)) for sample in described for turn in sample.turns]
    sets = {"caption": captions, "text_only": [replace(sample, frames=()) for sample in captions]}
    if general:
        sets["general"] = [
            Sample(f"general-{n}", (), (Turn(question, answer, "general", "description", "text"),), f"fact-{n}", "")
            for n, (question, answer) in enumerate(GENERAL)
        ]
    found = {}
    for name, samples in sets.items():
        nats = surprise(pipeline.gem, samples, pipeline.tokenizer, pipeline.card).tolist()
        found[name] = [(sample.scene, each) for sample, each in zip(samples, nats, strict=True)]
    write_json(found, path)


def read_forgetting(path: Path) -> Forgetting:
    return {name: [(s, n) for s, n in each] for name, each in json.loads(path.read_text(encoding="utf-8")).items()}


def finished_forgetting(experiment: Experiment, out: Path) -> dict[str, dict[int, Forgetting]]:
    """Arm → seed → what was measured; see `Experiment.files` for what stands beside the arms."""
    files = experiment.files(out, FORGETTING)
    return {arm: {seed: read_forgetting(path) for seed, path in by_seed.items()} for arm, by_seed in files.items()}


def mean_nats(by_seed: Mapping[int, Forgetting], measure: str) -> list[float]:
    """The mean over items of each seed in order; empty if none was measured."""
    each = [by_seed[seed].get(measure, ()) for seed in sorted(by_seed)]
    return [float(np.mean([nats for _, nats in items])) for items in each if items]
