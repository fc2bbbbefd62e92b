"""How often does a question made from masks and depth alone have the answer that the simulator knows to be true?

    python benchmarks/scene_graph_agreement.py [--scenes 60]

Views of the simulated tabletop are handed to `curation.scene_graph` as a stranger's picture would be: masks with a
noun and a colour, a depth map, a camera. The depth is the simulator's ("true"), or it is degraded as a teacher's is:
a wrong scale, low-frequency errors of 4, 8 or 16 % and smeared edges, with masks a pixel too wide or too narrow, or
mere boxes. Each answer is compared with the one that the exact geometry gives, without any margin; a number counts as
right within the tolerance in its record.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from gemvlm.curation.questions.boxes import center_distance_m, gaps_m, vertical_interval_m
from gemvlm.curation.questions.visibility import Seen, SeenObject
from gemvlm.curation.scene_graph import SceneGraph, ask, from_arrays, make_graph
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Point, Turn
from gemvlm.worlds.observation import Observation


@dataclass(frozen=True)
class Level:
    """How good the depth is: `scale` and `wave` are standard deviations of log depth, `smear` a radius in pixels."""

    name: str
    scale: float
    wave: float
    smear: int
    mask_noise: bool
    boxes: bool = False

    @property
    def stated(self) -> float:
        """What the graph is told: an object's error against another's."""
        return self.wave


LEVELS = (
    Level("true", 0.0, 0.0, 0, False),
    Level("4 %", 0.03, 0.04, 1, True),
    Level("8 %", 0.05, 0.08, 2, True),
    Level("16 %", 0.1, 0.16, 2, True),
    Level("8 %, boxes", 0.05, 0.08, 2, True, boxes=True),
)


def degraded(depth: DepthMap, level: Level, rng: np.random.Generator) -> DepthMap:
    """Depth with a teacher's faults; the scale error is common to all pixels."""
    height, width = depth.values.shape
    values = np.where(depth.valid, depth.values, 0).astype(np.float64)
    if level.smear:
        values = _box_mean(values, level.smear) / np.maximum(_box_mean(depth.valid.astype(float), level.smear), 1e-6)
    coarse = Image.fromarray(rng.normal(size=(5, 5)).astype(np.float32))
    wave = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    wave = level.wave * (wave - wave.mean()) / max(wave.std(), 1e-9)
    values = values * np.exp(wave + level.scale * rng.normal())
    return replace(depth, values=values.astype(np.float32), source=f"degraded, {level.name}")


def _box_mean(values: np.ndarray, radius: int) -> np.ndarray:
    padded = np.pad(values, radius, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1, 2 * radius + 1))
    return windows.mean(axis=(-2, -1))


def graph_of(observation: Observation, level: Level, rng: np.random.Generator) -> SceneGraph:
    """What detector, teacher and camera calibration would give of this view."""
    things = [state for state in observation.objects if state.movable and (observation.ids == state.id).any()]
    masks = [observation.ids == state.id for state in things]
    if level.mask_noise:
        masks = [_grown(mask) if rng.random() < 0.5 else _shrunk(mask) for mask in masks]
    detections = from_arrays(
        np.array(masks).reshape(-1, *observation.ids.shape),
        [state.category for state in things],
        colours=[state.colour for state in things],
    )
    if level.boxes:
        detections = [replace(one, mask=_filled(one.mask), from_box=True) for one in detections]
    depth = degraded(observation.depth, level, rng)
    return make_graph(
        observation.image, detections, depth, observation.view, up=True, complete=True, depth_error=level.stated
    )


def _grown(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    return padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]


def _filled(mask: np.ndarray) -> np.ndarray:
    """The box around a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.zeros_like(mask)
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def _shrunk(mask: np.ndarray) -> np.ndarray:
    small = ~_grown(~mask)
    return small if small.any() else mask


def is_true(turn: Turn, truth: Observation) -> bool:
    """Whether the answer is right in the exact world; a reference that fits no visible object, or two, is wrong."""
    seen = Seen(truth)
    if turn.family in ("closer", "nearest_of"):
        named = [_one(seen, option) for option in turn.options]
        return None not in named and _one(seen, turn.answer) is min(named, key=lambda o: o.near_m)
    if turn.family == "left_right":
        named = [_one(seen, option) for option in turn.options]
        pick = min if "left" in turn.question.split(" in the image")[0] else max
        return None not in named and _one(seen, turn.answer) is pick(named, key=lambda o: o.x)
    if turn.family == "above_below":
        named = [_one(seen, option) for option in turn.options]
        return None not in named and _one(seen, turn.answer) is max(
            named, key=lambda o: vertical_interval_m(o.state)[0]
        )
    if turn.family == "nearer_to":
        named = [_one(seen, option) for option in turn.options]
        anchor = _one(seen, turn.question.split(" to the ")[1].split(", ")[0])
        if anchor is None or None in named:
            return False
        gaps = [float(gaps_m([anchor.state.box, o.state.box])[0, 1]) for o in named]
        return _one(seen, turn.answer) is named[int(np.argmin(gaps))]
    if turn.family == "distance":
        words = turn.question.split(" centres of the ")[1].rstrip("?")
        a, b = (_one(seen, part) for part in words.split(" and the "))
        return a is not None and b is not None and _close(turn, center_distance_m(a.state, b.state))
    if turn.family == "object_depth":
        o = next((o for o in _referred(seen, turn.question)), None)
        return o is not None and _close(turn, o.median_m)
    return _is_true_in_image(turn, seen)


def _is_true_in_image(turn: Turn, seen: Seen) -> bool:
    if turn.family == "count":
        noun = (
            turn.question.removeprefix("How many ").removesuffix(" are there?").removeprefix("Count the ").rstrip(".")
        )
        counted = [o for o in seen.objects if noun in {f"{n}{s}" for n in (*o.nouns, o.full_name) for s in ("s", "es")}]
        return abs(sum(o.is_large_enough for o in counted) - float(turn.answer)) < 0.5
    if turn.family == "exists":
        name = turn.question.rstrip("?").split(" a ", 1)[-1].split(" an ", 1)[-1]
        return (turn.answer == "yes") == any(o.full_name == name for o in seen.objects)
    if turn.family in ("colour", "shape", "object_at"):
        o = _at(seen, turn.places[0]) if turn.places else next(iter(_referred(seen, turn.question)), None)
        return o is not None and turn.answer in (o.state.colour, o.state.category, o.full_name)
    if turn.family in ("point", "point_relation", "point_extremum"):
        o = _at(seen, turn.places[0])
        return o is not None and _is_meant(o, turn, seen)
    if turn.family == "box":
        o = next(iter(_referred(seen, turn.question)), None)
        return o is not None and _iou(o.box, turn.places[0]) >= 0.5
    if turn.family == "describe":
        names = [part.split(" <")[0] for part in turn.answer.split("; ")]
        under = [_at(seen, place) for place in turn.places]
        return all(o is not None and o.full_name == name for o, name in zip(under, names, strict=True))
    raise ValueError(f"no oracle for the family {turn.family!r}")


def _is_meant(o: SeenObject, turn: Turn, seen: Seen) -> bool:
    if turn.family == "point":
        return o in _referred(seen, turn.question)
    side = "left" if "left" in turn.question else "right"
    sign = 1 if side == "left" else -1
    if turn.family == "point_extremum":
        return o is min((one for one in seen.objects if one.is_large_enough), key=lambda one: sign * one.x)
    noun, anchor_name = (
        turn.question.removeprefix("Point to the ").removesuffix(" in the image.").split(f" {side} of the ")
    )
    anchor = _one(seen, anchor_name)
    return anchor is not None and sign * (anchor.x - o.x) > 0 and noun in (*o.nouns, o.full_name, "object")


def _one(seen: Seen, phrase: str) -> SeenObject | None:
    """The only object that the phrase fits; one of a few visible pixels is no rival."""
    found = [o for o in seen.objects if phrase in (o.full_name, o.state.category)]
    if len(found) > 1:
        found = [o for o in found if o.is_large_enough]
    return found[0] if len(found) == 1 else None


def _referred(seen: Seen, text: str) -> list[SeenObject]:
    by_length = sorted(seen.objects, key=lambda o: -len(o.full_name))
    full = [o for o in by_length if o.full_name in text]
    return full or [o for o in by_length if o.state.category in text or f"{o.state.colour} object" in text
                    or f"is {o.state.colour}" in text]  # fmt: skip


def _at(seen: Seen, place: object) -> SeenObject | None:
    assert isinstance(place, Point)
    height, width = seen.size
    return seen.by_id.get(int(seen.observation.ids[int(place.y * height), int(place.x * width)]))


def _close(turn: Turn, exact: float) -> bool:
    return abs(float(turn.answer) - exact) <= (turn.tolerance or 0.0) * exact + 0.01


def _iou(a: object, b: object) -> float:
    x = [max(a.x0, b.x0), min(a.x1, b.x1)]  # type: ignore[attr-defined]
    y = [max(a.y0, b.y0), min(a.y1, b.y1)]  # type: ignore[attr-defined]
    both = max(0.0, x[1] - x[0]) * max(0.0, y[1] - y[0])
    areas = [(c.x1 - c.x0) * (c.y1 - c.y0) for c in (a, b)]  # type: ignore[attr-defined]
    return both / max(sum(areas) - both, 1e-12)


Table = dict[str, dict[str, tuple[int, int]]]
"""Level → family → (right, asked)."""


def measure(observations: Iterable[Observation], levels: Sequence[Level] = LEVELS, turns_per_family: int = 4) -> Table:
    """Counts of right answers; every level sees the same views."""
    right: dict[str, Counter[str]] = defaultdict(Counter)
    asked: dict[str, Counter[str]] = defaultdict(Counter)
    for index, observation in enumerate(observations):
        for number, level in enumerate(levels):
            rng = np.random.default_rng((index, number))
            for turn in ask(graph_of(observation, level, rng), (index,), turns_per_family=turns_per_family):
                asked[level.name][turn.family] += 1
                right[level.name][turn.family] += is_true(turn, observation)
    return {level: {f: (right[level][f], n) for f, n in sorted(asked[level].items())} for level in asked}


def table(counts: Table) -> str:
    """One line per family: agreement and number of questions at each level."""
    families = sorted({family for level in counts.values() for family in level})
    lines = ["family".ljust(16) + "".join(level.rjust(16) for level in counts)]
    for family in families:
        cells = []
        for level in counts.values():
            right, asked = level.get(family, (0, 0))
            cells.append(f"{right / asked:8.1%} of {asked:4d}" if asked else "not asked")
        lines.append(family.ljust(16) + "".join(cell.rjust(16) for cell in cells))
    return "\n".join(lines)


def main() -> None:
    from gemvlm.worlds.tabletop.generate import generate_views

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--side", type=int, default=160, help="pixels")
    options = parser.parse_args()
    views = generate_views(range(7000, 7000 + options.scenes), 2, (options.side, options.side))
    print(table(measure(views)))


if __name__ == "__main__":
    main()
