"""Dense descriptions: every object in order, with colour, shape and place.

They stand before anything else a small model learns, so they say nothing about depth. `describe` lists objects left to
right in the image; `places` says what is at many places, so that each word has one place to look at.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int

from gemvlm.curation.questions.visibility import Seen, pixel_centre
from gemvlm.curation.questions.wording import pick
from gemvlm.sample import Turn

PLACES = 16
ROUNDS = 8


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


def places(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """What is at each of 16 places: `<place:0> red mug; <place:1> wall; ...`.

    Half of them lie on objects, each object as likely as the next, half anywhere. The 8 pixels around a place show the
    same thing, so that rounding its coordinates can't move it off.
    """
    ids = seen.observation.ids
    rows, columns = np.nonzero(_inside(ids))
    if not len(rows):
        return
    names = {o.id: o.full_name for o in seen.objects} | {o.id: o.state.category for o in seen.structures}
    of = ids[rows, columns]
    by_object = [np.flatnonzero(of == o.id) for o in seen.nameable if (of == o.id).any()]
    for _ in range(ROUNDS):
        chosen = [int(rng.integers(len(rows))) for _ in range(PLACES)]
        for i in range(PLACES // 2 if by_object else 0):
            chosen[i] = int(rng.choice(by_object[rng.integers(len(by_object))]))
        rng.shuffle(chosen)
        answer = "; ".join(f"<place:{i}> {names.get(int(of[pixel]), 'nothing')}" for i, pixel in enumerate(chosen))
        question = pick((f"Name what is at {PLACES} places.", f"Pick {PLACES} places. What is at each?"), rng)
        points = tuple(pixel_centre(int(rows[i]), int(columns[i]), seen.size) for i in chosen)
        yield Turn(question, answer, family="places", task="description", kind="text", places=points)


def _inside(ids: Int[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Pixels whose 8 neighbours show the same thing."""
    windows = np.lib.stride_tricks.sliding_window_view(ids, (3, 3))
    inside = np.zeros(ids.shape, dtype=bool)
    inside[1:-1, 1:-1] = (windows == ids[1:-1, 1:-1, None, None]).all(axis=(2, 3))
    return inside
