"""Closed loop: who is counted as what, on how many processes and after how many kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import point_mass
import pytest
from point_mass import CONTRACT, STEPS, PointMass, Seeing, demonstrations

from gemvlm.evaluation.blind_policies import BLIND, Blanked, Demonstration, MeanTrajectory, NearestNeighbour, Replay
from gemvlm.evaluation.rollout.episode import EPISODES, LOST, RUN, TIMEOUT, Episode, read_lines
from gemvlm.evaluation.rollout.protocol import (
    LIBERO_STEPS,
    Protocol,
    Task,
    libero_protocol,
    metaworld_protocol,
)
from gemvlm.evaluation.rollout.run import Player, policy_seed, run_rollout
from gemvlm.evaluation.runner import Share
from gemvlm.robot import ActionChunk, Policy, RobotObservation

PROTOCOL = Protocol("points", (Task("a", STEPS), Task("b", STEPS)), tuple(range(8)), execute=4)
ONE_TASK = replace(PROTOCOL, tasks=(Task("a", STEPS),))


def play(folder: Path, policy: Policy | None = None, protocol: Protocol = PROTOCOL, **options: object) -> list[Episode]:
    """All episodes, of the seeing policy by default."""
    player = Player("seeing", policy or Seeing(), {})
    assert run_rollout(protocol, player, options.pop("make", point_mass.make), folder, **options)  # type: ignore[arg-type]
    return read_lines(folder / EPISODES)


def told(episodes: list[Episode]) -> list[dict[str, object]]:
    """What must not depend on how they were played."""
    return [{key: value for key, value in asdict(one).items() if key not in ("seconds", "code")} for one in episodes]


def rate(episodes: list[Episode]) -> float:
    return float(np.mean([one.success for one in episodes]))


def test_a_policy_that_sees_reaches_every_mark(tmp_path: Path) -> None:
    episodes = play(tmp_path)
    assert [one.id for one in episodes] == [start.id for start in PROTOCOL.episodes()]
    assert rate(episodes) == 1.0 and all(one.failure is None and one.first_success == one.steps for one in episodes)
    assert 6 <= min(one.steps for one in episodes) <= max(one.steps for one in episodes) < STEPS
    run = json.loads((tmp_path / RUN).read_text())
    assert run["world"]["simulator"] == "point mass 1" and run["protocol"]["execute"] == 4
    assert all(one.code for one in episodes)


def test_blind_policies_reach_what_chance_gives_them(tmp_path: Path) -> None:
    shown = demonstrations(range(100, 108))
    rates = {}
    for name, kind in BLIND.items():
        rates[name] = rate(play(tmp_path / name, kind(shown, CONTRACT, 8), ONE_TASK))
    assert rates["mean trajectory"] == 0.0  # the mean of four corners is the middle
    assert rates["replay"] == 0.25 and rates["random"] == 0.0
    assert rates["nearest neighbour"] <= 0.5
    blanked = rate(play(tmp_path / "blank", Blanked(Seeing()), ONE_TASK))
    assert blanked == 0.25  # all of a grey picture is brightest: its first pixel is one corner


def test_replay_of_a_number_and_of_the_most_typical_one() -> None:
    shown = demonstrations([101, 105, 102, 109])
    seen = PointMass("a").reset(0)
    assert Replay(shown, CONTRACT, 3).typical == {
        shown[0].instruction: Replay(shown, CONTRACT, 3).typical[shown[0].instruction]
    }
    typical = Replay(shown, CONTRACT, 3).typical[shown[0].instruction]
    assert typical != 2  # three go to one corner, number 2 to another
    chunk = Replay(shown, CONTRACT, 3, 2).act([seen], [0])[0]
    assert np.array_equal(chunk.actions, shown[2].actions[:3])
    with pytest.raises(ValueError, match="demonstrated 4 times; there is no number 9"):
        Replay(shown, CONTRACT, 3, 9).act([seen], [0])
    with pytest.raises(ValueError, match="nobody demonstrated 'fly'"):
        MeanTrajectory(shown, CONTRACT, 3).act([replace(seen, instruction="fly")], [0])
    with pytest.raises(ValueError, match="demonstration 0: 2 numbers of state and 2 of action, but arm has 3"):
        Replay(shown, replace(CONTRACT, embodiment="arm", state_names=("x", "y", "z")), 3)


def test_mean_trajectory_holds_the_last_action_of_those_that_ended() -> None:
    ones, twos = np.ones((2, 2), np.float32), np.full((4, 2), 3, np.float32)
    shown = (Demonstration("go", ones, ones), Demonstration("go", twos, twos))
    seen = replace(PointMass("a").reset(0), instruction="go", step=1)
    assert np.allclose(MeanTrajectory(shown, CONTRACT, 5).act([seen], [0])[0].actions, 2)


def test_nearest_neighbour_goes_on_from_the_nearest_moment() -> None:
    shown = demonstrations([100, 102])
    far = shown[1].states[5]
    seen = replace(PointMass("a").reset(0), state=far, step=5)
    chunk = NearestNeighbour(shown, CONTRACT, 3).act([seen], [0])[0]
    assert np.array_equal(chunk.actions, shown[1].actions[[5, 6, 7]])
    late = NearestNeighbour(shown, CONTRACT, 3, time_weight=0.0).act([replace(seen, step=0)], [0])[0]
    assert np.array_equal(late.actions, shown[1].actions[[5, 6, 7]])


def test_the_two_rules_of_success_differ_where_success_does_not_last(tmp_path: Path) -> None:
    through = Seeing(beyond=True)
    ever = play(tmp_path / "ever", through, replace(ONE_TASK, success="any_step"))
    last = play(tmp_path / "last", through, replace(ONE_TASK, success="last_step"))
    stays = play(tmp_path / "stays", Seeing(), replace(ONE_TASK, success="last_step"))
    assert rate(ever) == 1.0 and rate(last) == 0.0 and rate(stays) == 1.0
    assert all(one.failure == LOST and one.steps == STEPS for one in last)
    assert [one.first_success for one in last] == [one.first_success for one in ever] == [one.steps for one in ever]


def test_an_episode_without_success_is_a_timeout_of_exactly_the_protocols_steps(tmp_path: Path) -> None:
    for steps, expected in ((5, 0.0), (STEPS, 1.0)):
        episodes = play(tmp_path / str(steps), protocol=replace(ONE_TASK, tasks=(Task("a", steps),)))
        assert rate(episodes) == expected
    short = read_lines(tmp_path / "5" / EPISODES)
    assert {(one.failure, one.steps) for one in short} == {(TIMEOUT, 5)}


def test_results_do_not_depend_on_lanes_or_processes(tmp_path: Path) -> None:
    alone = told(play(tmp_path / "1", lanes=1))
    for lanes, workers in ((5, 0), (3, 2)):
        assert told(play(tmp_path / f"{lanes}-{workers}", lanes=lanes, workers=workers)) == alone


def test_the_policy_is_asked_the_same_batches_on_any_number_of_processes(tmp_path: Path) -> None:
    here, there = Seeing(), Seeing()
    play(tmp_path / "here", here, lanes=5)
    play(tmp_path / "there", there, lanes=5, workers=2)
    assert here.batches == there.batches and max(here.batches) == 5


def test_shares_make_one_file(tmp_path: Path) -> None:
    player = Player("seeing", Seeing(), {})
    assert not run_rollout(PROTOCOL, player, point_mass.make, tmp_path / "s", share=Share(1, 2), lanes=3)
    assert run_rollout(PROTOCOL, player, point_mass.make, tmp_path / "s", share=Share(0, 2), lanes=3)
    assert told(read_lines(tmp_path / "s" / EPISODES)) == told(play(tmp_path / "whole"))


def test_starts_come_in_any_order_and_company_to_the_same_end() -> None:
    world = PointMass("a")
    first = world.reset(3)
    world.reset(1)
    again = world.reset(3)
    assert np.array_equal(first.state, again.state)
    assert policy_seed(PROTOCOL.episodes()[0], 4) != policy_seed(PROTOCOL.episodes()[1], 4)


class Stopping:
    """Ends the run at the given question, as a kill would."""

    def __init__(self, questions: int) -> None:
        self.inner, self.left = Seeing(), questions
        self.contract, self.horizon = self.inner.contract, self.inner.horizon
        self.asked: list[tuple[bytes, int]] = []

    def act(self, observations, seeds, committed=None):  # type: ignore[no-untyped-def]
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.asked += [(seen.state.tobytes(), seen.step) for seen in observations]
        return self.inner.act(observations, seeds, committed)


def test_stopped_and_resumed_equals_unbroken_without_playing_an_ended_episode_again(tmp_path: Path) -> None:
    whole = told(play(tmp_path / "whole", lanes=3))
    folder = tmp_path / "cut"
    beginnings = 0
    for _ in range(6):
        policy = Stopping(7)
        try:
            run_rollout(PROTOCOL, Player("seeing", policy, {}), point_mass.make, folder, lanes=3)
        except KeyboardInterrupt:
            part = folder / "episodes-0-of-1.jsonl"
            with part.open("ab") as file:
                file.write(b'{"id": "torn')
        beginnings += sum(step == 0 for _, step in policy.asked)
        if (folder / EPISODES).exists():
            break
    assert told(read_lines(folder / EPISODES)) == whole
    assert beginnings <= len(whole) + 5 * 3  # those in flight began again, no others


def test_a_killed_process_is_resumed(tmp_path: Path) -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[2]); import point_mass; from pathlib import Path\n"
        "from gemvlm.evaluation.rollout.run import Player, run_rollout\n"
        "from gemvlm.evaluation.rollout.protocol import Protocol, Task\n"
        "class Slow(point_mass.Seeing):\n"
        "    def act(self, *given):\n"
        "        time.sleep(0.05)\n"
        "        return super().act(*given)\n"
        f"protocol = {PROTOCOL!r}\n"
        "run_rollout(protocol, Player('seeing', Slow(), {}), point_mass.make, Path(sys.argv[1]), lanes=2)\n"
    )
    folder = tmp_path / "killed"
    here = str(Path(point_mass.__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), here])
    part = folder / "episodes-0-of-1.jsonl"
    end = time.monotonic() + 60
    while not (part.exists() and part.read_bytes().count(b"\n") >= 3) and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = read_lines(part)
    assert 3 <= len(kept) < 16 and not (folder / EPISODES).exists()
    resumed = play(folder)
    assert told(resumed) == told(play(tmp_path / "whole"))
    assert [one.seconds for one in resumed if one.id in {k.id for k in kept}] == [k.seconds for k in kept]


class Wrong:
    """Fails where start 3 is; `how` it fails is the chunk that it gives instead."""

    def __init__(self, how: object) -> None:
        self.inner, self.how = Seeing(), how
        self.contract, self.horizon = self.inner.contract, self.inner.horizon
        self.start = PointMass("a").reset(3).state

    def act(self, observations, seeds, committed=None):  # type: ignore[no-untyped-def]
        answers = self.inner.act(observations, seeds, committed)
        for index, seen in enumerate(observations):
            if np.array_equal(seen.state, self.start):
                if isinstance(self.how, Exception):
                    raise self.how
                answers[index] = self.how
        return answers


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (RuntimeError("out of memory"), "policy error: RuntimeError: out of memory"),
        (ActionChunk(np.full((8, 2), np.nan, np.float32), 10.0), "policy error: 8 numbers of a chunk are NaN"),
        (ActionChunk(np.zeros((3, 2), np.float32), 10.0), "policy error: a chunk of shape (3, 2); 4 actions or more"),
        (ActionChunk(np.zeros((8, 3), np.float32), 10.0), "policy error: a chunk of shape (8, 3)"),
        (ActionChunk(np.zeros((8, 2), np.float32), 5.0), "policy error: actions at 5 Hz for a robot at 10 Hz"),
    ],
)
def test_an_error_of_the_policy_costs_one_episode(tmp_path: Path, how: object, reason: str) -> None:
    episodes = play(tmp_path, Wrong(how), ONE_TASK)
    failed = [one for one in episodes if not one.success]
    assert [one.start for one in failed] == [3] and str(failed[0].failure).startswith(reason)
    assert failed[0].broken and failed[0].steps == 0
    mended = Player("seeing", Seeing(), {})
    assert run_rollout(ONE_TASK, mended, point_mass.make, tmp_path)
    assert told(read_lines(tmp_path / EPISODES)) == told(episodes)  # not played again unless asked for
    assert run_rollout(ONE_TASK, mended, point_mass.make, tmp_path, retry_broken=True)
    assert rate(read_lines(tmp_path / EPISODES)) == 1.0


def test_a_policy_that_never_answers_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    class Broken(Wrong):
        def act(self, observations, seeds, committed=None):  # type: ignore[no-untyped-def]
            raise AttributeError("no such layer")

    with pytest.raises(RuntimeError, match="no answer to its first 8 observations: AttributeError: no such layer"):
        play(tmp_path, Broken(None), ONE_TASK)
    assert not (tmp_path / EPISODES).exists()


def test_an_error_of_the_world_costs_its_episode_and_the_world_is_made_anew(tmp_path: Path) -> None:
    episodes = play(tmp_path, protocol=replace(ONE_TASK, tasks=(Task("fails-at-2", STEPS),)), lanes=2)
    assert [one.success for one in episodes] == [start % 2 == 0 for start in range(8)]
    assert {one.failure for one in episodes if not one.success} == {"world error: RuntimeError: the simulator exploded"}


def test_a_process_that_dies_takes_only_its_lanes_along(tmp_path: Path) -> None:
    protocol = replace(ONE_TASK, tasks=(Task("dies-at-2", STEPS),), starts=(0, 1, 2, 4))
    episodes = play(tmp_path, protocol=protocol, lanes=2, workers=2)
    assert [one.success for one in episodes] == [True, False, True, True]
    assert episodes[1].failure == "world error: the process of this world ended (exit code 7)"


def test_a_world_that_cannot_be_made_is_said_before_anything_is_written(tmp_path: Path) -> None:
    protocol = replace(ONE_TASK, tasks=(Task("dies-at-x", STEPS),))
    with pytest.raises(ValueError, match="the world of task 'dies-at-x' can't be made: ValueError"):
        play(tmp_path / "new", protocol=protocol)
    assert not (tmp_path / "new").exists()


def test_a_policy_that_does_not_fit_is_refused_with_every_difference(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        play(tmp_path / "new", Seeing(horizon=3), replace(ONE_TASK, starts=(0, 150)), make=point_mass.make_turned)
    text = str(caught.value)
    for part in ("rate_hz: 10.0 here, 20.0 there", "image_turn: 'none' here, 'half' there", "turns its pictures 'half'",
                 "chunks have 3 actions", "[150] (1 in all) are not among those for tests, 0 to 99"):  # fmt: skip
        assert part in text
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="plays 41, an episode of this world ends after 40"):
        play(tmp_path / "new", protocol=replace(ONE_TASK, tasks=(Task("a", 41),)))


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    play(tmp_path, protocol=ONE_TASK)
    with pytest.raises(ValueError, match=r"holds another run .*point mass 1.*point mass 2"):
        play(tmp_path, protocol=ONE_TASK, make=point_mass.make_newer)
    with pytest.raises(ValueError, match=r"holds another run .protocol"):
        play(tmp_path, protocol=replace(ONE_TASK, success="last_step"))


def test_the_expert_plays_by_itself(tmp_path: Path) -> None:
    assert run_rollout(PROTOCOL, Player("expert", None, {}), point_mass.make, tmp_path, lanes=3)
    assert rate(read_lines(tmp_path / EPISODES)) == 1.0


class Late(Seeing):
    """Takes note of what it is told to be committed to."""

    told: list[tuple[int, np.ndarray | None]]

    def act(self, observations: list[RobotObservation], seeds: object, committed=None):  # type: ignore[no-untyped-def, override]
        for seen, chunk in zip(observations, committed, strict=True):
            self.told.append((seen.step, None if chunk is None else chunk.actions[: chunk.fixed]))
        return [ActionChunk(np.full((8, 2), 0.01 * (seen.step + 1), np.float32), 10.0) for seen in observations]


def test_a_late_chunk_finds_its_first_steps_taken(tmp_path: Path) -> None:
    policy = Late()
    policy.told = []
    protocol = replace(ONE_TASK, delay=2, starts=(0,), tasks=(Task("a", 12),))
    play(tmp_path, policy, protocol)
    assert [step for step, _ in policy.told] == [0, 4, 8]
    assert policy.told[0][1] is None
    assert np.allclose(policy.told[1][1], 0.01) and np.allclose(policy.told[2][1], 0.05)  # type: ignore[arg-type]
    assert policy.told[1][1].shape == (2, 2)  # type: ignore[union-attr]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_videos_show_both_cameras_and_the_outcome(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if suffix == ".mp4":
        pytest.importorskip("av", reason="MP4 needs PyAV")
    monkeypatch.setattr("gemvlm.evaluation.rollout.run.video_suffix", lambda: suffix)
    protocol = replace(ONE_TASK, starts=(0, 1), tasks=(Task("a", 9), Task("b", 5)))
    episodes = play(tmp_path, protocol=protocol, videos=1)
    assert [one.video for one in episodes] == [f"videos/a-0000{suffix}", None, f"videos/b-0000{suffix}", None]
    files = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert files == [f"a-0000{suffix}", f"b-0000{suffix}"]
    first = last_picture(tmp_path / str(episodes[0].video))
    assert first.shape == (288, 524, 3)
    green, red = (
        last_picture(tmp_path / str(episodes[0].video))[1, 1],
        last_picture(tmp_path / str(episodes[2].video))[1, 1],
    )
    assert green[1] > green[0] + 60 and red[0] > red[1] + 60


def last_picture(path: Path) -> np.ndarray:
    if path.suffix == ".gif":
        from PIL import Image

        with Image.open(path) as image:
            image.seek(image.n_frames - 1)  # type: ignore[attr-defined]
            return np.asarray(image.convert("RGB")).astype(int)
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1].astype(int)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    play(tmp_path, protocol=ONE_TASK)
    lines = (tmp_path / EPISODES).read_text().splitlines()
    (tmp_path / EPISODES).write_text("\n".join([lines[0], lines[1][:-5], *lines[2:]]) + "\n")
    with pytest.raises(ValueError, match=r"episodes.jsonl, line 2: damaged"):
        play(tmp_path, protocol=ONE_TASK)


def test_published_protocols() -> None:
    assert len(metaworld_protocol(["reach-v3"]).episodes()) == 50
    suites = libero_protocol(["libero_spatial", "libero_10"])
    assert len(suites.episodes()) == 1000 and {task.steps for task in suites.tasks} == {220, 520}
    assert suites.tasks[0].name == "libero/libero_spatial/0" and suites.tasks[0].group == "libero_spatial"
    assert sorted(LIBERO_STEPS.values()) == [220, 280, 300, 400, 520]
    assert len(libero_protocol(["libero_90"]).tasks) == 90
    with pytest.raises(ValueError, match="LIBERO has no suite libero_5"):
        libero_protocol(["libero_5"])
    for bad in ({"execute": 0}, {"delay": 5}, {"starts": ()}, {"starts": (1, 1)}):
        with pytest.raises(ValueError, match="protocol 'points'"):
            replace(PROTOCOL, **bad)  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError), match="sometimes"):
        replace(PROTOCOL, success="sometimes")  # type: ignore[arg-type]
