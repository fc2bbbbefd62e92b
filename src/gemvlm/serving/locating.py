"""A request for a place in space as it came over the wire → what the pipeline is asked, and its answer's way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gemvlm.camera import Camera, View, checked_pose
from gemvlm.depth_map import DepthMap
from gemvlm.inference.locate import LocateRequest, Location, check_request
from gemvlm.inference.phrases import point_to
from gemvlm.serving.engine import Picture
from gemvlm.serving.limits import Limits, Refusal, data_url_bytes, decode_depth
from gemvlm.serving.messages import CameraBody, DepthRequest, LocateAnswer, LocateBody, Place
from gemvlm.serving.prompts import plain


def painting(body: DepthRequest | LocateBody, limits: Limits) -> dict[str, Any]:
    """How depth is to be painted. Refusal for more work than one request may ask for."""
    for name, most in (("steps", limits.depth_steps), ("ensemble", limits.depth_ensemble)):
        if getattr(body, name) > most:
            raise Refusal(f"{name}: {getattr(body, name)} is more than {most}", param=name)
    if body.steps * body.ensemble > limits.depth_work:
        raise Refusal(
            f"ensemble: {body.ensemble} paintings of {body.steps} steps are more than {limits.depth_work} steps in all",
            param="ensemble",
        )
    return {"steps": body.steps, "guidance": float(body.guidance), "ensemble": body.ensemble, "seed": body.seed}


def locate_request(
    body: LocateBody, picture_of: Callable[[str, str], Picture], limits: Limits, paints_metres: bool
) -> tuple[LocateRequest, int]:
    """The request, and the bytes that it holds while it waits; whatever is wrong with it is said here."""
    expression = plain(body.expression, "expression")
    point_to(expression)
    picture = picture_of(body.image, "image")
    camera = _camera(body.camera, picture.shape[1], picture.shape[0])
    view = camera if body.camera_to_world is None else View(camera, _pose(body.camera_to_world))
    depth, fit = (_known(getattr(body, name), name, picture, limits) for name in ("depth", "fit"))
    request = LocateRequest(picture, expression, view, depth, fit, body.support_m)
    check_request(picture, request, paints_metres)
    return request, picture.nbytes + sum(one.values.nbytes + one.valid.nbytes for one in (depth, fit) if one)


def _known(url: str | None, field: str, picture: Picture, limits: Limits) -> DepthMap | None:
    """Measured depth of the picture's size."""
    if url is None:
        return None
    depth = decode_depth(data_url_bytes(url, limits, field), limits, field)
    if depth.values.shape != picture.shape[:2]:
        raise Refusal(
            f"{field}: it is {depth.values.shape} but the image {picture.shape[:2]} (height, width); register it to "
            "the image",
            code="invalid_depth",
            param=field,
        )
    return depth


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
    fx, fy, cx, cy = (float(value) for value in given if value is not None)
    return Camera(width, height, fx, fy, cx + 0.5, cy + 0.5)


def _pose(rows: list[list[float]]) -> np.ndarray:
    try:
        return checked_pose(np.array(rows, dtype=np.float64))
    except ValueError as error:
        raise Refusal(f"camera_to_world: {error}", param="camera_to_world") from None
