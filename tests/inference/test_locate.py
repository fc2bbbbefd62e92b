"""A point in an image, depth and a camera make a place in space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gemvlm.camera import Camera, View
from gemvlm.depth_map import AlignmentError, DepthMap, Encoding
from gemvlm.inference import DepthPrediction, GemPipeline, LocateRequest
from gemvlm.inference.locate import BEHIND, depth_at, on_level, standing_on, unprojected, z_at_foot
from gemvlm.sample import Box, Point

CAMERA = Camera(64, 48, 60.0, 58.0, 31.0, 25.0)
POSE = np.eye(4)
POSE[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # a camera that looks along the world's x
POSE[:3, 3] = [0.5, -0.2, 0.8]
VIEW = View(CAMERA, POSE)


def flat(metres: float = 0.75) -> DepthMap:
    return DepthMap.from_values(np.full((48, 64), metres), source="test")


def saying(pipeline: GemPipeline, monkeypatch: pytest.MonkeyPatch, reply: str) -> None:
    def generate(batch: object, *_: object, **__: object) -> list[torch.Tensor]:
        return [torch.tensor(pipeline.tokenizer.encode(reply))] * len(batch.lengths)  # type: ignore[attr-defined]

    monkeypatch.setattr(pipeline.gem.backbone, "generate", generate)


def test_a_point_is_carried_to_the_camera_and_to_the_world() -> None:
    point = Point(40.0 / 64, 10.0 / 48)
    camera_m, world_m = unprojected(point, 0.6, VIEW)
    np.testing.assert_allclose(camera_m, [(40 - 31) / 60 * 0.6, (10 - 25) / 58 * 0.6, 0.6])
    assert world_m is not None
    np.testing.assert_allclose(world_m, [0.5 + 0.6, -0.2 - camera_m[0], 0.8 - camera_m[1]])
    assert unprojected(point, 0.6, CAMERA) == (camera_m, None)


def test_depth_around_a_point_is_a_median_of_valid_pixels() -> None:
    values = np.full((48, 64), 0.5, np.float32)
    values[20:23, 30:33] = [[1.0, 1.1, 9.0], [1.2, 0.0, 1.0], [1.1, 1.0, 1.0]]
    depth = DepthMap.from_values(values)  # the pixel itself is a hole, one neighbour is a fleck
    sample = depth_at(depth, Point(31.5 / 64, 21.5 / 48))
    assert sample is not None and sample.pixels == 8
    assert sample.z_m == pytest.approx(1.05) and sample.spread_m < 0.1
    wide = depth_at(depth, Point(31.5 / 64, 21.5 / 48), window=0.1)
    assert wide is not None and wide.z_m == 0.5 and wide.pixels == 13 * 13 - 1


@pytest.mark.parametrize("point", [Point(0.0, 0.0), Point(1.0, 1.0), Point(1.0, 0.0)])
def test_points_on_the_border_have_depth(point: Point) -> None:
    assert depth_at(flat(), point).pixels == 4  # type: ignore[union-attr]


def test_a_hole_around_the_point_is_told(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(pipeline, monkeypatch, "(500, 500)")
    depth = flat()
    depth = replace(depth, valid=np.zeros_like(depth.valid))
    found = pipeline.locate(image, "red mug", VIEW, depth=depth)
    assert found.point == Point(0.5, 0.5) and found.camera_m is None
    assert found.missing == "no valid measured depth around the point"


def test_measured_depth_is_used_and_nothing_is_painted(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(pipeline, monkeypatch, "(500, 500)")
    monkeypatch.setattr(pipeline.gem, "paint", None)
    found = pipeline.locate(image, "red mug", VIEW, depth=flat())
    assert found.depth_source == "measured" and found.missing is None
    assert (found.camera_m, found.world_m) == unprojected(Point(0.5, 0.5), 0.75, VIEW)
    assert found.spread_m == 0.0 and found.pixels == 9
    along_ray = DepthMap(flat().values, flat().valid, "ray_distance", "m", "lidar")
    nearer = pipeline.locate(image, "red mug", CAMERA, depth=along_ray)
    assert nearer.world_m is None and nearer.camera_m is not None and nearer.camera_m[2] < 0.75


def test_generated_depth_is_the_pipelines(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(pipeline, monkeypatch, "(250, 750)")
    found = pipeline.locate(image, "red mug", VIEW, steps=2)
    painted = pipeline.depth(image, steps=2).depth
    assert found.depth_source == "generated" and found.depth is not None and found.camera_m is not None
    np.testing.assert_allclose(found.depth.values, painted.values, rtol=1e-4)
    assert found.camera_m[2] == pytest.approx(depth_at(painted, Point(0.25, 0.75)).z_m, rel=1e-4)  # type: ignore[union-attr]


def test_generated_depth_is_brought_to_a_few_measured_pixels(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(pipeline, monkeypatch, "(250, 750)")
    painted = pipeline.depth(image, steps=2).depth
    few = np.zeros_like(painted.valid)
    few[::8, ::8] = True
    truth = replace(painted, values=painted.values * 1.7, valid=few, source="lidar")
    found = pipeline.locate(image, "red mug", VIEW, fit=truth, steps=2)
    assert found.depth_source == "aligned" and found.camera_m is not None
    assert found.camera_m[2] == pytest.approx(1.7 * depth_at(painted, Point(0.25, 0.75)).z_m, rel=1e-3)  # type: ignore[union-attr]
    noise = np.random.default_rng(0).uniform(0.1, 60.0, truth.values.shape).astype(np.float32)
    hopeless = pipeline.locate(image, "red mug", VIEW, fit=replace(truth, values=noise), steps=2)
    assert hopeless.camera_m is None and "does not fit" in str(hopeless.missing)


LOOKING_DOWN = np.eye(4)
LOOKING_DOWN[:3, :3] = [[1, 0, 0], [0, -1, 0], [0, 0, -1]]
LOOKING_DOWN[2, 3] = 1.5


def test_generated_depth_is_brought_to_the_surface_that_things_stand_on() -> None:
    """A table at 0.7 m seen from 1.5 m, a cup of 0.1 m on it, and all of it painted a third too far."""
    true = np.full((48, 64), 0.8, np.float32)
    true[20:28, 30:40] = 0.7
    true[:, :10] = 1.5  # the floor beside the table, and something painted below the table that can't be there
    true[40:44, 50:54] = 0.85
    painted = DepthMap.from_values(true * 4 / 3, source="painted")
    found = standing_on(painted, View(CAMERA, LOOKING_DOWN), 0.7)
    np.testing.assert_allclose(found.values[20:28, 30:40], 0.7, atol=1e-5)
    np.testing.assert_allclose(found.values[:, :10], 0.8, atol=1e-5)
    assert found.values.max() <= 0.8 + 1e-6 and found.is_metric
    with pytest.raises(AlignmentError):
        standing_on(painted, View(CAMERA, LOOKING_DOWN), 2.0)  # above the camera


def looking_down_by(degrees: float, roll: float = 0.0) -> View:
    """A camera a metre above the origin that looks along the world's x and down."""
    down, turn = np.deg2rad(degrees), np.deg2rad(roll)
    forward, right = np.array([np.cos(down), 0, -np.sin(down)]), np.array([0.0, -1, 0])
    below = np.cross(forward, right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1] = (
        np.cos(turn) * right + np.sin(turn) * below,
        np.cos(turn) * below - np.sin(turn) * right,
    )
    pose[:3, 2], pose[:3, 3] = forward, [0, 0, 1]
    return View(CAMERA, pose)


def seen_at(view: View, place: tuple[float, float, float]) -> Point:
    column, row = view.camera.project(view.to_camera(np.array(place)))
    return Point(float(column) / view.camera.width, float(row) / view.camera.height)


FOOT, WIDTH, TABLE = 1.1, 0.12, 0.2
MIDDLE = (FOOT + BEHIND * WIDTH, 0.05, 0.28)
"""8 cm above a table at 0.2 m, a third of the thing's width behind its foot."""


def standing(view: View) -> tuple[Point, Box]:
    """A thing whose foot is 1.1 m from below the camera and 0.12 m wide: its middle, and its box."""
    left, right = (seen_at(view, (FOOT, 0.05 + side * WIDTH / 2, TABLE)) for side in (1, -1))
    return seen_at(view, MIDDLE), Box(left.x, 0.3, right.x, left.y)


def test_a_thing_that_stands_on_a_surface_is_as_far_as_its_foot() -> None:
    view = looking_down_by(35)
    point, box = standing(view)
    z = z_at_foot(point, box, view, TABLE)
    assert z is not None
    _, world = unprojected(point, z, view)
    np.testing.assert_allclose(world, MIDDLE, atol=2e-3)  # both sides of the foot are not on one ray's line
    low = Point(point.x, box.y1)  # a ray that meets the table before the thing
    _, world = unprojected(low, z_at_foot(low, box, view, TABLE) or 0.0, view)
    assert world is not None and world[2] == pytest.approx(TABLE, abs=1e-9)


@pytest.mark.parametrize(
    "view",
    [looking_down_by(35, roll=80), looking_down_by(80), looking_down_by(35, roll=180), looking_down_by(-35)],
    ids=["turned on its side", "from above", "on its head", "looking up"],
)
def test_the_lower_edge_of_a_box_is_no_foot_where_down_is_not_down(view: View) -> None:
    point, box = standing(looking_down_by(35))
    assert z_at_foot(point, box, view, TABLE) is None


def test_a_foot_right_below_the_camera_is_no_fault() -> None:
    wide = Camera(64, 48, 20.0, 20.0, 31.0, 8.0)
    view = replace(looking_down_by(55), camera=wide)
    below = seen_at(view, (0.0, 0.0, TABLE))
    assert 0 < below.y < 1 - 1 / 48
    sides = Box(below.x - 0.05, 0.1, below.x + 0.05, below.y)
    foot = on_level(below, view, TABLE)
    assert foot is not None
    over = view.camera_to_world.copy()
    over[:2, 3] -= foot[:2]
    for seen in (view, View(wide, over)):
        z = z_at_foot(below, sides, seen, TABLE)
        assert z is None or 0 < z < 2


def test_a_foot_outside_the_picture_or_above_the_horizon_says_nothing() -> None:
    view = looking_down_by(35)
    point, box = standing(view)
    assert z_at_foot(point, replace(box, y1=1.0), view, TABLE) is None
    assert z_at_foot(point, box, view, 1.5) is None


@pytest.mark.parametrize(("share", "source"), [(1.0, "foot"), (0.9, "foot"), (0.7, "aligned")])
def test_locate_takes_the_foot_where_depth_agrees(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, share: float, source: str
) -> None:
    view = looking_down_by(35)
    point, box = standing(view)
    values = np.where(np.isfinite(plane := view.level_plane(TABLE)), plane, 20.0).astype(np.float32)
    row, column = int(point.y * 48), int(point.x * 64)
    z = z_at_foot(point, box, view, TABLE)
    assert z is not None
    values[row - 3 : row + 4, column - 3 : column + 4] = share * z
    painted = DepthPrediction(DepthMap.from_values(values * 1.2), np.ones_like(values), image)
    monkeypatch.setattr(pipeline, "depth_batch", lambda images, **_: [painted] * len(images))
    saying(pipeline, monkeypatch, f"({round(1000 * point.x)}, {round(1000 * point.y)})")
    monkeypatch.setattr(pipeline, "box_batch", lambda asked: [box for _ in asked])
    found = pipeline.locate(image, "mug", view, support_m=TABLE)
    assert found.depth_source == source and found.box == box and found.camera_m is not None
    assert (found.spread_m is None) == (source == "foot")
    assert found.camera_m[2] == pytest.approx(z if source == "foot" else share * z, rel=0.02)


def test_the_surfaces_height_is_an_argument_of_locate(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(pipeline, monkeypatch, "(500, 500)")
    monkeypatch.setattr(pipeline, "depth_batch", lambda images, **_: [painted] * len(images))
    painted = DepthPrediction(flat(1.6), np.ones((48, 64), np.float32), image)
    found = pipeline.locate(image, "mug", View(CAMERA, LOOKING_DOWN), support_m=0.7)
    assert found.depth_source == "aligned" and found.world_m is not None
    assert found.world_m[2] == pytest.approx(0.7, abs=1e-4)
    hopeless = pipeline.locate(image, "mug", View(CAMERA, LOOKING_DOWN), support_m=2.0)
    assert hopeless.world_m is None and "does not fit a surface at 2 m" in str(hopeless.missing)
    with pytest.raises(ValueError, match="support_m: a height in the world needs the camera's pose"):
        pipeline.locate(image, "mug", CAMERA, support_m=0.7)
    with pytest.raises(ValueError, match=r"fit and support_m: .* give one of them"):
        pipeline.locate(image, "mug", VIEW, fit=flat(), support_m=0.7)


def test_a_reply_without_a_point_is_none_with_the_reply(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(pipeline, monkeypatch, "no idea")
    found = pipeline.locate(image, "red mug", VIEW)
    assert found.point is None and found.camera_m is None
    assert found.reply == "no idea" and found.missing == "the reply holds no point"


def test_a_batch_is_its_requests_one_by_one_and_paints_an_image_once(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(pipeline, monkeypatch, "(250, 750)")
    other = 255 - image
    requests = [
        LocateRequest(image, "red mug", VIEW),
        LocateRequest(other, "red mug", CAMERA),
        LocateRequest(image.copy(), "bowl", VIEW),
        LocateRequest(image, "bowl", VIEW, depth=flat()),
    ]
    alone = [
        pipeline.locate(r.image, r.expression, r.view, depth=r.depth, steps=2).camera_m  # type: ignore[arg-type]
        for r in requests
    ]
    painted: list[int] = []
    depth_batch = pipeline.depth_batch
    monkeypatch.setattr(
        pipeline, "depth_batch", lambda images, **o: (painted.append(len(images)), depth_batch(images, **o))[1]
    )
    together = pipeline.locate_batch(requests, steps=2)
    assert painted == [2]
    for found, its_own in zip(together, alone, strict=True):
        np.testing.assert_allclose(found.camera_m, its_own, rtol=1e-4)  # type: ignore[arg-type]


def test_a_camera_or_depth_of_another_size_is_refused(pipeline: GemPipeline, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="camera: it is 32 x 24 pixels but the image 64 x 48; use"):
        pipeline.locate(image, "mug", CAMERA.resized(32, 24))
    with pytest.raises(ValueError, match=r"depth: it is \(24, 32\) but the image \(48, 64\)"):
        pipeline.locate(image, "mug", CAMERA, depth=flat().resized(32, 24))
    relative = DepthMap.from_values(np.ones((48, 64)), "affine_disparity")
    with pytest.raises(ValueError, match="fit: affine_disparity is not in metres"):
        pipeline.locate(image, "mug", CAMERA, fit=relative)


def test_depth_without_metres_needs_measured_pixels(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(pipeline, monkeypatch, "(250, 750)")
    painted = pipeline.depth(image, steps=2).depth
    relative = replace(pipeline.gem.config, encoding=Encoding("spectral"))
    monkeypatch.setattr(pipeline.gem, "config", relative)
    monkeypatch.setattr(pipeline, "depth_batch", lambda *_, **__: pytest.fail("painted for nothing"))
    with pytest.raises(ValueError, match="no metres; give metric depth"):
        pipeline.locate(image, "mug", CAMERA)
    with pytest.raises(ValueError, match="give one of them"):
        pipeline.locate(image, "mug", CAMERA, depth=painted, fit=painted)
