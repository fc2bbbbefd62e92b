"""CV-Bench: its published layout, Cambrian's rule and lmms-eval's."""

from __future__ import annotations

import pytest

from gemvlm.evaluation.benchmark import Item, Score
from gemvlm.evaluation.benchmarks import open_benchmark
from gemvlm.evaluation.benchmarks.cv_bench import cambrian_letter


@pytest.fixture(scope="session")
def rows(vectors, jpeg):
    return [
        row | {"image": {"bytes": jpeg(number), "path": None}} for number, row in enumerate(vectors("cv_bench")["rows"])
    ]


@pytest.fixture(scope="session")
def published(tmp_path_factory, rows, write_table):
    folder = tmp_path_factory.mktemp("cv_bench")
    write_table(folder / "test_2d.parquet", [row for row in rows if row["type"] == "2D"])
    write_table(folder / "test_3d.parquet", [row for row in rows if row["type"] == "3D"])
    return str(folder)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval"])
def test_scores_as_the_sources_do(published, protocol, vectors, agrees):
    replies = vectors("cv_bench")["replies"]
    assert len(replies) >= 1000
    agrees(open_benchmark("cv_bench", published, protocol), replies)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval"])
def test_the_oracle_is_right_and_guesses_score_as_chance_says(published, protocol, is_fair):
    is_fair(open_benchmark("cv_bench", published, protocol))


def test_prompts_are_those_of_the_protocol(published):
    item = open_benchmark("cv_bench", published).items()[1]
    assert item.prompt == (
        "Q1? Select from the following choices.\n(A) left\n(B) right\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert (
        item.max_new_tokens == 512
        and open_benchmark("cv_bench", published, "lmms_eval").items()[1].max_new_tokens == 1024
    )
    assert (item.id, item.category, item.scene, item.options) == ("1", "Relation", "ADE20K_0.jpg", ("left", "right"))
    noted = open_benchmark("cv_bench", published, "lmms_eval").items()[4].prompt
    assert noted.startswith(
        "Note: You only need to respond with A, B, C without providing any additional information.\n\nQ4?"
    )


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("The answer is (B).", "B"), ("answer is: b", ":"), ("Answer: b", "B"), ("((c) x", "C"), ("Apple", "A"), ("", "")],
)
def test_cambrian_reads_one_character(reply, letter):
    assert cambrian_letter(reply, Item("0", (), "?", "A", "Count", "s", options=("1", "2"))) == letter


def test_the_headline_is_the_cards_formula(published):
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    items = open_benchmark("cv_bench", published).items()
    scores = [Score(value, "A") for value in values]
    official = open_benchmark("cv_bench", published).summary(items, scores)
    assert official["2D"] == pytest.approx((0.5 + 2 / 3) / 2) and official["3D"] == pytest.approx(1 / 3)
    assert official["overall"] == pytest.approx(((0.5 + 2 / 3) / 2 + 1 / 3) / 2)
    assert official["ADE20K"] == 0.5 and official["Distance"] == 0.0
    harness = open_benchmark("cv_bench", published, "lmms_eval").summary(items, scores)
    assert harness["overall"] == pytest.approx(4 / 8) and harness["2D"] == pytest.approx(3 / 5)
    resampled = open_benchmark("cv_bench", published).summary(items[5:7], scores[5:7])
    assert resampled["overall"] == 0.5 and "2D" not in resampled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "(C)"}, r"test_2d.parquet:0: the answer 'C' is none of the 2 options"),
        ({"answer": "(B) right"}, r"the answer '' is none of the 2 options"),
        ({"answer": "B"}, r"the answer '' is none of the 2 options"),
        ({"source": "Flickr"}, r"source 'Flickr' is unknown; known are ADE20K, COCO, Omni3D"),
        ({"image": None}, r"test_2d.parquet:0: expected the path of a file"),
        ({"image": {"bytes": b"broken", "path": None}}, r"not a picture"),
        ({"image": {"bytes": None, "path": "img/gone.png"}}, r"img/gone.png is missing"),
        ({"idx": None}, r"field 'idx' must be int, found NoneType"),
    ],
)
def test_bad_rows_are_named(rows, write_table, tmp_path, change, message):
    write_table(tmp_path / "test_2d.parquet", [rows[1] | change])
    with pytest.raises(ValueError, match=message):
        open_benchmark("cv_bench", str(tmp_path)).items()


def test_renamed_fields_and_absent_files_are_errors(rows, write_table, tmp_path):
    with pytest.raises(ValueError, match="no file matches"):
        open_benchmark("cv_bench", str(tmp_path)).items()
    write_table(tmp_path / "test_2d.parquet", [{key.replace("choices", "options"): rows[1][key] for key in rows[1]}])
    with pytest.raises(ValueError, match="field 'choices' is missing"):
        open_benchmark("cv_bench", str(tmp_path)).items()
    with pytest.raises(ValueError, match="protocol 'official/2D' is unknown; choose from official, lmms_eval"):
        open_benchmark("cv_bench", str(tmp_path), "official/2D")
