"""A whole evaluation, with a model that answers by rote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gemvlm.data.conversation import CoordinateFormat
from gemvlm.depth_map import DepthMap, Encoding
from gemvlm.evaluation.run import Evaluation, add_scores, evaluate_model
from gemvlm.figure import Report
from gemvlm.inference import Answer, DepthPrediction, GemPipeline
from gemvlm.sample import Frame, Point, Sample, Turn


class Rote(GemPipeline):
    """Says red to every question about a colour and nothing to others; paints a slope."""

    def __init__(self) -> None:
        self.coordinates = CoordinateFormat(scale=1000, step=10)
        self.batches: list[list[str]] = []

    @property
    def encoding(self) -> Encoding:
        return Encoding("log", 0.2, 5.0)

    def ask_batch(self, requests, **options):  # type: ignore[no-untyped-def, override]
        self.batches.append([question for _, question in requests])
        return [Answer("red" if "colour" in question else "") for _, question in requests]

    def depth_batch(self, images, **options):  # type: ignore[no-untyped-def, override]
        slope = np.linspace(0.5, 1.5, 256).reshape(16, 16).astype(np.float32)
        return [DepthPrediction(DepthMap.from_values(slope), np.ones_like(slope), image) for image in images]


def sample(seed: int, with_depth: bool = True) -> Sample:
    rng = np.random.default_rng(seed)
    turns = (
        Turn(
            "What colour is <place:0>?",
            str(rng.choice(["red", "blue"])),
            "colour",
            "reasoning",
            "text",
            (Point(0.5, 0.25),),
        ),
        Turn("Count the mugs.", "2", "count", "reasoning", "number", tolerance=0.0),
    )
    depth = DepthMap.from_values(rng.uniform(0.5, 1.5, (16, 16)).astype(np.float32)) if with_depth else None
    return Sample(f"s{seed}", (Frame(np.zeros((16, 16, 3), np.uint8), depth),), turns, f"scene {seed}", "test")


TEST, TRAIN = [sample(seed) for seed in range(12)], [sample(seed) for seed in range(50, 70)]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return evaluate_model(Rote(), TEST, TRAIN, tmp_path_factory.mktemp("log"))


def test_replies_go_back_to_their_questions(evaluation: Evaluation) -> None:
    red = sum(item.turns[0].answer == "red" for item in TEST) / len(TEST)
    assert evaluation.questions.row("colour").score.mean == pytest.approx(red)
    assert evaluation.questions.row("count").score.mean == 0
    assert evaluation.questions.row("count").unparsed == len(TEST)


def test_questions_of_a_family_share_a_batch_and_places_are_written_out() -> None:
    model = Rote()
    evaluate_model(model, TEST[:3], TRAIN)
    assert model.batches == [["What colour is (500, 250)?"] * 3, ["Count the mugs."] * 3]


def test_scores_and_page_are_written(evaluation: Evaluation, tmp_path: Path) -> None:
    page = evaluation.write(tmp_path / "out", "Rote <1>")
    assert "Rote &lt;1&gt;" in page.read_text("utf-8")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text("utf-8"))
    assert {row["family"] for row in scores["questions"]} == {"colour", "count"}
    assert scores["depth"]["images"] == len(TEST)


def test_goals_are_shown_beside_their_family(evaluation: Evaluation) -> None:
    report = Report("t")
    add_scores(report, evaluation, {"colour": 0.99})
    assert "goal ≥&nbsp;99.0: open" in report.to_html()


def test_without_depth_only_questions_are_scored() -> None:
    found = evaluate_model(Rote(), [sample(1, with_depth=False)], TRAIN)
    assert found.depth is None and found.to_dict()["depth"] is None
