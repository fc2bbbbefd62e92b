"""Dense descriptions: every object in order, with colour, shape and place.

They stand before anything else a small model learns, so they say nothing about depth. `describe` lists objects left to
right in the image; `scan` reads the image cell by cell, so that each word has one place to look at.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemvlm.curation.questions.visibility import Seen
from gemvlm.curation.questions.wording import pick
from gemvlm.sample import Turn

SCAN_CELLS = 12
"""Rows and columns of a scan: at 96 x 96 pixels one cell for each vision patch of 8."""


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


def scan(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """What the centre of each of 12 x 12 cells shows, a line for each row: `wall wall red mug table ...`."""
    rows, columns = ((np.arange(SCAN_CELLS) + 0.5) * side / SCAN_CELLS for side in seen.size)
    ids = seen.observation.ids[np.ix_(rows.astype(int), columns.astype(int))]
    names = {o.id: o.full_name for o in seen.objects} | {o.id: o.state.category for o in seen.structures}
    answer = "\n".join(" ".join(names.get(int(cell), "nothing") for cell in row) for row in ids)
    question = pick(("Scan the image.", "What does each cell of a 12 by 12 grid show?"), rng)
    yield Turn(question, answer, family="scan", task="description", kind="text")
