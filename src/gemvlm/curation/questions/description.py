"""Dense descriptions: every object in order, with colour, shape and place.

They stand before anything else a small model learns, so they say nothing about depth: the order is left
to right in the image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemvlm.curation.questions.visibility import Seen
from gemvlm.curation.questions.wording import pick
from gemvlm.sample import Turn


def describe(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Every nameable object, left to right by the place named: `red mug <place:0>; blue box <place:1>`."""
    objects = sorted(seen.nameable, key=lambda o: (o.point.x, o.point.y))
    if not objects:
        return
    question = pick(
        ("Describe the scene.", "List every object from left to right.", "What is in the image, and where?"), rng
    )
    answer = "; ".join(f"{o.full_name} <place:{i}>" for i, o in enumerate(objects))
    places = tuple(o.point for o in objects)
    yield Turn(question, answer, family="describe", task="description", kind="text", places=places)
