"""A policy learns from every layout of episodes: LeRobot 2.1 and 3.0, the released HDF5 files, RDT2's shards."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from robot_episodes import CONTRACT, LENGTH, SIDE, robot_episode, write_episodes

from gemvlm.data.episodes import Episode
from gemvlm.inference.policy import load_policy
from gemvlm.recipes.vla_debug import EXPERT, VLA_DEBUG
from gemvlm.recipes.vla_episodes import Robot
from gemvlm.recipes.vla_evaluate import blind_players
from gemvlm.recipes.vla_run import train_policy
from gemvlm.robot import RobotObservation
from gemvlm.training.loop import Run
from gemvlm.training.metrics import read_metrics

SHORT = replace(
    VLA_DEBUG, stages=tuple(replace(stage, steps=2, batch_size=2, turns_per_sample=0) for stage in VLA_DEBUG.stages)
)
ACTIONS_ALONE = replace(SHORT, name="actions", stages=(replace(EXPERT, steps=3, batch_size=2),))
COUNT = 6


def lerobot_3(folder: Path) -> Robot:
    pytest.importorskip("av", reason="LeRobot's videos need PyAV: pip install 'gemvlm[curate]'")
    pytest.importorskip("pyarrow", reason="LeRobot's tables need pyarrow: pip install 'gemvlm[curate]'")
    write_episodes(folder, COUNT)
    return Robot.named("metaworld")


def lerobot_2(folder: Path) -> Robot:
    """One table for each episode, the pictures in it."""
    pa = pytest.importorskip("pyarrow", reason="LeRobot's tables need pyarrow: pip install 'gemvlm[curate]'")
    import pyarrow.parquet as pq

    def column(values: np.ndarray) -> object:
        return pa.array(values.tolist(), pa.list_(pa.float32(), values.shape[1]))

    (folder / "meta").mkdir(parents=True)
    (folder / "data" / "chunk-000").mkdir(parents=True)
    vector = {"dtype": "float32", "shape": [4]}
    picture = {"dtype": "image", "shape": [SIDE, SIDE, 3], "names": ["height", "width", "channel"]}
    info = {
        "codebase_version": "v2.1", "robot_type": "arm", "fps": CONTRACT.rate_hz, "chunks_size": 1000,
        "total_episodes": COUNT, "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": None,
        "features": {
            "observation.state": vector | {"names": list(CONTRACT.state_names)},
            "action": vector | {"names": list(CONTRACT.action_names)},
            **{f"observation.images.{camera}": picture for camera in CONTRACT.cameras},
        },
    }  # fmt: skip
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    lines = [{"episode_index": n, "tasks": ["reach the white spot"], "length": LENGTH} for n in range(COUNT)]
    (folder / "meta" / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "meta" / "tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "reach the white spot"}) + "\n")
    for number in range(COUNT):
        episode = robot_episode(number, depth=False)
        columns = {
            "observation.state": column(episode.state()),
            "action": column(episode.action()),
            "episode_index": pa.array([number] * LENGTH),
            "task_index": pa.array([0] * LENGTH),
        }
        for camera in CONTRACT.cameras:
            pictures = [{"bytes": encoded(image), "path": None} for image in images(episode, camera)]
            columns[f"observation.images.{camera}"] = pa.array(pictures)
        pq.write_table(pa.table(columns), folder / "data" / "chunk-000" / f"episode_{number:06d}.parquet")
    return Robot.named("metaworld")


def hdf5(folder: Path) -> Robot:
    """Encoded pictures and depth in millimetres, as `episodes.json` has to say."""
    h5py = pytest.importorskip("h5py", reason="HDF5 files are read by h5py: pip install 'gemvlm[robots]'")
    (folder / "reach").mkdir(parents=True)
    for number in range(COUNT):
        episode = robot_episode(number)
        with h5py.File(folder / "reach" / f"episode_{number}.hdf5", "w") as content:
            content["observations/state"], content["action"] = episode.state(), episode.action()
            for camera in CONTRACT.cameras:
                rows = content.create_dataset(
                    f"observations/images/{camera}", (LENGTH,), h5py.vlen_dtype(np.dtype("uint8"))
                )
                for index, image in enumerate(images(episode, camera)):
                    rows[index] = np.frombuffer(encoded(image[..., ::-1]), np.uint8)
                maps = [
                    frame.depth.values for frame in episode.frames(camera, range(LENGTH)) if frame.depth is not None
                ]
                content[f"observations/depth_images/{camera}"] = (1000 * np.stack(maps)).astype(np.uint16)
    (folder / "reach" / "instructions.json").write_text(json.dumps(["reach the white spot", "go to the spot"]))
    stated = {"fps": CONTRACT.rate_hz, "encoded_order": "bgr", "depth": "mm"}
    (folder / "episodes.json").write_text(json.dumps(stated))
    return Robot.of_options("plain", folder, "delta", (), None)


def rdt2(folder: Path) -> Robot:
    """Moments with stored chunks, told in sub-tasks, and no state."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(COUNT):
        with tarfile.open(folder / f"shard-{number:06d}.tar", "w") as shard:
            for key in range(3):
                action = io.BytesIO()
                np.save(action, random.normal(size=(24, 20)).astype(np.float32))
                parts = {
                    "image.jpg": encoded(np.full((SIDE, 2 * SIDE, 3), 50 * key, np.uint8), "JPEG"),
                    "action.npy": action.getvalue(),
                    "meta.json": b'{"sub_task_instruction_key": "fold"}',
                }
                for part, content in parts.items():
                    member = tarfile.TarInfo(f"{key}.{part}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
    (folder / "instruction.json").write_text('{"fold": "Fold the cloth."}')
    return Robot.named("rdt2")


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, kind)
    return file.getvalue()


def images(episode: Episode, camera: str) -> list[np.ndarray]:
    return [frame.image for frame in episode.frames(camera, range(LENGTH))]


@pytest.mark.parametrize("layout", [lerobot_2, lerobot_3, hdf5, rdt2])
def test_a_policy_learns_from_each_layout(layout: Callable[[Path], Robot], tmp_path: Path) -> None:
    robot = layout(tmp_path / "set")
    recipe = SHORT if layout in (lerobot_3, hdf5) else ACTIONS_ALONE
    run = Run(tmp_path / "out", log_every=1, callback_every=2, show_progress=False)
    assert train_policy(recipe, tmp_path / "out", [tmp_path / "set"], robot=robot, device="cpu", run=run)
    lines = [line for line in read_metrics(tmp_path / "out" / "metrics.jsonl") if "loss/action" in line]
    assert len(lines) == sum(stage.steps for stage in recipe.stages)
    assert ("loss/depth" in lines[-1]) == (recipe is SHORT)
    policy = load_policy(tmp_path / "out" / "final", "cpu")
    assert policy.contract == robot.contract
    state = np.zeros(len(robot.contract.state_names), np.float32)
    pictures = {camera: np.zeros((SIDE, SIDE, 3), np.uint8) for camera in robot.contract.cameras}
    (chunk,) = policy.act([RobotObservation(pictures, state, "go")], [0])
    assert chunk.actions.shape == (policy.horizon, len(robot.contract.action_names))
    if layout is not rdt2:  # whose shards have no state, and whose moments are no trajectory
        assert blind_players([tmp_path / "set"], robot.contract, policy.horizon)
