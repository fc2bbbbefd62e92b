"""A place in an image → a place in space: depth around the point, the camera's ray through it, the camera's pose.

    camera_m = z (u - cx) / fx, z (v - cy) / fy, z        (u, v) the point in pixels, z its depth
    world_m  = camera_to_world camera_m

z is the median over the valid pixels of a small square, so that a hole, a fleck or an edge of the depth map that the
point just misses has no say. A thing that stands on a known level surface is as far as its foot, the lower edge of its
box, which says more than painted depth; whether it does, painted depth decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from gemvlm.camera import Camera, View
from gemvlm.depth_map import AlignmentError, AlignmentRules, DepthMap, align
from gemvlm.inference.images import ImageLike
from gemvlm.sample import Box, Point

DepthSource = Literal["measured", "generated", "aligned", "foot"]
Metres = tuple[float, float, float]

WINDOW = 0.01
"""Half a side of the square, as a share of the image's longer side; at least a pixel."""
FIT = AlignmentRules(min_truth=0.0, min_pixels=10, min_inliers=0.3)
"""Metric truth may be as sparse as a few returns of a lidar, and generated depth need not be good all over."""
SUPPORT = AlignmentRules(min_truth=0.05, min_inliers=0.2)
"""Much of a picture is not the surface that things stand on."""
FAR_M = 10.0
"""Nothing stands on a surface beyond this."""
AGREES = 0.2
"""A thing stands on the surface if depth and foot place it no further apart than this share of its distance; chosen,
with the next, on development scenes."""
BEHIND = 1 / 3
"""The middle of what is seen of a thing lies behind its foot, by this share of its width."""
UPRIGHT = -0.5
"""The world's z of the image's downward axis, at most: else the lower edge of a box is no foot."""


@dataclass(frozen=True)
class LocateRequest:
    """What to look for, in which image, through which camera, and what is known of depth; see `GemPipeline.locate`.

    `support_m` is the height (world z, metres) of the level surface that the thing stands on, or stands over.
    """

    image: ImageLike
    expression: str
    view: Camera | View
    depth: DepthMap | None = None
    fit: DepthMap | None = None
    support_m: float | None = None


@dataclass(frozen=True)
class Location:
    """Where a thing is, or in `missing` what stood in the way.

    `point` is where the model points, None if its `reply` holds no point. `camera_m` is in the camera's frame (x right,
    y down, z forward), None if no pixel around the point has depth; `world_m` needs a pose. `spread_m` is half the
    distance between the quartiles of the `pixels` depths that z is the median of: large on an edge. `depth` is the
    whole map in metres, `depth_source` where z comes from: that map, or the "foot" of the thing, the lower edge of the
    `box` that the model draws around it; then z is no median.
    """

    expression: str
    reply: str
    point: Point | None = None
    camera_m: Metres | None = None
    world_m: Metres | None = None
    spread_m: float | None = None
    pixels: int = 0
    depth: DepthMap | None = None
    depth_source: DepthSource | None = None
    missing: str | None = None
    box: Box | None = None


@dataclass(frozen=True)
class DepthSample:
    """The median of some pixels' depths (metres), half the distance between their quartiles, and how many there are."""

    z_m: float
    spread_m: float
    pixels: int


def depth_at(depth: DepthMap, point: Point, window: float = WINDOW) -> DepthSample | None:
    """Metric z-depth around a point; None if no pixel there is valid."""
    height, width = depth.values.shape
    reach = max(1, round(window * max(height, width)))
    column = min(int(point.x * width), width - 1)
    row = min(int(point.y * height), height - 1)
    around = np.s_[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
    known = depth.values[around][depth.valid[around]]
    if not known.size:
        return None
    low, middle, high = np.percentile(known.astype(np.float64), (25, 50, 75))
    return DepthSample(float(middle), float(high - low) / 2, known.size)


def unprojected(point: Point, z_m: float, view: Camera | View) -> tuple[Metres, Metres | None]:
    """The point at that depth in the camera's frame, and in the world's if the pose is known."""
    camera = view.camera if isinstance(view, View) else view
    pixel = np.array([point.x * camera.width, point.y * camera.height])
    place = camera.unproject(pixel, np.array(z_m))
    return _metres(place), _metres(view.to_world(place)) if isinstance(view, View) else None


def standing_on(depth: DepthMap, view: View, height_m: float) -> DepthMap:
    """z-depth brought to the level surface at world z = `height_m` that is seen in it; nothing then lies beneath that.

    AlignmentError if too little of the picture agrees with such a surface.
    """
    plane = view.level_plane(height_m)
    seen = plane < FAR_M
    surface = DepthMap.from_values(np.where(seen, plane, 0).astype(np.float32), source="level surface")
    aligned = align(depth, replace(surface, valid=seen), SUPPORT)
    return replace(aligned, values=np.minimum(aligned.values, plane).astype(np.float32))


def z_at_foot(point: Point, box: Box, view: View, height_m: float) -> float | None:
    """z-depth of a point of a thing that stands on the level surface at world z = `height_m`, from its box alone.

    The thing is taken for upright: a plane behind the middle of the box's lower edge. None if that edge is no foot: the
    camera looks down too steeply or is turned on its side, or the box leaves the image there.
    """
    camera = view.camera
    if view.camera_to_world[2, 1] > UPRIGHT or box.y1 >= 1 - 1 / camera.height:
        return None
    sides = [on_level(Point(x, box.y1), view, height_m) for x in (box.x0, box.x1)]
    foot = on_level(Point((box.x0 + box.x1) / 2, box.y1), view, height_m)
    if foot is None or sides[0] is None or sides[1] is None:
        return None
    origin = view.camera_to_world[:3, 3]
    away = foot[:2] - origin[:2]
    distance = float(np.hypot(*away))
    behind = distance + BEHIND * float(np.linalg.norm(sides[1] - sides[0]))
    towards = float(_ray(point, view)[:2] @ away)
    if towards <= 0:  # the point lies the other way, or the foot right below the camera
        return None
    surface = on_level(point, view, height_m)
    to_surface = np.inf if surface is None else float((surface - origin) @ view.camera_to_world[:3, 2])
    return min(behind * distance / towards, to_surface)


def _ray(point: Point, view: View) -> Float[np.ndarray, "3"]:
    """From the camera through the point, in the world, to z-depth 1."""
    pixel = np.array([point.x * view.camera.width, point.y * view.camera.height])
    return view.camera_to_world[:3, :3] @ view.camera.unproject(pixel, np.array(1.0))


def on_level(point: Point, view: View, height_m: float) -> Float[np.ndarray, "3"] | None:
    """Where the point's ray meets the level surface at world z = `height_m`, in the world; None if nowhere."""
    ray, origin = _ray(point, view), view.camera_to_world[:3, 3]
    z = (height_m - origin[2]) / ray[2] if ray[2] else -1.0
    return origin + z * ray if z > 0 else None


def located(
    found: Location, point: Point, request: LocateRequest, generated: DepthMap | None, box: Box | None = None
) -> Location:
    """`found` with its place in space: by measured depth if there is any, else by generated depth.

    That is taken as it is, or brought to what is known in places; `box`, around the thing, tells where it stands.
    """
    view = request.view
    camera = view.camera if isinstance(view, View) else view
    found = replace(found, point=point, box=box)
    source: DepthSource
    if request.depth is not None:
        depth, source = request.depth.to_z(camera), "measured"
    elif generated is None:
        raise ValueError("neither measured nor generated depth was given; give one of them")
    elif request.fit is not None or request.support_m is not None:
        try:
            depth, source = _aligned(generated.to_z(camera), request), "aligned"
        except AlignmentError as error:
            what = "the measured one" if request.fit is not None else f"a surface at {request.support_m:g} m"
            return replace(found, missing=f"generated depth does not fit {what}: {error}")
    else:
        depth, source = generated.to_z(camera), "generated"
    found = replace(found, depth=depth, depth_source=source)
    sample = depth_at(depth, point)
    if sample is None:
        return replace(found, missing=f"no valid {source} depth around the point")
    if box is not None and isinstance(view, View) and request.support_m is not None:
        z_m = z_at_foot(point, box, view, request.support_m)
        if z_m is not None and abs(z_m - sample.z_m) < AGREES * sample.z_m:
            camera_m, world_m = unprojected(point, z_m, view)
            return replace(found, camera_m=camera_m, world_m=world_m, depth_source="foot")
    camera_m, world_m = unprojected(point, sample.z_m, view)
    return replace(found, camera_m=camera_m, world_m=world_m, spread_m=sample.spread_m, pixels=sample.pixels)


def _aligned(depth: DepthMap, request: LocateRequest) -> DepthMap:
    """Generated z-depth brought to what the request knows."""
    view = request.view
    if request.fit is not None:
        return align(depth, request.fit.to_z(view.camera if isinstance(view, View) else view), FIT)
    assert isinstance(view, View) and request.support_m is not None
    return standing_on(depth, view, request.support_m)


def check_request(image: np.ndarray, request: LocateRequest, paints_metres: bool) -> None:
    """ValueError unless camera and depth maps have the image's size and depth in metres can be had.

    `paints_metres` says whether the model's own depth is metric.
    """
    known = [name for name in ("depth", "fit", "support_m") if getattr(request, name) is not None]
    if not known and not paints_metres:
        raise ValueError(
            "this model's depth has no metres; give metric depth of some pixels (`fit`) or the height of the surface "
            "that things stand on (`support_m`) to align it to, or depth of all pixels (`depth`)"
        )
    if len(known) > 1:
        raise ValueError(
            f"{' and '.join(known)}: depth is used as it is, generated depth is brought to fit or to the surface at "
            "support_m; give one of them"
        )
    if request.support_m is not None and not isinstance(request.view, View):
        raise ValueError("support_m: a height in the world needs the camera's pose; give a `View` (`camera_to_world`)")
    size = image.shape[:2]
    camera = request.view.camera if isinstance(request.view, View) else request.view
    if (camera.height, camera.width) != size:
        raise ValueError(
            f"camera: it is {camera.width} x {camera.height} pixels but the image {size[1]} x {size[0]}; use "
            "`Camera.resized` or `Camera.cropped` as the image was"
        )
    for name, depth in (("depth", request.depth), ("fit", request.fit)):
        if depth is None:
            continue
        if depth.values.shape != size:
            raise ValueError(
                f"{name}: it is {depth.values.shape} but the image {size} (height, width); register it to the image, "
                "then `DepthMap.resized`"
            )
        if not depth.is_metric:
            raise ValueError(f"{name}: {depth.kind} is not in metres; give metric_z or ray_distance")


def _metres(place: np.ndarray) -> Metres:
    x, y, z = (float(value) for value in place)
    return x, y, z
