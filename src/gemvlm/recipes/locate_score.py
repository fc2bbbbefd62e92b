"""How far `locate` is from the truth: on tabletop scenes of no training, and on RGB-D frames.

    python runs/locate_score.py nano --out out/locate                                    # 200 scenes, minutes
    python runs/locate_score.py nano --out out/kitchen --frames FOLDER --registration kinect-7scenes

One question: "Point to the red mug." An estimate is scored twice, in metres, a reply without a point (or a ray that
meets nothing) counting as infinitely far:

    centre     to the centre of the thing's visible surface: the mean of its visible pixels, each where it is in space
    surface    to the nearest of those pixels

Beside what the model does alone stand the same point with true depth, with generated depth brought to a few measured
pixels or to the table, with the foot of the thing's box on the table (`locate` with `support_m`), and where the ray
through it meets the table; and two that need no model: the middle of the
image, and the pixel that a perfect pointer of this training names, both with true depth. Nobody has named what is in
unlabelled frames: there depth alone is scored, at given points. Every number is ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from gemvlm.camera import View
from gemvlm.curation.questions.from_depth import SeenDepth
from gemvlm.curation.questions.visibility import Seen, deepest_pixel
from gemvlm.curation.sources.rgbd_folder import KINECT_7SCENES, Registration, RgbdFolder
from gemvlm.data.collate import keyed
from gemvlm.data.video import evenly
from gemvlm.depth_map import AlignmentError, DepthMap, align
from gemvlm.inference import GemPipeline, LocateRequest, Location, load
from gemvlm.inference.locate import FIT, depth_at, located, on_level, standing_on, unprojected
from gemvlm.recipes.data import progress
from gemvlm.recipes.recipe import TEST_SEED
from gemvlm.runtime import available_cores, versions
from gemvlm.sample import Frame, Point
from gemvlm.statistics import Interval, median_interval, proportion_interval
from gemvlm.worlds.observation import Observation
from gemvlm.worlds.tabletop import generate_views

THINGS = 3
"""Asked about in one scene, at most."""
MEASURED = 50
"""Pixels of true depth that generated depth is brought to."""
POINTS = 10
"""Given in one frame."""
REGISTRATIONS: dict[str, Registration] = {"kinect-7scenes": KINECT_7SCENES}
MIDDLE = Point(0.5, 0.5)

TRUE, GENERATED = "true depth", "generated depth"
ALIGNED = f"generated depth aligned to {MEASURED} measured pixels"
SUPPORTED = "generated depth aligned to the table"
FOOT = "the same, or the foot on the table where they agree"
TABLE, BLIND = "ray meets the table", "middle of the image, true depth"
BEST = "pixel deepest inside the thing, true depth"

World = Float[np.ndarray, "3"]


@dataclass(frozen=True)
class Sought:
    """A thing to be found in a frame: its visible pixels, and the height of the table (world z) if there is one.

    `on_table` is False of what stands on another thing, or in one. With `given`, the point is not asked for: what is
    scored is depth alone.
    """

    id: str
    scene: str
    frame: Frame
    expression: str
    mask: Bool[np.ndarray, "H W"]
    table_m: float | None = None
    on_table: bool = False
    given: Point | None = None

    @property
    def view(self) -> View:
        assert self.frame.view is not None
        return self.frame.view

    @property
    def depth(self) -> DepthMap:
        assert self.frame.depth is not None
        return self.frame.depth

    def surface(self) -> Float[np.ndarray, "N 3"]:
        """Its visible pixels in the world, in metres."""
        rays = self.view.camera.rays() * self.depth.values[..., None].astype(np.float64)
        return self.view.to_world(rays[self.mask & self.depth.valid])


@dataclass(frozen=True)
class LocateScores:
    """By method: median distance to the centre and to the surface (m), shares within 2 cm and 5 cm of the centre.

    `on_table` are the same of the `things_on_table` that stand on the table itself, empty if there are none.
    """

    model: str
    data: str
    things: int
    scenes: int
    pointed_at: Interval
    methods: Mapping[str, Mapping[str, Interval]]
    things_on_table: int = 0
    on_table: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)

    def to_markdown(self) -> str:
        hit = f"{self.pointed_at.mean:.1%} ({self.pointed_at.low:.1%}–{self.pointed_at.high:.1%}) of the points on them"
        lines = [
            f"`locate` of {self.model} on {self.data}: {self.things} things in {self.scenes} scenes, {hit}.",
            "Median error in cm and shares in %, with 95 % intervals by scene.",
            *_table(self.methods),
        ]
        if self.on_table:
            lines += ["", f"Those {self.things_on_table} that stand on the table itself:", *_table(self.on_table)]
        return "\n".join(lines) + "\n"


def score_locate(
    model: str,
    out: Path,
    *,
    scenes: int = 200,
    first_seed: int = TEST_SEED,
    frames: Path | None = None,
    registration: Literal["kinect-7scenes"] | None = None,
    steps: int = 30,
    guidance: float = 1.0,
    ensemble: int = 1,
    device: str | None = None,
) -> LocateScores:
    """Scores `locate` on `scenes` held-out tabletop scenes, or on so many frames of a folder of RGB-D frames.

    Writes `locate.json` (with every error) and `locate.md` to `out`. ValueError if there is nothing to ask about.
    """
    pipeline = load(model, device)
    if frames is None:
        sought = tabletop_things(range(first_seed, first_seed + scenes))
        data, total = f"tabletop scenes from seed {first_seed}", scenes
    else:
        folder = RgbdFolder(frames, None if registration is None else REGISTRATIONS[registration])
        total = min(scenes, len(folder))
        sought, data = given_points(folder, total), f"given points in frames of {frames.resolve().name}"
    options: dict[str, Any] = {"steps": steps, "guidance": guidance, "ensemble": ensemble}
    errors: list[dict[str, object]] = []
    for things in progress(_by_scene(sought), total, "locating"):
        errors += measured(pipeline, things, **options)
    if not errors:
        raise ValueError(f"{data}: nothing in them can be asked about; give more scenes or frames")
    found = summary(model, data, errors)
    out.mkdir(parents=True, exist_ok=True)
    record = {**asdict(found), "options": options, "versions": versions(), "errors": errors}
    (out / "locate.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (out / "locate.md").write_text(found.to_markdown(), encoding="utf-8")
    return found


def tabletop_things(seeds: Sequence[int], size: tuple[int, int] = (96, 96)) -> Iterator[Sought]:
    """Up to `THINGS` things of the first view of each scene, named by colour and shape, which fit no other."""
    for seen in generate_views(seeds, 1, size, processes=available_cores()):
        yield from _things(seen)


def _things(observation: Observation) -> Iterator[Sought]:
    seen = Seen(observation)
    frame = Frame(observation.image, observation.depth, observation.view)
    (table,) = [o for o in observation.objects if o.category == "table" and not o.movable]
    height_m = float(table.box.center[2] + table.box.half_extents[2])
    chosen = [o for o in seen.referable if o.can_be_pointed_at and seen.fits_one(o.full_name)]
    chosen.sort(key=lambda o: keyed(observation.scene, o.full_name))
    for o in chosen[:THINGS]:
        name, stands = f"{observation.scene}/{o.full_name}", o.state.supported_by == (table.id,)
        yield Sought(name, observation.scene, frame, o.full_name, o.mask, height_m, stands)


def given_points(folder: RgbdFolder, count: int) -> Iterator[Sought]:
    """Steady points of `count` frames, evenly spaced: nobody has named what is in them, so nothing is pointed to."""
    for index in evenly(len(folder), count):
        name, frame = folder.names[index], folder[index]
        if frame.depth is None or frame.view is None:
            raise ValueError(f"{folder.path}: {name} has no depth or no camera; `locate` can't be scored on it")
        seen = SeenDepth(frame, frame.depth.to_z(frame.view.camera))
        rng = np.random.default_rng(keyed("points", name))
        for spot in [spot for _ in range(POINTS) for spot in seen.spots(rng, 1)]:
            mask = np.zeros(seen.size, bool)
            mask[spot.row, spot.column] = True
            yield Sought(name, name, replace(frame, depth=seen.depth), "", mask, given=spot.point)


def measured(pipeline: GemPipeline, things: Sequence[Sought], **options: Any) -> list[dict[str, object]]:
    """What each method makes of one scene's things: distances in metres by method."""
    return [
        {
            "id": thing.id,
            "scene": thing.scene,
            "on_table": thing.on_table,
            "hit": _hits(location.point, thing),
            **_distances(thing, location),
        }
        for thing, location in zip(things, _located(pipeline, things, **options), strict=True)
    ]


def _located(pipeline: GemPipeline, things: Sequence[Sought], **options: Any) -> list[Location]:
    """Things are looked for; given points only need depth."""
    if things[0].given is None:
        asked = [LocateRequest(thing.frame.image, thing.expression, thing.view) for thing in things]
        boxes = pipeline.box_batch([(thing.frame.image, thing.expression) for thing in things])
        found = pipeline.locate_batch(asked, **options)
        return [replace(location, box=box) for location, box in zip(found, boxes, strict=True)]
    painted = pipeline.depth(things[0].frame.image, **options).depth
    return [Location("", "", thing.given, depth=painted) for thing in things]


def _distances(thing: Sought, location: Location) -> dict[str, object]:
    surface = thing.surface()
    centre = surface.mean(axis=0)
    return {
        method: None if place is None else [_distance(place, centre[None]), _distance(place, surface)]
        for method, place in estimates(thing, location).items()
    }


def estimates(thing: Sought, location: Location) -> dict[str, World | None]:
    """Where each method says the thing is, in the world; None where it says nothing."""
    point = location.point
    places: dict[str, World | None] = {TRUE: None, GENERATED: None, ALIGNED: None}
    if thing.table_m is not None:
        rows, columns = np.nonzero(thing.mask)
        best, _ = deepest_pixel(rows, columns, (thing.mask.shape[0], thing.mask.shape[1]))
        places |= {
            SUPPORTED: None,
            FOOT: None,
            TABLE: None,
            BLIND: _placed(thing, MIDDLE, thing.depth),
            BEST: _placed(thing, best, thing.depth),
        }
    if point is None or location.depth is None:
        return places
    places |= {TRUE: _placed(thing, point, thing.depth), GENERATED: _placed(thing, point, location.depth)}
    places[ALIGNED] = _aligned(thing, point, location.depth, lambda depth: align(depth, _few(thing), FIT))
    if (height := thing.table_m) is not None:
        places[SUPPORTED] = _aligned(thing, point, location.depth, lambda depth: standing_on(depth, thing.view, height))
        request = LocateRequest(thing.frame.image, thing.expression, thing.view, support_m=height)
        standing = located(location, point, request, location.depth, location.box).world_m
        places[FOOT] = places[SUPPORTED] if standing is None else np.array(standing)
        places[TABLE] = on_level(point, thing.view, height)
    return places


def _aligned(thing: Sought, point: Point, depth: DepthMap, align_: Callable[[DepthMap], DepthMap]) -> World | None:
    """The place by aligned depth, or by depth as it is where that can't be aligned."""
    try:
        return _placed(thing, point, align_(depth))
    except AlignmentError:
        return _placed(thing, point, depth)


def summary(model: str, data: str, errors: Sequence[Mapping[str, object]]) -> LocateScores:
    """The scores of all things; `errors` as `measured` gives them."""
    scenes = {str(error["scene"]) for error in errors}
    hits = proportion_interval(sum(bool(error["hit"]) for error in errors), len(errors))
    standing = [error for error in errors if error["on_table"]]
    return LocateScores(
        model, data, len(errors), len(scenes), hits, _by_method(errors), len(standing), _by_method(standing)
    )


def _by_method(errors: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Interval]]:
    if not errors:
        return {}
    scenes = [str(error["scene"]) for error in errors]
    methods = [name for name in errors[0] if name not in ("id", "scene", "on_table", "hit")]
    scores: dict[str, dict[str, Interval]] = {}
    for method in methods:
        pairs = [error[method] or (np.inf, np.inf) for error in errors]
        centre, surface = np.array(pairs, np.float64).T
        within = {f"within_{cm}cm": proportion_interval(int((centre <= cm / 100).sum()), len(pairs)) for cm in (2, 5)}
        medians = {"centre_m": median_interval(centre, scenes), "surface_m": median_interval(surface, scenes)}
        scores[method] = {**medians, **within}
    return scores


def _table(methods: Mapping[str, Mapping[str, Interval]]) -> list[str]:
    lines = [
        "",
        "| depth | to the centre | to the surface | within 2 cm | within 5 cm |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method, scores in methods.items():
        cells = [_cell(scores[name]) for name in ("centre_m", "surface_m", "within_2cm", "within_5cm")]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _placed(thing: Sought, point: Point, depth: DepthMap) -> World | None:
    sample = depth_at(depth, point)
    return None if sample is None else np.array(unprojected(point, sample.z_m, thing.view)[1])


def _few(thing: Sought) -> DepthMap:
    """True depth at `MEASURED` pixels alone, the same ones each time."""
    known = np.flatnonzero(thing.depth.valid)
    rng = np.random.default_rng(keyed("measured", thing.scene))
    kept = np.zeros(thing.depth.valid.size, bool)
    kept[rng.choice(known, min(MEASURED, len(known)), replace=False)] = True
    return replace(thing.depth, valid=kept.reshape(thing.depth.valid.shape))


def _hits(point: Point | None, thing: Sought) -> bool:
    if point is None:
        return False
    height, width = thing.mask.shape
    return bool(thing.mask[min(int(point.y * height), height - 1), min(int(point.x * width), width - 1)])


def _distance(place: World, points: Float[np.ndarray, "N 3"]) -> float:
    return float(np.linalg.norm(points - place, axis=1).min())


def _by_scene(sought: Iterator[Sought]) -> Iterator[list[Sought]]:
    things: list[Sought] = []
    for thing in sought:
        if things and thing.scene != things[0].scene:
            yield things
            things = []
        things.append(thing)
    if things:
        yield things


def _cell(score: Interval) -> str:
    return f"{100 * score.mean:.1f} ({100 * score.low:.1f}–{100 * score.high:.1f})"
