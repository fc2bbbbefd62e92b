"""MMSI-Bench: its published layout, its rule without the judge, and lmms-eval's."""

from __future__ import annotations

import pytest

from gemvlm.evaluation.benchmark import Convention, Score
from gemvlm.evaluation.benchmarks import open_benchmark


@pytest.fixture(scope="session")
def rows(vectors, jpeg):
    return [
        {key: value for key, value in row.items() if key != "n"}
        | {"images": [jpeg(10 * number + k) for k in range(row["n"])]}
        for number, row in enumerate(vectors("mmsi")["rows"])
    ]


@pytest.fixture(scope="session")
def published(tmp_path_factory, rows, write_table):
    folder = tmp_path_factory.mktemp("mmsi")
    write_table(folder / "MMSI_Bench.parquet", rows)
    return str(folder)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval"])
def test_scores_as_the_sources_do(published, protocol, vectors, agrees):
    replies = vectors("mmsi")["replies"]
    assert len(replies) >= 1000
    agrees(open_benchmark("mmsi", published, protocol), replies)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval"])
def test_the_oracle_is_right_and_guesses_score_as_chance_says(published, protocol, is_fair):
    is_fair(open_benchmark("mmsi", published, protocol))


def test_items_are_as_published(published):
    item = open_benchmark("mmsi", published).items()[3]
    assert item.prompt == (
        "Which (3)?\nOptions: A: left, B: right, C: up, D: down\nAnswer with the option's letter from the given "
        "choices directly. Enclose the option's letter within ``."
    )
    assert item.max_new_tokens == 2048 and item.options == ("A", "B", "C", "D")
    assert open_benchmark("mmsi", published).oracle(item, Convention()) == "``D``"
    assert (item.id, item.category, len(item.media), item.truth) == ("3", "MSR", 4, "D")


def test_overall_counts_questions_alike(published):
    benchmark = open_benchmark("mmsi", published)
    items = [*benchmark.items(), benchmark.items()[3]]
    summary = benchmark.summary(items, [Score(value, "A") for value in (0.0, 0.0, 1.0, 1.0, 0.0)])
    assert summary["overall"] == pytest.approx(2 / 5) and summary["MSR"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "(A)"}, r"MMSI_Bench.parquet:0: the answer '\(A\)' is none of the 4 options"),
        ({"images": []}, r"field 'images' is empty"),
        ({"images": [b"no"]}, r"not a picture"),
        ({"question": None}, r"field 'question' must be str, found NoneType"),
    ],
)
def test_bad_rows_are_named(rows, write_table, tmp_path, change, message):
    write_table(tmp_path / "MMSI_Bench.parquet", [rows[0] | change])
    with pytest.raises(ValueError, match=message):
        open_benchmark("mmsi", str(tmp_path)).items()


def test_marks_in_questions_are_not_shown(rows, write_table, tmp_path):
    write_table(tmp_path / "MMSI_Bench.parquet", [rows[0] | {"question": "<image><image> Which?\n", "answer": "A "}])
    item = open_benchmark("mmsi", str(tmp_path)).items()[0]
    assert item.prompt.startswith("Which?\nAnswer with") and item.truth == "A"
