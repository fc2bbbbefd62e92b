"""Cosmos-Reason1: the five published sets, and the letter in the answer tag or anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gemvlm.evaluation.benchmark import Convention, Item, Score
from gemvlm.evaluation.benchmarks.cosmos_reason1 import SETS, CosmosReason1

ANY = Convention()
CHOICES = {"A": "move forward", "B": "close gripper", "C": "open gripper", "D": "move left"}


def row(number: int) -> dict[str, Any]:
    pair = {"question": "What is the next action?", "index2ans": CHOICES, "answer": "ABCD"[number % 4]}
    return {"video": f"clips/{number}.mp4", "qa_pairs": pair}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in SETS:
        (tmp_path / part / "clips").mkdir(parents=True)
        for number in range(2):
            (tmp_path / f"{part}/clips/{number}.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
        (tmp_path / f"{part}/{part}_benchmark_qa_pairs.json").write_text(json.dumps([row(0), row(1)]))
    return tmp_path


def test_items_are_all_questions_of_the_five_sets(folder: Path) -> None:
    items = CosmosReason1.open(str(folder)).items()
    assert len(items) == 10 and [item.category for item in items[::2]] == list(SETS)
    assert items[1].id == "bridgev2/1/0" and items[1].truth == "B" and items[1].system == "Answer the questions."
    asked = (
        "What is the next action?\n(A) move forward\n(B) close gripper\n(C) open gripper\n(D) move left\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert CosmosReason1.open(str(folder), "official_letter").items()[0].prompt == asked
    assert items[0].prompt == (
        f"{asked}\nPlease answer the question in the following format: <think> your reasoning </think> <answer> your "
        "single letter answer </answer>."
    )


def test_several_questions_of_a_video_and_the_sixth_set_are_asked(folder: Path) -> None:
    (folder / "av/clips").mkdir(parents=True)
    (folder / "av/clips/0.mp4").write_bytes(b"x")
    pairs = [row(0)["qa_pairs"], {**row(1)["qa_pairs"], "index2ans": {"A": "yes", "B": "no"}}]
    (folder / "av/av_benchmark_qa_pairs.json").write_text(json.dumps([{"video": "clips/0.mp4", "qa_pairs": pairs}]))
    items = CosmosReason1.open(str(folder)).items()
    assert [item.id for item in items[-2:]] == ["av/0/0", "av/0/1"] and items[-1].options == ("yes", "no")


@pytest.mark.parametrize("protocol", ["official", "official_letter"])
def test_the_oracle_is_right_and_guesses_by_the_options(folder: Path, protocol: str, is_fair: Any) -> None:
    is_fair(CosmosReason1.open(str(folder), protocol), guesses=80)


@pytest.mark.parametrize("protocol", ["official", "official_letter"])
def test_scores_are_the_published_functions(protocol: str, vectors: Any) -> None:
    stored = vectors("cosmos_reason1")
    assert len(stored["cases"]) == 1000
    benchmark, column = CosmosReason1(Path(), protocol), stored["protocols"].index(protocol)
    for truth, reply, theirs in stored["cases"]:
        ours = benchmark.score(Item("1", (), "", truth, "av", "1", options=tuple(CHOICES.values())), reply, ANY)
        assert ours.counted and ours.value == theirs[column] and (ours.parsed is not None or not ours.value), reply


@pytest.mark.parametrize(
    ("reply", "tagged", "plain"),
    [
        ("<think>I see. C?</think> <answer>B</answer>", "B", None),  # "I" is the first capital: no option
        ("<answer>B</answer>", "B", "B"),
        ("B", None, "B"),
        ("<answer>b</answer>", None, None),
        ("<answer>The gripper: B</answer>", None, None),  # "T"
        ("(C) open gripper", None, "C"),
    ],
)
def test_letters_by_hand(reply: str, tagged: str | None, plain: str | None) -> None:
    item = Item("1", (), "", "B", "av", "1", options=tuple(CHOICES.values()))
    for protocol, letter in (("official", tagged), ("official_letter", plain)):
        assert CosmosReason1(Path(), protocol).score(item, reply, ANY) == Score(float(letter == "B"), letter)


def test_the_headline_pools_all_questions(folder: Path) -> None:
    benchmark = CosmosReason1.open(str(folder))
    items = benchmark.items()[:3]
    found = benchmark.summary(items, [Score(1.0, "A"), Score(0.0, None), Score(0.0, "B")])
    assert found["overall"] == pytest.approx(1 / 3) and found["bridgev2"] == 0.5 and found["robovqa"] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"video": "clips/9.mp4"}, "9.mp4 is missing"),
        ({"video": "../x.mp4"}, "leads out"),
        ({"qa_pairs": {**row(0)["qa_pairs"], "answer": "E"}}, "'E' is none of the 4 options"),
        ({"qa_pairs": {**row(0)["qa_pairs"], "index2ans": {"B": "x", "A": "y"}}}, r"the letters \['B', 'A'\]"),
        ({"qa_pairs": {"question": "why?"}}, "'index2ans' is missing"),
        ({"qa_pairs": ["why?"]}, "must hold objects"),
        ({"qa_pairs": "why?"}, "'qa_pairs' must be dict or list"),
    ],
)
def test_a_broken_row_is_named(folder: Path, change: dict[str, Any], words: str) -> None:
    (folder / "agibot/agibot_benchmark_qa_pairs.json").write_text(json.dumps([row(0) | change]))
    with pytest.raises(ValueError, match=r"agibot_benchmark_qa_pairs.json:0.*" + words):
        CosmosReason1.open(str(folder)).items()


def test_a_missing_set_is_an_error(folder: Path) -> None:
    (folder / "robofail/robofail_benchmark_qa_pairs.json").unlink()
    with pytest.raises(ValueError, match="robofail_benchmark_qa_pairs"):
        CosmosReason1.open(str(folder)).items()
