"""Questions about marked points and regions, answered by the depth alone: for real frames without any annotation.

Rules R1, R2, R3 and G6 of the data notes. A point may be asked about where its neighbourhood, 5 x 5 pixels or 1 % of
the diagonal to each side, has depth everywhere and spreads by less than 5 %: never at an edge, where a pixel belongs to
two surfaces and depth from another lens may lie beside the colour. Two points are compared with a ratio of at least 1.1
and a gap of 0.2 m, and the distance along the ray must not say otherwise. In one of two pairs (one of three triples)
the closest point is also the lowest in the image: height tells nothing about the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame, Point, Region, Turn

NEIGHBOURHOOD = 5
NEIGHBOURHOOD_SHARE = 0.01
"""Of the image's diagonal, to each side."""
LOCAL_SPREAD = 0.05
DEPTH_RATIO, DEPTH_GAP_M = 1.1, 0.2
MIN_APART = 0.1
"""Of the image's diagonal, between points of one question."""
DEPTH_TOLERANCE = 0.1
REGION_SPREAD = 0.05
REGION_SHARE = (0.002, 0.2)
"""Of the image's pixels: smaller regions are noise, larger ones are hit by chance."""
REGION_RADIUS = 3
UNKNOWN_SHARE = 0.02
"""Of a region's pixels, how many may have missing depth beside them."""
HORIZONTAL_DEG, VERTICAL_DEG = 15, 75
PLANE_HALF = 6
PLANE_RESIDUAL = 0.01
TRIES = 200


@dataclass(frozen=True)
class Spot:
    """A pixel that may be asked about: its place, its z-depth (median of the neighbourhood) and its distance."""

    row: int
    column: int
    point: Point
    z_m: float
    range_m: float


@dataclass(frozen=True)
class SeenDepth:
    """A frame with metric z-depth, and what of it can be asked about. `up` is a unit vector of the world frame."""

    frame: Frame
    depth: DepthMap
    up: Float[np.ndarray, "3"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.depth.values.shape

    @cached_property
    def steady(self) -> Bool[np.ndarray, "H W"]:
        """Pixels away from holes, edges and the border."""
        values = np.where(self.depth.valid, self.depth.values, np.nan)
        steady = np.zeros(self.size, bool)
        half = self.half
        if min(self.size) > 2 * half:
            low, high = (self._windowed(values, extreme) for extreme in (np.min, np.max))
            steady[half:-half, half:-half] = high - low < LOCAL_SPREAD * low  # NaN compares as False
        return steady

    @property
    def half(self) -> int:
        """Pixels from the middle of a neighbourhood to its side."""
        return max(NEIGHBOURHOOD // 2, round(NEIGHBOURHOOD_SHARE * float(np.hypot(*self.size))))

    def _windowed(
        self, values: Shaped[np.ndarray, "H W"], extreme: Callable[..., Shaped[np.ndarray, "_ _"]]
    ) -> Shaped[np.ndarray, "h w"]:
        """The extreme of each neighbourhood that lies inside the image."""
        side = 2 * self.half + 1
        rows = extreme(np.lib.stride_tricks.sliding_window_view(values, side, axis=0), axis=-1)
        return extreme(np.lib.stride_tricks.sliding_window_view(rows, side, axis=1), axis=-1)

    @cached_property
    def near_unknown(self) -> Bool[np.ndarray, "H W"]:
        """Pixels in whose neighbourhood depth is missing."""
        return self._windowed(np.pad(~self.depth.valid, self.half), np.max)

    def spot(self, row: int, column: int) -> Spot:
        half = NEIGHBOURHOOD // 2
        z = float(np.median(self.depth.values[row - half : row + half + 1, column - half : column + half + 1]))
        stretch = 1.0
        if self.frame.view is not None:
            camera = self.frame.view.camera
            stretch = float(np.linalg.norm(camera.unproject(np.array([column + 0.5, row + 0.5]), np.array(1.0))))
        height, width = self.size
        return Spot(row, column, Point((column + 0.5) / width, (row + 0.5) / height), z, z * stretch)

    def spots(self, rng: np.random.Generator, count: int) -> list[Spot]:
        """`count` random steady pixels, fewer if they are not MIN_APART."""
        if not len(self._steady_pixels):
            return []
        pixels = self._steady_pixels[rng.integers(len(self._steady_pixels), size=count)]
        between = np.linalg.norm(pixels[:, None] - pixels, axis=-1)[~np.eye(count, dtype=bool)]
        if (between < MIN_APART * np.hypot(*self.size)).any():
            return []
        return [self.spot(int(row), int(column)) for row, column in pixels]

    @cached_property
    def _steady_pixels(self) -> Int64[np.ndarray, "N 2"]:
        return np.argwhere(self.steady)

    @cached_property
    def points(self) -> Float[np.ndarray, "H W 3"]:
        """Each pixel in the camera frame, in metres; the frame must have a view."""
        assert self.frame.view is not None
        return self.frame.view.camera.rays() * self.depth.values[..., None]


def depth_closer(seen: SeenDepth, rng: np.random.Generator) -> Iterator[Turn]:
    """Which of two marked points is closer to the camera (R1)."""
    return _balanced(_which("depth_closer", "Which is closer to the camera", seen, rng, choices=2), 2, rng)


def depth_nearest(seen: SeenDepth, rng: np.random.Generator) -> Iterator[Turn]:
    """The closest of three marked points (R2)."""
    return _balanced(_which("depth_nearest", "Which is closest to the camera", seen, rng, choices=3), 3, rng)


def depth_farthest(seen: SeenDepth, rng: np.random.Generator) -> Iterator[Turn]:
    """The farthest of three marked points (R2)."""
    return _balanced(
        _which("depth_farthest", "Which is farthest from the camera", seen, rng, choices=3, far=True), 3, rng
    )


def depth_metres(seen: SeenDepth, rng: np.random.Generator) -> Iterator[Turn]:
    """The depth of a marked point in metres (R3)."""
    for _ in range(TRIES):
        for spot in seen.spots(rng, 1):
            yield Turn(
                "What is the depth of <place:0> in metres?",
                f"{spot.z_m:.2f}",
                family="depth_metres",
                task="reasoning",
                kind="number",
                places=(spot.point,),
                unit="m",
                tolerance=DEPTH_TOLERANCE,
                cues={"height": f"{spot.point.y:.4f}"},
            )


def depth_point_nearest(seen: SeenDepth, rng: np.random.Generator) -> Iterator[Turn]:
    """Point to what is nearest (G6): pixels within 5 % of the nearest depth; the answer is deep inside them.

    Not asked where that region borders on pixels without depth, because it may go on there: a sensor sees nothing that
    is nearer than its least range, nor what lies outside of its own picture.
    """
    if not seen.depth.valid.any():
        return
    nearest = float(np.percentile(seen.depth.values[seen.depth.valid], 0.1))
    inside = seen.depth.valid & (seen.depth.values <= (1 + REGION_SPREAD) * nearest)
    radius = _interior_radius(inside)
    low, high = (share * inside.size for share in REGION_SHARE)
    known = float((inside & seen.near_unknown).sum()) <= UNKNOWN_SHARE * float(inside.sum())
    if known and radius.max() >= REGION_RADIUS and low <= inside.sum() <= high:
        row, column = np.unravel_index(int(radius.argmax()), radius.shape)
        yield Turn(
            "Point to the surface that is closest to the camera.",
            "<place:0>",
            family="depth_point_nearest",
            task="grounding",
            kind="point",
            places=(seen.spot(int(row), int(column)).point,),
            region=Region.from_mask(inside),
        )


def depth_surface(seen: SeenDepth, rng: np.random.Generator) -> Iterator[Turn]:
    """Is the surface at a marked point horizontal or vertical? Needs a view and the world's up."""
    if seen.frame.view is not None and seen.up is not None:
        yield from _balanced(_surfaces(seen, rng), 2, rng)


def _surfaces(seen: SeenDepth, rng: np.random.Generator) -> Iterator[tuple[bool, Turn]]:
    for spot in (spot for _ in range(TRIES) for spot in seen.spots(rng, 1)):
        surface = _surface(seen, spot)
        if surface is not None:
            yield (
                surface == "horizontal",
                Turn(
                    "Is the surface at <place:0> horizontal or vertical?",
                    surface,
                    family="depth_surface",
                    task="reasoning",
                    kind="choice",
                    places=(spot.point,),
                    options=("horizontal", "vertical"),
                    cues={"height": "horizontal" if spot.point.y > 0.5 else "vertical"},
                ),
            )


FAMILIES = (depth_closer, depth_metres, depth_nearest, depth_farthest, depth_point_nearest, depth_surface)


def questions_from_depth(
    frame: Frame, rng: np.random.Generator, count: int, up: Float[np.ndarray, "3"] | None = None
) -> tuple[Turn, ...]:
    """Up to `count` turns, each family in its turn from a random one on; fewer if the frame offers no more.

    Empty without depth. ValueError if the depth is not metric. `up` (world frame) is needed by `depth_surface` only.
    """
    if frame.depth is None:
        return ()
    depth = frame.depth if frame.view is None else frame.depth.to_z(frame.view.camera)
    if depth.kind != "metric_z":
        raise ValueError(f"depth from {depth.source!r} is {depth.kind}: these questions need metric z-depth")
    seen = SeenDepth(frame, depth, None if up is None else up / np.linalg.norm(up))
    waiting = [FAMILIES[i](seen, rng) for i in rng.permutation(len(FAMILIES))]
    turns: list[Turn] = []
    while waiting and len(turns) < count:
        family = waiting.pop(0)
        turn = next(family, None)
        if turn is not None:
            turns.append(turn)
            waiting.append(family)
    return tuple(turns)


def _ordered(spots: list[Spot]) -> list[Spot]:
    """Nearest first if every neighbour passes the margin in depth and does not lose it along the ray; else empty."""
    spots = sorted(spots, key=lambda s: s.z_m)
    clear = all(
        b.z_m >= DEPTH_RATIO * a.z_m and b.z_m - a.z_m >= DEPTH_GAP_M and b.range_m > a.range_m
        for a, b in pairwise(spots)
    )
    return spots if clear else []


def _which(
    family: str, question: str, seen: SeenDepth, rng: np.random.Generator, choices: int, far: bool = False
) -> Iterator[tuple[bool, Turn]]:
    for _ in range(TRIES):
        spots = _ordered(seen.spots(rng, choices))
        if spots:
            winner = spots[-1 if far else 0]
            by_height = max(spots, key=lambda s: -s.row if far else s.row)
            yield winner is by_height, _choice(family, question, winner, by_height, spots, rng)


def _choice(
    family: str, question: str, winner: Spot, by_height: Spot, spots: list[Spot], rng: np.random.Generator
) -> Turn:
    shown = [spots[i] for i in rng.permutation(len(spots))]
    letters = "ABC"[: len(shown)]
    listed = [f"{letter} <place:{i}>" for i, letter in enumerate(letters)]
    return Turn(
        f"{question}: {', '.join(listed[:-1])} or {listed[-1]}?",
        letters[shown.index(winner)],
        family=family,
        task="reasoning",
        kind="choice",
        places=tuple(spot.point for spot in shown),
        options=tuple(letters),
        cues={"height": letters[shown.index(by_height)]},
    )


def _balanced(candidates: Iterable[tuple[bool, Turn]], period: int, rng: np.random.Generator) -> Iterator[Turn]:
    """Groups of `period` turns in random order, exactly one of each marked True: a frame gives both sorts or none."""
    marked: list[Turn] = []
    others: list[Turn] = []
    for is_marked, turn in candidates:
        (marked if is_marked else others).append(turn)
        if marked and len(others) >= period - 1:
            group = [marked.pop(), *(others.pop() for _ in range(period - 1))]
            yield from (group[i] for i in rng.permutation(period))


def _interior_radius(inside: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """How often each pixel survives taking away the border of the set (4 and 8 neighbours in turn)."""
    radius = np.zeros(inside.shape)
    left = np.pad(inside, 1)
    while left.any():
        radius += left[1:-1, 1:-1]
        core = left[1:-1, 1:-1] & left[:-2, 1:-1] & left[2:, 1:-1] & left[1:-1, :-2] & left[1:-1, 2:]
        if int(radius.max()) % 2:
            core = core & left[:-2, :-2] & left[:-2, 2:] & left[2:, :-2] & left[2:, 2:]
        left = np.pad(core, 1)
    return radius


def _surface(seen: SeenDepth, spot: Spot) -> str | None:
    """Fits a plane to the points around `spot`; None if they are not flat to 1 % or the plane is neither."""
    assert seen.frame.view is not None
    assert seen.up is not None
    rows, columns = (slice(max(at - PLANE_HALF, 0), at + PLANE_HALF + 1) for at in (spot.row, spot.column))
    if not seen.depth.valid[rows, columns].all():
        return None
    points = seen.points[rows, columns].reshape(-1, 3)
    centred = points - points.mean(axis=0)
    normal = np.linalg.svd(centred, full_matrices=False)[2][-1]
    if np.abs(centred @ normal).max() > PLANE_RESIDUAL * spot.z_m:
        return None
    up = seen.frame.view.camera_to_world[:3, :3].T @ seen.up
    tilt = np.degrees(np.arccos(min(1.0, abs(float(normal @ up)))))
    if tilt < HORIZONTAL_DEG:
        return "horizontal"
    return "vertical" if tilt > VERTICAL_DEG else None
