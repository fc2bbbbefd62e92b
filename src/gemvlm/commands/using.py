"""Commands that use a checkpoint's answers: point, box, plan, locate; and those for a first look: doctor, demo."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from gemvlm.commands import Device, Model

if TYPE_CHECKING:
    from gemvlm.camera import Camera, View

ImageFile = Annotated[Positional[Path], arg(metavar="IMAGE")]
Expression = Annotated[Positional[str], arg(metavar="EXPRESSION")]
ImagesAndGoal = Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGE... GOAL")]
ModelOrNano = Annotated[Positional[str], arg(metavar="MODEL")]

NOT_FOUND = 1
"""Exit status where the model has answered, but without the place that was asked for."""


def point(
    model: Model,
    image: ImageFile,
    expression: Expression,
    *,
    all: bool = False,
    out: Path | None = None,
    device: Device = None,
) -> None:
    """Point to what an expression names; exit status 1 if the reply holds no point.

    Args:
        model: Checkpoint folder, owner/model of a hub, or the name of a shipped model.
        image: Image file.
        expression: What to point to, for instance "red mug".
        all: Point to everything that the expression fits.
        out: Picture with the points marked.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.inference import load

    pipeline = load(model, device)
    one = None if all else pipeline.point(image, expression)
    points = pipeline.points(image, expression) if all else (one,) if one else ()
    for place in points:
        print(f"point  x {place.x:.3f}  y {place.y:.3f}")
    _finish(image, out, expression, points=[(place.x, place.y) for place in points])


def box(
    model: Model, image: ImageFile, expression: Expression, *, out: Path | None = None, device: Device = None
) -> None:
    """Box the visible part of what an expression names; exit status 1 if the reply holds no box.

    Args:
        model: Checkpoint folder, owner/model of a hub, or the name of a shipped model.
        image: Image file.
        expression: What to box, for instance "red mug".
        out: Picture with the box drawn.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.inference import load

    found = load(model, device).box(image, expression)
    if found:
        print(f"box    x {found.x0:.3f} to {found.x1:.3f}  y {found.y0:.3f} to {found.y1:.3f}")
    _finish(image, out, expression, boxes=[(found.x0, found.y0, found.x1, found.y1)] if found else [])


def plan(model: Model, images_and_goal: ImagesAndGoal, *, device: Device = None) -> None:
    """List the steps that remain toward a goal.

    Args:
        model: Checkpoint folder, owner/model of a hub, or the name of a shipped model.
        images_and_goal: Image files, a video or a folder of frames, in the order of time, and last the goal: "put the
            red mug on the blue box", or "lift the red mug" for what must be removed before.
        device: cpu, cuda or mps; the best there is by default.
    """
    *images, goal = images_and_goal or ("",)
    if not images:
        raise ValueError('give at least one image and then the goal: gemvlm plan nano IMAGE "lift the red mug"')
    from gemvlm.inference import load

    found = load(model, device).plan(images, goal)
    for number, step in enumerate(found.steps, start=1):
        print(f"{number}. {step}")
    if not found.steps:
        print(found.text.strip() or "(no answer)")
    if not found.finished:
        print("gemvlm: the plan was cut off; its last step may be a part of one", file=sys.stderr)


def locate(
    model: Model,
    image: ImageFile,
    expression: Expression,
    *,
    fov: float | None = None,
    intrinsics: Path | None = None,
    pose: Path | None = None,
    depth: Path | None = None,
    fit: Path | None = None,
    support: float | None = None,
    steps: int = 30,
    ensemble: int = 1,
    seed: int = 0,
    out: Path | None = None,
    cloud: Path | None = None,
    rrd: Path | None = None,
    device: Device = None,
) -> None:
    """Find where in space something is; exit status 1 if it isn't found.

    Args:
        model: Checkpoint folder, owner/model of a hub, or the name of a shipped model.
        image: Image file.
        expression: What to look for, for instance "red mug".
        fov: The camera's vertical field of view in degrees, if nothing better is known.
        intrinsics: Text file with the camera's 3 x 3 matrix for this image (pixel centres on integers, as OpenCV's).
        pose: Text file with the 4 x 4 camera-to-world matrix in metres (x right, y down, z forward).
        depth: Measured depth of the image to use: .npz, or 16-bit .png with its JSON (see `gemvlm depth`).
        fit: Measured depth of some pixels that the model's own depth is brought to.
        support: Height in metres (the world's z, upwards) of the level surface that it stands on, to which the model's
            own depth is brought; needs --pose.
        steps: Integration steps of the generator.
        ensemble: Median of so many paintings.
        seed: Of the noise that painting starts from.
        out: Picture with the point marked.
        cloud: The whole image as coloured points, a .ply file.
        rrd: All of it as a recording for the Rerun viewer.
        device: cpu, cuda or mps; the best there is by default.
    """
    if sum(given is not None for given in (depth, fit, support)) > 1:
        raise ValueError("--depth is used as it is, generated depth is brought to --fit or --support: give one of them")
    if support is not None and pose is None:
        raise ValueError("--support: a height in the world needs the camera's pose; add --pose FILE")
    from gemvlm.depth_map import DepthMap, point_cloud
    from gemvlm.inference import load
    from gemvlm.inference.images import read_image

    picture = read_image(image)
    view = _view(picture.shape[1], picture.shape[0], fov, intrinsics, pose)
    found = load(model, device).locate(
        picture,
        expression,
        view,
        depth=None if depth is None else DepthMap.from_file(depth),
        fit=None if fit is None else DepthMap.from_file(fit),
        support_m=support,
        steps=steps,
        ensemble=ensemble,
        seed=seed,
    )
    if found.point is not None:
        print(f"point   x {found.point.x:.3f}  y {found.point.y:.3f}")
    if found.camera_m is not None:
        print(f"camera  {_metres(found.camera_m)}    (x right, y down, z forward)")
    if found.world_m is not None:
        print(f"world   {_metres(found.world_m)}")
    if found.spread_m is not None:
        print(f"depth   {found.depth_source}, median of {found.pixels} pixels, ± {found.spread_m:.3f} m")
    elif found.depth_source == "foot":
        print("depth   from the foot: the lower edge of its box on the surface; generated depth agrees")
    if cloud is not None and found.depth is not None:
        point_cloud(picture, found.depth, view).save(cloud)
        print(cloud)
    if rrd is not None:
        from gemvlm.recipes.rerun_scene import record_location

        print(record_location(rrd, picture, view, found))
    if found.missing is not None:
        print(f"gemvlm: {found.missing}; the reply was {found.reply!r}", file=sys.stderr)
    if found.point is not None:
        _finish(image, out, expression, points=[(found.point.x, found.point.y)])
    if found.camera_m is None:
        sys.exit(NOT_FOUND)


def doctor(model: ModelOrNano = "nano", *, device: Device = None) -> None:
    """Say what machine this is, what is installed, what is missing and how to get it, and whether a model runs.

    Args:
        model: Checkpoint to try: folder, owner/model of a hub, or the name of a shipped model.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.recipes.doctor import examine

    well = True
    for line in examine(model, device):
        print(f"{'ok' if line.well else '--' if line.well is None else 'NO':3} {line.name:12} {line.found}")
        if line.remedy:
            print(f"{'':16} {line.remedy}")
        well = well and line.well is not False
    if not well:
        sys.exit(1)


def demo(model: ModelOrNano = "nano", *, out: Path, device: Device = None) -> None:
    """Try a model on the pictures inside the package, and write a page with what it says, points to and paints.

    Args:
        model: Checkpoint folder, owner/model of a hub, or the name of a shipped model.
        out: Folder for index.html and a point cloud of each picture.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.recipes.demo import demonstrate

    print(demonstrate(model, out, device))


def _view(width: int, height: int, fov: float | None, intrinsics: Path | None, pose: Path | None) -> Camera | View:
    """The camera that the options tell. ValueError if they tell none, or two."""
    from gemvlm.camera import Camera, View, checked_pose
    from gemvlm.curation.sources.rgbd_folder import read_matrix

    if (fov is None) == (intrinsics is None):
        raise ValueError("a place in space needs one camera: give either --intrinsics FILE or --fov DEGREES")
    if intrinsics is not None:
        (fx, _, cx), (_, fy, cy), _ = read_matrix(intrinsics, (3, 3))
        if min(fx, fy) <= 0:
            raise ValueError(f"{intrinsics}: focal lengths {fx} and {fy} must be positive")
        camera = Camera(width, height, float(fx), float(fy), float(cx) + 0.5, float(cy) + 0.5)
    elif fov is not None and 0 < fov < 180:
        camera = Camera.from_fov(width, height, fov)
    else:
        raise ValueError(f"--fov {fov}: a field of view lies between 0 and 180 degrees")
    if pose is None:
        return camera
    try:
        return View(camera, checked_pose(read_matrix(pose, (4, 4))))
    except ValueError as error:
        raise ValueError(f"{pose}: {error}") from None


def _finish(
    image: Path,
    out: Path | None,
    expression: str,
    points: Sequence[tuple[float, float]] = (),
    boxes: Sequence[tuple[float, float, float, float]] = (),
) -> None:
    """Draws what was found, or says that nothing was and ends with status 1."""
    if not points and not boxes:
        print(f"gemvlm: {expression!r}: the reply holds no place", file=sys.stderr)
        sys.exit(NOT_FOUND)
    if out is not None:
        from gemvlm.figure import draw_points_boxes, png_bytes
        from gemvlm.inference.images import read_image

        drawn = draw_points_boxes(read_image(image), points, boxes, [expression] * (len(points) + len(boxes)))
        out.write_bytes(png_bytes(drawn))
        print(out)


def _metres(place: tuple[float, float, float]) -> str:
    return "  ".join(f"{name} {value:+.3f}" for name, value in zip("xyz", place, strict=True)) + "  m"
