"""RoboAfford-Eval: the published layout, four patterns and rounding as its script has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemvlm.evaluation.benchmark import Convention, Item, Media, Score
from gemvlm.evaluation.benchmarks.roboafford import RoboAfford
from gemvlm.evaluation.pointing import mask_truth

FRACTION, PIXEL, THOUSAND = Convention("fraction"), Convention("pixel"), Convention("thousand")
KINDS = ("object affordance", "object reference", "spatial affordance")


@pytest.fixture
def folder(tmp_path: Path, jpeg: Any, png: Any) -> Path:
    rows = []
    y, x = np.mgrid[:60, :80]
    for number, kind in enumerate(KINDS):
        mask = np.where((x - 40) ** 2 + (y - 25) ** 2 < 300, 255, 0).astype(np.uint8)
        for name, content in (
            (f"images/{number:02d}.jpg", jpeg(number, (80, 60))),
            (f"masks/{kind.replace(' ', '_')}_img_{number:02d}_anno_1.png", png(np.stack([mask] * 3, -1))),
        ):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        mask_name = f"{kind.replace(' ', '_')}_img_{number:02d}_anno_1.png"
        row = {"category": kind, "answer": [[[0.4, 0.5]]], "img": f"{number:02d}.jpg", "mask": mask_name}
        rows.append(row | {"question": f"Which part {number}? Your answer should be formatted as a list of tuples"})
    (tmp_path / "annotations_normxy.json").write_text(json.dumps(rows, indent=4))
    pixels = [row | {"question": row["question"] + " in pixels"} for row in rows]
    (tmp_path / "annotations_absxy.json").write_text(json.dumps(pixels))
    return tmp_path


def test_items_are_the_published_annotations(folder: Path) -> None:
    items = RoboAfford.open(str(folder)).items()
    assert [item.category for item in items] == [
        "object affordance prediction",
        "object affordance recognition",
        "spatial affordance localization",
    ]
    assert items[2].prompt.startswith("Which part 2?") and items[2].scene == "02.jpg"
    assert RoboAfford.open(str(folder), "official_pixels").items()[0].prompt.endswith("in pixels")


@pytest.mark.parametrize(("protocol", "ways"), [("official", None), ("official_pixels", [PIXEL, THOUSAND])])
def test_the_oracle_is_perfect_and_guesses_hit_by_the_masks_area(
    folder: Path, protocol: str, ways: Any, pointing_is_fair: Any
) -> None:
    pointing_is_fair(RoboAfford.open(str(folder), protocol), ways)


def test_scores_are_the_published_functions(vectors: Any) -> None:
    stored = vectors("roboafford")
    assert len(stored["cases"]) == 1000
    for number, reply, (theirs,) in stored["cases"]:
        mask = stored["masks"][number]
        item = Item("1", (), "", mask, KINDS[0], "1", meta={"width": mask["width"], "height": mask["height"]})
        assert RoboAfford(Path()).score(item, reply, FRACTION).value == pytest.approx(theirs, abs=1e-12), reply


@pytest.fixture
def half(png: Any) -> Item:
    levels = np.zeros((48, 64), np.uint8)
    levels[:, 32:] = 128  # just above one half
    levels[:, 48:] = 127  # just below
    return Item("1", (), "", mask_truth(Media(png(levels)), "m"), "c", "1", meta={"width": 64, "height": 48})


@pytest.mark.parametrize(
    ("reply", "convention", "value"),
    [
        ("[(0.6, 0.5)]", FRACTION, 1.0),
        ("[(0.8, 0.5)]", FRACTION, 0.0),  # level 127 is not above a half
        ("[(0.493, 0.5)]", FRACTION, 1.0),  # 31.55 is rounded to 32
        ("[(0.6, 0.5), (0.1, 0.1)]", FRACTION, 0.5),
        ("(40,20)", FRACTION, 1.0),
        ("(40,20) (1, 2)", FRACTION, 2 / 3),  # the first is found twice: "(x, y)" and "x,y"
        ("(0.5, 1.5)", FRACTION, 0.0),  # one above 1: all are pixels
        ("-0.6 0.5", FRACTION, 1.0),  # signs are not read
        ("[(600, 500)]", THOUSAND, 1.0),
        ("(600,500)", THOUSAND, 1.0),
        ("[(40, 20)]", PIXEL, 1.0),
        ("none", FRACTION, 0.0),
        ("(" + "9" * 400 + ", 1)", FRACTION, 0.0),
        ("1" * 40_000, FRACTION, 0.0),
    ],
)
def test_the_official_rule_by_hand(half: Item, reply: str, convention: Convention, value: float) -> None:
    assert RoboAfford(Path()).score(half, reply, convention).value == pytest.approx(value)


def test_unread_replies_are_zeros_that_count(half: Item) -> None:
    assert RoboAfford(Path()).score(half, "none", FRACTION) == Score(0.0, None)


def test_headline_and_errors(folder: Path) -> None:
    benchmark = RoboAfford.open(str(folder))
    found = benchmark.summary(benchmark.items(), [Score(1.0, []), Score(0.5, []), Score(0.0, None)])
    assert found["overall"] == 0.5 and found["object affordance recognition"] == 0.5
    rows = json.loads((folder / "annotations_normxy.json").read_text())
    for change, words in [
        ({"mask": "gone.png"}, r"json:0 mask: .*gone.png is missing"),
        ({"img": "../../x.jpg"}, "leads out"),
        ({"category": "colour"}, "category 'colour' is unknown"),
        ({"question": 3}, "'question' must be str"),
    ]:
        (folder / "annotations_normxy.json").write_text(json.dumps([rows[0] | change]))
        with pytest.raises(ValueError, match=words):
            RoboAfford.open(str(folder)).items()
    with pytest.raises(ValueError, match="protocol 'lmms_eval' is unknown"):
        RoboAfford.open(str(folder), "lmms_eval")
