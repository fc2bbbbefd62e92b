"""Recordings for the Rerun viewer are written, and read back by its own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.figure.rerun_log import RerunLog
from gemvlm.inference import Location
from gemvlm.recipes.rerun_scene import record_episode, record_location
from gemvlm.robot import ActionChunk, ActionContract, RobotObservation
from gemvlm.sample import Point

rerun = pytest.importorskip("rerun", reason="needs the extra rerun")

IMAGE = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)


def entities(path: Path) -> dict[str, list[Any]]:
    """Entity path → its chunks as record batches."""
    found: dict[str, list[Any]] = {}
    for chunk in rerun.chunk.RrdReader(str(path)).stream():
        found.setdefault(str(chunk.entity_path), []).append(chunk.to_record_batch())
    return found


def column(batches: list[Any], name: str) -> list[Any]:
    return [
        row for batch in batches for field in batch.schema.names if name in field for row in batch[field].to_pylist()
    ]


def test_a_found_thing_is_read_back(tmp_path: Path) -> None:
    view = View(Camera(32, 24, 30.0, 31.0, 16.0, 12.0), np.eye(4))
    values = np.full((24, 32), 0.5)
    values[0, 0] = 0
    place = (0.1, 0.2, 0.5)
    found = Location(
        "red mug", "(250, 750)", Point(0.25, 0.75), place, place, 0.0, 9, DepthMap.from_values(values), "generated"
    )
    there = entities(record_location(tmp_path / "desk.rrd", IMAGE, view, found))
    names = {"image", "image/rgb", "image/depth", "image/points"}
    assert {f"/world/camera/{name}" for name in names} <= set(there) and "/answers" in there
    (points,) = column(there["/world/camera/image/points"], "positions")
    np.testing.assert_allclose(points, [[8.0, 18.0]])
    (things,) = column(there["/world/things"], "positions")
    np.testing.assert_allclose(things, [place], rtol=1e-6)
    (buffer,) = column(there["/world/camera/image/depth"], "buffer")
    depth = np.frombuffer(bytes(buffer[0]), np.float32).reshape(24, 32)
    np.testing.assert_allclose(depth, values)


def test_an_episode_is_read_back_with_its_chunks(tmp_path: Path) -> None:
    contract = ActionContract(
        "test", ("x", "grip"), ("dx", "dgrip"), "delta", "none", "high_closes", 10.0, cameras=("front",)
    )
    chunk = ActionChunk(np.arange(8, dtype=np.float32).reshape(4, 2), 10.0)
    steps = [
        (
            RobotObservation({"front": IMAGE}, np.array([0.1 * n, n], np.float32), "lift it", step=n),
            chunk if n == 0 else None,
        )
        for n in range(3)
    ]
    there = entities(record_episode(tmp_path / "episode.rrd", contract, steps))
    assert {"/cameras/front", "/state/x", "/state/grip", "/action/dx", "/action/dgrip", "/chunk"} <= set(there)
    states = column(there["/state/grip"], "scalars")
    assert [state[0] for state in states] == [0.0, 1.0, 2.0]
    assert len(column(there["/action/dgrip"], "scalars")) == 1 and len(column(there["/answers"], "text")) == 1
    assert len(column(there["/cameras/front"], "buffer")) == 3


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"written as \.rrd"):
        RerunLog(tmp_path / "desk.mp4")
    with RerunLog(tmp_path / "a.rrd") as log, pytest.raises(ValueError, match=r"shape \(4, 2\) for 1 action names"):
        log.robot({}, {}, np.zeros((4, 2)), ["dx"])


def test_without_rerun_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ImportError, match=r"pip install 'gemvlm\[rerun\]'"):
        RerunLog(tmp_path / "a.rrd")
