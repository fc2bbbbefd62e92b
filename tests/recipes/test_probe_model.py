"""The probe as a command: on tabletop scenes and on folders of frames, with its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mujoco", reason="the tabletop world needs the extra `worlds`")

from gemvlm.recipes.probe_model import PROBE_SEED, RANDOM, probe_model, rgbd_frames, tabletop_frames
from gemvlm.recipes.recipe import TEST_SEED


def frames(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    rows = np.mgrid[:48, :64][0]
    for number in range(count):
        z = 2.0 - rows / 40 + 0.05 * number
        Image.fromarray((z * 1000).astype(np.uint16)).save(folder / f"f{number}.depth.png")
        Image.fromarray(np.full((48, 64, 3), 10 * number, np.uint8)).save(folder / f"f{number}.png")
    (folder / "camera-intrinsics.txt").write_text("50 0 32\n0 50 24\n0 0 1\n")


def test_the_shipped_model_is_probed_beside_random_weights(tmp_path: Path) -> None:
    report = probe_model("nano", tmp_path, scenes=8, views=1, device="cpu")
    assert report.readers == ["model", RANDOM, "position only", "mean map"]
    assert report.targets == ["depth", "normals", "relief"]
    assert report.scenes == {"train": 5, "development": 1, "test": 2}
    found = json.loads((tmp_path / "probe.json").read_text())
    assert found["grid"] == [6, 6] and len(found["rows"]) == (7 + 7 + 1 + 1) * 5
    assert (tmp_path / "probe.svg").read_bytes().startswith(b"<?xml")
    assert "Geometry in the image states of nano" in (tmp_path / "probe.html").read_text()
    assert (tmp_path / "probe.md").read_text() == report.to_markdown()


def test_scenes_of_a_probe_are_those_of_no_training_and_no_test() -> None:
    data = tabletop_frames(3, 1, 32)
    seeds = [int(s.scene.split("-")[1]) for part in (data.train, data.development, data.test) for s in part]
    assert seeds == [PROBE_SEED, PROBE_SEED + 1, PROBE_SEED + 2]
    assert 1_000_000 <= PROBE_SEED < TEST_SEED
    with pytest.raises(ValueError, match="2 scenes can't be parted"):
        tabletop_frames(2, 1, 32)


def test_frames_of_one_place_are_parted_in_time_and_cut_to_squares(tmp_path: Path) -> None:
    frames(tmp_path / "room", 10)
    data, about = rgbd_frames(tmp_path / "room", 32)
    assert [len(part) for part in (data.train, data.development, data.test)] == [6, 2, 2]
    assert [sample.id for sample in data.test] == ["room/f8", "room/f9"]
    assert data.train[0].frames[0].image.shape == (32, 32, 3)
    assert "says nothing of other places" in about


def test_places_are_parted_whole_where_there_are_three(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        frames(tmp_path / name, 2)
    data, about = rgbd_frames(tmp_path, 32)
    assert [len({s.scene for s in part}) for part in (data.train, data.development, data.test)] == [1, 1, 1]
    assert "3 places" in about


def test_frames_without_depth_are_named(tmp_path: Path) -> None:
    frames(tmp_path / "room", 4)
    (tmp_path / "room" / "f2.depth.png").unlink()
    with pytest.raises(ValueError, match=r"f2 has no depth; add f2\.depth\.png"):
        rgbd_frames(tmp_path / "room", 32)
    with pytest.raises(ValueError, match="no such folder"):
        rgbd_frames(tmp_path / "nowhere", 32)
