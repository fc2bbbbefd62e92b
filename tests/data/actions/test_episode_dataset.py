"""Moments of episodes: which, in what order, with which actions, and what stays in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from gemvlm.data.actions import EpisodeDataset, episode_statistics, split_episodes
from gemvlm.data.actions.memory import ByteCache
from gemvlm.data.episodes import ArrayData, Episode, LeRobotFolder, SubTask, write_lerobot
from gemvlm.robot.embodiments import EMBODIMENTS
from gemvlm.sample import Frame

CONTRACT = EMBODIMENTS["metaworld"].contract
MakeEpisode = Callable[..., Episode]


@dataclass
class Counted:
    """An episode's data that counts what is decoded of it."""

    data: ArrayData
    decoded: list[int]

    def signal(self, name: str, start: int, stop: int) -> np.ndarray:
        return self.data.signal(name, start, stop)

    def frames(self, camera: str, indices: Sequence[int]) -> tuple[Frame, ...]:
        self.decoded += indices
        return self.data.frames(camera, indices)


def test_every_frame_of_every_episode_in_order(dataset: EpisodeDataset) -> None:
    assert len(dataset) == 28
    assert [item.id for item in dataset[10:14]] == ["a@10", "a@11", "b@0", "b@1"]
    assert dataset[-1].id == "c@8"
    for item, time in ((dataset[3], 3), (dataset[14], 2)):
        assert list(item.frames) == list(CONTRACT.cameras)
        assert [tuple(frame.image[0, 0, :2]) for frame in item.frames.values()] == [(time, 0), (time, 1)]
        depths = [float(frame.depth.values[0, 0]) for frame in item.frames.values() if frame.depth is not None]
        np.testing.assert_allclose(depths, [1 + time / 100, 2 + time / 100])
    with pytest.raises(IndexError):
        dataset[28]


def test_the_tail_of_a_chunk_is_masked(dataset: EpisodeDataset) -> None:
    """B8: what repeats the last action is not valid, everything else is."""
    for index in range(len(dataset)):
        number, time = dataset.moment(index)
        item, length = dataset[index], dataset.episodes[number].length
        left = min(5, length - time)
        np.testing.assert_array_equal(item.valid, np.arange(5) < left)
        np.testing.assert_array_equal(item.actions[:left, 0], np.arange(time, time + left))
        np.testing.assert_array_equal(item.actions[left:, 0], length - 1)


def test_no_action_of_the_next_episode_is_ever_seen(dataset: EpisodeDataset) -> None:
    chunks, valid = dataset.chunks(0)
    assert chunks.shape == (12, 5, 4) and valid.sum() == 12 * 5 - 10
    for time in range(12):
        np.testing.assert_array_equal(chunks[time], dataset.at(0, time).actions)
        np.testing.assert_array_equal(valid[time], dataset.at(0, time).valid)


def test_every_nth_frame(make_episode: MakeEpisode) -> None:
    own = EpisodeDataset([[make_episode("a", 7), make_episode("b", 6)]], CONTRACT, 4, every=3)
    assert [item.id for item in own] == ["a@0", "a@3", "a@6", "b@0", "b@3"]


def test_columns_go_by_name(make_episode: MakeEpisode) -> None:
    given = make_episode("a")
    order = [3, 1, 0, 2]
    signals = {name: values[:, order] for name, values in given.data.signals.items()}  # type: ignore[attr-defined]
    mixed = replace(
        given,
        data=replace(given.data, signals=signals),  # type: ignore[type-var]
        state_names=tuple(CONTRACT.state_names[i] for i in order),
        action_names=tuple(CONTRACT.action_names[i] for i in order),
    )
    straight, crooked = (EpisodeDataset([[one]], CONTRACT, 3)[2] for one in (given, mixed))
    np.testing.assert_array_equal(straight.state, crooked.state)
    np.testing.assert_array_equal(straight.actions, crooked.actions)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"action_names": ("dx", "dx", "dy", "dz", "grip")}, r"several action columns are called dx.*say action_names"),
        ({"action_names": ("a", "b", "c", "d")}, r"no action \['dx', 'dy', 'dz', 'grip'\]; it has \['a', 'b'"),
        ({"fps": 20.0}, "20 frames per second and the contract 80"),
        ({"cameras": {}}, r"0 cameras are called 'right'; there are \[\]"),
    ],
)
def test_another_robots_episode_is_refused_by_name(make_episode: MakeEpisode, changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=f"episode 'other'.*{says}"):
        EpisodeDataset([[make_episode("a"), make_episode("other", **changes)]], CONTRACT, 3)


def test_numbers_without_names_are_taken_by_position(make_episode: MakeEpisode) -> None:
    unnamed = make_episode("a", action_names=tuple(f"action_{i}" for i in range(4)))
    np.testing.assert_array_equal(EpisodeDataset([[unnamed]], CONTRACT, 3)[1].actions[:, 0], [1, 2, 3])


def test_columns_of_one_name_are_all_taken(make_episode: MakeEpisode) -> None:
    """Published LIBERO sets call both fingers "gripper"; the first was read twice."""
    names = ("dx", "dy", "grip", "grip")
    given = make_episode("a", action_names=names)
    taken = EpisodeDataset([[given]], replace(CONTRACT, action_names=names), 3)[2]
    np.testing.assert_array_equal(taken.actions, given.action(2, 5))


def test_places_are_taken_at_any_rate(make_episode: MakeEpisode) -> None:
    """A recording at twice the contract's rate, and at two thirds of it: the nearest frame's place."""
    absolute = replace(CONTRACT, control="absolute")
    for fps, steps in ((160.0, [0, 2, 4, 6]), (80 * 2 / 3, [0, 1, 1, 2])):
        own = EpisodeDataset([[make_episode("a", fps=fps)]], absolute, 4)
        np.testing.assert_array_equal(own[3].actions[:, 0], 3 + np.array(steps))
        assert own[11].valid.tolist() == [True, False, False, False]


def test_words_of_the_task_and_of_its_parts(make_episode: MakeEpisode) -> None:
    own = make_episode("a", wordings=("press", "push"), subtasks=(SubTask("reach", 2, 5),))
    told = {kind: EpisodeDataset([[own]], CONTRACT, 3, told=kind) for kind in ("task", "subtask", "both")}
    assert [told[kind][0].wordings for kind in told] == [("press", "push")] * 3
    assert [told[kind][3].wordings for kind in told] == [("press", "push"), ("reach",), ("press", "push", "reach")]


def test_memory_is_bounded_and_small_sets_are_decoded_once(make_episode: MakeEpisode) -> None:
    given = make_episode("a", 40)
    size = 32 * 32 * 8
    for limit, decoded in ((2 * 40 * size, 80), (10 * size, 160)):
        counted = Counted(given.data, [])  # type: ignore[arg-type]
        own = EpisodeDataset([[replace(given, data=counted)]], CONTRACT, 3, picture_bytes=limit)
        first = [item.frames for item in own]
        again = [item.frames for item in own]
        assert own._pictures.held <= limit
        assert len(counted.decoded) == decoded
        for one, other in zip(first, again, strict=True):
            for camera in CONTRACT.cameras:
                np.testing.assert_array_equal(one[camera].image, other[camera].image)


def test_a_cache_forgets_the_oldest() -> None:
    cache: ByteCache[str, bytes] = ByteCache(10, len)
    reads: list[str] = []

    def get(key: str, size: int) -> None:
        cache.get(key, lambda: reads.append(key) or bytes(size))  # type: ignore[func-returns-value]

    for key, size in (("a", 4), ("b", 4), ("a", 4), ("c", 4), ("a", 4), ("b", 4), ("huge", 11), ("huge", 11)):
        get(key, size)
    assert reads == ["a", "b", "c", "b", "huge", "huge"]
    assert cache.held <= 10


def test_nothing_is_written_and_no_picture_read_to_index_a_folder(
    make_episode: MakeEpisode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5: no index file, no race, every process the same order; statistics come from the tables alone."""
    pytest.importorskip("av", reason="PyAV is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    folder = tmp_path / "set"
    write_lerobot(folder, [make_episode(name, 6) for name in "ab"])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.setattr("gemvlm.data.episodes.lerobot.decode_frames", None)
    datasets = [EpisodeDataset([LeRobotFolder(folder)], CONTRACT, 3) for _ in range(2)]
    statistics = episode_statistics(datasets[0], EMBODIMENTS["metaworld"])
    assert statistics["action"].count == 12 and statistics["action"].names == CONTRACT.action_names
    assert datasets[0].hash == datasets[1].hash
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.undo()
    item = datasets[0][7]
    np.testing.assert_array_equal(item.actions[:, 0], [1, 2, 3])
    assert [frame.depth is not None for frame in item.frames.values()] == [True, True]


def test_the_hash_tells_data_and_settings_apart(make_episode: MakeEpisode) -> None:
    def of(name: str = "a", length: int = 8, horizon: int = 3, **changes: object) -> str:
        return EpisodeDataset([[make_episode(name, length, **changes)]], CONTRACT, horizon).hash

    hashes = [of(), of("b"), of(length=9), of(horizon=4), of(instruction="push"), of(wordings=("x", "y"))]
    assert len(set(hashes)) == len(hashes) and of() == hashes[0]


class Stored(ArrayData):
    """Chunks of zeros but for one number of the last row of the last one."""

    last = 0.0

    def chunk(self, index: int) -> np.ndarray:
        chunk = np.zeros((3, 4), np.float32)
        chunk[-1, 0] = self.last * (index == 3)
        return chunk


def test_the_hash_sees_every_row_of_stored_chunks(make_episode: MakeEpisode) -> None:
    def of(last: float) -> str:
        episode = make_episode("a", 4)
        stored = Stored(**vars(episode.data))
        object.__setattr__(stored, "last", last)
        return EpisodeDataset([[replace(episode, data=stored, chunk_length=3)]], CONTRACT, 3).hash

    assert of(0.0) == of(0.0) != of(1.0)


def test_statistics_of_relative_actions_count_every_chunk(make_episode: MakeEpisode) -> None:
    robot = EMBODIMENTS["joint_arm"]
    random = np.random.default_rng(0)
    signals = {name: random.normal(size=(9, 8)).astype(np.float32) for name in ("state", "action")}
    own = make_episode(
        "a", 9, fps=15.0, state_names=robot.contract.state_names, action_names=robot.contract.action_names
    )
    own = replace(own, data=replace(own.data, signals=signals))  # type: ignore[type-var]
    contract = replace(robot.contract, cameras=CONTRACT.cameras)
    dataset = EpisodeDataset([[own]], contract, horizon=4)
    statistics = episode_statistics(dataset, robot)
    rows = [signals["action"][t + k, :7] - signals["state"][t, :7] for t in range(9) for k in range(4) if t + k < 9]
    np.testing.assert_allclose(statistics["action"].mean[:7], np.mean(rows, axis=0), atol=1e-6)
    assert statistics["action"].count == len(rows) == 30
    assert statistics["state"].count == 9


def test_held_out_episodes_are_whole_and_stay_where_they_are(make_episode: MakeEpisode) -> None:
    """B13: what is evaluated on is never trained on, also when more episodes are recorded later."""
    few = [make_episode(f"set/{number:03d}", 3) for number in range(40)]
    many = few + [make_episode(f"set/{number:03d}", 3) for number in range(40, 60)]
    train, held_out = ([episode.id for episode in part] for part in split_episodes(few, 0.25, seed=3))
    assert not set(train) & set(held_out) and sorted(train + held_out) == [episode.id for episode in few]
    assert 4 <= len(held_out) <= 16
    later = split_episodes(many, 0.25, seed=3)
    assert {episode.id for episode in later[0]} >= set(train) and {episode.id for episode in later[1]} >= set(held_out)
    for share, count in ((1e-9, 1), (1 - 1e-9, len(few) - 1)):  # no part is empty, whatever chance says
        assert len(split_episodes(few, share)[1]) == count
    with pytest.raises(ValueError, match="two episodes or more"):
        split_episodes(few[:1], 0.5)
    with pytest.raises(ValueError, match="a share between 0 and 1"):
        split_episodes(few, 1.0)
