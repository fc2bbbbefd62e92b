"""EmbSpatial-Bench: its published layout and the two harnesses' rules."""

from __future__ import annotations

import base64

import pytest

from gemvlm.evaluation.benchmark import Score
from gemvlm.evaluation.benchmarks import open_benchmark


@pytest.fixture(scope="session")
def rows(vectors, jpeg):
    return [
        row | {"image": base64.b64encode(jpeg(number)).decode()}
        for number, row in enumerate(vectors("embspatial")["rows"])
    ]


@pytest.fixture(scope="session")
def published(tmp_path_factory, rows, write_table):
    folder = tmp_path_factory.mktemp("embspatial")
    write_table(folder / "embspatial_bench.json", rows)
    write_table(folder / "embspatial_sft.json", [{"another": "file of the data set"}])
    return str(folder)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval", "vlmevalkit"])
def test_scores_as_the_sources_do(published, protocol, vectors, agrees):
    replies = vectors("embspatial")["replies"]
    assert len(replies) >= 1000
    agrees(open_benchmark("embspatial", published, protocol), replies)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval", "vlmevalkit"])
def test_the_oracle_is_right_and_guesses_score_as_chance_says(published, protocol, is_fair):
    is_fair(open_benchmark("embspatial", published, protocol))


def test_the_copy_of_the_hub_reads_the_same(published, rows, write_table, tmp_path):
    pictures = [row | {"image": {"bytes": base64.b64decode(row["image"]), "path": None}} for row in rows]
    write_table(tmp_path / "data" / "test-00000-of-00001.parquet", pictures)
    own, copy = (open_benchmark("embspatial", place).items() for place in (published, str(tmp_path)))
    assert [(a.id, a.prompt, a.truth, a.media) for a in own] == [(b.id, b.prompt, b.truth, b.media) for b in copy]


def test_prompts_are_those_of_the_protocol(published):
    note = "Note: You only need to respond with A, B, C, D without providing any additional information.\n"
    item = open_benchmark("embspatial", published).items()[1]
    assert item.prompt == note + "Which is close? (1)\nA) chair\nB) bed\nC) door\nD) table" and item.truth == "C"
    assert item.max_new_tokens == 1024
    assert open_benchmark("embspatial", published, "vlmevalkit").items()[1].prompt == (
        "Question: Which is close? (1)\nOptions:\nA: chair\nB: bed\nC: door\nD: table\n"
        "Give me the answer letter directly. The best answer is:"
    )


def test_overall_counts_questions_alike(published):
    benchmark = open_benchmark("embspatial", published)
    items = benchmark.items()
    summary = benchmark.summary(items, [Score(float(item.category in ("left", "far")), "A") for item in items])
    assert summary["overall"] == pytest.approx(2 / 6) and summary["left"] == 1.0 and summary["right"] == 0.0
    assert (summary["ai2thor"], summary["mp3d"], summary["scannet"]) == (0.5, 0.0, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 4}, r"embspatial_bench.json:0: field 'answer' must be the index of an option, found 4"),
        ({"answer": -1}, r"must be the index of an option, found -1"),
        ({"answer": "B"}, r"field 'answer' must be int, found str 'B'"),
        ({"relation": "inside"}, r"relation 'inside' is unknown"),
        ({"image": "gone.jpg"}, r"gone.jpg is missing"),
        ({"image": "A" * 600}, r"not a picture"),
        ({"answer_options": "left"}, r"field 'answer_options' must be list, found str"),
    ],
)
def test_bad_rows_are_named(rows, write_table, tmp_path, change, message):
    write_table(tmp_path / "embspatial_bench.json", [rows[0] | change])
    with pytest.raises(ValueError, match=message):
        open_benchmark("embspatial", str(tmp_path)).items()
