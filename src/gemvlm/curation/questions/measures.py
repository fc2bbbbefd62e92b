"""Numbers in metres: how far an object is, how far two are apart, how large one is. Rules R3, R4 and R11 of the notes.

The cue of a number is what a shortcut would measure (height or area in the image), not an answer: evaluation fits the
answer to it on training turns, which is the strongest use that can be made of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemvlm.curation.questions.boxes import center_distance_m, longest_side_m, vertical_interval_m
from gemvlm.curation.questions.from_depth import SeenDepth
from gemvlm.curation.questions.visibility import Seen, SeenObject
from gemvlm.curation.questions.wording import lettered, pairs, pick, shuffled
from gemvlm.sample import Frame, Turn

DEPTH_SPREAD = 0.1
"""Between the quartiles of the visible depth, relative: an object deeper than that has no one distance."""
DEPTH_TOLERANCE, DISTANCE_TOLERANCE = 0.1, 0.2
MIN_DISTANCE_M = 0.1
GAP_SPREAD = 0.1
SIZE_TOLERANCE = 0.2
SMALLER, LARGER = (0.45, 0.59, 0.77), (1.25, 1.51, 1.8)
"""Of the true size, what else is offered: 0.4 to 1.8, nothing within 20 % of the truth or of each other."""
SIZE_JITTER = 0.02
POINT_TRIES = 40


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


def point_depth(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Depth at a place (R3): the median of its 5 x 5 pixels, which spread by less than 5 % and meet no edge."""
    observation = seen.observation
    frame = SeenDepth(Frame(observation.image, observation.depth, observation.view), observation.depth)
    for spot in (spot for _ in range(POINT_TRIES) for spot in frame.spots(rng, 1)):
        unit, spoken = pick((("m", "metres"), ("cm", "centimetres")), rng)
        question = pick(
            (
                f"What is the depth at <place:0> in {spoken}?",
                f"How many {spoken} in front of the camera is <place:0>?",
                f"How deep into the scene is <place:0>, in {spoken}?",
                f"Give the depth of <place:0> in {spoken}.",
            ),
            rng,
        )
        yield Turn(
            question,
            f"{spot.z_m:.2f}" if unit == "m" else f"{100 * spot.z_m:.0f}",
            family="point_depth",
            task="reasoning",
            kind="number",
            places=(spot.point,),
            unit=unit,
            tolerance=DEPTH_TOLERANCE,
            cues={"height": f"{spot.point.y:.4f}"},
        )


def gap_cm(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Distance between the closest points of two objects in centimetres (R4), at least 10 cm.

    Asked where the distance of the boxes and that of what is seen, which bound it, differ by less than a tenth.
    """
    for a, b in pairs([o for o in seen.referable if not o.touches_border], rng):
        low, high = seen.gap_bounds_m(a, b)
        if low >= MIN_DISTANCE_M and high < (1 + GAP_SPREAD) * low:
            metres = (low + high) / 2
            first, second = seen.refer(a, rng), seen.refer(b, rng)
            question = pick(
                (
                    f"Between their closest points, how many centimetres apart are the {first} and the {second}?",
                    f"How many centimetres are there between the nearest points of the {first} and the {second}?",
                    f"What is the shortest distance from the {first} to the {second}, in centimetres?",
                    f"How wide, in centimetres, is the gap between the {first} and the {second}?",
                ),
                rng,
            )
            in_image = np.hypot((a.x - b.x) * a.size[1], (a.y - b.y) * a.size[0]) / a.size[1]
            yield Turn(
                question,
                _two_figures(100 * metres),
                family="gap_cm",
                task="reasoning",
                kind="number",
                unit="cm",
                tolerance=DISTANCE_TOLERANCE,
                cues={"image_distance": f"{in_image:.4f}", "height": f"{(a.y + b.y) / 2:.4f}"},
            )


def size_cm(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Height, or longest side, of an object in centimetres (R11); of its visible part at least 80 % is in view."""
    for o, dimension in shuffled([(o, d) for o in seen.referable if o.is_whole for d in _DIMENSIONS], rng):
        yield Turn(
            pick(_DIMENSIONS[dimension], rng).format(seen.refer(o, rng)) + " Answer in centimetres.",
            _two_figures(_dimension_cm(o, dimension)),
            family="size_cm",
            task="reasoning",
            kind="number",
            unit="cm",
            tolerance=SIZE_TOLERANCE,
            cues=_image_cues(o),
        )


def size_choice(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The same by letter, among four sizes (R11); the true one is as often the smallest as the largest."""
    for o, dimension in shuffled([(o, d) for o in seen.referable if o.is_whole for d in _DIMENSIONS], rng):
        rank = int(rng.integers(4))
        factors = [1.0, *shuffled(SMALLER, rng)[:rank], *shuffled(LARGER, rng)[: 3 - rank]]
        true_cm = _dimension_cm(o, dimension)
        jitter = 1 + SIZE_JITTER * rng.uniform(-1, 1, len(factors))
        sizes = [f"{true_cm * f * j:.1f} cm" for f, j in zip(factors, jitter, strict=True)]
        shown = shuffled(sizes, rng)
        question, letters = lettered(pick(_DIMENSIONS[dimension], rng).format(seen.refer(o, rng)), shown)
        yield Turn(
            question,
            letters[shown.index(sizes[0])],
            family="size_choice",
            task="reasoning",
            kind="choice",
            options=letters,
        )


_DIMENSIONS = {
    "height": (
        "How tall is the {}?",
        "What is the height of the {}?",
        "How high is the {} from its lowest to its highest point?",
        "How far does the {} extend vertically?",
    ),
    "length": (
        "How long is the longest side of the {}?",
        "What is the largest dimension of the {}?",
        "How much does the {} measure along its longest side?",
        "What is the longest side of the {}?",
    ),
}


def _dimension_cm(o: SeenObject, dimension: str) -> float:
    low, high = vertical_interval_m(o.state)
    return 100 * (high - low if dimension == "height" else longest_side_m(o.state))


def _two_figures(value: float) -> str:
    """Rounded to two significant figures, without an exponent: 7.3, 12, 140."""
    return f"{value:.1f}" if value < 10 else f"{float(f'{value:.1e}'):.0f}"


def _image_cues(o: SeenObject) -> dict[str, str]:
    return {"height": f"{o.y:.4f}", "size": f"{o.area / (o.size[0] * o.size[1]):.5f}"}
