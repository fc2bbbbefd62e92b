"""RoboSpatial-Home: both published layouts, the first point in the polygon, yes and no; lmms-eval and VLMEvalKit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemvlm.evaluation.benchmark import Convention, Item, Score
from gemvlm.evaluation.benchmarks.robospatial_home import (
    FORMS,
    LMMS_EVAL_POINTS,
    LMMS_EVAL_YES_NO,
    PROTOCOLS,
    RoboSpatialHome,
)
from gemvlm.evaluation.polygons import polygon_mask

FRACTION, THOUSAND = Convention("fraction"), Convention("thousand")
POLYGON = [(0.2, 0.1), (0.8, 0.2), (0.7, 0.9), (0.5, 0.4), (0.1, 0.8)]


def rows_of(jpeg: Any, png: Any) -> list[dict[str, Any]]:
    mask = png((polygon_mask(POLYGON, 60, 40) * 255).astype(np.uint8))
    point = f"In the image, pinpoint free space left of the mug. {FORMS[0]}"
    rows = [
        {"category": "context", "question": point, "answer": str(POLYGON), "mask": {"bytes": mask, "path": "m.png"}},
        {"category": "compatibility", "question": f"Can the mug fit left of the can? {FORMS[1]}", "answer": "Yes"},
        {"category": "configuration", "question": f"Is the mug left of the can? {FORMS[1]}", "answer": "No"},
    ]
    picture = {"bytes": jpeg(1, (60, 40)), "path": "i.jpg"}
    return [{"mask": None, "depth_image": picture, "img": picture} | row for row in rows]


@pytest.fixture
def folder(tmp_path: Path, jpeg: Any, png: Any, write_table: Any) -> Path:
    for row in rows_of(jpeg, png):
        write_table(tmp_path / f"data/{row['category']}-00000-of-00001.parquet", [row])
    return tmp_path


def test_items_are_the_three_categories(folder: Path) -> None:
    items = RoboSpatialHome.open(str(folder)).items()
    assert [item.id for item in items] == ["context/0", "compatibility/0", "configuration/0"]
    assert items[0].truth == {"polygon": [list(corner) for corner in POLYGON]} and items[2].truth == "no"
    assert items[0].prompt.endswith(FORMS[0])
    lmms = RoboSpatialHome.open(str(folder), "lmms_eval").items()
    assert lmms[0].prompt == f"In the image, pinpoint free space left of the mug.\n{LMMS_EVAL_POINTS}"
    assert lmms[1].prompt == f"Can the mug fit left of the can?\n{LMMS_EVAL_YES_NO}"
    easi = RoboSpatialHome.open(str(folder), "vlmevalkit").items()
    assert easi[0].prompt.startswith(
        "In the image, pinpoint free space left of the mug.\n\nOutput the point coordinates"
    )
    assert easi[1].prompt == items[1].prompt


def test_the_publishers_download_is_read_as_well(tmp_path: Path, folder: Path, jpeg: Any, png: Any) -> None:
    made, rows = tmp_path / "made", []
    (made / "images").mkdir(parents=True)
    for number, row in enumerate(rows_of(jpeg, png)):
        for field in ("img", "mask"):
            if row[field]:
                (made / f"images/{field}{number}.png").write_bytes(row[field]["bytes"])
        paths = {"img": f"images/img{number}.png", "mask": f"images/mask{number}.png" if row["mask"] else None}
        rows.append(row | paths | {"depth_image": None})
    (made / "annotations.json").write_text(json.dumps(rows, indent=2))
    for ours, hubs in zip(
        RoboSpatialHome.open(str(made), "lmms_eval").items(),
        RoboSpatialHome.open(str(folder), "lmms_eval").items(),
        strict=True,
    ):
        assert (ours.prompt, ours.truth, ours.category) == (hubs.prompt, hubs.truth, hubs.category)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_oracle_is_perfect_and_guesses_score_by_area_and_halves(
    folder: Path, protocol: str, pointing_is_fair: Any
) -> None:
    pointing_is_fair(
        RoboSpatialHome.open(str(folder), protocol), None if protocol == "official" else [FRACTION, THOUSAND]
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scores_are_the_published_functions(protocol: str, vectors: Any) -> None:
    stored = vectors("robospatial_home")
    column, benchmark = stored["protocols"].index(protocol), RoboSpatialHome(Path(), protocol)
    assert len(stored["cases"]) == 1000
    for number, reply, scores in stored["cases"]:
        mask = stored["masks"][max(number, 0)]
        truth: Any = {-1: "yes", -2: "no"}.get(number)
        truth = truth or {"polygon": stored["polygons"][number], "mask": mask}
        item = Item("1", (), "", truth, "context", "1", meta={"width": mask["width"], "height": mask["height"]})
        ours = benchmark.score(item, reply, PROTOCOLS[protocol])
        assert ours.counted and ours.value == scores[column], (reply, number)
        assert ours.parsed is not None or ours.value == 0


@pytest.mark.parametrize(
    ("protocol", "reply", "convention", "value"),
    [
        ("official", "[(0.5, 0.3)]", FRACTION, 1.0),
        ("official", "[(0.05, 0.3), (0.5, 0.3)]", FRACTION, 0.0),  # the first counts
        ("official", "[[0.5, 0.3]]", FRACTION, 1.0),
        ("official", "[(500, 300)]", FRACTION, 0.0),  # thousandths fail under the fractions that are asked for
        ("official", "[(500, 300)]", THOUSAND, 1.0),
        ("official", "[(300, 500)]", Convention("thousand", "yx"), 1.0),
        ("official", "I do not know", FRACTION, 0.0),
        ("lmms_eval", '```json\n[{"point_2d": [50, 300]}, {"point_2d": [500, 300]}]\n```', THOUSAND, 1.0),  # any
        ("lmms_eval", '[{"point_2d": [500, 300]}]', THOUSAND, 0.0),  # only in a fence
        ("lmms_eval", "[(0.5, 0.3)]", FRACTION, 1.0),
        ("vlmevalkit", '[{"point_2d": [50, 300]}, {"point_2d": [500, 300]}]', THOUSAND, 0.0),
        ("vlmevalkit", '[{"point_2d": [500, 300]}]', THOUSAND, 1.0),
        ("vlmevalkit", "Sure: (0.5, 0.3)", THOUSAND, 1.0),
    ],
)
def test_points_by_hand(folder: Path, protocol: str, reply: str, convention: Convention, value: float) -> None:
    benchmark = RoboSpatialHome.open(str(folder), protocol)
    assert benchmark.score(benchmark.items()[0], reply, convention).value == value


@pytest.mark.parametrize(
    ("protocol", "reply", "said"),
    [
        ("official", "Yes, it fits", "yes"),
        ("official", "The answer is yes", None),
        ("official", " NO.", "no"),
        ("official", "Nothing", "no"),
        ("lmms_eval", "It is not there.\nAnswer: Yes", "yes"),
        ("lmms_eval", "Answer: yes or no", None),
        ("lmms_eval", "<think>no</think>I say yes", "yes"),
    ],
)
def test_yes_and_no_by_hand(folder: Path, protocol: str, reply: str, said: str | None) -> None:
    benchmark = RoboSpatialHome.open(str(folder), protocol)
    for item in benchmark.items()[1:]:
        assert benchmark.score(item, reply, THOUSAND) == Score(float(said == item.truth), said)


def test_the_boards_total_is_the_mean_of_the_categories(folder: Path) -> None:
    benchmark = RoboSpatialHome.open(str(folder))
    items = [*benchmark.items(), benchmark.items()[0]]
    scores = [Score(1.0, []), Score(1.0, "yes"), Score(0.0, None), Score(0.0, None)]
    found = benchmark.summary(items, scores)
    assert found == {"overall": 0.5, "pooled": 0.5, "context": 0.5, "compatibility": 1.0, "configuration": 0.0}
    found = benchmark.summary([*items, items[2]], [*scores, Score(0.0, None)])
    assert (found["overall"], found["pooled"]) == (0.5, 0.4)
    assert (
        RoboSpatialHome(folder, "vlmevalkit").summary([*items, items[2]], [*scores, Score(0.0, None)])["overall"] == 0.4
    )


@pytest.mark.parametrize(
    ("change", "protocol", "words"),
    [
        ({"answer": "perhaps"}, "official", "neither yes nor no nor a polygon"),
        ({"answer": "[(0.1, 0.2), (0.3, 0.4)]"}, "official", "2 corners"),
        ({"answer": "[(0.1, 'a'), (0.3, 0.4)]"}, "official", "polygon"),
        ({"category": "colour"}, "official", "category 'colour' is unknown"),
        ({"img": None}, "official", "img"),
        ({"mask": None}, "lmms_eval", "mask"),
        ({"question": None}, "official", "'question' must be str"),
    ],
)
def test_a_broken_row_is_named(
    folder: Path, jpeg: Any, png: Any, write_table: Any, change: dict[str, Any], protocol: str, words: str
) -> None:
    write_table(folder / "data/context-00000-of-00001.parquet", [rows_of(jpeg, png)[0] | change])
    with pytest.raises(ValueError, match=r"context.*parquet:0.*" + words):
        RoboSpatialHome.open(str(folder), protocol).items()
