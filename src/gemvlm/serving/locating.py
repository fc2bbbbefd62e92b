"""A request for a place in space as it came over the wire → what the pipeline is asked, and its answer's way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gemvlm.camera import Camera, View
from gemvlm.inference.locate import LocateRequest, Location
from gemvlm.serving.engine import Picture
from gemvlm.serving.limits import Limits, Refusal, data_url_bytes, decode_depth
from gemvlm.serving.messages import CameraBody, DepthRequest, LocateAnswer, LocateBody, Place
from gemvlm.serving.prompts import plain

RIGID = 1e-3
"""How far a rotation's rows may be from orthonormal: poses come with few digits."""


def painting(body: DepthRequest | LocateBody, limits: Limits) -> dict[str, Any]:
    """How depth is to be painted. Refusal for more work than one request may ask for."""
    for name, most in (("steps", limits.depth_steps), ("ensemble", limits.depth_ensemble)):
        if getattr(body, name) > most:
            raise Refusal(f"{name}: {getattr(body, name)} is more than {most}", param=name)
    return {"steps": body.steps, "guidance": float(body.guidance), "ensemble": body.ensemble, "seed": body.seed}


def locate_request(
    body: LocateBody, picture_of: Callable[[str, str], Picture], limits: Limits
) -> tuple[LocateRequest, int]:
    """The request, and the bytes that it holds while it waits."""
    expression = plain(body.expression, "expression")
    picture = picture_of(body.image, "image")
    camera = _camera(body.camera, picture.shape[1], picture.shape[0])
    view = camera if body.camera_to_world is None else View(camera, _pose(body.camera_to_world))
    depth = None if body.depth is None else decode_depth(data_url_bytes(body.depth, limits, "depth"), limits, "depth")
    if depth is not None and depth.values.shape != picture.shape[:2]:
        raise Refusal(
            f"depth: it is {depth.values.shape} but the image {picture.shape[:2]} (height, width); register it to the "
            "image",
            code="invalid_depth",
            param="depth",
        )
    weight = picture.nbytes + (0 if depth is None else depth.values.nbytes + depth.valid.nbytes)
    return LocateRequest(picture, expression, view, depth), weight


def locate_answer(found: Location) -> LocateAnswer:
    return LocateAnswer(
        point=None if found.point is None else Place(x=found.point.x, y=found.point.y),
        camera_m=found.camera_m,
        world_m=found.world_m,
        spread_m=found.spread_m,
        depth_source=found.depth_source,
        missing=found.missing,
        text=found.reply,
    )


def _camera(body: CameraBody, width: int, height: int) -> Camera:
    given = (body.fx, body.fy, body.cx, body.cy)
    if body.fov_y_deg is not None and given == (None,) * 4:
        return Camera.from_fov(width, height, body.fov_y_deg)
    if body.fov_y_deg is not None or None in given:
        raise Refusal("camera: give fx, fy, cx and cy in pixels, or fov_y_deg alone", param="camera")
    return Camera(width, height, *(float(value) for value in given if value is not None))


def _pose(rows: list[list[float]]) -> np.ndarray:
    pose = np.array(rows, dtype=np.float64)
    rotation = pose[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        orthonormal = np.allclose(rotation @ rotation.T, np.eye(3), atol=RIGID) and np.linalg.det(rotation) > 0
    if not orthonormal or not np.array_equal(pose[3], [0, 0, 0, 1]):
        raise Refusal(
            "camera_to_world: not a rigid transform (rotation and shift in metres, last row 0 0 0 1)",
            param="camera_to_world",
        )
    return pose
