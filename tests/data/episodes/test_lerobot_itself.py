"""Our folders in the real `lerobot`, and its folders here; skipped where it is not installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemvlm.data.episodes import ArrayData, CameraInfo, Episode, LeRobotFolder, write_lerobot

pytest.importorskip("av", reason="PyAV is not installed")
lerobot: Any = pytest.importorskip("lerobot.datasets.lerobot_dataset", reason="lerobot is not installed")

LENGTH, HEIGHT, WIDTH = 12, 48, 64


def _pictures() -> np.ndarray:
    across, down = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    shades = [np.stack([across * 3, down * 4, np.full_like(across, 10 * time)], -1) for time in range(LENGTH)]
    return np.stack(shades).astype(np.uint8)


def _numbers() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(LENGTH, 2)).astype(np.float32)


def test_lerobot_reads_ours(tmp_path: Path) -> None:
    data = ArrayData(10.0, {"front": _pictures()}, {}, {"state": _numbers(), "action": -_numbers()})
    cameras = {"front": CameraInfo(HEIGHT, WIDTH)}
    names = ("a", "b")
    own = Episode("e", "push", LENGTH, 10.0, cameras, data, state_names=names, action_names=names, success=True)
    own = replace(own, wordings=("push", "shove"))
    write_lerobot(tmp_path / "ours", [own, own])
    theirs = lerobot.LeRobotDataset("gemvlm/ours", root=tmp_path / "ours", delta_timestamps={"action": [0, 0.1, 0.2]})
    assert (len(theirs), theirs.num_episodes, theirs.fps) == (2 * LENGTH, 2, 10)
    item = theirs[LENGTH - 2]
    np.testing.assert_array_equal(item["observation.state"].numpy(), _numbers()[-2])
    np.testing.assert_array_equal(item["action"].numpy(), -_numbers()[[-2, -1, -1]])
    assert item["action_is_pad"].tolist() == [False, False, True] and item["task"] == "push"
    picture = 255 * item["observation.images.front"].permute(1, 2, 0).numpy()
    assert np.abs(picture - _pictures()[-2]).mean() < 4


@pytest.mark.parametrize("videos", [True, False])
def test_we_read_theirs(tmp_path: Path, videos: bool) -> None:
    vector = {"dtype": "float32", "shape": (2,), "names": ["a", "b"]}
    picture = {"dtype": "video" if videos else "image", "shape": (HEIGHT, WIDTH, 3)}
    features = {"observation.state": vector, "action": vector}
    features["observation.images.front"] = picture | {"names": ["height", "width", "channels"]}
    root = tmp_path / "theirs"
    made = lerobot.LeRobotDataset.create("x/y", fps=10, root=root, features=features, use_videos=videos)
    for state, shown in zip(_numbers(), _pictures(), strict=True):
        frame = {"observation.state": state, "action": -state, "observation.images.front": shown, "task": "push"}
        made.add_frame(frame)
    made.save_episode()
    made.finalize()
    own = LeRobotFolder(root)[0]
    assert (own.instruction, own.length, own.state_names) == ("push", LENGTH, ("a", "b"))
    np.testing.assert_array_equal(own.state(), _numbers())
    np.testing.assert_array_equal(own.action(), -_numbers())
    found = np.stack([frame.image for frame in own.frames("observation.images.front", range(LENGTH))])
    assert np.abs(found.astype(float) - _pictures()).mean() < (4 if videos else 1e-9)
