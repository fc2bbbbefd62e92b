"""What was found in a picture, and robot episodes, as recordings for the Rerun viewer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from gemvlm.camera import Camera, View
from gemvlm.figure.rerun_log import RerunLog
from gemvlm.inference import Location
from gemvlm.robot import ActionChunk, ActionContract, RobotObservation


def record_location(path: Path, image: UInt8[np.ndarray, "H W 3"], view: Camera | View, *found: Location) -> Path:
    """A picture with its depth, the points that the model named and where they are. Returns the file."""
    camera = view.camera if isinstance(view, View) else view
    pose = view.camera_to_world if isinstance(view, View) else None
    depth = next((each.depth for each in found if each.depth is not None), None)
    with RerunLog(path) as log:
        log.view(
            "camera",
            image,
            None if depth is None else depth.values,
            None if depth is None else depth.valid,
            focal=(camera.fx, camera.fy),
            centre=(camera.cx, camera.cy),
            camera_to_world=pose,
        )
        marked = [(each.point.x, each.point.y) for each in found if each.point is not None]
        names = [each.expression for each in found if each.point is not None]
        log.places("camera", image.shape[:2], marked, labels=names)
        placed = [(each.world_m or each.camera_m, each.expression) for each in found]
        known = [(place, name) for place, name in placed if place is not None]
        if known:
            log.things([place for place, _ in known], [name for _, name in known])
        for each in found:
            log.answer(each.expression, each.reply)
    return path


def record_episode(
    path: Path, contract: ActionContract, steps: Iterable[tuple[RobotObservation, ActionChunk | None]]
) -> Path:
    """An episode: each observation, and the chunk of actions that was made from it (None between chunks)."""
    with RerunLog(path) as log:
        instruction = None
        for seen, chunk in steps:
            log.step(seen.step)
            if seen.instruction != instruction:
                instruction = seen.instruction
                log.answer("instruction", instruction)
            state = dict(zip(contract.state_names, seen.state.tolist(), strict=True))
            log.robot(seen.images, state, None if chunk is None else chunk.actions, contract.action_names)
    return path
