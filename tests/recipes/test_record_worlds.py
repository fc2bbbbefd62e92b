"""Recording: balanced episodes of successes alone, what was done comes back, resumed and parallel runs are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs pip install 'gemvlm[curate]'")
pytest.importorskip("pyarrow", reason="needs pip install 'gemvlm[curate]'")

from gemvlm.data.episodes import LeRobotFolder
from gemvlm.depth_map import DepthMap
from gemvlm.recipes.record_worlds import Recording, record_worlds
from gemvlm.robot import RobotObservation
from gemvlm.robot.embodiments.metaworld import CONTRACT
from gemvlm.worlds.open_world import WorldMaker

SIZE = 32


class Line:
    """A hand that must go right; odd starts of task "b" are too far for its horizon. Its grip says that it noticed."""

    contract = CONTRACT
    test_starts, demonstration_starts = range(10), range(10, 1000)
    protocol: Mapping[str, str] = {"simulator": "a line", "licence": "cc0-1.0"}
    horizon = 12
    made = 0

    def __init__(self, name: str) -> None:
        self.name, self.instruction = name, f"go right in {name}"
        Line.made += 1

    def reset(self, start: int) -> RobotObservation:
        assert start in self.demonstration_starts
        self.goal = 50.0 if self.name == "b" and start % 2 else 3.0 + start % 3
        self.place, self.steps = 0.0, 0
        return self._seen()

    def step(self, action: np.ndarray) -> tuple[RobotObservation, bool]:
        self.place += float(action[0])
        self.steps += 1
        return self._seen(), self.succeeded()

    def succeeded(self) -> bool:
        return self.place >= self.goal

    def depths(self) -> dict[str, DepthMap]:
        z = np.full((SIZE, SIZE), 1.0 + self.place / 10, np.float32)
        z[0] = 40.0  # beyond what a folder can hold
        return {camera: DepthMap.from_values(z, source="line") for camera in CONTRACT.cameras}

    def expert_action(self) -> np.ndarray:
        return np.array([1.0, 0.0, 0.0, -1.0], np.float32)

    def close(self) -> None: ...

    def _seen(self) -> RobotObservation:
        image = np.full((SIZE, SIZE, 3), int(self.place * 10) % 256, np.uint8)
        state = np.array([self.place, 0, 0, 1], np.float32)
        return RobotObservation(dict.fromkeys(CONTRACT.cameras, image), state, self.instruction, self.steps)


def test_a_folder_holds_as_many_successes_of_each_task_in_turn(tmp_path):
    done = record_worlds(tmp_path / "set", Line, Recording(("a", "b"), 3, afterwards=2))
    folder = LeRobotFolder(tmp_path / "set")
    assert (done.episodes, len(folder)) == (6, 6)
    assert [episode.instruction[-1] for episode in folder] == ["a", "b"] * 3
    assert done.failures == {"a": 0, "b": 2}
    assert done.steps == sum(episode.length for episode in folder)
    report = json.loads((tmp_path / "set" / "recording.json").read_text())
    assert report["starts"] == {"a": [10, 11, 12], "b": [10, 12, 14]}
    assert report["failed_starts"] == {"a": [], "b": [11, 13]}
    assert report["worlds"]["a"]["simulator"] == "a line"
    assert not (tmp_path / "set.parts").exists()


def test_what_was_seen_and_done_comes_back(tmp_path):
    record_worlds(tmp_path / "set", Line, Recording(("a",), 1, afterwards=2))
    (episode,) = LeRobotFolder(tmp_path / "set")
    assert episode.length == 4 + 2 and episode.fps == CONTRACT.rate_hz and episode.success
    assert (episode.state_names, episode.action_names) == (CONTRACT.state_names, CONTRACT.action_names)
    assert (episode.robot, episode.licence) == ("metaworld", "cc0-1.0")
    np.testing.assert_array_equal(episode.state()[:, 0], np.arange(6))
    np.testing.assert_array_equal(episode.action()[:, 3], -np.ones(6))
    frame = episode.frames("observation.images.right", [3])[0]
    assert frame.depth is not None and not frame.depth.valid[0].any() and frame.depth.valid[1:].all()
    assert np.abs(frame.depth.values[1:] - 1.3).max() < 0.003
    assert abs(int(frame.image.mean()) - 30) <= 2


def test_noise_is_executed_but_not_recorded_and_spares_the_gripper(tmp_path):
    record_worlds(tmp_path / "set", Line, Recording(("a",), 1, noise=0.1))
    (episode,) = LeRobotFolder(tmp_path / "set")
    np.testing.assert_array_equal(episode.action()[:, 0], np.ones(episode.length, np.float32))
    assert 0 < np.abs(np.diff(episode.state()[:, 0]) - 1).max() < 0.5


def test_an_interrupted_recording_goes_on_and_does_nothing_twice(tmp_path):
    recording = Recording(("a", "b"), 2, noise=0.1)
    record_worlds(tmp_path / "whole", Line, recording)

    class Breaks(Line):
        def reset(self, start: int) -> RobotObservation:
            if self.name == "b":
                raise KeyboardInterrupt
            return super().reset(start)

    with pytest.raises(KeyboardInterrupt):
        record_worlds(tmp_path / "set", Breaks, recording)
    with pytest.raises(ValueError, match=r"another recording was begun here \(tasks: .*noise: 0.1 there, 0.0 now"):
        record_worlds(tmp_path / "set", Line, Recording(("a",), 2))
    (tmp_path / "set.draft").mkdir()
    (tmp_path / "set.draft" / "torn").write_text("")  # as if it had been broken off while it was written
    played = []

    class Counts(Line):
        def reset(self, start: int) -> RobotObservation:
            played.append((self.name, start))
            return super().reset(start)

    record_worlds(tmp_path / "set", Counts, recording)
    assert {name for name, _ in played} == {"b"}
    for one, other in zip(LeRobotFolder(tmp_path / "whole"), LeRobotFolder(tmp_path / "set"), strict=True):
        np.testing.assert_array_equal(one.state(), other.state())


@dataclass(frozen=True)
class Sized:
    """Makes the line's worlds, and tells their size as `WorldMaker` does."""

    size: int

    def __call__(self, name: str) -> Line:
        if name == "nowhere":
            raise ValueError("nowhere: names no world")
        return Line(name)


def test_pictures_of_two_kinds_are_never_mixed(tmp_path):
    """A recording that goes on with another size of pictures; and the world of another maker, kept from before."""
    with pytest.raises(ValueError, match="names no world"):
        record_worlds(tmp_path / "set", Sized(32), Recording(("a", "nowhere"), 1))
    assert list(tmp_path.iterdir()) == []  # refused before anything was begun
    (tmp_path / "set.parts").mkdir()
    before = {"tasks": ["a"], "demonstrations": 1, "noise": 0.0, "afterwards": 5, "seed": 0, "depth": True}
    (tmp_path / "set.parts" / "plan.json").write_text(json.dumps(before | {"worlds": {"size": "32"}}))
    with pytest.raises(ValueError, match=r"worlds: \{'size': '32'\} there, \{'size': '64'\} now"):
        record_worlds(tmp_path / "set", Sized(64), Recording(("a",), 1))
    made = Line.made
    for size in (32, 64):
        record_worlds(tmp_path / str(size), Sized(size), Recording(("a",), 1))
    assert Line.made == made + 2


def test_no_expert_and_a_weak_one_are_refused(tmp_path):
    class Nobody(Line):
        def expert_action(self) -> None:
            return None

    class Weak(Line):
        horizon = 1

    with pytest.raises(ValueError, match="has no scripted expert"):
        record_worlds(tmp_path / "one", Nobody, Recording(("c",), 1))
    with pytest.raises(ValueError, match="the expert failed 22 of 22 starts"):
        record_worlds(tmp_path / "two", Weak, Recording(("d",), 1))


def test_a_full_folder_is_left_alone(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        record_worlds(tmp_path / "set", Line, Recording(("a",), 1))


@pytest.mark.slow
def test_processes_make_the_same_bytes_and_depths(tmp_path: Path):
    pytest.importorskip("mujoco", reason="needs pip install 'gemvlm[worlds]'")
    make, recording = WorldMaker(SIZE, "plain"), Recording(("bimanual/lift-tray",), 2, noise=0.001)
    for name, processes in (("one", 1), ("two", 2)):
        record_worlds(tmp_path / name, make, recording, processes)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*") if path.is_file())
    assert files
    for file in files:
        if "_depth" not in str(file):  # x265 may code equal pictures in two ways
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    for one, two in zip(LeRobotFolder(tmp_path / "one"), LeRobotFolder(tmp_path / "two"), strict=True):
        for camera in one.cameras:
            shown = [episode.frames(camera, range(one.length)) for episode in (one, two)]
            for first, second in zip(*shown, strict=True):
                assert first.depth is not None and second.depth is not None
                np.testing.assert_array_equal(first.depth.values, second.depth.values)


def test_names_of_worlds_that_do_not_exist_are_refused():
    for name, said in (("gym/ant", "names no world"), ("libero/libero_goal/3", "needs the folder of its assets")):
        with pytest.raises(ValueError, match=said):
            WorldMaker()(name)
