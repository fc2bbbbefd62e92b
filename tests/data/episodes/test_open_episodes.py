"""A folder of episodes tells its own layout; what it leaves open stands in `episodes.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemvlm.data.episodes import Hdf5Folder, Latency, LeRobotFolder, Rdt2Shards, open_episodes
from gemvlm.data.episodes.open_episodes import STATED


def _sign(folder: Path, name: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"{}")
    return folder


def _state(folder: Path, content: Any) -> Path:
    (folder / STATED).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("name", "layout"),
    [("meta/info.json", LeRobotFolder), ("shard-000000.tar", Rdt2Shards), ("pick/day/episode_0.hdf5", Hdf5Folder)],
)
def test_each_layout_is_known_by_its_files(tmp_path: Path, name: str, layout: type) -> None:
    assert isinstance(open_episodes(_sign(tmp_path, name)), layout)


def test_what_files_leave_open_is_read_from_beside_them(tmp_path: Path) -> None:
    _sign(tmp_path, "episode_0.hdf5")
    latency = {"camera": 3, "arm": 2, "gripper_columns": [1]}
    said = {"fps": 30, "encoded_order": "bgr", "depth": "mm", "latency": latency, "action_names": ["x", "grip"]}
    told = open_episodes(_state(tmp_path, said | {"robot": "two_arms"}))
    assert told == Hdf5Folder(
        tmp_path, 30.0, "bgr", depth="mm", latency=Latency(3, 2, 0, (1,)), action_names=("x", "grip"), robot="two_arms"
    )
    _sign(tmp_path / "l", "meta/info.json")
    opened = open_episodes(_state(tmp_path / "l", {"state_keys": ["observation.joints"]}))
    assert isinstance(opened, LeRobotFolder) and opened.state_keys == ("observation.joints",)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"rate": 30}, "rate: for HDF5 there are .*fps"),
        ({"fps": True}, "fps is true: write a number"),
        ({"fps": "30"}, "write a number of frames"),
        ({"encoded_order": "rbg"}, "there are rgb, bgr"),
        ({"depth": ["m"]}, "there are none, m, mm, spectral"),
        ({"latency": {"arm": 1.5}}, "whole numbers"),
        ({"latency": {"arms": 1}}, "an object of camera, arm, gripper"),
        ({"latency": {"camera": -1}}, "below 0"),
        ({"latency": {"gripper_columns": 6}}, "latency is"),
        ({"state_names": "xyz"}, "a list of texts"),
        ({"robot": ""}, "write a text"),
        ([1], "an object"),
        ("{", "not JSON"),
    ],
)
def test_a_wrong_statement_is_told_by_field(tmp_path: Path, said: Any, fault: str) -> None:
    _state(_sign(tmp_path, "episode_0.hdf5"), said)
    with pytest.raises(ValueError, match=fault) as told:
        open_episodes(tmp_path)
    assert STATED in str(told.value)


def test_what_is_no_set_says_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    _sign(tmp_path / "other", "data.zarr")
    with pytest.raises(ValueError, match=r"meta/info.json \(LeRobot\); shard-\*.tar .*\.hdf5 .*it holds data.zarr"):
        open_episodes(tmp_path / "other")
    with pytest.raises(ValueError, match="no folder"):
        open_episodes(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="but a file"):
        open_episodes(tmp_path / "other" / "data.zarr")
    _sign(_sign(tmp_path / "both", "meta/info.json"), "shard-0.tar")
    with pytest.raises(ValueError, match=r"two layouts: .*LeRobot.*RDT2"):
        open_episodes(tmp_path / "both")


def test_files_may_say_rate_and_colours_themselves(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")

    def write(name: str, **attributes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        with h5py.File(folder / "episode_0.hdf5", "w") as content:
            content["action"] = content["observations/state"] = np.zeros((3, 2), np.float32)
            content["observations/images/front"] = np.zeros((3, 8, 8, 3), np.uint8)
            content.attrs.update(attributes)
        (folder / "instructions.json").write_text('["wave"]')
        return folder

    with pytest.raises(ValueError, match=r"write episodes.json into .*\"fps\": 30"):
        open_episodes(write("silent"))[0]
    assert open_episodes(write("told", fps=15.0))[0].fps == 15.0
