"""Each filter refuses what it is for, names the field, and lets everything else pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gemvlm.curation import filters
from gemvlm.curation.filters import FilterRules, remaining
from gemvlm.curation.source import Rejection
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Box, Frame, Point, Provenance, Sample, Turn


def picture(height=64, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def turn(question="What is it?", answer="a mug", kind="text", **more):
    return Turn(question, answer, family="f", task="reasoning", kind=kind, **more)


def sample(image=None, depth=None, turns=None, **more):
    frame = Frame(picture() if image is None else image, depth)
    turns = (turn(),) if turns is None else turns
    return Sample("s", (frame,), turns, "scene", "src", provenance=Provenance(record="a.json:7"), **more)


def depth_of(values, kind="metric_z"):
    return DepthMap.from_values(np.asarray(values, np.float32), kind, "test")


SLOPE = np.linspace(1, 2, 64 * 64).reshape(64, 64)


@pytest.mark.parametrize(
    ("reason", "field", "bad"),
    [
        ("too_small", "frames[0].image", sample(picture(64, 16))),
        ("extreme_aspect", "frames[0].image", sample(picture(40, 400))),
        ("blank", "frames[0].image", sample(np.full((64, 64, 3), 200, np.uint8))),
        ("sparse_depth", "frames[0].depth", sample(depth=depth_of(np.where(np.arange(64) < 40, 0, SLOPE)))),
        ("flat_depth", "frames[0].depth", sample(depth=depth_of(np.full((64, 64), 1.5)))),
        ("empty_answer", "turns[0]", sample(turns=(turn(answer="  "),))),
        ("empty_question", "turns[0]", sample(turns=(turn(question=""),))),
        ("overlong_answer", "turns[0]", sample(turns=(turn(answer="word " * 3000),))),
        ("duplicate_turn", "turns[1]", sample(turns=(turn(), turn("what is it", "a plate")))),
        ("place_outside", "turns[0]", sample(turns=(turn(places=(Point(1.2, 0.5),)),))),
        ("place_outside", "turns[0]", sample(turns=(turn(places=(Point(float("nan"), 0.5),)),))),
        ("place_outside", "turns[0]", sample(turns=(turn(places=(Box(0.5, 0.1, 0.2, 0.3),)),))),
        ("unfair_options", "turns[0]", sample(turns=(turn(answer="a", kind="choice", options=("a",)),))),
        ("unfair_options", "turns[0]", sample(turns=(turn(answer="Cup", kind="choice", options=("Cup", "the cup")),))),
        (
            "unfair_options",
            "turns[0]",
            sample(turns=(turn(answer="a very long and careful answer", kind="choice", options=(
                "a very long and careful answer", "left", "right")),)),
        ),
        (
            "answer_in_question",
            "turns[0]",
            sample(turns=(turn("Which colour is the red mug?", "red", "choice", options=("red", "blue")),)),
        ),
        ("answer_in_question", "turns[0]", sample(turns=(turn("It is 1.25 m wide. How wide?", "1.25", "number"),))),
        ("answer_in_question", "turns[0]", sample(turns=(turn("Say where the big mug is: on it?", "the big mug"),))),
    ],
)  # fmt: skip
def test_each_defect_has_its_reason_and_says_where_it_was_read(reason, field, bad):
    (rejection,) = filters.check(bad)
    assert (rejection.stage, rejection.reason, rejection.field) == ("filter", reason, field)
    assert (rejection.id, rejection.file) == ("s", "a.json:7")


def test_too_many_pixels_are_refused():
    (rejection,) = filters.check(sample(), FilterRules(max_pixels=64 * 64 - 1))
    assert rejection.reason == "too_large"


def test_what_only_looks_like_a_defect_passes():
    faint = np.full((64, 64, 3), 100, np.uint8)
    faint[:, 32:] += 20
    assert not filters.check(sample(faint))
    assert not filters.check(sample(depth=depth_of(SLOPE)))
    assert not filters.check(sample(depth=depth_of(np.full((64, 64), 0.5), "affine_disparity")))
    both = turn("Which is left, the red mug or the cup?", "red mug", "choice", options=("red mug", "cup"))
    letters = turn("Which is closer, A or B?", "A", "choice", options=("A", "B"))
    number = turn("How many of the 2 mugs are red?", "2", "number")
    reddish = turn("Is it reddish?", "red", "choice", options=("red", "blue"))
    points = tuple(turn("What is at <place:0>?", "a mug", places=(Point(x, 0.5),)) for x in (0.1, 0.2))
    assert not filters.check(sample(turns=(both, letters, number, reddish, *points)))


def test_one_dark_frame_in_a_video_is_no_reason():
    frames = tuple(Frame(np.zeros((64, 64, 3), np.uint8) if i == 0 else picture(seed=i)) for i in range(8))
    assert not filters.check(replace(sample(), frames=frames))
    assert filters.check(replace(sample(), frames=frames[:2]))[0].reason == "blank"


def test_remaining_drops_turns_and_says_when_nothing_is_left():
    first, second = turn(), turn(question="")
    mixed = sample(turns=(first, second))
    found = filters.check(mixed)
    kept = remaining(mixed, found)
    assert isinstance(kept, Sample)
    assert kept.turns == (first,)
    assert remaining(mixed, []) is mixed
    empty = remaining(sample(turns=(second,)), filters.check(sample(turns=(second,))))
    assert isinstance(empty, Rejection)
    assert empty.reason == "no_turns_left"
    dialogue = replace(mixed, dialogue=True)
    broken = remaining(dialogue, filters.check(dialogue))
    assert isinstance(broken, Rejection)
    assert broken.reason == "broken_dialogue"
    whole = Rejection("overlap", "benchmark_scene", "", field="scene")
    assert remaining(mixed, [*found, whole]) is whole


def test_turns_may_repeat_themselves_in_a_dialogue():
    assert not filters.check(sample(turns=(turn(), turn()), dialogue=True))


def test_simulated_samples_pass():
    pytest.importorskip("mujoco")
    from gemvlm.curation.sources.tabletop import tabletop_samples

    for one in tabletop_samples(range(3), 2):
        assert filters.check(one) == []
