"""ScanNet, TUM and 7-Scenes layouts: registration, association, poses, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gemvlm.camera import Camera
from gemvlm.curation.sources.registration import register, resampled, splatted
from gemvlm.curation.sources.rgbd_folder import RgbdFolders
from gemvlm.curation.sources.scannet import ScanNet, read_scannet_frame
from gemvlm.curation.sources.tum_rgbd import TumRgbd, associated, nearest_pairs, transform
from gemvlm.depth_map import DepthMap


@pytest.mark.parametrize("layout", ["scannet", "tum_rgbd", "rgbd_folder"])
def test_frames_are_asked_about_and_train(importing: Any, tmp_path: Path, layout: str) -> None:
    samples, _ = importing.read_all(importing.written(layout, tmp_path))
    assert len(samples) >= 2
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        frame = sample.frames[0]
        assert sample.turns
        assert frame.encoded is not None
        assert frame.view is not None
        assert frame.depth is not None
        assert frame.depth.origin is not None
        assert frame.depth.origin.provenance == "sensor"
        assert sample.provenance.licence != "unknown"
        assert sample.provenance.record
    assert len(importing.collated(samples).targets) == len(samples)


def test_scannet_depth_is_registered_and_lost_poses_left_out(importing: Any, tmp_path: Path) -> None:
    source = importing.written("scannet", tmp_path)
    samples, rejections = importing.read_all(source)
    assert [sample.id for sample in samples] == ["scannet/scene0000_00/000000", "scannet/scene0000_00/000010"]
    assert [item.reason for item in rejections] == ["pose_lost"]
    assert rejections[0].file == "scene0000_00/color/20.jpg"
    depth = samples[0].frames[0].depth
    assert depth is not None
    assert depth.values.shape == (194, 260)
    # the depth camera's column 64 is its centre; both cameras look alike, so it is the colour camera's centre too
    row = depth.values[120]
    edge = int(np.argmax(row == 2.5))
    assert abs(edge - 64 * 2.03) <= 1
    assert set(np.unique(depth.values[depth.valid])) <= {np.float32(1.0), np.float32(1.6), np.float32(2.5)}
    assert not depth.valid[:8].any()
    assert depth.valid[10:190, 2:250].all()
    assert len(ScanNet(tmp_path / "scans", step=2).parts()) == 1


def test_scannet_names_what_is_missing(importing: Any, tmp_path: Path) -> None:
    importing.written("scannet", tmp_path)
    scene = tmp_path / "scans/scene0000_00"
    (scene / "depth/10.png").unlink()
    with pytest.raises(ValueError, match=r"'depth/10\.png': no such file"):
        read_scannet_frame(scene, 10)
    np.savetxt(scene / "pose/0.txt", np.diag([1.0, 1.0, -1.0, 1.0]))
    with pytest.raises(ValueError, match="mirrors"):
        read_scannet_frame(scene, 0)
    (scene / "color/20.jpg").unlink()
    _, rejections = importing.read_all(ScanNet(tmp_path / "scans", step=1))
    assert [item.reason for item in rejections] == ["bad_ValueError", "missing_file", "missing_file"]
    with pytest.raises(ValueError, match="no folder in it has color/"):
        ScanNet(scene / "depth").parts()


def test_tum_lists_are_joined_by_time(importing: Any, tmp_path: Path) -> None:
    source = importing.written("tum_rgbd", tmp_path)
    samples, rejections = importing.read_all(source)
    assert len(samples) == 3
    assert [item.reason for item in rejections] == ["no_depth"]
    frame = samples[1].frames[0]
    assert frame.view is not None
    assert frame.depth is not None
    assert np.allclose(np.unique(frame.depth.values[frame.depth.valid]), [1.0, 1.6, 2.5])
    # (0.5, 0.5, 0.5, 0.5) turns x to y, y to z, z to x
    expected = [[0, 0, 1, 1], [1, 0, 0, 2], [0, 1, 0, 1], [0, 0, 0, 1]]
    assert np.allclose(frame.view.camera_to_world, expected)
    assert (frame.view.camera.cx, frame.view.camera.cy) == (64.0, 48.0)
    lists = tmp_path / "rgbd_dataset_freiburg1_desk"
    (lists / "groundtruth.txt").write_text("1305031452.79 1 2 3 0 0 0 2\n")
    samples, rejections = importing.read_all(source)
    assert [item.reason for item in rejections] == ["pose_lost", "no_pose", "no_pose", "no_depth"]
    depths = (lists / "depth.txt").read_text()
    (lists / "depth.txt").write_text("1305031452.79\n")
    with pytest.raises(ValueError, match=r"depth\.txt:1: expected 2 words"):
        associated(lists)
    (lists / "depth.txt").write_text(depths)
    (lists / "rgb.txt").write_text("# color images\n")
    with pytest.raises(ValueError, match=r"rgb\.txt: lists 0 pictures, 4 in rgb/ are not among them"):
        source.parts()
    with pytest.raises(ValueError, match=r"no folder in it has rgb\.txt"):
        TumRgbd(lists / "rgb").parts()


def test_pairs_are_the_nearest_and_used_once() -> None:
    first, second = np.array([0.0, 0.010, 1.0, 2.0]), np.array([0.008, 0.013, 1.019, 2.021])
    # 0.010 and 0.008 are nearest and go first; 0.0 then takes 0.013, 2.021 is too far from 2.0
    assert nearest_pairs(first, second) == {1: 0, 0: 1, 2: 2}
    assert nearest_pairs(first, np.array([])) == {}


def test_quaternions_are_rotations() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        q = rng.normal(size=4)
        q /= np.linalg.norm(q)
        matrix = transform((1.0, 2.0, 3.0, *map(float, q)))
        rotation = matrix[:3, :3]
        assert np.allclose(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1)
        assert np.allclose(rotation @ q[:3], q[:3])  # the axis stays
        assert np.trace(rotation) == pytest.approx(4 * q[3] ** 2 - 1)


def test_same_rays_resample_without_holes_and_agree_with_splatting() -> None:
    source, target = Camera(64, 48, 60.0, 60.0, 32.0, 24.0), Camera(130, 97, 121.8, 121.8, 65.0, 48.5)
    values = np.where(np.arange(64)[None] < 30, 1.0, 2.0) * np.ones((48, 1))
    depth = DepthMap.from_values(values)
    by_rays, by_points = resampled(depth, source, target), splatted(depth, source, target, np.eye(4))
    assert by_rays.valid[:, 1:-1].mean() > 0.98
    both = by_rays.valid & by_points.valid
    assert both.mean() > 0.97
    assert (by_rays.values == by_points.values)[both].mean() > 0.97  # all but the edge between the surfaces
    moved = np.eye(4)
    moved[0, 3] = 0.1
    shifted = register(depth, source, target, moved)
    # the near surface ends at X = -2/60 m, plus 0.1 m, at 1 m, and hides the beginning of the far one
    edge = int(np.argmax(shifted.values[48] == 2.0))
    assert abs(edge - (65 + 121.8 * (-2 / 60 + 0.1))) <= 1.5
    with pytest.raises(ValueError, match="needs metric z-depth"):
        register(depth, target, source, moved)


def test_a_frame_without_depth_or_questions_is_left_out(importing: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / f"{name}.color.png")
    noise = rng.integers(500, 5000, (48, 64)).astype(np.uint16)
    Image.fromarray(noise).save(tmp_path / "b.depth.png")
    samples, rejections = importing.read_all(RgbdFolders(tmp_path))
    assert not samples
    assert [item.reason for item in rejections] == ["no_depth", "no_question"]
    with pytest.raises(ValueError, match="no picture found"):
        empty = tmp_path / "empty"
        empty.mkdir()
        RgbdFolders(empty).parts()
