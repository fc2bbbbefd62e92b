"""Depth and colour become points in space, and a file that others open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap, PointCloud, point_cloud

CAMERA = Camera(8, 6, 10.0, 10.0, 4.0, 3.0)


def scene() -> tuple[np.ndarray, DepthMap]:
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 2.0, (6, 8))
    values[2, 3] = 0
    return rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), DepthMap.from_values(values)


def test_points_project_to_their_pixels_with_their_colours() -> None:
    image, depth = scene()
    cloud = point_cloud(image, depth, CAMERA)
    assert len(cloud.points) == 47
    pixels = CAMERA.project(cloud.points.astype(np.float64))
    columns, rows = np.floor(pixels).astype(int).T
    np.testing.assert_allclose(pixels - np.floor(pixels), 0.5, atol=1e-5)
    np.testing.assert_array_equal(cloud.colours, image[rows, columns])
    np.testing.assert_allclose(cloud.points[:, 2], depth.values[rows, columns])


def test_with_a_pose_points_are_in_the_world() -> None:
    image, depth = scene()
    pose = np.eye(4)
    pose[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    pose[:3, 3] = [1, 2, 3]
    view = View(CAMERA, pose)
    world = point_cloud(image, depth, view).points
    np.testing.assert_allclose(world, view.to_world(point_cloud(image, depth, CAMERA).points), atol=1e-6)


def test_distances_along_the_ray_become_z() -> None:
    image, depth = scene()
    lengths = np.linalg.norm(CAMERA.rays(), axis=-1)
    along = DepthMap((depth.values * lengths).astype(np.float32), depth.valid, "ray_distance", "m", "lidar")
    np.testing.assert_allclose(
        point_cloud(image, along, CAMERA).points, point_cloud(image, depth, CAMERA).points, atol=1e-6
    )


def test_the_file_is_a_binary_ply(tmp_path: Path) -> None:
    points = np.array([[1, 2, 3], [-4, 5.5, 6]], np.float32)
    colours = np.array([[1, 2, 3], [253, 254, 255]], np.uint8)
    PointCloud(points, colours).save(tmp_path / "cloud.ply")
    head, body = (tmp_path / "cloud.ply").read_bytes().split(b"end_header\n")
    assert head.startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty float x\n")
    assert len(body) == 2 * (3 * 4 + 3)
    assert np.frombuffer(body[15:27], "<f4").tolist() == [-4, 5.5, 6] and list(body[27:]) == [253, 254, 255]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    image, depth = scene()
    with pytest.raises(ValueError, match="bring them to one size"):
        point_cloud(image, depth, CAMERA.resized(4, 3))
    with pytest.raises(ValueError, match="is affine_depth; align it"):
        point_cloud(image, DepthMap.from_values(depth.values, "affine_depth"), CAMERA)
    with pytest.raises(ValueError, match=r"written as \.ply"):
        point_cloud(image, depth, CAMERA).save(tmp_path / "cloud.obj")
