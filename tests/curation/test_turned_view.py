"""Turned views, checked against the geometry of a plane that both views see."""

from __future__ import annotations

import numpy as np
import pytest

from gemvlm.camera import Camera, View
from gemvlm.curation.turned_view import ViewLimits, random_view, resized_frame, rotation, turned_view
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame

CAMERA = Camera.from_fov(160, 120, 55.0)
NORMAL, OFFSET = np.array([0.2, 0.3, 0.9]), 2.0
"""The plane n . P = offset, in world axes."""
LIMITS = ViewLimits(turn_deg=10.0, roll_deg=8.0, zoom=1.5)


def frame() -> Frame:
    """Looks at the plane; the picture tells red and green by where a pixel's point lies in the world."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation(0.3, -0.2, 0.4), (0.1, -0.2, 0.3)
    view = View(CAMERA, pose)
    z = true_depth(view)
    points = view.to_world(CAMERA.rays() * z[..., None])
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[..., :2] = np.clip(128 + 40 * points[..., :2], 0, 255)
    return Frame(picture, DepthMap.from_values(z.astype(np.float32)), view)


def true_depth(view: View) -> np.ndarray:
    along = view.camera.rays() @ view.camera_to_world[:3, :3].T @ NORMAL
    return (OFFSET - NORMAL @ view.camera_to_world[:3, 3]) / along


def test_no_turn_and_no_zoom_is_the_frame_itself() -> None:
    same = turned_view(frame(), np.eye(3), 1.0)
    assert same is not None and same.depth is not None and frame().depth is not None
    np.testing.assert_allclose(same.image.astype(int), frame().image.astype(int), atol=1)  # a level of rounding
    np.testing.assert_allclose(same.depth.values, frame().depth.values, rtol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_picture_depth_and_pose_of_a_view_agree_with_the_world(seed: int) -> None:
    view = random_view(frame(), LIMITS, np.random.default_rng(seed))
    assert view.view is not None and view.depth is not None and frame().view is not None
    assert not np.array_equal(view.view.camera_to_world, frame().view.camera_to_world)
    turn = view.view.camera_to_world[:3, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(view.view.camera_to_world[:3, 3], frame().view.camera_to_world[:3, 3])
    assert view.depth.valid.all()
    true = true_depth(view.view)
    np.testing.assert_allclose(view.depth.values, true, rtol=0.012)  # the nearest pixel is up to half a pixel away
    points = view.view.to_world(view.view.camera.rays() * true[..., None])
    expected = np.clip(128 + 40 * points[..., :2], 0, 255)
    assert np.abs(view.image[..., :2] - expected).max() < 2.5


def test_holes_stay_holes() -> None:
    whole = frame()
    assert whole.depth is not None
    valid = np.ones((120, 160), bool)
    valid[40:80, 50:110] = False
    values = np.where(valid, whole.depth.values, np.nan).astype(np.float32)
    holed = Frame(whole.image, DepthMap(values, valid, "metric_z", "m", "test"), whole.view)
    view = turned_view(holed, np.eye(3), 2.0)
    assert view is not None and view.depth is not None
    assert not view.depth.valid[25:95, 25:135].any() and view.depth.valid[:15].all()
    assert np.isfinite(view.depth.values).all()


def test_a_view_that_leaves_the_frame_is_refused() -> None:
    assert turned_view(frame(), rotation(0.05, 0.0, 0.0), 1.0) is None
    assert turned_view(frame(), rotation(np.pi, 0.0, 0.0), 1.5) is None
    assert turned_view(frame(), rotation(0.05, 0.0, 0.0), 1.5) is not None


def test_resizing_moves_the_camera_along() -> None:
    small = resized_frame(frame(), 80, 60)
    assert small.view is not None and small.depth is not None
    assert (small.view.camera.width, small.view.camera.height) == (80, 60)
    np.testing.assert_allclose(small.depth.values, true_depth(small.view), rtol=0.01)


def test_a_frame_without_camera_is_refused() -> None:
    with pytest.raises(ValueError, match="its camera is unknown"):
        resized_frame(Frame(np.zeros((4, 4, 3), np.uint8)), 2, 2)
