"""Episodes written as LeRobot v3 and read back, v2.1 folders made by hand, random access, and damaged folders."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gemvlm.data.episodes import ArrayData, CameraInfo, Episode, LeRobotFolder, SubTask, write_lerobot
from gemvlm.data.episodes.depth_codes import DepthCodes
from gemvlm.depth_map import DepthMap

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("av")

HEIGHT, WIDTH, FPS = 48, 64, 10.0
FRONT = "observation.images.front"


def picture(seed: int, time: int) -> np.ndarray:
    """A smooth picture whose brightness tells the time, so that a wrong frame shows."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return np.stack([x * 2 + seed * 9, y * 3, np.full_like(x, 4 * time)], axis=-1).clip(0, 255).astype(np.uint8)


def depth(time: int) -> DepthMap:
    values = np.linspace(0.2, 6.0, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) + 0.01 * time
    values[:4, :4] = 0
    return DepthMap.from_values(values, source="test")


def episode(number: int, length: int = 20, **changes: Any) -> Episode:
    rng = np.random.default_rng(number)
    images = np.stack([picture(number, t) for t in range(length)])
    data = ArrayData(
        FPS,
        {FRONT: images, "observation.images.wrist": images[:, ::-1].copy()},
        {FRONT: [depth(t) for t in range(length)]},
        {
            "state": rng.normal(size=(length, 3)).astype(np.float32),
            "action": rng.normal(size=(length, 2)).astype(np.float32),
        },
    )
    cameras = {FRONT: CameraInfo(HEIGHT, WIDTH, True), "observation.images.wrist": CameraInfo(HEIGHT, WIDTH)}
    made = Episode(
        id=f"made-{number}",
        instruction=f"put cup {number % 2} away",
        length=length,
        fps=FPS,
        cameras=cameras,
        data=data,
        subtasks=(SubTask("grasp the cup", 0, 8), SubTask("open the drawer", 10, length)),
        state_names=("x", "y", "gripper"),
        action_names=("dx", "grip"),
        units={"x": "m", "y": "m", "dx": "m/s"},
        success=number % 2 == 0,
        robot="arm",
        licence="cc-by-4.0",
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def made() -> list[Episode]:
    return [episode(0), episode(1, 13), episode(2, 17), episode(3, 15)]


@pytest.fixture(scope="module")
def folder(made: list[Episode], tmp_path_factory: pytest.TempPathFactory) -> LeRobotFolder:
    path = tmp_path_factory.mktemp("lerobot") / "cups"
    write_lerobot(path, made, frames_per_file=40)
    return LeRobotFolder(path)


def test_what_is_written_is_read_back(made: list[Episode], folder: LeRobotFolder) -> None:
    assert len(folder) == 4
    assert len(list((folder.path / "data").rglob("*.parquet"))) == 2  # two episodes in each file
    for number, (original, again) in enumerate(zip(made, folder, strict=True)):
        assert again.id == f"cups/{number:06d}"
        for name in ("instruction", "length", "fps", "cameras", "subtasks", "state_names", "action_names"):
            assert getattr(again, name) == getattr(original, name), name
        for name in ("units", "success", "robot", "licence"):
            assert getattr(again, name) == getattr(original, name), name
        assert (again.state() == original.state()).all()
        assert (again.action() == original.action()).all()
        assert again.action().dtype == np.float32


def test_frames_are_those_asked_for_in_any_order(made: list[Episode], folder: LeRobotFolder) -> None:
    half_step = 1.7e-3
    for original, again in zip(made, folder, strict=True):
        for camera in original.cameras:
            indices = [original.length - 1, 0, 7, 7, 3]
            for index, frame in zip(indices, again.frames(camera, indices), strict=True):
                truth = original.frames(camera, [index])[0]
                assert np.abs(frame.image.astype(int) - truth.image).mean() < 2.0
                assert abs(float(frame.image[..., 2].mean()) - 4 * index) < 3
                assert frame.time_s == pytest.approx(index / FPS)
                if truth.depth is None:
                    assert frame.depth is None
                    continue
                assert frame.depth is not None
                assert frame.depth.origin is not None
                assert (frame.depth.valid == truth.depth.valid).all()
                assert np.abs(frame.depth.values - truth.depth.values)[truth.depth.valid].max() < half_step


def test_a_chunk_is_a_slice(made: list[Episode], folder: LeRobotFolder) -> None:
    assert (folder[2].action(5, 9) == made[2].action(5, 9)).all()
    assert folder[2].state(16, 17).shape == (1, 3)
    assert folder[-1].length == 15
    with pytest.raises(ValueError, match=r"outside 0\.\.17"):
        folder[2].action(5, 18)
    with pytest.raises(ValueError, match="has no camera 'back'"):
        folder[2].frames("back", [0])
    with pytest.raises(IndexError):
        folder[4]


def test_workers_can_be_sent_a_folder(folder: LeRobotFolder) -> None:
    again = pickle.loads(pickle.dumps(folder))
    assert (again[1].state() == folder[1].state()).all()


def test_tables_of_tasks_have_the_texts_as_index_for_pandas(folder: LeRobotFolder) -> None:
    described = json.loads(pq.read_schema(folder.path / "meta/tasks.parquet").metadata[b"pandas"])
    assert described["index_columns"] == ["task"]
    stats = json.loads((folder.path / "meta/stats.json").read_text())
    everything = np.concatenate([e.action() for e in folder])
    assert np.allclose(stats["action"]["mean"], everything.mean(0), atol=1e-6)
    assert np.allclose(stats["action"]["std"], everything.std(0), atol=1e-6)
    assert stats["action"]["count"] == [65]
    assert np.allclose(stats["action"]["q01"], np.quantile(everything, 0.01, axis=0), atol=1e-6)


def test_every_number_and_picture_has_statistics(folder: LeRobotFolder) -> None:
    """LeRobot's policies normalise by them, and stop where one is missing."""
    features = json.loads((folder.path / "meta/info.json").read_text())["features"]
    stats = json.loads((folder.path / "meta/stats.json").read_text())
    assert set(stats) == {
        k for k, f in features.items() if f["dtype"] == "video" or k in ("observation.state", "action")
    }
    for key, found in stats.items():
        channels = [features[key]["shape"][2], 1, 1] if features[key]["dtype"] == "video" else features[key]["shape"]
        assert {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"} == set(found)
        assert all(list(np.shape(found[name])) == channels for name in found if name != "count")


def test_what_files_state_wrongly_can_be_said(folder: LeRobotFolder) -> None:
    """Published LIBERO sets state 10 frames a second for steps of a twentieth; videos keep the time that they have."""
    names = tuple(f"said {name}" for name in folder.names("state"))
    told = LeRobotFolder(folder.path, fps=2 * FPS, state_names=names)
    assert told[1].fps == 2 * FPS and told[1].state_names == names and (told[1].state() == folder[1].state()).all()
    assert set(told[1].units.values()) == set(folder[1].units.values())
    camera = next(iter(told[1].cameras))
    ours, theirs = told[1].frames(camera, [6])[0], folder[1].frames(camera, [6])[0]
    assert (ours.image == theirs.image).all() and ours.time_s == theirs.time_s / 2
    with pytest.raises(ValueError, match="1 action_names for"):
        LeRobotFolder(folder.path, action_names=("x",))[0]


def test_writing_refuses_what_one_folder_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no episodes"):
        write_lerobot(tmp_path / "a", [])
    with pytest.raises(ValueError, match=r"'made-1': fps is 5\.0"):
        write_lerobot(tmp_path / "b", [episode(0), episode(1, fps=5.0)])
    with pytest.raises(ValueError, match="write with a wider range"):
        write_lerobot(tmp_path / "c", [episode(0)], DepthCodes(depth_max=3.0))
    assert not (tmp_path / "c" / "meta" / "info.json").exists()
    with pytest.raises(ValueError, match="not empty"):
        write_lerobot(tmp_path / "c", [episode(0)])


def test_depth_codes_have_the_published_step_and_refuse_nonsense() -> None:
    codes = DepthCodes()
    values = np.linspace(0.02, 9.9, 4000).reshape(40, 100)
    again = codes.decode(codes.encode(DepthMap.from_values(values)))
    error = np.abs(again.values - values)
    assert error[values < 0.3].max() < 0.6e-3
    assert error.max() < 2.4e-3
    assert DepthCodes.from_info(codes.to_info()) == codes
    assert DepthCodes.from_info({"depth_max": 4, "use_log": False}) == DepthCodes(depth_max=4.0, use_log=False)
    with pytest.raises(ValueError, match="depth codes"):
        DepthCodes(depth_min=2.0, depth_max=1.0)
    with pytest.raises(ValueError, match="more than 12 bits"):
        codes.decode(np.full((2, 2), 5000, np.uint16))
    with pytest.raises(ValueError, match="LeRobot holds z-depth"):
        codes.encode(DepthMap.from_values(values, "affine_depth"))


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write_v2(path: Path, lengths: tuple[int, ...] = (6, 4), tasks: tuple[str, ...] = ("wipe the table",)) -> None:
    """A v2.1 folder with pictures in its tables, by hand."""
    (path / "meta").mkdir(parents=True)
    (path / "data/chunk-000").mkdir(parents=True)
    shape = {"dtype": "image", "shape": [8, 12, 3], "names": ["height", "width", "channel"]}
    depth_info = {"dtype": "image", "shape": [8, 12, 1], "names": ["height", "width", "channel"]}
    features: dict[str, Any] = {
        "observation.state": {"dtype": "float64", "shape": [1], "names": {"motors": ["lift"]}},
        "action": {"dtype": "float32", "shape": [2], "names": None},
        "observation.images.top": shape,
        "observation.images.top_depth": {**depth_info, "info": {"is_depth_map": True, "depth_unit": "mm"}},
        "observation.images.left_depth": {**depth_info, "info": {"is_depth_map": True}},
    }
    features |= {n: {"dtype": "int64", "shape": [1], "names": None} for n in ("episode_index", "task_index")}
    info = {
        "codebase_version": "v2.1",
        "robot_type": None,
        "fps": 5,
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (path / "meta/info.json").write_text(json.dumps(info))
    lines = [{"episode_index": i, "tasks": list(tasks), "length": n} for i, n in enumerate(lengths)]
    (path / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    names = [{"task_index": i, "task": text} for i, text in enumerate(tasks)]
    (path / "meta/tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in names))
    for i, length in enumerate(lengths):
        colour = [png(np.full((8, 12, 3), 10 * i + t, np.uint8)) for t in range(length)]
        counts = [png(np.full((8, 12), 1000 + t, np.uint16)) for t in range(length)]
        table = {
            "observation.state": np.arange(length, dtype=np.float64),
            "action": [[float(t), -float(t)] for t in range(length)],
            "observation.images.top": [{"bytes": data, "path": None} for data in colour],
            "observation.images.top_depth": [{"bytes": data, "path": None} for data in counts],
            "episode_index": [i] * length,
            "task_index": [min(t // 2, len(tasks) - 1) for t in range(length)],
        }
        pq.write_table(pa.table(table), path / f"data/chunk-000/episode_{i:06d}.parquet", row_group_size=3)


def test_version_2_folders_with_pictures_in_their_tables(tmp_path: Path) -> None:
    write_v2(tmp_path / "wipe")
    folder = LeRobotFolder(tmp_path / "wipe", licence="mit")
    first, second = folder
    assert (first.instruction, first.length, first.fps, first.licence) == ("wipe the table", 6, 5.0, "mit")
    assert (first.state_names, first.action_names) == (("lift",), ("action_0", "action_1"))
    assert (first.state()[:, 0] == np.arange(6)).all()
    assert (second.action(1, 3) == [[1, -1], [2, -2]]).all()
    frames = second.frames("observation.images.top", [3, 0])
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [13, 10]
    assert frames[0].encoded is not None
    assert frames[0].depth is not None
    assert np.allclose(frames[0].depth.values, 1.003)
    assert "0 colour cameras" in folder.unused_depth["observation.images.left_depth"]


def test_several_tasks_in_one_episode_are_its_steps(tmp_path: Path) -> None:
    write_v2(tmp_path / "a", tasks=("take the cloth", "wipe"))
    first = LeRobotFolder(tmp_path / "a")[0]
    assert first.instruction == ""
    assert first.subtasks == (SubTask("take the cloth", 0, 2), SubTask("wipe", 2, 6))
    assert [first.subtask_at(t) for t in (0, 1, 2)] == [0, 0, 1]


def test_subtasks_from_persistent_language(tmp_path: Path) -> None:
    write_v2(tmp_path / "a", lengths=(6,))
    path = tmp_path / "a/data/chunk-000/episode_000000.parquet"
    said = [
        {"style": "subtask", "content": "wipe", "timestamp": 0.4, "role": "assistant"},
        {"style": "plan", "content": "1. reach 2. wipe", "timestamp": 0.0, "role": "assistant"},
        {"style": "subtask", "content": "reach", "timestamp": 0.0, "role": "assistant"},
    ]
    table = pq.read_table(path).append_column("language_persistent", pa.array([said] * 6))
    pq.write_table(table, path)
    info = json.loads((tmp_path / "a/meta/info.json").read_text())
    info["features"]["language_persistent"] = {"dtype": "language", "shape": [1], "names": None}
    (tmp_path / "a/meta/info.json").write_text(json.dumps(info))
    assert LeRobotFolder(tmp_path / "a")[0].subtasks == (SubTask("reach", 0, 2), SubTask("wipe", 2, 6))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("codebase_version", "v1.6", "convert it"),
        ("fps", 0, "fps is 0"),
        ("features", [], "must map names"),
        ("data_path", "../{episode_index:06d}.parquet", "leaves the folder"),
        ("data_path", "{nothing}", "names {nothing}"),
        ("data_path", 3, "must be a path template"),
        ("chunks_size", 0, "whole number from 1"),
    ],
)
def test_a_wrong_info_is_named(tmp_path: Path, field: str, value: object, message: str) -> None:
    write_v2(tmp_path / "a")
    info = json.loads((tmp_path / "a/meta/info.json").read_text())
    (tmp_path / "a/meta/info.json").write_text(json.dumps(info | {field: value}))
    with pytest.raises(ValueError, match=message):
        LeRobotFolder(tmp_path / "a")[0].state()


def test_damage_is_named_and_leaves_the_other_episodes(tmp_path: Path) -> None:
    write_v2(tmp_path / "a")
    broken = tmp_path / "a/data/chunk-000/episode_000000.parquet"
    whole = broken.read_bytes()
    folder = LeRobotFolder(tmp_path / "a")
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"episode_000000\.parquet: column .* can't be read"):
        folder[0].state()
    assert folder[1].state().shape == (4, 1)
    pq.write_table(pq.read_table(io.BytesIO(whole)).slice(0, 5), broken)
    with pytest.raises(ValueError, match="5 of 6 are there"):
        folder[0].state()
    table = pq.read_table(io.BytesIO(whole))
    nan = table.set_column(0, "observation.state", pa.array([0.0, np.nan, 0, 0, 0, 0]))
    pq.write_table(nan, broken)
    with pytest.raises(ValueError, match="frame 1 holds NaN"):
        folder[0].state()
    (tmp_path / "a/meta/episodes.jsonl").write_text('{"episode_index": 0, "tasks": ["x"], "length": 6}\n{oops\n')
    with pytest.raises(ValueError, match=r"episodes\.jsonl:2: not a line of JSON"):
        len(LeRobotFolder(tmp_path / "a"))
    with pytest.raises(ValueError, match="is this a LeRobot folder"):
        len(LeRobotFolder(tmp_path / "nowhere"))


def test_rows_of_another_episode_are_refused(folder: LeRobotFolder, made: list[Episode], tmp_path: Path) -> None:
    write_lerobot(tmp_path / "a", made[:2])
    file = tmp_path / "a/meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[1]["dataset_from_index"] = 5
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(ValueError, match="belongs to episode 0, not 1"):
        LeRobotFolder(tmp_path / "a")[1].state()


def test_an_episode_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="their order and no overlap"):
        episode(0, subtasks=(SubTask("a", 0, 9), SubTask("b", 8, 12)))
    with pytest.raises(ValueError, match="must be above 0"):
        episode(0, fps=0.0)
