"""Episodes in the released code's HDF5 layout: what is read, what has to be declared, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gemvlm.data.actions import EpisodeDataset, episode_statistics
from gemvlm.data.episodes import Hdf5Folder, Latency, open_episodes, readable_episodes, write_lerobot
from gemvlm.data.episodes.hdf5 import suspected_order
from gemvlm.depth_map import DepthMap, Encoding, encode
from gemvlm.robot.embodiments import EMBODIMENTS
from gemvlm.sample import Frame

h5py = pytest.importorskip("h5py", reason="h5py is not installed")
LENGTH, HEIGHT, WIDTH = 9, 32, 48
CONTRACT = replace(EMBODIMENTS["bimanual"].contract, cameras=("left_stereo", "right_stereo"))


def _picture(time: int, camera: int) -> np.ndarray:
    """Orange, as wood is: far more red than blue; its green tells the time, its blue the camera."""
    return np.full((HEIGHT, WIDTH, 3), (220, 100 + 4 * time, 20 + camera), np.uint8)


def _png(picture: np.ndarray, flip: bool) -> np.ndarray:
    """As OpenCV encodes an RGB array, which it takes for BGR (`flip`), or as anybody else does."""
    file = io.BytesIO()
    Image.fromarray(picture[..., ::-1] if flip else picture).save(file, "PNG")
    return np.frombuffer(file.getvalue(), np.uint8)


def _raw(length: int = LENGTH + 1) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(length, 14)).astype(np.float32)


def _write(file: Path, encoded: str = "", **changes: Any) -> None:
    """`encoded`: "" for raw RGB arrays, "rgb" or "bgr" for PNG; `changes` replace data sets; None leaves one out."""
    file.parent.mkdir(parents=True, exist_ok=True)
    raw = _raw()
    sets: dict[str, Any] = {"action": raw[1:], "observations/state": raw[:-1]}
    for number, camera in enumerate(CONTRACT.cameras):
        pictures = [_picture(time, number) for time in range(LENGTH)]
        sets[f"observations/images/{camera}"] = (
            [_png(picture, encoded == "bgr") for picture in pictures] if encoded else np.stack(pictures)
        )
    with h5py.File(file, "w") as content:
        for name, values in (sets | changes).items():
            if isinstance(values, list):
                own = content.create_dataset(name, (len(values),), h5py.vlen_dtype(np.uint8))
                for index, value in enumerate(values):
                    own[index] = value
            elif values is not None:
                content[name] = values


def _folder(path: Path, **options: Any) -> Hdf5Folder:
    return Hdf5Folder(path, **({"fps": 30.0, "encoded_order": "bgr"} | options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "processed"
    for number in (0, 2, 10):
        _write(root / "pick" / f"episode_{number}.hdf5")
    (root / "pick" / "instructions.json").write_text(json.dumps(["pick the cube", "grab the cube"]))
    return root


def test_an_episode_is_read_as_the_released_code_means_it(folder: Path) -> None:
    episodes = _folder(folder)
    assert [episode.id for episode in (episodes[i] for i in range(3))] == [f"pick/episode_{n}" for n in (0, 2, 10)]
    own = episodes[1]
    np.testing.assert_array_equal(own.state(), _raw()[:-1])
    np.testing.assert_array_equal(own.action(2, 5), _raw()[3:6])
    frames = own.frames("right_stereo", [0, 8])
    np.testing.assert_array_equal(frames[1].image, _picture(8, 1))
    assert frames[1].time_s == 8 / 30 and frames[0].depth is None
    assert own.wordings == ("pick the cube", "grab the cube") and own.instruction == "pick the cube"


def test_a_policy_can_learn_from_it(folder: Path) -> None:
    dataset = EpisodeDataset([_folder(folder)], CONTRACT, horizon=4)
    assert len(dataset) == 27
    item = dataset[6]
    np.testing.assert_array_equal(item.actions, _raw()[[7, 8, 9, 9]])
    assert item.valid.tolist() == [True, True, True, False]
    statistics = episode_statistics(dataset, EMBODIMENTS["bimanual"])
    np.testing.assert_allclose(statistics["action"].minimum, _raw()[1:].min(0), atol=1e-6)


@pytest.mark.parametrize("written", ["rgb", "bgr"])
def test_colours_are_declared_and_checked(tmp_path: Path, written: str) -> None:
    """B7: encoded by OpenCV or by anybody else, pictures are RGB here; a wrong declaration is seen, and can be told."""
    _write(tmp_path / "episode_0.hdf5", encoded=written)
    (tmp_path / "instructions.json").write_text('["pick"]')
    right, wrong = (
        _folder(tmp_path, encoded_order=order)[0] for order in (written, {"rgb": "bgr", "bgr": "rgb"}[written])
    )
    frames = right.frames("left_stereo", range(4))
    np.testing.assert_array_equal(frames[3].image, _picture(3, 0))
    assert suspected_order(frames) == "rgb" and suspected_order(wrong.frames("left_stereo", [3])) == "bgr"
    assert suspected_order([Frame(np.full((4, 4, 3), 128, np.uint8))]) is None
    stating = tmp_path / "stating"
    _write(stating / "episode_0.hdf5", encoded=written)
    (stating / "instructions.json").write_text('["pick"]')
    with h5py.File(stating / "episode_0.hdf5", "a") as content:
        content.attrs["colour_order"] = written
    assert _folder(stating, encoded_order=written)[0].length == LENGTH
    with pytest.raises(ValueError, match=f"says colour_order '{written}'"):
        _folder(stating, encoded_order={"rgb": "bgr", "bgr": "rgb"}[written])[0]


def test_latency_is_put_right() -> None:
    """Pictures that come 3 rows late and commands that act 2 (arm) and 5 (gripper) rows late are paired again."""
    latency, rows = Latency(3, 2, 5, gripper_columns=(1,)), 60
    command = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    reached = np.zeros((rows + 1, 2), np.float32)
    for row in range(rows + 1):
        for column, delay in ((0, 2), (1, 5)):
            reached[row, column] = command[row - 1 - delay, column] if row > delay else 0
    filed = np.arange(rows) - 3  # the moment that the picture of a row shows
    recorded = reached[1:]  # the released rule: an action is the next row's place
    length = latency.length(rows, len(filed))
    assert length == 55
    np.testing.assert_array_equal(latency.actions(recorded, 0, length), command[:length])
    np.testing.assert_array_equal([filed[latency.picture(t)] for t in range(length)], np.arange(length))
    np.testing.assert_array_equal(latency.actions(recorded, 20, 23), command[20:23])
    assert Latency(camera=4).length(9, 9) == 5 and Latency(arm=12).length(9, 9) == 0
    with pytest.raises(ValueError, match="frames below 0"):
        Latency(camera=-1)


def test_grippers_of_an_unusual_action_must_be_said() -> None:
    recorded = np.arange(80, dtype=np.float32).reshape(10, 8)  # seven joints and a gripper
    with pytest.raises(ValueError, match="8 numbers; say which are grippers"):
        Latency(arm=2).actions(recorded, 0, 3)
    moved = Latency(arm=2, gripper_columns=(7,)).actions(recorded, 0, 3)
    np.testing.assert_array_equal(moved[0], [*recorded[2, :7], recorded[0, 7]])
    np.testing.assert_array_equal(Latency(arm=2, gripper_columns=()).actions(recorded, 0, 1)[0], recorded[2])


def test_latency_in_a_folder(folder: Path) -> None:
    own = _folder(folder, latency=Latency(camera=2, arm=1, gripper=3))[0]
    assert own.length == 6
    actions, recorded = own.action(), _raw()[1:]
    arm = [column for column in range(14) if column not in (6, 13)]
    np.testing.assert_array_equal(actions[:, arm], recorded[1:7, arm])
    np.testing.assert_array_equal(actions[:, [6, 13]], recorded[3:9][:, [6, 13]])
    np.testing.assert_array_equal(own.action(2, 4), actions[2:4])
    np.testing.assert_array_equal(own.state(), _raw()[:6])
    np.testing.assert_array_equal(own.frames("left_stereo", [5])[0].image, _picture(7, 0))


def test_each_episode_may_have_its_own_words(folder: Path) -> None:
    """B14: no instruction is forgotten, and none stands for another episode's."""
    told = {"episode_0": "pick the cube", "episode_2": ["push it", "shove it", "push it"], "episode_10": "stop"}
    (folder / "pick" / "instructions.json").write_text(json.dumps(told))
    episodes = [_folder(folder)[i] for i in range(3)]
    assert [episode.instruction for episode in episodes] == ["pick the cube", "push it", "stop"]
    assert episodes[1].wordings == ("push it", "shove it")
    (folder / "pick" / "instructions.json").write_text(json.dumps({"episode_0": "pick"}))
    with pytest.raises(ValueError, match="nothing about 'episode_2'"):
        _folder(folder)[1]


def test_stored_chunks_override_actions(folder: Path, tmp_path: Path) -> None:
    chunks = np.random.default_rng(1).normal(size=(LENGTH, 6, 14)).astype(np.float32)
    _write(folder / "pick" / "episode_0.hdf5", action_chunk=chunks)
    own = EpisodeDataset([[_folder(folder)[0]]], CONTRACT, horizon=8)
    np.testing.assert_array_equal(own[3].actions[:6], chunks[3])
    assert own[3].valid.tolist() == [True] * 6 + [False] * 2
    statistics = episode_statistics(own, EMBODIMENTS["bimanual"])["action"]
    assert statistics.count == LENGTH * 6
    np.testing.assert_allclose(statistics.mean, chunks.reshape(-1, 14).mean(0), atol=1e-6)
    with pytest.raises(ValueError, match="LeRobot holds one action"):
        write_lerobot(tmp_path / "lerobot", own.episodes)
    with pytest.raises(ValueError, match="can't be moved by a latency"):
        _folder(folder, latency=Latency(arm=1))[0]


def test_depth_is_what_was_said(tmp_path: Path) -> None:
    """A3: colours of depth are decoded with the map that made them, never read as one channel."""
    values = np.linspace(0.5, 3.0, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    painted = encode(DepthMap.from_values(values), Encoding("spectral"), HEIGHT, WIDTH).picture
    colours = np.rint((painted.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)
    millimetres = np.rint(values * 1000).astype(np.uint16)
    millimetres[0, 0] = 0
    depth = "observations/depth_images/left_stereo"
    for name, stored in (("mm", millimetres), ("m", values), ("spectral", colours)):
        _write(tmp_path / name / "episode_0.hdf5", **{depth: np.repeat(stored[None], LENGTH, 0)})
        (tmp_path / name / "instructions.json").write_text('["pick"]')
        own = _folder(tmp_path / name, depth=name)[0]
        assert (own.cameras["left_stereo"].has_depth, own.cameras["right_stereo"].has_depth) == (True, False)
        found = own.frames("left_stereo", [4])[0].depth
        assert found is not None
        if name == "spectral":
            assert found.kind == "affine_disparity" and found.valid.mean() > 0.9
            ours, theirs = found.values[found.valid], 1 / values[found.valid]
            assert np.corrcoef(ours, theirs)[0, 1] > 0.99
        else:
            np.testing.assert_allclose(found.values[1:], values[1:], atol=6e-4)
            assert found.valid[0, 0] == (name == "m")
    with pytest.raises(ValueError, match="colours of depth are read with depth='spectral'"):
        _folder(tmp_path / "spectral", depth="mm")[0].frames("left_stereo", [0])


def test_the_documented_example_reads_the_released_converters_files(tmp_path: Path) -> None:
    """Raw RGB arrays and painted depth, aligned already: nothing is swapped or moved, and no row is lost."""
    page = (Path(__file__).parents[3] / "docs" / "robots.md").read_text(encoding="utf-8")
    (tmp_path / "episodes.json").write_text(page.split("```json\n")[1].split("```")[0])
    values = np.linspace(0.5, 3.0, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    painted = encode(DepthMap.from_values(values), Encoding("spectral"), HEIGHT, WIDTH).picture
    colours = np.rint((painted.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)
    depth = {f"observations/depth_images/{camera}": np.stack([colours] * LENGTH) for camera in CONTRACT.cameras}
    _write(tmp_path / "episode_0.hdf5", **depth)
    (tmp_path / "instructions.json").write_text('["pick"]')
    own = open_episodes(tmp_path)[0]
    assert own.length == LENGTH
    np.testing.assert_array_equal(own.action(), _raw()[1:])
    last = own.frames("right_stereo", [LENGTH - 1])[0]
    np.testing.assert_array_equal(last.image, _picture(LENGTH - 1, 1))
    assert last.depth is not None and last.depth.kind == "affine_disparity"


def test_an_unknown_order_of_colours_is_asked_for(tmp_path: Path) -> None:
    _write(tmp_path / "episode_0.hdf5", encoded="rgb")
    (tmp_path / "instructions.json").write_text('["pick"]')
    with pytest.raises(ValueError, match=r'"bgr", \.\.\.} if OpenCV encoded RGB arrays, or "rgb" .* looks like rgb'):
        _folder(tmp_path, encoded_order=None)[0]


def test_one_damaged_file_is_named_and_the_others_stay(folder: Path) -> None:
    """C6: nothing is swallowed and nothing else is lost."""
    (folder / "pick" / "episode_2.hdf5").write_bytes(b"\x89HDF" + bytes(100))
    episodes, reasons = readable_episodes(_folder(folder))
    assert [episode.id for episode in episodes] == ["pick/episode_0", "pick/episode_10"]
    assert len(reasons) == 1 and "episode_2.hdf5" in reasons[0] and "fetch or convert it again" in reasons[0]


def _linked(file: Path) -> None:
    with h5py.File(file, "a") as content:
        del content["observations/state"]
        content["observations/state"] = h5py.ExternalLink("/etc/passwd", "/x")


def _external(file: Path) -> None:
    with h5py.File(file, "a") as content:
        del content["observations/state"]
        content.create_dataset(
            "observations/state", (LENGTH, 14), "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
        )


def _claiming(file: Path) -> None:
    """More rows than there is memory, none of them on the disk."""
    with h5py.File(file, "a") as content:
        del content["observations/state"]
        content.create_dataset("observations/state", (1 << 40, 14), "f4", chunks=(1024, 14))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"action": None}, "no action"),
        ({"observations/state": None}, "no observations/state"),
        ({"action": np.zeros((LENGTH, 14, 2), np.float32)}, "2 axes of float"),
        ({"action": np.zeros((4, 14), np.float32)}, "rows differ"),
        ({"action": np.zeros((LENGTH, 14), np.int32)}, "2 axes of float"),
        ({"observations/images/left_stereo": np.zeros((LENGTH, 4, 4), np.uint8)}, "of uint8, or N encoded pictures"),
        ({"observations/images/left_stereo": [np.zeros(9, np.uint8)] * LENGTH}, "not a readable picture"),
        (_linked, "is a link"),
        (_claiming, "is larger than"),
        (_external, "is no data set of this file"),
    ],
)
def test_what_is_no_episode_is_refused(tmp_path: Path, changes: Any, says: str) -> None:
    file = tmp_path / "episode_0.hdf5"
    (tmp_path / "instructions.json").write_text('["pick"]')
    _write(file, **({} if callable(changes) else changes))
    if isinstance(changes, Callable):  # type: ignore[arg-type]
        changes(file)
    with pytest.raises(ValueError, match=f"{file.name}.*{says}"):
        _folder(tmp_path)[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "not JSON"), ("[]", "give texts"), ("[3]", "give texts"), ('[" "]', "give texts"), (None, "missing")],
)
def test_instructions_that_are_none_are_refused(tmp_path: Path, text: str | None, says: str) -> None:
    _write(tmp_path / "episode_0.hdf5")
    if text is not None:
        (tmp_path / "instructions.json").write_text(text)
    with pytest.raises(ValueError, match=f"instructions.json.*{says}"):
        _folder(tmp_path)[0]


def test_bad_numbers_are_named_by_their_row(tmp_path: Path) -> None:
    actions = _raw()[1:].copy()
    actions[5, 2] = np.nan
    _write(tmp_path / "episode_0.hdf5", action=actions)
    (tmp_path / "instructions.json").write_text('["pick"]')
    own = _folder(tmp_path)[0]
    assert own.action(0, 5).shape == (5, 14)
    with pytest.raises(ValueError, match="action holds NaN or infinity at row 5"):
        own.action()
    with pytest.raises(ValueError, match=r"no \.hdf5 files"):
        len(_folder(tmp_path / "nothing"))


def test_it_becomes_a_lerobot_folder(folder: Path, tmp_path: Path) -> None:
    """C6: converting streams, numbers have no gaps, and what was written is what was read."""
    pytest.importorskip("av", reason="PyAV is not installed")
    from gemvlm.data.episodes import LeRobotFolder

    episodes, _ = readable_episodes(_folder(folder))
    write_lerobot(tmp_path / "lerobot", episodes)
    again = LeRobotFolder(tmp_path / "lerobot")
    assert [episode.id for episode in again] == [f"lerobot/{number:06d}" for number in range(3)]
    np.testing.assert_array_equal(again[1].action(), episodes[1].action())
    assert again[1].wordings == ("pick the cube", "grab the cube")
