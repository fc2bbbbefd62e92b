"""Numbers in metres: how far an object is, how far two are apart. Rules R3 and R4 of the data notes.

The cue of a number is what a shortcut would measure (height or area in the image), not an answer: evaluation fits the
answer to it on training turns, which is the strongest use that can be made of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemvlm.curation.questions.boxes import center_distance_m
from gemvlm.curation.questions.visibility import Seen
from gemvlm.curation.questions.wording import pairs, pick, shuffled
from gemvlm.sample import Turn

DEPTH_SPREAD = 0.1
"""Between the quartiles of the visible depth, relative: an object deeper than that has no one distance."""
DEPTH_TOLERANCE, DISTANCE_TOLERANCE = 0.1, 0.2
MIN_DISTANCE_M = 0.1


def object_depth(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Depth of an object: the median z-depth of its visible pixels (R3)."""
    for o in shuffled(seen.referable, rng):
        low, high = np.percentile(o.depths_m, (25, 75))
        if high - low <= DEPTH_SPREAD * o.median_m:
            name = seen.refer(o, rng)
            question = pick(
                (f"How many metres away is the {name}?", f"What is the depth of the {name} in metres?"), rng
            )
            yield Turn(
                question,
                f"{o.median_m:.2f}",
                family="object_depth",
                task="reasoning",
                kind="number",
                unit="m",
                tolerance=DEPTH_TOLERANCE,
                cues={"height": f"{o.y:.4f}", "size": f"{o.area / (o.size[0] * o.size[1]):.5f}"},
            )


def distance(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Distance between the centres of two objects (R4), at least 0.1 m; the cue is their distance in the image."""
    for a, b in pairs([o for o in seen.referable if not o.touches_border], rng):
        distance_m = center_distance_m(a.state, b.state)
        if distance_m >= MIN_DISTANCE_M:
            first, second = seen.refer(a, rng), seen.refer(b, rng)
            question = f"How many metres apart are the centres of the {first} and the {second}?"
            in_image = np.hypot((a.x - b.x) * a.size[1], (a.y - b.y) * a.size[0]) / a.size[1]
            yield Turn(
                question,
                f"{distance_m:.2f}",
                family="distance",
                task="reasoning",
                kind="number",
                unit="m",
                tolerance=DISTANCE_TOLERANCE,
                cues={"image_distance": f"{in_image:.4f}", "height": f"{(a.y + b.y) / 2:.4f}"},
            )
