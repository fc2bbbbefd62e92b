"""RoboVQA: the mirror's layout, and BLEU-1 to BLEU-4 to the letter of NLTK as MiMo-Embodied calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gemvlm.evaluation.benchmark import Convention, Item, Score
from gemvlm.evaluation.benchmarks.robovqa import RoboVqa, bleu, bleus

ANY = Convention()
TEXTS = [
    "<task:planning:freeform> put away the can Q: immediate next step? <PRED>A: put the can in the drawer</PRED> "
    "<task:success:discrete:True> open the drawer Q: satisfied? "
    "<PRED>A: <PRED:ANSWER><PRED:BINARY>yes</PRED:BINARY></PRED:ANSWER></PRED>",
    "<task:affordance:discriminative:discrete:False> pick up the cup. Q: possible right now? "
    "<PRED>A: <PRED:BINARY>no</PRED:BINARY></PRED>",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "json/val").mkdir(parents=True)
    (tmp_path / "videos").mkdir()
    lines = []
    for number, text in enumerate(TEXTS):
        (tmp_path / f"videos/{number}.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
        lines.append(json.dumps({"uid": f"u{number}", "text": text, "video": f"{number}.mp4"}))
    (tmp_path / "json/val/data-00000-of-00001.json").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_every_task_of_a_text_is_an_item(folder: Path) -> None:
    items = RoboVqa.open(str(folder)).items()
    assert [(item.id, item.category, item.truth) for item in items] == [
        ("u0/0", "planning", "put the can in the drawer"),
        ("u0/1", "success", "yes"),
        ("u1/0", "affordance_discriminative", "no"),
    ]
    assert items[0].prompt == "put away the can Q: immediate next step?"
    assert items[0].scene == items[1].scene == "u0" and items[0].media[0].kind == "video" and items[0].frames == 8
    mimo = RoboVqa.open(str(folder), "mimo").items()
    assert [item.prompt for item in mimo] == [
        "put away the can. what is the immediate next step?",
        "pick up the cup. is it possible right now? Please answer yes or no. ",
    ]


def test_an_array_is_read_as_well(folder: Path) -> None:
    lines = RoboVqa.open(str(folder)).items()
    path = folder / "json/val/data-00000-of-00001.json"
    path.write_text(json.dumps([json.loads(line) for line in path.read_text().splitlines()]))
    assert [item.id for item in RoboVqa.open(str(folder)).items()] == [item.id for item in lines]


def test_the_oracle_is_perfect_and_guesses_score_by_chance(folder: Path, is_fair: Any) -> None:
    is_fair(RoboVqa.open(str(folder)), guesses=200)


def test_scores_are_the_published_functions(vectors: Any) -> None:
    stored = vectors("robovqa")
    assert len(stored["cases"]) == 1000
    benchmark = RoboVqa(Path())
    for number, reply, theirs in stored["cases"]:
        item = Item("1", (), "", stored["truths"][number], "planning", "1")
        ours = benchmark.score(item, reply, ANY)
        assert ours.value == pytest.approx(theirs[0], abs=1e-12), (item.truth, reply)
        assert ours.counted and (ours.parsed is not None or theirs[0] == 0)
        found = benchmark.summary([item], [ours])
        assert [found[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(theirs[1:], abs=1e-12), reply


def test_bleu_by_hand() -> None:
    cat = ["the", "cat", "is", "on", "the", "mat"]
    assert bleu(["the"] * 7, cat, (1.0,)) == pytest.approx(2 / 7)  # the clipped count of Papineni et al.
    assert bleu(cat, cat, (0.25, 0.25, 0.25, 0.25)) == pytest.approx(1)
    assert bleu(["the", "cat"], cat, (1.0,)) == pytest.approx(2.718281828 ** (1 - 6 / 2))  # too short
    assert bleu(["a", "the", "cat", "is", "on", "the", "mat"], cat, (0.5, 0.5)) == pytest.approx((6 / 7 * 5 / 6) ** 0.5)
    assert bleu(["dog"], cat, (1.0,)) == 0
    assert bleus("yes", "yes") == (1, 1, 1, 1) and bleus("open drawer", "open drawer") == (1, 1, 1, 1)
    assert bleus("pick up apple", "pick up apple") == (1, 1, 1, 1)  # three words: up to three
    assert bleus("a b", "a c")[1] < 1e-100 < 0.4 < bleus("a b", "a c")[0]


@pytest.mark.parametrize(
    ("truth", "reply", "value"),
    [
        ("yes", "Yes", 1.0),
        ("yes", "Yes.", 0.0),  # punctuation is part of a word
        ("no", "nothing", 1.0),  # holds "no"
        ("no", "I do not know", 0.25),  # "not" and "know" hold it; of the four words one counts
        ("put the can in the drawer", "<think>what?</think>Put the can\nin the drawer", 1.0),
        ("put the can in the drawer", "close it", 0.0),
    ],
)
def test_replies_are_cleaned_as_published(truth: str, reply: str, value: float) -> None:
    item = Item("1", (), "", truth, "planning", "1")
    assert RoboVqa(Path()).score(item, reply, ANY).value == pytest.approx(value)


def test_an_empty_reply_is_a_zero_that_counts(folder: Path) -> None:
    benchmark = RoboVqa.open(str(folder))
    assert benchmark.score(benchmark.items()[0], "<b> \n", ANY) == Score(0.0, None)
    found = benchmark.summary(benchmark.items(), [Score(1.0, "put the can in the drawer"), *[Score(0.0, None)] * 2])
    assert found["overall"] == pytest.approx(1 / 3) == found["bleu_4"] and found["planning"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"video": "9.mp4"}, "9.mp4 is missing"),
        ({"video": "../../9.mp4"}, "leads out"),
        ({"text": "<task:planning> put it away"}, "without question or answer"),
        ({"text": ""}, "holds no task"),
        ({"text": None}, "'text' must be str"),
        ({"uid": None}, "'uid' must be"),
    ],
)
def test_a_broken_row_is_named(folder: Path, change: dict[str, Any], words: str) -> None:
    path = folder / "json/val/data-00000-of-00001.json"
    row = json.loads(path.read_text().splitlines()[0]) | change
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"json:0.*" + words):
        RoboVqa.open(str(folder)).items()
