"""Small episodes of a robot in memory, whose numbers and pictures tell which moment they are of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gemvlm.data.actions import EpisodeDataset, episode_statistics
from gemvlm.data.episodes import ArrayData, CameraInfo, Episode
from gemvlm.depth_map import DepthMap
from gemvlm.robot.codec import ActionCodec
from gemvlm.robot.embodiments import EMBODIMENTS
from gemvlm.robot.statistics import Normalisation

ROBOT = EMBODIMENTS["metaworld"]
CONTRACT = ROBOT.contract
SIZE = 32


def episode(name: str, length: int = 12, depth: bool = True, **changes: Any) -> Episode:
    """Frame t of camera c is the colour (t, c, ·), its depth 1 + c + t/100 metres; action t is (t, -t, 0, ±1)."""
    random = np.random.default_rng(list(name.encode()))
    steps = np.arange(length, dtype=np.float32)
    images, depths = {}, {}
    for number, camera in enumerate(CONTRACT.cameras):
        picture = random.integers(0, 256, (length, SIZE, SIZE, 3), dtype=np.uint8)
        picture[:, 0, 0, 0], picture[:, 0, 0, 1] = steps, number
        images[camera] = picture
        maps = [np.full((SIZE, SIZE), 1 + number + t / 100, np.float32) for t in range(length)]
        depths[camera] = [DepthMap.from_values(values) for values in maps]
    signals = {
        "state": random.normal(size=(length, 4)).astype(np.float32),
        "action": np.stack([steps, -steps, 0 * steps, (-1) ** steps], -1),
    }
    own: dict[str, Any] = {
        "id": name,
        "instruction": "push the red button",
        "length": length,
        "fps": CONTRACT.rate_hz,
        "cameras": {camera: CameraInfo(SIZE, SIZE, depth) for camera in images},
        "data": ArrayData(CONTRACT.rate_hz, images, depths if depth else {}, signals),
        "state_names": CONTRACT.state_names,
        "action_names": CONTRACT.action_names,
    }
    return Episode(**(own | changes))


@pytest.fixture
def make_episode() -> Callable[..., Episode]:
    return episode


@pytest.fixture
def dataset() -> EpisodeDataset:
    return EpisodeDataset([[episode("a", 12), episode("b", 7)], [episode("c", 9)]], CONTRACT, horizon=5)


@pytest.fixture
def codec(dataset: EpisodeDataset) -> ActionCodec:
    return ActionCodec(ROBOT, Normalisation("min_max", episode_statistics(dataset, ROBOT)))
