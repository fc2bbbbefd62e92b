"""Where things are with respect to each other, the camera and an observer: choices between named objects.

Rules R1, R2, R5, R6, R8, R9, R12 and V1 of the data notes. Each question names its frame (image, camera, floor,
observer) and is asked only if the answer holds with a margin; where two readings of a word are possible, both must
agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np

from gemvlm.curation.questions.boxes import (
    center_distance_m,
    longest_side_m,
    share_inside,
    vertical_interval_m,
    volume_m3,
)
from gemvlm.curation.questions.visibility import Seen, SeenObject
from gemvlm.curation.questions.wording import lettered, listing, pairs, pick, shuffled
from gemvlm.sample import Turn

IMAGE_MARGIN = 0.1
DEPTH_RATIO, DEPTH_GAP_M = 1.1, 0.05
VERTICAL_GAP_M = 0.02
SIZE_RATIO, SIZE_RATIO_OF_A_KIND = 1.75, 1.3
"""Of volumes; the notes ask for 1.2, but what is visible of two objects then ranks one pair in twelve the other way.
At 1.75 it is one in a hundred (the extents of the visible surface, 120 scenes), and at 1.3 between two of one kind."""
NEIGHBOUR_RATIO, NEIGHBOUR_GAP_M, TOUCHING_M = 1.15, 0.05, 0.05
"""Table scale; for rooms the notes ask for 0.15 m."""
DIMENSION_RATIO, DIMENSION_GAP_M = 1.2, 0.02
INSIDE_SHARE, OUTSIDE_SHARE = 0.8, 0.05
"""Of an object's volume within the box of what it is in, or is not in."""
OBSERVER_MARGIN_DEG = 15
OBSERVER_DISTANCE_M = (0.1, 5.0)
"""Horizontal; 0.3 m in rooms, 0.1 m on a table, where 0.3 m would drop most triples."""


def left_right(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Further left (or right) in the image (R6): centres a tenth of the width apart, or disjoint boxes."""
    for a, b in pairs(seen.referable, rng):
        if is_left_of(a, b) or is_left_of(b, a):
            left = rng.random() < 0.5
            winner = a if is_left_of(a, b) == left else b
            question = f"Which is further {'left' if left else 'right'} in the image"
            yield _which(seen, rng, "left_right", question, winner, (a, b), cues=_lower_and_larger((a, b)))


def is_left_of(a: SeenObject, b: SeenObject) -> bool:
    apart = b.x - a.x >= IMAGE_MARGIN or a.box.x1 <= b.box.x0
    return apart and a.x < b.x


def above_below(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Higher above the floor (R8): vertical extents in the world disjoint by 2 cm. The height cue is the image's y."""
    for a, b in pairs(seen.referable, rng):
        for winner, other in ((a, b), (b, a)):
            if vertical_interval_m(winner.state)[0] - vertical_interval_m(other.state)[1] >= VERTICAL_GAP_M:
                cues = _lower_and_larger((a, b), lower=False)
                question = pick(("Which is higher above the floor", "Which is further above the floor"), rng)
                yield _which(seen, rng, "above_below", question, winner, (a, b), cues)


def closer(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Closer to the camera (R1): nearer by a tenth and 5 cm in depth, and no farther along the line of sight."""
    for a, b in pairs(seen.referable, rng):
        for winner, other in ((a, b), (b, a)):
            if is_nearer(seen, winner, other):
                question = pick(("Which is closer to the camera", "Which is nearer to the camera"), rng)
                yield _which(seen, rng, "closer", question, winner, (a, b), cues=_lower_and_larger((a, b)))


def nearest_of(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The nearest of three (R2), which must pass the margin of `closer` against both others."""
    for chosen in shuffled(list(combinations(seen.referable, 3)), rng):
        trio = tuple(shuffled(chosen, rng))
        nearest = min(trio, key=lambda o: o.near_m)
        if all(is_nearer(seen, nearest, o) for o in trio if o is not nearest):
            question = pick(("Which is nearest to the camera", "Which is closest to the camera"), rng)
            yield _which(seen, rng, "nearest_of", question, nearest, trio, cues=_lower_and_larger(trio))


def is_nearer(seen: Seen, a: SeenObject, b: SeenObject) -> bool:
    if not (b.near_m >= DEPTH_RATIO * a.near_m and b.near_m - a.near_m >= DEPTH_GAP_M):
        return False
    eye = seen.observation.view.camera_to_world[:3, 3]
    return bool(np.linalg.norm(a.state.box.center - eye) < np.linalg.norm(b.state.box.center - eye))


def is_surely_nearer(seen: Seen, a: SeenObject, b: SeenObject) -> bool:
    """`is_nearer`, and so are the nearest of what is seen of both along their lines of sight."""
    return is_nearer(seen, a, b) and seen.range_m(a) < seen.range_m(b)


def larger(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Larger in reality (R12): box volumes in a clear ratio, and no shorter than the other.

    Two of a kind come first: between a ring and a plate the words alone give the answer away.
    """
    measurable = [o for o in seen.referable if o.is_measurable]
    for a, b in sorted(pairs(measurable, rng), key=lambda pair: not _are_of_a_kind(*pair)):
        ratio = SIZE_RATIO_OF_A_KIND if _are_of_a_kind(a, b) else SIZE_RATIO
        for winner, other in ((a, b), (b, a)):
            by_volume = volume_m3(winner.state) >= ratio * volume_m3(other.state)
            if by_volume and longest_side_m(winner.state) >= longest_side_m(other.state):
                question = pick(("Which is larger in reality", "Which is bigger in reality"), rng)
                yield _which(seen, rng, "larger", question, winner, (a, b), cues=_lower_and_larger((a, b)))


def _are_of_a_kind(a: SeenObject, b: SeenObject) -> bool:
    return a.state.category == b.state.category


def nearer_to(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Nearer to a third object (R5), between closest points and between centres alike; one per third object."""
    for anchor in shuffled(seen.referable, rng):
        for pair in pairs([o for o in seen.referable if o is not anchor], rng):
            if winner := nearer_neighbour(seen, anchor, pair):
                question = f"Which is nearer to the {seen.refer(anchor, rng)}"
                cues = _lower_and_larger(pair) | _nearest_in_image(anchor, pair)
                yield _which(seen, rng, "nearer_to", question, winner, pair, cues)
                break


def nearer_neighbour(seen: Seen, anchor: SeenObject, pair: tuple[SeenObject, SeenObject]) -> SeenObject | None:
    """The member of `pair` nearer to the anchor, or None within the margins or if one of them almost touches it."""
    near, far = sorted(pair, key=lambda o: seen.gap_m(anchor, o))
    near_m, far_m = seen.gap_m(anchor, near), seen.gap_m(anchor, far)
    clear = far_m >= NEIGHBOUR_RATIO * near_m and far_m - near_m >= NEIGHBOUR_GAP_M and near_m >= TOUCHING_M
    return (
        near
        if clear and center_distance_m(anchor.state, near.state) < center_distance_m(anchor.state, far.state)
        else None
    )


def perspective(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Standing at A and facing B, is C on the left or the right (V1)? The cue is C's side of A in the image."""
    low, high = OBSERVER_DISTANCE_M
    for a, b in pairs(seen.referable, rng):
        for c in shuffled([o for o in seen.referable if o is not a and o is not b], rng):
            floor = [(o.state.box.center - a.state.box.center)[:2] for o in (b, c)]
            distances = [np.linalg.norm(v) for v in (*floor, floor[0] - floor[1])]
            if not all(low <= d <= high for d in distances):
                continue
            (forward, side) = floor
            angle = np.degrees(np.arctan2(forward[0] * side[1] - forward[1] * side[0], forward @ side))
            if not OBSERVER_MARGIN_DEG < abs(angle) < 180 - OBSERVER_MARGIN_DEG:
                continue
            standing, facing, asked = (seen.refer(o, rng) for o in (a, b, c))
            yield Turn(
                f"Standing at the {standing} facing the {facing}, is the {asked} on your left or right?",
                "left" if angle > 0 else "right",
                family="perspective",
                task="reasoning",
                kind="choice",
                options=("left", "right") if rng.random() < 0.5 else ("right", "left"),
                cues={"side": "left" if c.x < a.x else "right"},
            )
            break


def depth_order(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Three or four objects from near to far (R2), each nearer than the next with the margin of `closer`."""
    sizes = [k for k in (3, 4) if k <= len(seen.referable)]
    chosen = [trio for k in sizes for trio in combinations(seen.referable, k)]
    for members in shuffled(chosen, rng):
        near_first = sorted(members, key=lambda o: o.near_m)
        if not all(is_surely_nearer(seen, a, b) for a, b in pairwise(near_first)):
            continue
        names = {o.id: seen.refer(o, rng) for o in members}
        listed = listing([f"the {names[o.id]}" for o in shuffled(members, rng)], "and")
        far_first = rng.random() < 0.5
        order = "farthest to nearest" if far_first else "nearest to farthest"
        question = pick(
            (
                f"By distance from the camera, {order}, how do {listed} follow each other?",
                f"Order by depth, {order}: {listed}.",
                f"Sort {listed} by distance from the camera, {order}.",
                f"List {listed} from {order}, as the camera sees them.",
            ),
            rng,
        )

        def told(ordered: Iterable[SeenObject], names: dict[int, str] = names, far_first: bool = far_first) -> str:
            return ", ".join([names[o.id] for o in ordered][:: -1 if far_first else 1])

        cues = {
            "height": told(sorted(members, key=lambda o: -o.y)),
            "size": told(sorted(members, key=lambda o: -o.area)),
        }
        yield Turn(question, told(near_first), family="depth_order", task="reasoning", kind="text", cues=cues)


def nearest_choice(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """The nearest of four to the camera, by letter (R1): ahead of all others by the margin of `closer`."""
    for chosen in shuffled(list(combinations(seen.referable, 4)), rng):
        nearest = min(chosen, key=lambda o: o.near_m)
        if all(is_surely_nearer(seen, nearest, o) for o in chosen if o is not nearest):
            question = pick(
                (
                    "Which of these is nearest to the camera?",
                    "Which one is closest to the camera?",
                    "Which has the smallest depth?",
                    "Seen from the camera, which is nearest?",
                ),
                rng,
            )
            yield _lettered_choice(seen, rng, "nearest_choice", question, nearest, chosen, _lower_and_larger(chosen))


def neighbour_choice(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Which of four is nearest to a fifth, by letter (R5), between closest points and between centres alike."""
    for anchor in shuffled(seen.referable, rng):
        for chosen in shuffled(list(combinations([o for o in seen.referable if o is not anchor], 4)), rng):
            nearest = min(chosen, key=lambda o: seen.gap_m(anchor, o))
            others = [o for o in chosen if o is not nearest]
            if all(nearer_neighbour(seen, anchor, (nearest, o)) is nearest for o in others):
                name = seen.refer(anchor, rng)
                question = pick(
                    (
                        f"Which of these is nearest to the {name}?",
                        f"Which one is closest to the {name}?",
                        f"What lies nearest to the {name}?",
                        f"Which is the shortest distance away from the {name}?",
                    ),
                    rng,
                )
                cues = _lower_and_larger(chosen) | _nearest_in_image(anchor, chosen)
                yield _lettered_choice(seen, rng, "neighbour_choice", question, nearest, chosen, cues)
                break


def taller(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Which of two is taller (R12): vertical extents in the world in a ratio of 1.2 and 2 cm apart."""
    wording = (
        "Which is taller",
        "Which has the greater height",
        "Which stands taller",
        "Which extends more vertically",
    )
    return _greater(seen, rng, "taller", lambda o: float(-np.subtract(*vertical_interval_m(o.state))), wording)


def longer(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Which of two has the longer longest side (R12): in a ratio of 1.2 and 2 cm apart."""
    wording = (
        "Which has the longer longest side",
        "Which is longer along its longest side",
        "Which is larger along its largest dimension",
        "Whose longest side is longer",
    )
    return _greater(seen, rng, "longer", lambda o: longest_side_m(o.state), wording)


def _greater(
    seen: Seen, rng: np.random.Generator, family: str, length_m: Callable[[SeenObject], float], wording: Sequence[str]
) -> Iterator[Turn]:
    """Two of a kind first, and one pair of different kinds in a view: of these the words alone tell most."""
    whole = [o for o in seen.referable if o.is_whole]
    has_crossed = False
    for a, b in sorted(pairs(whole, rng), key=lambda pair: not _are_of_a_kind(*pair)):
        for winner, other in ((a, b), (b, a)):
            more, less = length_m(winner), length_m(other)
            if has_crossed or more < DIMENSION_RATIO * less or more - less < DIMENSION_GAP_M:
                continue
            has_crossed = not _are_of_a_kind(a, b)
            yield _which(seen, rng, family, pick(wording, rng), winner, (a, b), cues=_lower_and_larger((a, b)))


def inside(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Is it in the box (R9)? In pairs about one container: 80 % of one thing's volume is in its box, 5 % of another's.

    What is inside also rests on the container: under a shelf is not in it.
    """
    for container in shuffled(seen.referable, rng):
        others = [o for o in seen.referable if o is not container]
        share = {o.id: share_inside(o.state.box, container.state.box) for o in others}
        within = [o for o in others if share[o.id] >= INSIDE_SHARE and container.id in o.state.supported_by]
        without = [o for o in others if share[o.id] <= OUTSIDE_SHARE]
        for yes, no in zip(shuffled(within, rng), shuffled(without, rng), strict=False):
            for o, answer in shuffled([(yes, "yes"), (no, "no")], rng):
                thing, holder = seen.refer(o, rng), seen.refer(container, rng)
                question = pick(
                    (
                        f"Is the {thing} inside the {holder}?",
                        f"Is the {thing} in the {holder}?",
                        f"Does the {holder} contain the {thing}?",
                        f"Does the {thing} lie within the {holder}?",
                    ),
                    rng,
                )
                overlaps = container.box.x0 <= o.x <= container.box.x1 and container.box.y0 <= o.y <= container.box.y1
                cues = {"image_box": "yes" if overlaps else "no", "size": "yes" if o.area < container.area else "no"}
                yield Turn(question, answer, family="inside", task="reasoning", kind="yes_no", cues=cues)


def _which(
    seen: Seen,
    rng: np.random.Generator,
    family: str,
    question: str,
    winner: SeenObject,
    choices: tuple[SeenObject, ...],
    cues: dict[str, SeenObject],
) -> Turn:
    names = {o.id: seen.refer(o, rng) for o in choices}
    options = tuple(names[o.id] for o in choices)
    listed = listing([f"the {name}" for name in options], "or")
    return Turn(
        f"{question}, {listed}?",
        names[winner.id],
        family=family,
        task="reasoning",
        kind="choice",
        options=options,
        cues={cue: names[o.id] for cue, o in cues.items()},
    )


def _lettered_choice(
    seen: Seen,
    rng: np.random.Generator,
    family: str,
    question: str,
    winner: SeenObject,
    choices: Sequence[SeenObject],
    cues: dict[str, SeenObject],
) -> Turn:
    shown = shuffled(choices, rng)
    question, letters = lettered(question, [seen.refer(o, rng) for o in shown])
    return Turn(
        question,
        letters[shown.index(winner)],
        family=family,
        task="reasoning",
        kind="choice",
        options=letters,
        cues={cue: letters[shown.index(o)] for cue, o in cues.items()},
    )


def _lower_and_larger(choices: tuple[SeenObject, ...], lower: bool = True) -> dict[str, SeenObject]:
    """What two blind shortcuts would choose: the object lower (or higher) in the image, and the larger in the image."""
    by_height = max(choices, key=lambda o: o.y if lower else -o.y)
    return {"height": by_height, "size": max(choices, key=lambda o: o.area)}


def _nearest_in_image(anchor: SeenObject, choices: tuple[SeenObject, ...]) -> dict[str, SeenObject]:
    height, width = anchor.size

    def squared_pixels(o: SeenObject) -> float:
        return ((o.x - anchor.x) * width) ** 2 + ((o.y - anchor.y) * height) ** 2

    return {"image_distance": min(choices, key=squared_pixels)}
