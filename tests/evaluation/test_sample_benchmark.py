"""Our own samples as a benchmark: best and expected scores, conventions, a fair headline."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gemvlm.evaluation.benchmark import Benchmark, Convention, Score, WritesPlaces
from gemvlm.evaluation.sample_benchmark import SampleBenchmark, read_answer
from gemvlm.sample import AnswerKind, Box, Frame, Point, Region, Sample, Task, Turn

WIDTH, HEIGHT = 80, 40
CONVENTIONS = [Convention(unit, axes) for unit in ("fraction", "hundred", "thousand", "pixel") for axes in ("xy", "yx")]


def region(x0: int, y0: int, x1: int, y1: int) -> Region:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return Region.from_mask(mask)


def turn(family: str, kind: AnswerKind, question: str, answer: str, task: Task = "reasoning", **fields: object) -> Turn:
    return Turn(question, answer, family, task, kind, **fields)  # type: ignore[arg-type]


TURNS = (
    turn("closer", "choice", "Which is closer?", "mug", options=("mug", "can"), subsets=("headline",)),
    turn("closer", "choice", "Which is closer?", "can", options=("mug", "can"), cues={"height": "can"}),
    turn("exists", "yes_no", "Is there a mug?", "yes"),
    turn("count", "number", "How many mugs?", "3"),
    turn("colour", "text", "What colour is the thing at <place:0>?", "red", places=(Point(0.304, 0.5),)),
    turn("point", "point", "Point to the mug.", "<place:0>", "grounding", places=(Point(0.71, 0.23),),
         region=region(50, 4, 66, 16)),
    turn("point_all", "points", "Point to all cans.", "<place:0>; <place:1>", "grounding",
         places=(Point(0.2, 0.3), Point(0.8, 0.7)), regions=(region(8, 6, 24, 20), region(56, 20, 72, 36))),
    turn("box", "box", "Box the mug.", "<place:0>", "grounding", places=(Box(0.6, 0.1, 0.85, 0.4),)),
    turn("way", "trajectory", "Where does it go?", "<place:0>; <place:1>", "planning",
         places=(Point(0.1, 0.9), Point(0.9, 0.1))),
    turn("describe", "text", "Describe the scene.", "red mug <place:0>; can", "description", places=(Point(0.5, 0.5),)),
)  # fmt: skip


def sample(number: int, turns: tuple[Turn, ...] = TURNS) -> Sample:
    image = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
    return Sample(f"s{number}", (Frame(image),), turns, f"scene {number}", "test")


FITTED = [sample(9), sample(10, (turn("colour", "text", "What colour?", "blue"), *TURNS))]
BENCH = SampleBenchmark("bench", "test", [sample(1), sample(2)], FITTED)


def test_it_is_a_benchmark_whose_pictures_and_prompts_are_those_of_the_samples() -> None:
    assert isinstance(BENCH, Benchmark) and isinstance(BENCH, WritesPlaces)
    items = BENCH.items()
    assert len(items) == 2 * len(TURNS) == len({item.id for item in items})
    assert {item.scene for item in items} == {"scene 1", "scene 2"}
    content = items[0].media[0].content
    assert isinstance(content, bytes) and np.array(Image.open(io.BytesIO(content))).tolist()[0][0] == [1, 1, 1]
    assert items[0].category == "closer, headline" and items[1].category == "closer"


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
def test_the_oracle_is_always_right_and_a_wrong_convention_is_not(convention: Convention) -> None:
    bench = BENCH.written_for(convention)
    other = Convention("pixel" if convention.unit != "pixel" else "thousand", "xy")
    for item in bench.items():
        assert bench.score(item, bench.oracle(item, convention), convention).value == pytest.approx(1), item.category
    pointing = next(item for item in bench.items() if item.category == "point")
    assert bench.score(pointing, bench.oracle(pointing, convention), other).value == 0
    assert [item.id for item in bench.items()] == [item.id for item in BENCH.items()]


def test_questions_name_places_in_the_convention_of_who_is_asked() -> None:
    def asked(convention: Convention) -> str:
        return next(item.prompt for item in BENCH.written_for(convention).items() if item.category == "colour")

    assert asked(Convention()) == "What colour is the thing at (300, 500)?"
    assert asked(Convention("thousand", "yx")) == "What colour is the thing at (500, 300)?"
    assert asked(Convention("fraction")) == "What colour is the thing at (0.3000, 0.5000)?"
    assert asked(Convention("pixel")) == "What colour is the thing at (24, 20)?"


def test_chance_is_what_guessing_gets() -> None:
    rng, convention = np.random.default_rng(0), Convention()
    for item in BENCH.items()[: len(TURNS)]:
        replies = [BENCH.guess(item, rng, convention) for _ in range(400)]
        mean = np.mean([BENCH.score(item, reply, convention).value for reply in replies])
        assert mean == pytest.approx(BENCH.chance(item), abs=0.08), item.category
    chances = {item.category: BENCH.chance(item) for item in BENCH.items()}
    assert chances["closer"] == chances["exists"] == chances["colour"] == 0.5
    assert chances["point"] == pytest.approx(16 * 12 / (WIDTH * HEIGHT))


def test_the_headline_counts_families_alike_and_two_answers_by_what_no_shortcut_answers() -> None:
    items = BENCH.items()
    right = {"closer, headline": 0.0, "closer": 1.0, "exists": 1.0, "count": 0.0, "colour": 0.0}
    scores = [Score(right.get(item.category, 1.0), None) for item in items]
    found = BENCH.summary(items, scores)
    assert found["reasoning"] == pytest.approx((0 + 1 + 0 + 0) / 4)
    assert found["grounding"] == 1 and found["closer"] == 1 and found["closer, headline"] == 0
    assert found["overall"] == pytest.approx((0 + 1 + 0 + 0 + 1 + 1 + 1 + 1 + 1) / 9)
    twice = BENCH.summary([items[0], items[0], items[2]], [scores[0], scores[0], scores[2]])
    assert twice["overall"] == 0.5 and "grounding" not in twice
    assert np.isnan(BENCH.summary([], [])["overall"])


ODD = (
    *("", "(", "(1e999, 2)", "(1, 1e999), (2, 3)", "[-1e999, 0, 5, 1e999]", "[5000, -3]", '{"point_2d": [1, {}]}'),
    *("yes " * 5000, "<place:7>", "\x00"),
)


def test_tables_stand_by_task_and_name_whatever_the_order_of_the_items() -> None:
    items = list(reversed(BENCH.items()))
    found = list(BENCH.summary(items, [Score(1.0, "") for _ in items]))
    tasks, families = found[:5], found[5:]
    assert tasks == ["overall", "description", "grounding", "reasoning", "planning"]
    assert families == ["describe", "box", "point", "point_all", *families[4:-1], "way"]
    assert families[4:-1] == ["closer", "closer, headline", "colour", "count", "exists"]


def test_replies_that_say_nothing_or_anything_score_and_never_raise() -> None:
    convention = Convention()
    for item in BENCH.items():
        for reply in ODD:
            assert 0 <= BENCH.score(item, reply, convention).value <= 1
    point = next(item for item in BENCH.items() if item.category == "point")
    assert BENCH.score(point, "It is on the table.", convention).parsed is None
    assert BENCH.score(point, "(1400, 200)", convention).outside == 1


def test_boxes_inside_out_and_single_points_of_a_way_are_not_understood() -> None:
    size = (WIDTH, HEIGHT)
    box, way = (next(t for t in TURNS if t.family == family) for family in ("box", "way"))
    assert read_answer("(850, 400, 600, 100)", box, Convention(), size)[0].value is None
    assert read_answer("(100, 900)", way, Convention(), size)[0].value is None
    assert read_answer("(100, 900), (900, 100)", way, Convention(), size)[0].value == (Point(0.1, 0.9), Point(0.9, 0.1))


def test_instructions_say_how_to_answer_in_the_convention() -> None:
    bench = SampleBenchmark("bench", "test", [sample(1)], (), True, Convention("pixel", "yx"))
    prompts = {item.category: item.prompt for item in bench.items()}
    assert prompts["point"].endswith("Answer with one point (y, x), in pixels of the image.")
    assert prompts["closer"].endswith("one of these and nothing else: mug; can.")
    assert "(y0, x0, y1, x1)" in prompts["box"]


def test_blind_baselines_score_every_item_and_the_cue_is_the_best_one() -> None:
    blind = BENCH.blind()
    assert set(blind) == {"chance", "majority", "text_only", "cue"}
    assert all(len(scores) == len(BENCH.items()) for scores in blind.values())
    with_cue = next(i for i, item in enumerate(BENCH.items()) if item.category == "closer")
    assert blind["cue"][with_cue] == 1
    assert blind["chance"][0] == 0.5


def test_scenes_that_are_fitted_on_may_not_be_tested() -> None:
    with pytest.raises(ValueError, match="1 scenes are in both sets"):
        SampleBenchmark("bench", "test", [sample(1)], [sample(1)])
