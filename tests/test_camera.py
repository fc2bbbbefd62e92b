"""Pinhole cameras: what projects unprojects, and geometry moves with the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemvlm.camera import Camera, View

CAMERA = Camera(40, 30, 35.0, 36.0, 19.0, 16.0)


def turned() -> View:
    angle = 0.7
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[:3, 3] = (0.3, -1.0, 2.0)
    return View(CAMERA, pose)


@given(st.floats(-20, 60), st.floats(-20, 60), st.floats(0.05, 50))
def test_unproject_undoes_project(x: float, y: float, z: float) -> None:
    points = CAMERA.unproject(np.array([[x, y]]), np.array([z]))
    assert points[0, 2] == z
    assert np.allclose(CAMERA.project(points), [[x, y]], atol=1e-8)


def test_pixel_centres_lie_on_halves() -> None:
    rays = CAMERA.rays()
    assert rays.shape == (30, 40, 3)
    assert np.allclose(CAMERA.project(rays[12, 7] * 3.0), (7.5, 12.5))
    assert np.allclose(rays[..., 2], 1)


def test_axes_are_right_down_forward() -> None:
    middle, right, below = CAMERA.project(np.array([[0.0, 0, 1], [0.1, 0, 1], [0, 0.1, 1]]))
    assert np.allclose(middle, (CAMERA.cx, CAMERA.cy))
    assert right[0] > middle[0]
    assert below[1] > middle[1]


def test_a_field_of_view_is_seen_from_edge_to_edge() -> None:
    camera = Camera.from_fov(40, 30, 50.0)
    y = np.tan(np.radians(25))
    assert np.allclose(camera.project(np.array([[0, -y, 1], [0, y, 1]]))[:, 1], (0, 30))
    assert camera.fx == camera.fy


@pytest.mark.parametrize(("width", "height"), [(20, 15), (80, 90), (7, 5)])
def test_resizing_keeps_the_fractions_of_the_image(width: int, height: int) -> None:
    points = np.random.default_rng(0).uniform((-1, -1, 1), (1, 1, 4), (50, 3))
    before = CAMERA.project(points) / (40, 30)
    after = CAMERA.resized(width, height).project(points) / (width, height)
    assert np.allclose(before, after)


def test_cropping_moves_the_origin() -> None:
    points = np.random.default_rng(0).uniform((-1, -1, 1), (1, 1, 4), (50, 3))
    crop = CAMERA.cropped(5, 3, 20, 10)
    assert (crop.width, crop.height) == (20, 10)
    assert np.allclose(crop.project(points), CAMERA.project(points) - (5, 3))
    assert np.allclose(crop.rays(), CAMERA.rays()[3:13, 5:25])


def test_world_and_camera_are_undone_by_each_other() -> None:
    view, points = turned(), np.random.default_rng(0).normal(size=(6, 5, 3))
    assert np.allclose(view.to_camera(view.to_world(points)), points)
    assert np.allclose(view.to_world(np.zeros((1, 3))), view.camera_to_world[:3, 3])
    homogeneous = np.append(points[0, 0], 1)
    assert np.allclose(view.to_world(points[0, 0]), (view.camera_to_world @ homogeneous)[:3])


def test_rays_meet_a_level_plane_where_depth_says() -> None:
    pose = np.eye(4)
    tilt = np.radians(125.0)  # looks down, 35 degrees from straight, so that some rays look at the sky
    pose[:3, :3] = [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    pose[:3, 3] = [0.3, -0.2, 1.2]
    view = View(Camera.from_fov(40, 30, 115.0), pose)
    z = view.level_plane(0.4)
    meets = np.isfinite(z)
    assert 0 < meets.sum() < meets.size and (z[meets] > 0).all()
    places = view.to_world(view.camera.rays()[meets] * z[meets][:, None])
    np.testing.assert_allclose(places[:, 2], 0.4, atol=1e-9)
    upwards = view.to_world(view.camera.rays())[..., 2] - 1.2
    assert (upwards[~meets] >= 0).all() and (upwards[meets] < 0).all()
    assert np.isinf(View(Camera.from_fov(4, 4, 50.0), np.eye(4)).level_plane(-1.0)).all()
