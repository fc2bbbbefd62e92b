"""Questions about robot episodes, each answer computed again from the episode itself."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gemvlm.curation.sources.episodes import Episodes
from gemvlm.data.episodes import Episode, LeRobotFolder
from gemvlm.sample import Sample, Turn

pytest.importorskip("av")
pytest.importorskip("pyarrow")
FAMILIES = {"next_step", "remaining_steps", "past_step", "progress", "task_name", "frame_order", "task_success"}


@pytest.fixture(scope="module")
def seen(importing: Any, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Samples of several seeds beside the episodes that they are about."""
    source = importing.written("episodes", tmp_path_factory.mktemp("episodes"))
    samples, rejections = importing.read_all(source)
    assert not rejections
    for seed in (1, 2):
        again, _ = importing.read_all(Episodes(source.path, frames=4, seed=seed))
        samples += again
    episodes = {episode.id: episode for episode in LeRobotFolder(Path(source.path))}
    return SimpleNamespace(source=source, samples=samples, episodes=episodes)


def asked(seen: SimpleNamespace, family: str) -> list[tuple[Sample, Turn, Episode]]:
    found = [(s, t, seen.episodes[s.scene]) for s in seen.samples for t in s.turns if t.family == family]
    assert found, family
    return found


def said(turn: Turn) -> str:
    """The answer in words."""
    if turn.kind != "choice" or turn.options == ("first", "second"):
        return turn.answer
    listed = dict(re.findall(r"^([A-D])\. (.*)$", turn.question, re.MULTILINE))
    assert tuple(listed) == turn.options
    return listed[turn.answer]


def test_all_families_in_several_words_go_through_training(importing: Any, seen: SimpleNamespace) -> None:
    families = Counter(turn.family for sample in seen.samples for turn in sample.turns)
    assert set(families) == FAMILIES
    assert len({turn.question.split("\n")[0] for _, turn, _ in asked(seen, "task_name")}) == 3
    batch = importing.collated(seen.samples[:12])
    assert len(batch.targets) == sum(len(sample.frames) for sample in seen.samples[:12])
    sample = seen.samples[0]
    assert sample.provenance.licence == "apache-2.0"
    assert sample.provenance.record == "kitchen:0"
    assert [frame.time_s for frame in sample.frames] == [index / 10 for index in sample.meta["frames"]]


def test_steps_are_those_around_the_last_picture(seen: SimpleNamespace) -> None:
    for family, offset in (("next_step", 1), ("past_step", -1)):
        kinds = set()
        for sample, turn, episode in asked(seen, family):
            now = sample.meta["frames"][-1]
            here = [i for i, part in enumerate(episode.subtasks) if part.start <= now < part.stop]
            assert said(turn) == episode.subtasks[here[0] + offset].text
            assert all(abs(now - edge) >= 3 for part in episode.subtasks for edge in (part.start, part.stop - 1))
            kinds.add(turn.kind)
        assert kinds == {"text", "choice"}
    for sample, turn, episode in asked(seen, "remaining_steps"):
        rest = [part.text for part in episode.subtasks if part.start > sample.meta["frames"][-1]]
        assert re.split(r" ?\d\. ", turn.answer)[1:] == rest


def test_progress_is_the_share_of_time_and_its_options_lie_apart(seen: SimpleNamespace) -> None:
    for sample, turn, episode in asked(seen, "progress"):
        share = 100 * sample.meta["frames"][-1] / (episode.length - 1)
        assert abs(int(said(turn).removesuffix(" %")) - share) <= 2.5
        offered = sorted(int(value) for value in re.findall(r"(\d+) %$", turn.question, re.MULTILINE))
        assert all(b - a >= 20 for a, b in pairwise(offered))


def test_order_and_task(seen: SimpleNamespace) -> None:
    for sample, turn, episode in asked(seen, "frame_order"):
        first, second = sample.meta["frames"]
        assert turn.answer == ("second" if second > first else "first")
        assert abs(first - second) >= 0.15 * episode.length
        assert episode.subtask_at(first) != episode.subtask_at(second)
    assert {turn.answer for _, turn, _ in asked(seen, "frame_order")} == {"first", "second"}
    for sample, turn, episode in asked(seen, "task_name"):
        assert said(turn) == episode.instruction
        assert episode.instruction not in turn.question.split("\n")[0]
        assert sample.meta["frames"][0] == 0
        assert sample.meta["frames"][-1] == episode.length - 1


def test_success_has_both_answers_and_a_margin(seen: SimpleNamespace) -> None:
    answers = Counter()
    for sample, turn, episode in asked(seen, "task_success"):
        last = sample.meta["frames"][-1]
        answers[turn.answer] += 1
        if sample.id.endswith("/end"):
            assert turn.answer == ("yes" if episode.success else "no")
        else:
            assert episode.success
            assert turn.answer == "no"
            assert last <= episode.subtasks[-1].start - 5
    assert answers == {"yes": 12, "no": 15}


def test_damaged_episodes_are_left_out_alone(importing: Any, tmp_path: Path) -> None:
    source = importing.written("episodes", tmp_path)
    video = next((tmp_path / "kitchen/videos").rglob("*.mp4"))
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 3])
    samples, rejections = importing.read_all(source)
    assert not samples
    assert len(rejections) == 5
    assert "not a readable video" in rejections[0].detail
    assert rejections[2].file == "kitchen:2"


def test_without_annotation_what_can_be_known_is_asked(importing: Any, tmp_path: Path) -> None:
    importing.written("episodes", tmp_path)
    info = tmp_path / "kitchen/meta/info.json"
    stated = json.loads(info.read_text())
    for name in ("subtask_index", "next.success"):
        del stated["features"][name]
    info.write_text(json.dumps(stated))
    samples, rejections = importing.read_all(Episodes(tmp_path / "kitchen", frames=4))
    assert not rejections
    assert {turn.family for sample in samples for turn in sample.turns} == {"progress", "task_name", "frame_order"}


def test_wrong_options_are_named(importing: Any, tmp_path: Path) -> None:
    source = importing.written("episodes", tmp_path)
    with pytest.raises(ValueError, match=r"no camera 'back'; it has \['observation\.images\.front'\]"):
        Episodes(source.path, camera="back").parts()
    with pytest.raises(ValueError, match="frames 1 at least 2"):
        Episodes(source.path, frames=1).parts()
    with pytest.raises(ValueError, match="is this a LeRobot folder"):
        Episodes(tmp_path).parts()
