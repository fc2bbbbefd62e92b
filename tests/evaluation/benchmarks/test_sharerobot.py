"""ShareRobot-Bench: boxes by IoU, paths by three distances, as FlagEvalMM's scripts have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemvlm.evaluation.benchmark import Convention, Item, Score
from gemvlm.evaluation.benchmarks.sharerobot import (
    BOX_FORM,
    GUESSED_BOXES,
    GUESSED_PATHS,
    PATH_FORM,
    ShareRobotAffordance,
    ShareRobotTrajectory,
    distances,
    iou,
)

FRACTION, THOUSAND, PIXEL = Convention("fraction"), Convention("thousand"), Convention("pixel")
WAYS = [FRACTION, THOUSAND, Convention("hundred"), PIXEL, Convention("thousand", "yx")]
TASK = '<image>You are a robot using the joint control. The task is "{}". '
ASKED = "Please predict up to 10 key trajectory points to complete the task."


def row(number: int, question: str, answer: str, image: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": number, "image": image, "conversations": turns}


@pytest.fixture
def folder(tmp_path: Path, jpeg: Any) -> Path:
    for part in ("affordance", "trajectory"):
        (tmp_path / part / "images").mkdir(parents=True)
        for number in range(3):
            (tmp_path / f"{part}/images/{number}.jpg").write_bytes(jpeg(number, (100, 50)))
    boxes = ["[0.5, 0.2, 0.7, 0.4]", "[0.1, 0.1, 0.9, 0.9]", "[20, 10, 40, 30]"]
    area = "Please predict a possible affordance area of the end effector."
    rows = [row(i, TASK.format("lift") + area, box, f"images/{i}.jpg") for i, box in enumerate(boxes)]
    (tmp_path / "affordance/test.json").write_text(json.dumps(rows))
    paths = ["[[0.1, 0.2], [0.3, 0.4], [0.6, 0.4]]", "[[0.5, 0.5], [0.5, 0.8]]", "[[20, 10], [40, 30]]"]
    rows = [row(i, TASK.format("lift") + ASKED, path, [f"images/{i}.jpg"]) for i, path in enumerate(paths)]
    (tmp_path / "trajectory/test.json").write_text(json.dumps(rows))
    return tmp_path


def test_items_are_the_published_rows(folder: Path) -> None:
    items = ShareRobotAffordance.open(str(folder)).items()
    assert items[0].prompt.startswith("You are a robot") and items[0].prompt.endswith(f"end effector.\n{BOX_FORM}")
    assert items[0].truth == [0.5, 0.2, 0.7, 0.4] and items[2].truth == [0.2, 0.2, 0.4, 0.6]
    items = ShareRobotTrajectory.open(str(folder)).items()
    assert items[0].prompt.endswith(ASKED + PATH_FORM) and items[2].truth == [[0.2, 0.2], [0.4, 0.6]]


@pytest.mark.parametrize("way", WAYS)
def test_the_oracle_is_perfect_and_the_mean_over_all_guesses_is_chance(folder: Path, way: Convention) -> None:
    boxes = ShareRobotAffordance.open(str(folder))
    for item in boxes.items():
        native = PIXEL if item.meta["pixels"] else FRACTION
        assert boxes.score(item, boxes.oracle(item, way), way).value == pytest.approx(1, abs=1e-9)
        rng = np.random.default_rng(0)
        guesses = {boxes.guess(item, rng, way) for _ in range(300)}
        assert len(guesses) == len(GUESSED_BOXES) and native
        found = [boxes.score(item, guess, way).value for guess in guesses]
        # pixels are whole: quarters of 50 pixels are not
        assert np.mean(found) == pytest.approx(boxes.chance(item), abs=0.01 if way == PIXEL else 1e-9)
    paths = ShareRobotTrajectory.open(str(folder))
    perfect = [paths.score(item, paths.oracle(item, way), way) for item in paths.items()]
    found = paths.summary(paths.items(), perfect)
    assert found["overall"] == pytest.approx(1) and sum(found.values()) == pytest.approx(1)
    item = paths.items()[0]
    guesses = {paths.guess(item, rng, way) for _ in range(1500)}
    assert len(guesses) == len(GUESSED_PATHS)
    assert np.mean([paths.score(item, guess, way).value for guess in guesses]) == pytest.approx(paths.chance(item))


def test_a_box_scores_what_the_published_function_gives(vectors: Any) -> None:
    stored = vectors("sharerobot_affordance")
    assert len(stored["cases"]) == 1000
    for number, reply, theirs in stored["cases"]:
        meta = {"width": 64, "height": 48, "pixels": False}
        item = Item("1", (), "", stored["truths"][number], "affordance", "1", meta=meta)
        for protocol in ("official", "official_skip"):
            ours = ShareRobotAffordance(Path(), protocol).score(item, reply, FRACTION)
            assert ours.value == pytest.approx(theirs or 0.0, abs=1e-12), reply
            assert (ours.parsed is None) == (theirs is None), reply
            assert ours.counted == (theirs is not None or protocol == "official"), reply


def test_a_path_has_the_published_distances(vectors: Any) -> None:
    stored = vectors("sharerobot_trajectory")
    assert len(stored["cases"]) == 1000
    meta = {"width": stored["width"], "height": stored["height"]}
    for number, reply, (frechet, hausdorff, rmse, empty) in stored["cases"]:
        item = Item("1", (), "", stored["truths"][number], "trajectory", "1", meta=meta)
        benchmark = ShareRobotTrajectory(Path())
        ours = benchmark.score(item, reply, FRACTION)
        assert (ours.parsed is None) == bool(empty), reply
        assert ours.value == pytest.approx(0.0 if empty else max(0, 1 - frechet), abs=1e-12), reply
        found = benchmark.summary([item], [ours])
        assert found["frechet_distance"] == pytest.approx(frechet, abs=1e-12), reply
        assert found["hausdorff_distance"] == pytest.approx(hausdorff, abs=1e-12), reply
        assert found["rmse"] == pytest.approx(rmse, abs=1e-12), reply


def test_distances_by_hand() -> None:
    line = [(0.0, 0.0), (1.0, 0.0)]
    assert distances(line, line) == (0, 0, 0)
    assert distances(line[::-1], line) == (1, 0, 1)  # backwards: the same set of points
    bent = np.hypot(0.5, 1)
    assert distances([(0.0, 0.0), (0.5, 1.0), (1.0, 0.0)], line) == pytest.approx((bent, bent, np.sqrt(1.25 / 2)))
    assert distances([(0.3, 0.4)], [(0.0, 0.0), (0.0, 0.0)])[2] == pytest.approx(0.5)  # over the shorter path's points
    assert iou((0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 0.75, 1.0)) == pytest.approx(1 / 3)
    assert iou((0.5, 0.5, 0.2, 0.9), (0.0, 0.0, 1.0, 1.0)) == 0


@pytest.mark.parametrize(
    ("reply", "convention", "value"),
    [
        ("[0.5, 0.2, 0.7, 0.4]", FRACTION, 1.0),
        ("[0.2, 0.5, 0.4, 0.7]", FRACTION, 0.0),  # x before y
        ("[500, 200, 700, 400]", FRACTION, 0.0),
        ("[500, 200, 700, 400]", THOUSAND, 1.0),
        ("[200, 500, 400, 700]", Convention("thousand", "yx"), 1.0),
        ('```json\n[{"bbox_2d": [500, 200, 700, 400]}]\n```', THOUSAND, 1.0),
        ("[50, 10, 70, 20]", PIXEL, 1.0),
        ("Here it is: [0.5, 0.2, 0.7, 0.4]", FRACTION, 0.0),  # the publisher's reading wants the box alone
    ],
)
def test_boxes_in_each_convention(folder: Path, reply: str, convention: Convention, value: float) -> None:
    benchmark = ShareRobotAffordance.open(str(folder))
    assert benchmark.score(benchmark.items()[0], reply, convention).value == pytest.approx(value)


def test_a_truth_in_pixels_is_read_as_the_publisher_reads_it(folder: Path) -> None:
    item = ShareRobotAffordance.open(str(folder)).items()[2]
    benchmark = ShareRobotAffordance(Path())
    assert benchmark.score(item, "[20, 10, 40, 30]", PIXEL).value == pytest.approx(1)
    assert benchmark.score(item, "Here: [20, 10, 40, 30]", PIXEL).parsed is None
    assert benchmark.score(item, "[0.2, 0.2, 0.4, 0.6]", FRACTION).value == pytest.approx(1)


def test_paths_in_each_convention(folder: Path) -> None:
    benchmark = ShareRobotTrajectory.open(str(folder))
    item = benchmark.items()[0]
    qwen = '[{"point_2d": [100, 200]}, {"point_2d": [300, 400]}, {"point_2d": [600, 400]}]'
    assert benchmark.score(item, qwen, THOUSAND).value == pytest.approx(1)
    assert benchmark.score(item, "[[10, 10], [30, 20], [60, 20]]", PIXEL).value == pytest.approx(1)
    pixels = benchmark.score(item, "[[10, 10], [30, 20], [60, 20]]", FRACTION)  # above 1
    assert pixels.value == pytest.approx(1)
    assert benchmark.score(item, "[[10, 10], [30, 20], [60, 20]]", THOUSAND).value < 0.6
    assert benchmark.score(item, "[[1e999, 0.5]]", FRACTION) == Score(0.0, None, outside=1)


def test_headlines(folder: Path) -> None:
    boxes = ShareRobotAffordance.open(str(folder))
    scores = [Score(0.95, []), Score(0.6, []), Score(0.0, None)]
    found = boxes.summary(boxes.items(), scores)
    assert found["overall"] == pytest.approx(1.55 / 3)
    assert [found[f"iou_{limit}"] for limit in (0.5, 0.75, 0.9)] == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert boxes.summary(boxes.items(), [*scores[:2], Score(0.0, None, counted=False)])["overall"] == pytest.approx(
        0.775
    )
    paths = ShareRobotTrajectory.open(str(folder))
    item = paths.items()[0]
    found = paths.summary([item], [paths.score(item, "I can't", FRACTION)])
    assert found["overall"] == 0 and found["frechet_distance"] == pytest.approx(np.hypot(0.6, 0.4))  # from the origin


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("affordance", {"image": "images/9.jpg"}, r"affordance/test.json:0 image: .*9.jpg is missing"),
        ("affordance", {"conversations": [{"from": "human", "value": "where?"}]}, "none of 'gpt'"),
        ("affordance", {"conversations": ["where?"]}, "must hold turns"),
        ("affordance", row(0, "q", "[0.5, 0.2, 0.4, 0.4]", "")["conversations"], "is no box"),
        ("affordance", row(0, "q", "left", "")["conversations"], "is no box"),
        ("trajectory", row(0, "q", "left", "")["conversations"], "is no list of points"),
        ("trajectory", {"image": []}, "image"),
        ("trajectory", {"id": None}, "'id' must be"),
    ],
)
def test_a_broken_row_is_named(folder: Path, part: str, change: Any, words: str) -> None:
    path = folder / part / "test.json"
    change = {"conversations": change} if isinstance(change, list) else change
    path.write_text(json.dumps([json.loads(path.read_text())[0] | change]))
    kind = ShareRobotAffordance if part == "affordance" else ShareRobotTrajectory
    with pytest.raises(ValueError, match=words):
        kind.open(str(folder)).items()
