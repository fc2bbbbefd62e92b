"""ViewSpatial-Bench: its published layout, its rule and VLMEvalKit's."""

from __future__ import annotations

import pytest

from gemvlm.evaluation.benchmark import Score
from gemvlm.evaluation.benchmarks import open_benchmark


def publish(folder, rows, jpeg, write_table):
    write_table(folder / "ViewSpatial-Bench.json", rows)
    for row in rows:
        for path in row["image_path"]:
            image = folder / path.removeprefix("ViewSpatial-Bench/")
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes(jpeg(len(path)))


@pytest.fixture(scope="session")
def rows(vectors):
    return vectors("viewspatial")["rows"]


@pytest.fixture(scope="session")
def published(tmp_path_factory, rows, jpeg, write_table):
    folder = tmp_path_factory.mktemp("viewspatial")
    publish(folder, rows, jpeg, write_table)
    return str(folder)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval", "vlmevalkit"])
def test_scores_as_the_sources_do(published, protocol, vectors, agrees):
    replies = vectors("viewspatial")["replies"]
    assert len(replies) >= 1000
    agrees(open_benchmark("viewspatial", published, protocol), replies)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval", "vlmevalkit"])
def test_the_oracle_is_right_and_guesses_score_as_chance_says(published, protocol, is_fair):
    is_fair(open_benchmark("viewspatial", published, protocol))


def test_items_are_as_published(published):
    items = open_benchmark("viewspatial", published).items()
    assert items[1].prompt == (
        "Question: Where is it (1)?\nChoices: A. front-left\nB. back\nC. right\nD. above-right\n"
        "Reply only to the corresponding option.\nAnswer:"
    )
    assert [item.truth for item in items] == ["A", "B", "C", "D", "A"]
    assert items[0].scene == items[4].scene == "scene0011_00" and items[1].scene == items[3].scene != items[2].scene
    assert len(items[4].media) == 2


def test_overall_counts_questions_alike(published):
    benchmark = open_benchmark("viewspatial", published)
    items = benchmark.items()
    summary = benchmark.summary(items, [Score(value, "A") for value in (1.0, 0.0, 1.0, 0.0, 0.0)])
    assert summary["overall"] == pytest.approx(2 / 5) and summary["Person perspective - Relative Direction"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "E. up"}, r"ViewSpatial-Bench.json:0: the answer 'E' is none of the 4 options"),
        ({"question_type": "Robot perspective"}, r"question_type 'Robot perspective' is unknown"),
        ({"image_path": []}, r"field 'image_path' holds no path"),
        ({"image_path": ["ViewSpatial-Bench/val2017/gone.jpg"]}, r"val2017/gone.jpg is missing; unpack"),
        ({"choices": "A. left"}, r"field 'choices' must be a list of two texts"),
    ],
)
def test_bad_rows_are_named(rows, jpeg, write_table, tmp_path, change, message):
    publish(tmp_path, rows[:1], jpeg, write_table)
    write_table(tmp_path / "ViewSpatial-Bench.json", [rows[0] | change])
    with pytest.raises(ValueError, match=message):
        open_benchmark("viewspatial", str(tmp_path)).items()
