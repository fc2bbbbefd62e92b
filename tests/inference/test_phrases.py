"""A model is asked in the words that it was taught with."""

from __future__ import annotations

import pytest

from gemvlm.curation.questions import write_questions
from gemvlm.inference.phrases import (
    LONGEST_EXPRESSION,
    box_of,
    noun_phrase,
    point_to,
    point_to_every,
    read_plan,
    steps_to,
)


@pytest.mark.parametrize("said", ["red mug", "the red mug", " The  red mug. ", "a red mug?", "red mug!"])
def test_an_expression_is_a_noun_phrase(said: str) -> None:
    assert noun_phrase(said) == "red mug"


@pytest.mark.parametrize("said", ["", "  ", ".", "the", "The ."])
def test_an_empty_expression_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match='expression: empty; name it in words, for instance "red mug"'):
        point_to(said)
    with pytest.raises(ValueError, match="goal: empty"):
        steps_to(said, 1)


def test_a_far_too_long_expression_is_refused() -> None:
    with pytest.raises(ValueError, match="501 characters; say it in at most 500"):
        box_of("m" * (LONGEST_EXPRESSION + 1))


def test_the_words_are_those_of_the_question_families() -> None:
    worlds = pytest.importorskip("gemvlm.worlds.tabletop", reason="needs the extra worlds")
    asked: set[str] = set()
    for seed in range(8):
        observation = worlds.build_scene(seed).observe(0, (96, 96))
        families = ("point", "box", "removal_order", "point_all")
        asked |= {t.question for t in write_questions(observation, (seed,), families, turns_per_family=12)}
        names = [o.name for o in observation.objects if o.movable]
        for phrase in (point_to, box_of, lambda name: steps_to(f"lift the {name}", 1)):
            asked_so = [name for name in names if phrase(name) in asked]
            if asked_so:
                break
    ways = [point_to("mug"), point_to_every("mug"), box_of("mug"), steps_to("lift the mug", 1)]
    for way in ways:
        start = way.split("mug")[0]
        assert any(question.startswith(start) for question in asked), start


def test_plans_are_read_back() -> None:
    assert read_plan("lift the tray", "red mug, blue box").steps == ("remove the red mug", "remove the blue box")
    assert read_plan("lift the tray", "nothing").steps == ()
    goal = "put the mug on the box"
    assert read_plan(goal, "pick up the mug, then put it on the box.").steps == ("pick up the mug", "put it on the box")
    assert read_plan(goal, "nothing, it is done").steps == () and read_plan(goal, "").steps == ()


def test_a_goal_is_asked_about_the_last_image() -> None:
    goal = "put the mug on the box."
    one, several = steps_to(goal, 1), steps_to(goal, 3)
    assert one == "The task is: put the mug on the box. Which steps remain after what the image shows, in order?"
    assert several == one.replace("the image", "the last image")
    assert "to lift the red mug?" in steps_to("pick up the red mug", 1)
