"""Frames from folders: registration, poses, resizing, and errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemvlm.camera import Camera
from gemvlm.curation.sources.rgbd_folder import KINECT_7SCENES, Registration, RgbdFolder
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame

KITCHEN = Path(__file__).parents[2] / "../shared/rgbd-7scenes"
SMALL = Registration(60.0, (31.5, 23.5), (0.05, 0.0), 54.0, (32.0, 24.0))


def write_frame(folder: Path, name: str, image: str = ".color.png", depth: str | None = ".depth.png") -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{name}{image}")
    if depth is not None:
        counts = np.full((48, 64), 2000, np.uint16)
        counts[0], counts[1] = 0, 65535
        Image.fromarray(counts).save(folder / f"{name}{depth}")


def write_camera(folder: Path, *names: str) -> None:
    np.savetxt(folder / "camera-intrinsics.txt", [[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])
    for name in names:
        np.savetxt(folder / f"{name}.pose.txt", np.eye(4))


def test_a_plain_frame_is_read_with_all_that_is_known(tmp_path: Path) -> None:
    write_frame(tmp_path, "b")
    write_frame(tmp_path, "a", ".jpg", "_depth.png")
    write_frame(tmp_path, "c", ".png", None)
    write_camera(tmp_path, "a", "b")
    folder = RgbdFolder(tmp_path)
    assert folder.names == ("a", "b", "c")
    a, b, c = folder
    assert c.depth is None
    assert a.depth is not None
    assert not a.depth.valid[:2].any()
    assert (a.depth.values[2:] == 2).all()
    assert (b.depth or a.depth).source == "b.depth.png"
    assert a.view is not None
    assert (a.view.camera.cx, a.view.camera.cy) == (32.0, 24.0)  # centres on integers become centres on halves


def test_pictures_alone_are_enough(tmp_path: Path) -> None:
    write_frame(tmp_path, "photo", ".png", None)
    frame = RgbdFolder(tmp_path)[0]
    assert frame.depth is None
    assert frame.view is None


def test_photos_stand_the_way_up_that_the_camera_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "phone.jpg", exif=exif)
    assert RgbdFolder(tmp_path)[0].image.shape == (64, 48, 3)


def test_resizing_moves_picture_depth_and_camera_together(tmp_path: Path) -> None:
    write_frame(tmp_path, "a")
    write_camera(tmp_path, "a")
    frame = RgbdFolder(tmp_path, size=(24, 32))[0]
    assert frame.image.shape == (24, 32, 3)
    assert frame.depth is not None
    assert frame.view is not None
    assert frame.depth.values.shape == (24, 32)
    assert not frame.depth.valid[0].any()
    assert np.allclose(frame.depth.values[1:], 2)
    assert frame.view.camera == Camera(32, 24, 30.0, 30.0, 16.0, 12.0)


def test_depth_in_another_unit_is_told_by_its_json(tmp_path: Path) -> None:
    write_frame(tmp_path, "a", depth=None)
    DepthMap.from_values(np.full((48, 64), 1.5), "ray_distance", "lidar").save(tmp_path / "a.depth.png")
    depth = RgbdFolder(tmp_path)[0].depth
    assert depth is not None
    assert (depth.kind, depth.source) == ("ray_distance", "lidar")


def test_registration_of_a_plane_has_no_holes_and_the_right_place() -> None:
    depth = DepthMap.from_values(np.full((48, 64), 1.5), source="plane")
    registered = SMALL.register(depth, 64, 48)
    assert np.allclose(registered.values[registered.valid], 1.5)
    rows, columns = np.nonzero(registered.valid)
    assert registered.valid[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    # the left edge of the depth image: X = -32/60 * 1.5, seen by the colour camera at 54 (X - 0.05) / 1.5 + 32.5
    assert columns.min() == int(54 * (-32 / 60 * 1.5 - 0.05) / 1.5 + 32.5)
    enlarged = Registration(60.0, (31.5, 23.5), (0.0, 0.0), 100.0, (31.5, 23.5)).register(depth, 64, 48)
    assert enlarged.valid.all()


def test_the_nearest_surface_wins() -> None:
    values = np.full((48, 64), 3.0)
    values[:, 20:40] = 0.6
    depth = DepthMap.from_values(values)
    registered = SMALL.register(depth, 64, 48)
    middle = registered.values[24][registered.valid[24]]
    changes = np.flatnonzero(np.abs(np.diff(middle)) > 1)
    assert len(changes) == 2
    # 20 columns at 0.6 m are 20 * 54 / 60 = 18 columns of the colour image
    assert abs(changes[1] - changes[0] - 18) <= 1


def test_a_rounded_rotation_is_made_rigid_and_a_wrong_one_refused(tmp_path: Path) -> None:
    write_frame(tmp_path, "a")
    write_camera(tmp_path, "a")
    pose = np.eye(4)
    pose[0, 1] = 4e-3
    np.savetxt(tmp_path / "a.pose.txt", pose)
    view = RgbdFolder(tmp_path)[0].view
    assert view is not None
    rotation = view.camera_to_world[:3, :3]
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    for wrong in (np.diag([1.0, 1.0, -1.0, 1.0]), np.diag([2.0, 2.0, 2.0, 1.0])):
        np.savetxt(tmp_path / "a.pose.txt", wrong)
        with pytest.raises(ValueError, match=r"a\.pose\.txt: not a camera-to-world"):
            RgbdFolder(tmp_path)[0]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        len(RgbdFolder(tmp_path / "missing"))
    with pytest.raises(ValueError, match="no picture found"):
        len(RgbdFolder(tmp_path))
    write_frame(tmp_path, "a")
    Image.fromarray(np.ones((24, 32), np.uint16)).save(tmp_path / "a.depth.png")
    with pytest.raises(ValueError, match=r"a\.depth\.png: depth is \(24, 32\) but a\.color\.png is \(48, 64\)"):
        RgbdFolder(tmp_path)[0]
    (tmp_path / "a.depth.png").unlink()
    (tmp_path / "a.color.png").write_bytes(b"\x89PNG no")
    with pytest.raises(ValueError, match=r"a\.color\.png: not a readable picture"):
        RgbdFolder(tmp_path)[0]
    write_frame(tmp_path, "a")
    (tmp_path / "camera-intrinsics.txt").write_text("60 0 32\n0 60 24\n")
    with pytest.raises(ValueError, match=r"camera-intrinsics\.txt: expected 3 x 3"):
        RgbdFolder(tmp_path)[0]
    (tmp_path / "camera-intrinsics.txt").write_text("sixty")
    with pytest.raises(ValueError, match=r"camera-intrinsics\.txt: not a table"):
        RgbdFolder(tmp_path)[0]
    write_frame(tmp_path, "a", ".jpg")
    with pytest.raises(ValueError, match="1 names have two pictures"):
        len(RgbdFolder(tmp_path))


def seen_from(source: Frame, target: Frame) -> np.ndarray:
    """|depth| differences (metres) of the source's points where the target's camera sees a surface too."""
    assert source.depth is not None
    assert source.view is not None
    assert target.depth is not None
    assert target.view is not None
    points = (source.view.camera.rays() * source.depth.values[..., None])[source.depth.valid]
    points = target.view.to_camera(source.view.to_world(points))
    points = points[points[:, 2] > 0.3]
    columns, rows = np.floor(target.view.camera.project(points)).astype(int).T
    height, width = target.depth.values.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    z, rows, columns = points[inside, 2], rows[inside], columns[inside]
    there = target.depth.valid[rows, columns]
    return np.abs(target.depth.values[rows, columns] - z)[there]


def test_points_of_a_real_frame_lie_on_the_surfaces_of_the_next() -> None:
    if not KITCHEN.is_dir():
        pytest.skip("the real frames are not beside this checkout")
    folder = RgbdFolder(KITCHEN, KINECT_7SCENES)
    assert len(folder) == 40
    assert folder.names[1] == "frame-000025"
    for first in (0, 20, 36):
        source, target = folder[first], folder[first + 1]
        assert source.depth is not None
        assert source.depth.valid.mean() > 0.6
        discrepancy = seen_from(source, target)
        assert len(discrepancy) > 0.5 * source.depth.valid.sum()
        assert np.median(discrepancy) < 0.05
