"""Where2Place: both published layouts, grey masks as the publisher scores them, lmms-eval's two variants."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gemvlm.evaluation.benchmark import Convention, Item, Media, Score
from gemvlm.evaluation.benchmarks.where2place import FORM, JSON_FORM, PROTOCOLS, Where2Place
from gemvlm.evaluation.pointing import mask_levels, mask_truth

FRACTION, THOUSAND = Convention("fraction"), Convention("thousand")
QUESTION = "Locate several points in the vacant space to the left of bowl {}."


def grey(number: int) -> bytes:
    levels = np.zeros((480, 640), np.uint8)
    levels[100 + 40 * number : 300, 150:420] = 255
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=85)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path, jpeg: Any) -> Path:
    lines = []
    for number in range(3):
        for kind, content in (("images", jpeg(number, (640, 480))), ("masks", grey(number))):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / f"{number:02d}.jpg").write_bytes(content)
        text = f"{QUESTION.format(number)} {FORM}"
        category = "seen" if number else "unseen"
        lines.append({"question_id": number, "image": f"{number:02d}.jpg", "text": text, "category": category})
    (tmp_path / "point_questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_items_are_the_published_lines(folder: Path) -> None:
    items = Where2Place.open(str(folder)).items()
    assert [item.id for item in items] == ["0", "1", "2"]
    assert items[1].prompt == f"{QUESTION.format(1)} {FORM}" and items[1].category == "seen"
    assert len(np.unique(mask_levels(items[0].truth))) > 2  # JPEG's grey levels are kept
    assert Where2Place.open(str(folder), "lmms_eval_json").items()[1].prompt == f"{QUESTION.format(1)} {JSON_FORM}"
    asked = Where2Place.open(str(folder), "lmms_eval").items()[1].prompt
    assert asked == f"{QUESTION.format(1)} {FORM} Return only list of tuples, don't add anything else."


def test_flagevals_copy_asks_the_same(tmp_path: Path, folder: Path, jpeg: Any, write_table: Any) -> None:
    rows = [
        {
            "question_id": str(number),
            "question": QUESTION.format(number),
            "question_type": "seen" if number else "unseen",
            "image": {"bytes": jpeg(number, (640, 480)), "path": None},
            "mask": {"bytes": grey(number), "path": None},
        }
        for number in range(3)
    ]
    write_table(tmp_path / "copy/data/test-00000-of-00001.parquet", rows)
    for copied, published in zip(
        Where2Place.open(str(tmp_path / "copy")).items(), Where2Place.open(str(folder)).items(), strict=True
    ):
        assert (copied.id, copied.prompt, copied.category) == (published.id, published.prompt, published.category)
        assert copied.truth == published.truth


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_oracle_is_perfect_and_guesses_hit_by_the_masks_level(
    folder: Path, protocol: str, pointing_is_fair: Any
) -> None:
    pointing_is_fair(
        Where2Place.open(str(folder), protocol), None if protocol == "official" else [PROTOCOLS[protocol][0]]
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scores_are_the_published_functions(protocol: str, vectors: Any) -> None:
    stored = vectors("where2place")
    column = stored["protocols"].index(protocol.removesuffix("_skip"))
    assert len(stored["cases"]) == 1000
    benchmark = Where2Place(Path(), protocol)
    items = [Item("1", (), "", mask, "seen", "1", meta={"width": 640, "height": 480}) for mask in stored["masks"]]
    for number, reply, scores in stored["cases"]:
        ours, theirs = benchmark.score(items[number], reply, PROTOCOLS[protocol][0]), scores[column]
        if theirs is None:
            assert ours.value == 0 and ours.parsed is None and ours.counted == (protocol != "official_skip"), reply
        else:
            assert ours.counted and ours.value == pytest.approx(theirs, abs=1e-9), reply


def half_grey() -> Item:
    """Level 51, a fifth, in the right half."""
    levels = np.zeros((480, 640), np.uint8)
    levels[:, 320:] = 51
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    truth = mask_truth(Media(file.getvalue()), "mask")
    return Item("1", (), "", truth, "seen", "1", meta={"width": 640, "height": 480})


@pytest.mark.parametrize(
    ("reply", "convention", "value"),
    [
        ("[(0.75, 0.5)]", FRACTION, 0.2),  # the grey level, not 1
        ("[(0.75, 0.5), (0.1, 0.5)]", FRACTION, 0.1),
        ("[(400, 100)]", FRACTION, 0.2),
        ("[(400, 0.5)]", FRACTION, 0.0),  # one decimal point makes both fractions
        ("[(750, 500)]", FRACTION, 0.0),  # thousandths taken for pixels
        ("[(750, 500)]", THOUSAND, 0.2),
        ("(0.25, 0.25, 0.75, 0.75)", FRACTION, 0.1),
        ("(160, 120, 480, 360)", FRACTION, 0.1),  # here boxes of whole numbers are pixels
        ("(600, 0, 9000, 9000)", FRACTION, 0.2),  # cut off at the image
        ("(0.9, 0.9, 0.1, 0.1)", FRACTION, 0.0),  # inside out: empty
    ],
)
def test_the_official_rule_by_hand(reply: str, convention: Convention, value: float) -> None:
    assert Where2Place(Path()).score(half_grey(), reply, convention).value == pytest.approx(value)


def test_a_box_that_the_script_stumbles_over_is_dropped_only_by_the_skipping_protocol() -> None:
    reply = "(1, 0.1, 0.5, 0.9)"
    assert Where2Place(Path()).score(half_grey(), reply, FRACTION) == Score(0.0, None, outside=1 - 1)
    assert not Where2Place(Path(), "official_skip").score(half_grey(), reply, FRACTION).counted


def test_the_headline_is_the_mean_of_all_items(folder: Path) -> None:
    benchmark = Where2Place.open(str(folder))
    found = benchmark.summary(benchmark.items(), [Score(1.0, []), Score(0.5, []), Score(0.0, None)])
    assert found == {"overall": 0.5, "unseen": 1.0, "seen": 0.25}


def test_missing_pictures_masks_and_fields_are_named(folder: Path) -> None:
    (folder / "masks/02.jpg").unlink()
    with pytest.raises(ValueError, match=r"point_questions.jsonl:2 mask: .*02.jpg is missing"):
        Where2Place.open(str(folder)).items()
    (folder / "images/01.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"jsonl:1 image: .*not a picture"):
        Where2Place.open(str(folder)).items()
    (folder / "point_questions.jsonl").write_text('{"question_id": 0, "image": "00.jpg", "category": "seen"}\n')
    with pytest.raises(ValueError, match="'text' is missing"):
        Where2Place.open(str(folder)).items()
    (folder / "point_questions.jsonl").unlink()
    with pytest.raises(ValueError, match=r"test-\*"):
        Where2Place.open(str(folder)).items()
