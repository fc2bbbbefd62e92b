"""RDT2's shards as episodes of stored chunks."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemvlm.data.actions import EpisodeDataset, episode_statistics
from gemvlm.data.episodes import Rdt2Shards
from gemvlm.robot.embodiments import EMBODIMENTS

SIDE = 16
TOLD = {"fold": "Fold the cloth.", "wipe": "Wipe the table.", "none": ""}


def _chunk(key: int) -> np.ndarray:
    return np.random.default_rng(key).normal(size=(24, 20)).astype(np.float32)


def _members(key: int, task: str) -> dict[str, bytes]:
    picture = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    picture[:, :SIDE, 0], picture[:, SIDE:, 2] = 40 * (key % 4) + 60, 200
    image, action, tokens = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(picture).save(image, "JPEG", quality=95)
    np.save(action, _chunk(key))
    np.save(tokens, np.zeros(27, np.int16))
    meta = json.dumps({"sub_task_instruction_key": task}).encode()
    return {
        f"{key}.image.jpg": image.getvalue(),
        f"{key}.action.npy": action.getvalue(),
        f"{key}.action_token.npy": tokens.getvalue(),
        f"{key}.meta.json": meta,
    }


def _write(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "set" / "shards"
    tasks = ["fold", "fold", "wipe", "none", "fold"]
    for number in range(2):
        members: dict[str, bytes] = {}
        for key, task in enumerate(tasks, start=5 * number):
            members |= _members(key, task)
        _write(folder / f"shard-{number:06d}.tar", members)
    (tmp_path / "set" / "instruction.json").write_text(json.dumps(TOLD))
    return folder


def test_a_shard_is_an_episode_of_chunks(shards: Path) -> None:
    own = Rdt2Shards(shards)[1]
    assert (own.id, own.length, own.chunk_length, own.fps) == ("shards/shard-000001", 5, 24, 30.0)
    np.testing.assert_array_equal(own.chunk(2), _chunk(7))
    assert [(part.text, part.start, part.stop) for part in own.subtasks] == [
        ("Fold the cloth.", 0, 2),
        ("Wipe the table.", 2, 3),
        ("Fold the cloth.", 4, 5),
    ]
    left, right = (own.frames(camera, [2])[0].image for camera in ("left", "right"))
    assert left.shape == right.shape == (SIDE, SIDE, 3)
    assert left[..., 0].mean() > 150 > 40 > left[..., 2].mean() and right[..., 2].mean() > 150


def test_a_policy_can_learn_from_it(shards: Path) -> None:
    robot = EMBODIMENTS["rdt2"]
    dataset = EpisodeDataset([Rdt2Shards(shards)], robot.contract, horizon=24, told="subtask")
    assert len(dataset) == 10
    item = dataset[7]
    np.testing.assert_array_equal(item.actions, _chunk(7))
    assert item.valid.all() and item.wordings == ("Wipe the table.",) and item.state.shape == (0,)
    statistics = episode_statistics(dataset, robot)
    everything = np.concatenate([_chunk(key) for key in range(10)])
    np.testing.assert_allclose(statistics["action"].mean, everything.mean(0), atol=1e-6)
    assert statistics["action"].count == 240 and len(statistics["state"]) == robot.state_size == 1


def test_instructions_are_found_or_given(shards: Path, tmp_path: Path) -> None:
    (shards.parent / "instruction.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(ValueError, match=r"no instruction\.json in it or beside it"):
        Rdt2Shards(shards)[0]
    assert Rdt2Shards(shards, tmp_path / "elsewhere.json")[0].length == 5


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("0.meta.json", b"{}", "sample 0: its meta.json names no known instruction"),
        ("0.meta.json", b'{"sub_task_instruction_key": "dance"}', "sample 0: its meta.json names no known instruction"),
        ("0.meta.json", b"\xff", "sample 0: its meta.json names no known instruction"),
        ("0.action.npy", b"", "action 0 is no array"),
        ("0.image.jpg", b"\xff\xd8\xff", "picture 0 can't be read"),
        ("0.image.jpg", None, r"samples \['0'\] \(1 in all\) lack one of"),
    ],
)
def test_damage_is_named(shards: Path, name: str, content: bytes | None, says: str) -> None:
    members = _members(0, "fold") | _members(1, "wipe")
    members.pop(name) if content is None else members.__setitem__(name, content)
    _write(shards / "shard-000000.tar", members)
    with pytest.raises(ValueError, match=f"shard-000000.tar: {says}"):
        Rdt2Shards(shards)[0]
    assert Rdt2Shards(shards)[1].length == 5


@pytest.mark.parametrize(
    "array", [np.zeros((24, 14), np.float32), np.full((24, 20), np.nan, np.float32), np.array([None] * 20)[None]]
)
def test_chunks_that_are_none_are_refused(shards: Path, array: np.ndarray) -> None:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    _write(shards / "shard-000000.tar", _members(0, "fold") | {"0.action.npy": file.getvalue()})
    with pytest.raises(ValueError, match=r"shard-000000\.tar: action 0"):
        Rdt2Shards(shards)[0]


def test_a_truncated_shard_is_refused(shards: Path) -> None:
    whole = (shards / "shard-000000.tar").read_bytes()
    (shards / "shard-000000.tar").write_bytes(whole[:3000])
    with pytest.raises(ValueError, match=r"shard-000000\.tar"):
        Rdt2Shards(shards)[0]
    with pytest.raises(ValueError, match="no shard-"):
        Rdt2Shards(shards / "nothing")[0]
