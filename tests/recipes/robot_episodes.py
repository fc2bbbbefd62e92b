"""Small episodes of Meta-World's arm in memory, for tests that train: the hand follows a bright spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gemvlm.data.episodes import ArrayData, CameraInfo, Episode, write_lerobot
from gemvlm.depth_map import DepthMap
from gemvlm.robot.embodiments import EMBODIMENTS

CONTRACT = EMBODIMENTS["metaworld"].contract
SIDE, LENGTH = 48, 12


def robot_episode(number: int, depth: bool = True, **changes: Any) -> Episode:
    """A spot stands somewhere; each action moves the hand towards it."""
    random = np.random.default_rng(number)
    column, steps = int(random.integers(4, SIDE - 4)), np.linspace(0, 1, LENGTH, dtype=np.float32)
    picture = random.integers(0, 40, (LENGTH, SIDE, SIDE, 3), dtype=np.uint8)
    picture[:, 20:28, column - 4 : column + 4] = 255
    place = np.float32(2 * column / SIDE - 1)
    state = np.stack([place * steps, 0 * steps, 0.1 + 0 * steps, 1 - steps], -1)
    action = np.stack([place + 0 * steps, 0.1 * steps, 0 * steps, np.sign(steps - 0.5)], -1)
    maps = [DepthMap.from_values(np.full((SIDE, SIDE), 1 + t / 50, np.float32)) for t in range(LENGTH)]
    cameras = CONTRACT.cameras
    data = ArrayData(
        CONTRACT.rate_hz,
        dict.fromkeys(cameras, picture),
        dict.fromkeys(cameras, maps) if depth else {},
        {"state": state.astype(np.float32), "action": action.astype(np.float32)},
    )
    own: dict[str, Any] = {
        "id": f"episode-{number}",
        "instruction": "reach the white spot",
        "length": LENGTH,
        "fps": CONTRACT.rate_hz,
        "cameras": {camera: CameraInfo(SIDE, SIDE, depth) for camera in cameras},
        "data": data,
        "state_names": CONTRACT.state_names,
        "action_names": CONTRACT.action_names,
        "success": True,
    }
    return Episode(**(own | changes))


def write_episodes(folder: Path, count: int = 12, depth: bool = True) -> Path:
    """A LeRobot folder of so many."""
    write_lerobot(folder, [robot_episode(number, depth) for number in range(count)])
    return folder
