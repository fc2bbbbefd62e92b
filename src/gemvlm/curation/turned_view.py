"""What a camera would have seen from the same spot, turned, rolled or zoomed: more views from few RGB-D frames.

Two pictures of one optical centre are related by a homography (Hartley and Zisserman, Multiple View Geometry, 2004,
8.4): nothing is hidden in one and visible in the other. So picture, depth, camera and pose of a new view are exact but
for resampling, without new holes, and metres stay metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from PIL import Image

from gemvlm.camera import Camera, View
from gemvlm.sample import Frame

TRIES = 1000


@dataclass(frozen=True)
class ViewLimits:
    """How far a view may turn sideways or up and roll, in degrees, and the largest factor on its focal length."""

    turn_deg: float
    roll_deg: float
    zoom: float


def random_view(frame: Frame, limits: ViewLimits, rng: np.random.Generator) -> Frame:
    """A uniform draw from the views within `limits` that lie inside the frame; the frame itself if none is found."""
    for _ in range(TRIES):
        yaw, pitch = np.radians(rng.uniform(-limits.turn_deg, limits.turn_deg, 2))
        roll = np.radians(rng.uniform(-limits.roll_deg, limits.roll_deg))
        view = turned_view(frame, rotation(yaw, pitch, roll), rng.uniform(1.0, limits.zoom))
        if view is not None:
            return view
    return frame


def turned_view(frame: Frame, turn: Float[np.ndarray, "3 3"], zoom: float) -> Frame | None:
    """The frame seen in directions R r instead of r (R: `turn`), with `zoom` times the focal length, at its own size.

    A pixel of direction r (z = 1) shows the point z q / q_z with q = R r; in the new axes that is (z / q_z) r, so its
    z-depth is z / q_z. Depth is taken from the nearest pixel, never mixed. None if the view leaves the frame.
    ValueError without a camera.
    """
    old, depth = _view(frame).camera, frame.depth
    new = replace(old, fx=old.fx * zoom, fy=old.fy * zoom)
    width, height = old.width, old.height
    corners = np.array([(x, y) for x in (0.0, width) for y in (0.0, height)])
    towards = new.unproject(corners, np.ones(4)) @ turn.T
    seen = old.project(towards)
    if (towards[:, 2] <= 0).any() or (seen < -1e-6).any() or (seen > np.array([width, height]) + 1e-6).any():
        return None
    homography = _matrix(old) @ turn @ np.linalg.inv(_matrix(new))
    coefficients = (homography / homography[2, 2]).ravel()[:8].tolist()
    picture = Image.fromarray(frame.image).transform(
        (width, height), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR
    )
    if depth is not None:
        directions = new.rays() @ turn.T
        columns, rows = np.floor(old.project(directions)).astype(np.int64).transpose(2, 0, 1)
        at = rows.clip(0, height - 1), columns.clip(0, width - 1)
        z = np.where(depth.valid[at], depth.values[at] / directions[..., 2], 0).astype(np.float32)
        depth = replace(depth, values=z, valid=depth.valid[at])
    pose = _view(frame).camera_to_world.copy()
    pose[:3, :3] = pose[:3, :3] @ turn
    return Frame(np.array(picture), depth, View(new, pose))


def resized_frame(frame: Frame, width: int, height: int) -> Frame:
    """Picture, depth and camera resampled together; pixels without depth never contribute to depth."""
    picture = np.array(Image.fromarray(frame.image).resize((width, height), Image.Resampling.BILINEAR))
    view = _view(frame)
    depth = None if frame.depth is None else frame.depth.resized(width, height)
    return Frame(picture, depth, replace(view, camera=view.camera.resized(width, height)))


def rotation(yaw: float, pitch: float, roll: float) -> Float[np.ndarray, "3 3"]:
    """Radians about the camera's y, x and z axis; a view is rolled first and turned sideways last."""
    (cy, cx, cz), (sy, sx, sz) = np.cos((yaw, pitch, roll)), np.sin((yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def _view(frame: Frame) -> View:
    if frame.view is None:
        raise ValueError("frame: its camera is unknown; give intrinsics (camera-intrinsics.txt) or a registration")
    return frame.view


def _matrix(camera: Camera) -> Float[np.ndarray, "3 3"]:
    return np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
