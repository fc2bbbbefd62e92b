"""SPAR-Bench: numbers, moves and choices as the publisher's script scores them, and its averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemvlm.evaluation.benchmark import Convention, Item, Score
from gemvlm.evaluation.benchmarks.spar_bench import (
    BOX_FORM,
    BOXED,
    LETTER_FORM,
    MOVES,
    NUMBER_FORM,
    NUMBERS,
    TASKS,
    SparBench,
    accuracy,
)

ANY = Convention()
ANSWERS = {MOVES: "move_right:0.5,rotate_up:10", "depth_prediction_oc": "2.2", "distance_prediction_oo_mv": "0"}


def rows_of(jpeg: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "img_type": "multi_view" if task.endswith("_mv") else "single_view",
            "format_type": "fill" if task in NUMBERS else "select",
            "task": task,
            "source": "scannet",
            "image": [{"bytes": jpeg(k), "path": None} for k in range(1 + (task.endswith("_mv") or task == MOVES))],
            "question": f"How far is it? ({task})",
            "answer": ANSWERS.get(task, "3.0" if task in NUMBERS else "ABCD"[number % 4]),
        }
        for number, task in enumerate(TASKS)
    ]


@pytest.fixture
def folder(tmp_path: Path, jpeg: Any, write_table: Any) -> Path:
    write_table(tmp_path / "data/test-00000-of-00001.parquet", rows_of(jpeg))
    return tmp_path


def item_of(task: str, answer: str, where: str = "w") -> Item:
    from gemvlm.evaluation.benchmarks.spar_bench import _truth

    return Item("1", (), "", _truth(answer, task, where), task, "1")


def test_items_are_the_published_rows_with_their_forms(folder: Path) -> None:
    items = SparBench.open(str(folder)).items()
    assert [item.category for item in items] == list(TASKS) and len(items) == 20
    by_task = {item.category: item for item in items}
    assert by_task["depth_prediction_oc"].prompt == f"\nHow far is it? (depth_prediction_oc)\n{NUMBER_FORM}"
    assert by_task["position_matching"].prompt == f"\nHow far is it? (position_matching)\n{BOX_FORM}\n{LETTER_FORM}"
    assert by_task["spatial_imagination_oc"].prompt == f"\nHow far is it? (spatial_imagination_oc)\n\n{LETTER_FORM}"
    assert by_task[MOVES].truth == [0.5, 0.0, 0.0, 0.0, 10.0] and len(by_task[MOVES].media) == 2


def test_the_oracle_is_perfect_and_guesses_score_by_chance(folder: Path, is_fair: Any) -> None:
    is_fair(SparBench.open(str(folder)), guesses=150)


@pytest.mark.parametrize("protocol", ["official", "official_empty"])
def test_scores_and_averages_are_the_published_functions(protocol: str, vectors: Any) -> None:
    stored = vectors("spar_bench")
    assert len(stored["cases"]) == 1000
    benchmark, items, scores = SparBench(Path(), protocol), [], []
    for number, reply, theirs in stored["cases"]:
        task, answer = stored["rows"][number]
        items.append(item_of(task, answer))
        scores.append(benchmark.score(items[-1], reply, ANY))
        if protocol == "official" and not reply and task not in (*NUMBERS, MOVES):
            assert theirs == 1 and scores[-1] == Score(0.0, None)  # the script finds "" in every answer
        else:
            assert scores[-1].value == pytest.approx(theirs, abs=1e-12), (task, answer, reply)
        assert scores[-1].value == 0 or scores[-1].parsed is not None
    if protocol == "official_empty":
        found, published = benchmark.summary(items, scores), stored["summary"]
        assert {name: found[name] for name in ("overall", "low", "middle", "high")} == pytest.approx(
            {name: published[name] for name in ("overall", "low", "middle", "high")}
        )
        for task in TASKS:
            (name,) = [key for key in published if key.rpartition("_")[0].removesuffix("_vci") == task]
            assert found[task] == pytest.approx(published[name])


@pytest.mark.parametrize(
    ("value", "truth", "score"),
    [
        (3, 4, 0.6), (5, 4, 0.6), (6, 4, 0.1), (2, 4, 0.1), (8, 4, 0), (0, 4, 0), (1.05, 1, 1.0), (1.1, 1, 0.9),
        (0.9, 1, 0.9), (1.2, 1, 0.7), (1.5, 1, 0.1), (2.5, 2.2, 0.8), (19, 20, 1.0), (7, 10, 0.5), (4, 4, 1.0),
    ],
)  # fmt: skip
def test_mean_relative_accuracy_has_the_known_values(value: float, truth: float, score: float) -> None:
    assert accuracy(float(value), float(truth), float(truth)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("task", "answer", "reply", "value"),
    [
        ("depth_prediction_oc", "2", "2 m, or 5 m", 1.0),  # the first number
        ("depth_prediction_oc_mv", "2", "5 m, or 2 m", 1.0),  # of several views the last
        ("depth_prediction_oc", "2", "-2", 1.0),  # signs are not read
        ("depth_prediction_oc", "100", "10^2 = 100", 0.0),
        ("depth_prediction_oc", "2", "two", 0.0),
        ("distance_prediction_oo", "0", "0.5", 0.1),  # absolute where the truth is 0
        (MOVES, "move_right:1,rotate_up:10", "move_right:1,rotate_up:10", 1.0),
        (MOVES, "move_right:1,rotate_up:10", "move_right:1, rotate_up:10", 0.8),  # the space makes another name
        (MOVES, "move_right:1,rotate_up:10", "rotate_up:10,move_left:-1", 1.0),
        (MOVES, "move_right:1", "move_right:2", 0.82),  # |1 - 2| / 2: over the prediction
        (MOVES, "move_right:2", "move_right:1", 0.8),  # |2 - 1| / 1
        (MOVES, "move_right:2", "move right 2", 0.0),
        ("position_matching", "B", "B", 1.0),
        ("position_matching", "B", "b.", 1.0),
        ("position_matching", "B", "Because", 1.0),
        ("position_matching", "B", " B", 0.0),
        ("position_matching", "B", "The answer is B", 0.0),
        ("obj_spatial_relation_oo_mv", "The bowl is left", "bowl", 1.0),
    ],
)
def test_the_rules_by_hand(task: str, answer: str, reply: str, value: float) -> None:
    assert SparBench(Path()).score(item_of(task, answer), reply, ANY).value == pytest.approx(value)


def test_what_can_not_be_read_is_a_zero_that_counts() -> None:
    benchmark = SparBench(Path())
    for task, answer, reply in [("depth_prediction_oc", "2", "far"), (MOVES, "move_up:1", "up"), (BOXED[0], "A", "")]:
        assert benchmark.score(item_of(task, answer), reply, ANY) == Score(0.0, None)
    assert benchmark.score(item_of(BOXED[0], "A"), "Chair", ANY) == Score(0.0, "C")
    assert SparBench(Path(), "official_empty").score(item_of(BOXED[0], "A"), "", ANY).value == 1
    assert benchmark.score(item_of(NUMBERS[0], "2"), "9" * 400, ANY) == Score(0.0, None)
    odd = benchmark.score(item_of(MOVES, "move_up:1"), "move_up:nan,move_left:inf", ANY)
    assert odd.parsed == [None, None, 0.0, 0.0, 0.0] and odd.value == pytest.approx(0.6)


def test_the_headline_is_the_mean_of_the_tasks_and_middle_has_two(folder: Path) -> None:
    benchmark = SparBench.open(str(folder))
    items = [item for item in benchmark.items() if item.category in (*BOXED, MOVES)]
    scores = [Score({MOVES: 1.0, BOXED[0]: 0.5}.get(item.category, 0.0), []) for item in items]
    found = benchmark.summary([*items, *items[-1:]], [*scores, scores[-1]])
    assert found["overall"] == pytest.approx(0.5) and found["middle"] == 0.25 and "low" not in found
    assert np.isnan(benchmark.summary([], [])["overall"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "colour"}, "task 'colour' is unknown"),
        ({"image": []}, "0 pictures"),
        ({"image": [{"bytes": b"x", "path": None}]}, "image 0: .*not a picture"),
        ({"answer": "far"}, "is no number"),
        ({"task": MOVES, "answer": "go right"}, "is no list of moves"),
        ({"question": None}, "'question' must be str"),
    ],
)
def test_a_broken_row_is_named(folder: Path, jpeg: Any, write_table: Any, change: dict[str, Any], words: str) -> None:
    write_table(folder / "data/test-00000-of-00001.parquet", [rows_of(jpeg)[0] | change])
    with pytest.raises(ValueError, match=r"parquet:0.*" + words):
        SparBench.open(str(folder)).items()
