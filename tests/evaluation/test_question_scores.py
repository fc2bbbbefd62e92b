"""Scores of replies, blind baselines, and the report that holds both."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from gemvlm.data.conversation import CoordinateFormat, ParsedAnswer, parse
from gemvlm.evaluation.questions import evaluate_questions
from gemvlm.evaluation.scoring import frechet_distance, iou, score
from gemvlm.evaluation.shortcuts import shortcut_scores
from gemvlm.sample import Box, Frame, Point, Region, Sample, Turn


def made(kind, answer, task="reasoning", **more):
    return Turn("Which?", answer, "family", task, kind, **more)


def graded(turn, reply):
    return score(turn, parse(reply, turn.kind, turn.options, turn.unit))


@pytest.mark.parametrize(
    ("turn", "right", "wrong"),
    [
        (made("text", "red mug"), "The red mug.", "red cup"),
        (made("choice", "red mug", options=("red mug", "can")), "red mug", "can"),
        (made("yes_no", "no"), "No.", "yes"),
        (made("number", "0.84", unit="m", tolerance=0.1), "0.90", "0.95"),
        (made("number", "0.84", unit="m", tolerance=0.1), "80 cm", "84"),
        (made("number", "3", tolerance=0.0), "three", "4"),
    ],
)
def test_right_and_wrong_replies(turn, right, wrong):
    assert (graded(turn, right), graded(turn, wrong)) == (1.0, 0.0)
    assert graded(turn, turn.answer) == 1.0


@pytest.mark.parametrize("kind", ["text", "choice", "yes_no", "number", "point", "points", "box", "trajectory"])
def test_a_reply_that_says_nothing_is_wrong_and_not_dropped(kind):
    region = Region.from_mask(np.ones((4, 4), bool))
    turn = made(kind, {"choice": "a", "number": "1", "yes_no": "yes"}.get(kind, "<place:0>"), options=("a", "b"),
                places=(Point(0.5, 0.5),), region=region)  # fmt: skip
    assert graded(turn, "") == 0.0


def test_a_point_must_hit_the_region_not_the_box_around_it():
    mask = np.zeros((10, 10), bool)
    mask[2:8, 2:4] = mask[6:8, 2:8] = True
    turn = made("point", "<place:0>", task="grounding", places=(Point(0.25, 0.55),), region=Region.from_mask(mask))
    assert graded(turn, "(250, 550)") == 1.0
    assert graded(turn, "(650, 350)") == 0.0
    assert graded(turn, "(1000, 1000)") == 0.0
    with pytest.raises(ValueError, match="region"):
        graded(replace(turn, region=None), "(250, 550)")


def test_a_box_must_overlap_by_half():
    turn = made("box", "<place:0>", task="grounding", places=(Box(0.2, 0.2, 0.6, 0.6),))
    assert graded(turn, "(200, 200, 600, 600)") == 1.0
    assert graded(turn, "(200, 200, 600, 390)") == 0.0
    assert iou(Box(0.0, 0.0, 0.5, 1.0), Box(0.25, 0.0, 0.75, 1.0)) == pytest.approx(1 / 3)
    assert iou(Box(0.5, 0.5, 0.5, 0.5), Box(0.5, 0.5, 0.5, 0.5)) == 0.0
    assert iou(Box(0.0, 0.0, 0.1, 0.1), Box(0.5, 0.5, 0.6, 0.6)) == 0.0


def _disc(x, y, radius=0.1):
    row, column = np.mgrid[:50, :50]
    return Region.from_mask(np.hypot((column + 0.5) / 50 - x, (row + 0.5) / 50 - y) < radius)


def test_several_points_score_the_share_of_regions_hit_one_to_one():
    places = (Point(0.2, 0.5), Point(0.5, 0.5), Point(0.8, 0.5))
    turn = made("points", "<place:0>, <place:1>, <place:2>", "grounding", places=places,
                regions=tuple(_disc(p.x, p.y) for p in places))  # fmt: skip
    assert graded(turn, CoordinateFormat().fill(turn.answer, places)) == 1.0
    assert graded(turn, "(800, 500), (200, 500)") == pytest.approx(2 / 3)
    assert graded(turn, "(200, 500), (210, 500), (800, 500)") == pytest.approx(2 / 3)
    assert graded(turn, "(200, 500), (500, 500), (800, 500), (10, 10)") == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="regions"):
        graded(replace(turn, regions=()), "(200, 500)")


def test_overlapping_regions_are_matched_as_well_as_can_be():
    """The first point fits both regions and must give way to the second, which fits the first region only."""
    turn = made("points", "<place:0>, <place:1>", "grounding", places=(Point(0.3, 0.5), Point(0.5, 0.5)),
                regions=(_disc(0.3, 0.5, 0.2), _disc(0.5, 0.5, 0.15)))  # fmt: skip
    assert graded(turn, "(400, 500), (200, 500)") == 1.0


def test_a_trajectory_must_stay_near_the_true_one_however_many_points_it_names():
    path = (Point(0.1, 0.9), Point(0.5, 0.2), Point(0.9, 0.9))
    turn = made("trajectory", "<place:1> <place:2> <place:3>", "grounding", places=(Point(0.0, 0.0), *path))
    assert graded(turn, CoordinateFormat().fill(turn.answer, turn.places)) == 1.0
    assert graded(turn, "(100, 900), (300, 550), (500, 200), (700, 550), (900, 900)") == 1.0
    assert graded(turn, "(900, 900), (500, 200), (100, 900)") == 0.0
    assert graded(turn, "(100, 900), (900, 900)") == 0.0
    assert graded(replace(turn, tolerance=0.9), "(100, 900), (900, 900)") == 1.0
    assert frechet_distance(path, path) == 0.0
    shifted = tuple(Point(p.x, p.y + 0.05) for p in path)
    assert frechet_distance(path, shifted) == pytest.approx(0.05 / np.sqrt(2)) == frechet_distance(shifted, path)
    with pytest.raises(ValueError, match="two points"):
        graded(replace(turn, answer="<place:0>"), "(100, 900), (900, 900)")


def test_a_description_scores_the_objects_that_it_names():
    turn = made(
        "text", "red mug <place:0>; blue can <place:1>", "description", places=(Point(0.1, 0.2), Point(0.5, 0.6))
    )
    assert graded(turn, "blue can (501, 600); red mug (100, 200)") == 1.0
    assert graded(turn, "red mug (100, 200); red mug (100, 200)") == 0.5
    assert graded(turn, "a nice table") == 0.0


def test_the_true_box_is_the_one_that_the_answer_names():
    """Boxes in the question are none of the answer's."""
    turn = made("box", "<place:1>", "grounding", places=(Box(0.6, 0.6, 0.9, 0.9), Box(0.2, 0.2, 0.6, 0.6)))
    assert graded(turn, "(200, 200, 600, 600)") == 1.0
    assert graded(turn, "(600, 600, 900, 900)") == 0.0
    with pytest.raises(ValueError, match="one place"):
        graded(replace(turn, answer="here"), "(600, 600, 900, 900)")


def choice(options, answer, cues=None, question="Which is larger?"):
    return Turn(question, answer, "larger", "reasoning", "choice", options=options, cues=cues or {})


def test_words_that_win_are_found_by_the_text_baseline():
    train = [choice((f"{c} mug", "can"), "can") for c in ("red", "blue") * 20]
    test = [choice(("can", "green mug"), "can"), choice(("mug", "white can"), "white can")]
    scores = shortcut_scores(train, test)
    assert scores["text_only"].tolist() == [1, 1] and scores["chance"].tolist() == [0.5, 0.5]
    assert scores["majority"].tolist() == [0, 1]


def test_question_words_decide_where_options_are_always_the_same():
    def side(question, answer):
        return Turn(question, answer, "perspective", "reasoning", "choice", options=("left", "right"))

    train = [side("at the mug", "left"), side("at the can", "right")] * 10
    assert shortcut_scores(train, [side("at the can", "right")])["text_only"].tolist() == [1]


def test_cues_answer_for_themselves_and_count_as_chance_where_they_are_silent():
    test = [choice(("a", "b"), "a", {"height": "a"}), choice(("a", "b"), "a", {"height": "b"}), choice(("a", "b"), "a")]
    assert shortcut_scores([], test)["height"].tolist() == [1, 0, 0.5]


def test_numbers_are_fitted_to_their_cue():
    """Depth that falls with the height in the image is read off it; a constant is not enough."""
    rng = np.random.default_rng(0)

    def depth_turn(y):
        cues = {"height": f"{y:.4f}"}
        return made("number", f"{2 - 1.5 * y:.2f}", unit="m", tolerance=0.1, cues=cues)

    train, test = ([depth_turn(y) for y in rng.random(n)] for n in (800, 300))
    scores = shortcut_scores(train, test)
    assert scores["height"].mean() > 0.9 > 0.5 > scores["majority"].mean() > 0.1


def test_the_constant_for_numbers_is_the_best_one_within_tolerance():
    train = [made("number", value, tolerance=0.0) for value in ("1", "1", "2", "2", "2", "7")]
    assert shortcut_scores(train, train)["majority"].mean() == 0.5


def test_blind_places_are_fitted_to_the_words():
    def spot(word, x):
        mask = np.zeros((10, 10), bool)
        mask[3:7, int(10 * x) - 1 : int(10 * x) + 2] = True
        return Turn(f"Point to the {word}.", "<place:0>", "point_extremum", "grounding", "point",
                    places=(Point(x, 0.5),), region=Region.from_mask(mask))  # fmt: skip

    train = [spot("leftmost", 0.2), spot("rightmost", 0.8)] * 20
    scores = shortcut_scores(train, train[:2])
    assert scores["text_only"].tolist() == [1, 1] and scores["majority"].tolist() == [0, 0]
    assert scores["chance"].tolist() == [0.12, 0.12]


def test_baselines_are_fitted_family_by_family():
    with pytest.raises(ValueError, match="closer"):
        shortcut_scores([choice(("a", "b"), "a")], [Turn("Q", "a", "closer", "reasoning", "text")])


def scenes(prefix, count, headline=False):
    """One sample per scene: a choice that "height" answers wrongly in every other scene, and a place."""
    made_items = []
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    for i in range(count):
        options = ("red mug", "can") if i % 3 else ("can", "red mug")
        answer = options[i % 2]
        cue = options[0] if i % 4 < 2 else answer
        turns = (
            Turn(f"The {options[0]} or the {options[1]}?", answer, "closer", "reasoning", "choice", options=options,
                 cues={"height": cue}, subsets=("headline",) if headline and i % 2 else ()),
            Turn("Point to it.", "<place:0>", "point", "grounding", "point", places=(Point(0.5, 0.5),),
                 region=Region.from_mask(mask)),
        )  # fmt: skip
        frame = Frame(np.zeros((4, 4, 3), np.uint8))
        held = Sample(f"{prefix}{i}", (frame,), turns, f"{prefix}{i}", "made up")
        made_items += [(held, turn) for turn in turns]
    return made_items


def perfect(items, coordinates=None):
    return [(coordinates or CoordinateFormat()).fill(turn.answer, turn.places) for _, turn in items]


def test_a_perfect_model_scores_one_everywhere_and_says_beside_what():
    report = evaluate_questions(perfect, scenes("test", 40, headline=True), scenes("train", 40))
    assert [(row.family, row.subset) for row in report.rows] == [
        ("closer", "all"),
        ("closer", "headline"),
        ("point", "all"),
    ]
    assert all(row.score.mean == 1.0 and row.unparsed == 0 for row in report.rows)
    assert set(report.row("closer").baselines) == {"chance", "majority", "text_only", "height"}
    assert report.row("closer", "headline").score.n == 20 and report.row("closer").score.n == 40
    assert report.row("closer").best_baseline[1] < 1
    assert report.task_mean("grounding") == 1.0
    with pytest.raises(ValueError, match="nearest_of"):
        report.row("nearest_of")
    with pytest.raises(ValueError, match="planning"):
        report.task_mean("planning")


def test_replies_that_cannot_be_parsed_count_as_wrong_and_are_reported():
    def babble(items):
        return ["the can" if i % 4 == 0 else "hmm" for i in range(len(items))]

    row = evaluate_questions(babble, scenes("test", 20), scenes("train", 20)).row("closer")
    assert row.unparsed == 10 and row.score.n == 20 and row.score.mean <= 0.5


def test_every_item_leaves_a_line(tmp_path):
    """Prompt and answer as the model reads them, the raw reply, what was understood, and its score."""
    path = tmp_path / "log" / "replies.jsonl"
    coarse = CoordinateFormat(step=10)
    test = scenes("test", 3)
    evaluate_questions(lambda items: perfect(items, coarse), test, scenes("train", 4), log=path, coordinates=coarse)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == len(test)
    assert lines[1] == {
        "sample": "test0", "scene": "test0", "family": "point", "subsets": [], "prompt": "Point to it.",
        "reply": "(500, 500)", "parsed": {"x": 0.5, "y": 0.5}, "answer": "(500, 500)", "score": 1.0,
    }  # fmt: skip


def test_training_scenes_are_not_tested_on_and_replies_are_counted():
    both = scenes("same", 4)
    with pytest.raises(ValueError, match="split by scene"):
        evaluate_questions(perfect, both, both)
    with pytest.raises(ValueError, match="2 replies to 8"):
        evaluate_questions(lambda items: ["a", "b"], scenes("test", 4), both)


def test_a_reply_is_scored_against_the_turn_and_nothing_else():
    assert score(made("yes_no", "yes"), ParsedAnswer("yes_no", None)) == 0.0


def test_baselines_of_paths_points_and_unreadable_numbers():
    path = (Point(0.1, 0.9), Point(0.5, 0.2), Point(0.9, 0.9))
    turns = [made("trajectory", "<place:0> <place:1> <place:2>", "grounding", places=path)] * 3
    assert shortcut_scores(turns, turns)["majority"].tolist() == [1, 1, 1]
    regions = (_disc(0.2, 0.5), _disc(0.8, 0.5))
    points = [made("points", "<place:0> <place:1>", "grounding", places=path, regions=regions)]
    assert {name: scores.tolist() for name, scores in shortcut_scores(points, points).items()} == {
        "chance": [0], "majority": [0], "text_only": [0]
    }  # fmt: skip
    numbers = [made("number", "3", tolerance=0.0), made("number", "several", tolerance=0.0)]
    assert shortcut_scores(numbers, numbers)["majority"].tolist() == [1, 0]
