"""Samples of simulated tasks, and a second opinion on their answers from nothing but depth, ids and the camera."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gemvlm.curation.source import Rejection, Source
from gemvlm.curation.sources import SOURCES
from gemvlm.curation.sources.simulated_task import (
    VAGUE,
    Sheet,
    Told,
    as_objects,
    picture_sample,
    task_done,
    task_name,
    video_sample,
)
from gemvlm.sample import Provenance, Sample, Turn
from gemvlm.worlds.observation import History, Observation

ASSETS = Path(__file__).parents[3] / "../shared/libero-assets"
SHEET = Sheet("test", "scene", Provenance())
has_metaworld = pytest.mark.skipif(importlib.util.find_spec("metaworld") is None, reason="needs gemvlm[worlds]")
has_libero = pytest.mark.skipif(
    importlib.util.find_spec("libero") is None or not ASSETS.is_dir(), reason="needs make worlds-libero and assets"
)


@cache
def metaworld_view() -> Observation:
    from gemvlm.camera import Camera, View
    from gemvlm.worlds.metaworld import MetaWorld
    from gemvlm.worlds.tabletop.viewpoint import look_at

    view = View(Camera.from_fov(160, 160, 45.0), look_at(np.array([0.7, 1.3, 0.7]), np.array([0, 0.68, 0.05])))
    return MetaWorld("bin-picking-v3", 2, drawing="plain").observe(view)


@cache
def libero_view() -> Observation:
    from gemvlm.worlds.libero import LiberoWorld

    return LiberoWorld("libero_object", 1, ASSETS, drawing="plain").observe("agentview", (160, 160))


VIEWS = [pytest.param(metaworld_view, marks=has_metaworld), pytest.param(libero_view, marks=has_libero)]


class SecondOpinion:
    """Answers from depth, ids and the camera alone; the states give only the words."""

    def __init__(self, observation: Observation) -> None:
        self.ids, self.z = observation.ids, observation.depth.values.astype(float)
        rays = observation.view.camera.rays()
        self.points = observation.view.to_world(rays * self.z[..., None])
        self.names = {f"{o.colour} {o.category}".strip(): o.id for o in observation.objects}
        for o in observation.objects:
            if sum(other.category == o.category for other in observation.objects) == 1:
                self.names[o.category] = o.id

    def mask(self, name: str) -> np.ndarray:
        return self.ids == self.names[name]

    def named(self, text: str) -> str:
        return max((name for name in self.names if f"the {name}" in text), key=len)

    def check(self, turn: Turn) -> bool:
        """True if this family was checked; an AssertionError if the answer is wrong."""
        if turn.family == "point":
            row, column = (int(turn.places[0].y * self.ids.shape[0]), int(turn.places[0].x * self.ids.shape[1]))
            assert self.mask(self.named(turn.question.lower()))[row, column]
        elif turn.family == "box":
            rows, columns = np.nonzero(self.mask(self.named(turn.question.lower())))
            height, width = self.ids.shape
            truth = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
            box = turn.places[0]
            np.testing.assert_allclose((box.x0, box.y0, box.x1, box.y1), truth)
        elif turn.family == "left_right":
            means = {name: np.nonzero(self.mask(name))[1].mean() for name in turn.options}
            assert turn.answer == (min if "left" in turn.question else max)(means, key=lambda name: means[name])
        elif turn.family == "closer":
            near = {name: np.percentile(self.z[self.mask(name)], 5) for name in turn.options}
            assert turn.answer == min(near, key=lambda name: near[name])
        elif turn.family == "object_depth":
            truth = np.median(self.z[self.mask(self.named(turn.question.lower()))])
            assert float(turn.answer) == pytest.approx(truth, abs=0.006)
        elif turn.family == "above_below":
            highest = {name: self.points[self.mask(name)][:, 2].max() for name in turn.options}
            assert turn.answer == max(highest, key=lambda name: highest[name])
        elif turn.family == "gap_cm":
            return False
        elif turn.family == "distance":
            first, second = re.findall(r"the ([a-z ]+?)(?: and|\?)", turn.question.split("centres of")[1])
            apart = self.points[self.mask(first)].mean(axis=0) - self.points[self.mask(second)].mean(axis=0)
            assert abs(float(turn.answer) - np.linalg.norm(apart)) < 0.12, "within the sizes of the two"
        else:
            return False
        return True


@pytest.mark.parametrize("view", VIEWS)
def test_a_second_oracle_agrees_with_every_answer_it_can_check(view):
    observation = view()
    opinion = SecondOpinion(as_objects(observation))
    checked: dict[str, int] = {}
    for attempt in range(2):
        for turn in picture_sample(SHEET, f"start-{attempt}", observation).turns:
            if opinion.check(turn):
                checked[turn.family] = checked.get(turn.family, 0) + 1
    assert sum(checked.values()) >= 20 and len(checked) >= 5, checked


@pytest.mark.parametrize("view", VIEWS)
def test_no_question_is_vague_or_about_the_room(view):
    observation = view()
    turns = picture_sample(SHEET, "start", observation).turns
    assert turns and not any(VAGUE.search(turn.question) for turn in turns)
    named = [turn for turn in turns if turn.family in ("point", "box", "object_depth")]
    assert not any(re.search(r"the (\w+ )?(floor|wall|table|robot)\b", turn.question) for turn in named)
    assert all(set(o.supported_by) or o.hanging or not o.movable for o in observation.objects)


def told(observation: Observation, done: tuple[bool | None, ...]) -> Told:
    history = History((observation,) * len(done), tuple(map(float, range(len(done)))), (), "open the drawer")
    return Told(history, done, ("close the drawer", "take the drawer out"))


@has_metaworld
def test_tasks_are_asked_about_only_where_their_end_is_seen():
    observation, rng = metaworld_view(), np.random.default_rng(0)
    (name,) = task_name(told(observation, (False, None, True)), (0, 1, 2), rng)
    assert name.answer == "open the drawer" and set(name.options) == {
        "open the drawer",
        "close the drawer",
        "take the drawer out",
    }
    turns = list(task_done(told(observation, (False, None, True)), (0, 1, 2), rng))
    assert {(turn.answer, turn.question.split("image ")[1][0]) for turn in turns} == {("no", "1"), ("yes", "3")}
    for done in ((None, None, None), (False, None, None), (False, None, False)):
        unclear = told(observation, done)
        assert not list(task_name(unclear, (0, 1, 2), rng)) and not list(task_done(unclear, (0, 1, 2), rng))
    shuffled_frames = video_sample(SHEET, "order", told(observation, (False, True)), (1, 0), ordered=False)
    assert all(frame.time_s is None for frame in shuffled_frames.frames)


def bytes_of(sample: Sample) -> tuple:
    frames = [(f.image.tobytes(), f.depth and f.depth.values.tobytes(), f.time_s) for f in sample.frames]
    return sample.id, frames, sample.turns, sample.provenance


@has_metaworld
def test_metaworld_samples_are_whole_and_the_same_again():
    source = SOURCES["metaworld"](tasks=("door-open-v3",), size=(96, 96), frames=3, drawing="plain")
    assert isinstance(source, Source) and source.parts() == ["door-open-v3:0-0"]
    samples = list(source.read("door-open-v3:0-0"))
    assert [sample.id.rsplit("-", 1)[1] for sample in samples] == ["start", "views", "video", "begun", "order"]
    for sample in samples:
        assert sample.turns and sample.provenance.licence == "MIT" and "metaworld 3.1.1" in sample.provenance.version
        assert sample.scene == "door-open-v3-0"
        for frame in sample.frames:
            assert frame.depth is not None and frame.depth.origin is not None
            assert frame.depth.origin.provenance == "simulator" and frame.view is not None
    video = samples[2]
    assert {"task_name", "task_done"} <= {turn.family for turn in video.turns}
    steps = [turn.answer for turn in samples[3].turns if turn.family == "next_step"]
    assert steps == ["open the door of the safe"], "the gripper has reached the door"
    assert all(map(lambda a, b: bytes_of(a) == bytes_of(b), samples, source.read("door-open-v3:0-0")))


@has_libero
def test_libero_samples_name_their_stand_ins():
    source = SOURCES["libero"](assets=str(ASSETS), suites=("libero_goal",), size=(96, 96), drawing="plain")
    assert isinstance(source, Source) and len(source.parts()) == 10
    samples = list(source.read("libero_goal:0:0-0"))
    assert [sample.id.rsplit("-", 1)[1] for sample in samples] == ["start", "views", "end", "video", "order"]
    assert all("13 stand-ins" in sample.provenance.version for sample in samples)
    assert all("drawn from seed 0" in sample.provenance.record for sample in samples), "policies are tested on the rest"
    assert {sample.scene for sample in samples} == {"libero_goal-0-drawn0-0"}
    end = [turn for turn in samples[2].turns if turn.family == "can_put_in"]
    assert {turn.answer for turn in end} == {"yes", "no"}
    yes = next(turn.question for turn in end if turn.answer == "yes")
    assert "middle drawer of the cabinet" in yes, "the goal was to open it"


@pytest.mark.slow
@has_libero
def test_a_goal_that_does_not_come_about_is_a_rejection_and_the_start_stays():
    source = SOURCES["libero"](assets=ASSETS, suites=("libero_goal",), size=(64, 64), drawing="plain")
    items = list(source.read("libero_goal:9:0-0"))
    (rejection,) = [item for item in items if isinstance(item, Rejection)]
    assert rejection.reason == "goal_not_reached" and "wine rack" in rejection.detail
    assert sum(isinstance(item, Sample) for item in items) == 2


def test_bad_options_are_named(tmp_path):
    with pytest.raises(ValueError, match="dance"):
        SOURCES["metaworld"](tasks=("dance",))
    with pytest.raises(ValueError, match="must name some of the 50"):
        SOURCES["libero"](assets=tmp_path, states=51, official=True)
    with pytest.raises(ValueError, match="seeds of drawn ones"):
        SOURCES["libero"](assets=tmp_path, first_state=-1)
    with pytest.raises(ValueError, match="no folder of LIBERO assets"):
        SOURCES["libero"](assets=tmp_path).parts()
