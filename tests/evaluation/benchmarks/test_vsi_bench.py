"""VSI-Bench: its published layout, its rule and those of two harnesses."""

from __future__ import annotations

import numpy as np
import pytest

from gemvlm.evaluation.benchmark import Convention, Item, Score
from gemvlm.evaluation.benchmarks import open_benchmark
from gemvlm.evaluation.benchmarks.vsi_bench import first_number_or_words, mean_relative_accuracy

RULES = ("official", "lmms_eval", "vlmevalkit")


@pytest.fixture(scope="session")
def published(tmp_path_factory, vectors, write_table):
    folder = tmp_path_factory.mktemp("vsi_bench")
    rows = vectors("vsi_bench")["rows"]
    write_table(folder / "test.jsonl", rows)
    write_table(folder / "test_debiased.parquet", rows[:2])
    for row in rows:
        video = folder / row["dataset"] / f"{row['scene_name']}.mp4"
        video.parent.mkdir(exist_ok=True)
        video.write_bytes(b"a video, which only the runner opens")
    return folder


@pytest.mark.parametrize("protocol", RULES)
def test_scores_as_the_sources_do(published, protocol, vectors, agrees):
    replies = vectors("vsi_bench")["replies"]
    assert len(replies) >= 1000
    agrees(open_benchmark("vsi_bench", str(published), protocol), replies)


@pytest.mark.parametrize("protocol", RULES)
def test_the_oracle_is_right_and_guesses_score_as_chance_says(published, protocol, is_fair):
    is_fair(open_benchmark("vsi_bench", str(published), protocol))


@pytest.mark.parametrize(
    ("value", "truth", "expected"),
    [
        (7, 7, 1.0), (3, 4, 0.6), (5, 4, 0.6), (6, 4, 0.1), (2, 4, 0.1), (8, 4, 0.0), (0, 4, 0.0), (1.05, 1, 1.0),
        (1.1, 1, 0.9), (0.9, 1, 0.9), (1.2, 1, 0.7), (1.5, 1, 0.1), (2.5, 2.2, 0.8), (19, 20, 1.0), (7, 10, 0.5),
        (0, 0, 1.0), (1, 0, 0.0),
    ],
)  # fmt: skip
def test_mean_relative_accuracy_of_the_official_floats(value, truth, expected):
    assert mean_relative_accuracy(float(value), float(truth)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reply", "number"),
    [("twenty-one", 21), ("three hundred", 300), ("one apple, room 2", 1), ("in room 2, one", 2), ("someone", None)],
)
def test_numerals_are_read_where_they_stand_first(reply, number):
    assert first_number_or_words(reply) == number


def test_prompts_and_limits_are_those_of_the_protocol(published):
    items = open_benchmark("vsi_bench", str(published)).items()
    assert items[0].prompt == (
        "These are frames of a video.\nQuestion 0 of object_rel_direction_easy?\nOptions:\nA. left\nB. right\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert items[6].prompt.endswith("?\nPlease answer the question using a single word or phrase.")
    assert (items[0].frames, items[0].max_new_tokens, items[0].media[0].kind) == (32, 16, "video")
    easi = open_benchmark("vsi_bench", str(published), "vlmevalkit").items()
    assert "Options:" not in easi[0].prompt
    assert easi[6].prompt.endswith("?\nAnswer briefly and directly in one float number.")
    assert items[0].scene == "scannet/scene0000_00" and len({item.scene for item in items}) == 16


def test_a_subset_is_a_protocol(published):
    assert len(open_benchmark("vsi_bench", str(published), "lmms_eval/debiased").items()) == 2
    with pytest.raises(ValueError, match=r"no file matches 'test_pruned.parquet'"):
        open_benchmark("vsi_bench", str(published), "official/pruned").items()


def test_overall_is_the_mean_of_the_tasks_and_direction_is_one_of_them(published):
    benchmark = open_benchmark("vsi_bench", str(published))
    items = benchmark.items()[:12]
    values = [1.0, 0.0, 0.5, 0.25, 0.5, 0.75, 1.0, 0.5, 0.1, 0.2, 0.3, 0.5]
    summary = benchmark.summary(items, [Score(value, value) for value in values])
    assert summary["object_rel_direction"] == 0.5 and summary["object_rel_direction_hard"] == 0.5
    assert summary["object_counting"] == 0.75 and summary["object_abs_distance"] == pytest.approx(0.3)
    assert summary["overall"] == pytest.approx(np.mean([0.5, 0.25, 0.5, 0.75, 0.75, 0.3, 0.2, 0.3]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_type": "object_colour"}, r"test.jsonl:0: question_type 'object_colour' is unknown"),
        ({"scene_name": "gone"}, r"test.jsonl:0: .*gone.mp4 is missing"),
        ({"scene_name": "../gone"}, r"leads out of the benchmark's folder"),
        ({"ground_truth": "C"}, r"the answer 'C' is none of the 2 options"),
        ({"options": None}, r"field 'options' must be list, found NoneType"),
        ({"options": ["A. left", 2]}, r"field 'options' must be a list of two texts"),
        (
            {"question_type": "object_counting", "ground_truth": "many"},
            r"'ground_truth' must be a number of at least 0",
        ),
        ({"question_type": "object_counting", "ground_truth": "inf"}, r"'ground_truth' must be a number of at least 0"),
        (
            {"question_type": "object_counting", "ground_truth": "-0.1"},
            r"'ground_truth' must be a number of at least 0",
        ),
        ({"question_type": "object_counting", "ground_truth": "nan"}, r"'ground_truth' must be a number of at least 0"),
    ],
)
def test_bad_rows_are_named(published, vectors, write_table, tmp_path, change, message):
    row = vectors("vsi_bench")["rows"][0]
    (tmp_path / "scannet").mkdir()
    (tmp_path / "scannet" / "scene0000_00.mp4").write_bytes(b"v")
    write_table(tmp_path / "test.jsonl", [row | change])
    with pytest.raises(ValueError, match=message):
        open_benchmark("vsi_bench", str(tmp_path)).items()


def test_renamed_fields_repeated_ids_and_unknown_protocols_are_errors(published, vectors, write_table, tmp_path):
    row = vectors("vsi_bench")["rows"][0]
    (tmp_path / "scannet").mkdir()
    (tmp_path / "scannet" / "scene0000_00.mp4").write_bytes(b"v")
    write_table(tmp_path / "test.jsonl", [{key.replace("question_", ""): value for key, value in row.items()}])
    with pytest.raises(ValueError, match=r"test.jsonl:0: field 'question_type' is missing"):
        open_benchmark("vsi_bench", str(tmp_path)).items()
    write_table(tmp_path / "test.jsonl", [row, row])
    with pytest.raises(ValueError, match="two items have the id '0'"):
        open_benchmark("vsi_bench", str(tmp_path)).items()
    with pytest.raises(ValueError, match="protocol 'strict' is unknown; choose from official"):
        open_benchmark("vsi_bench", str(tmp_path), "strict")


def test_numbers_that_are_none_score_nothing():
    benchmark = open_benchmark("vsi_bench", ".")
    item = Item("0", (), "", 4.0, "object_counting", "s")
    for reply in ("nan", "inf", "-inf", "about 4", "", "1e999"):
        assert benchmark.score(item, reply, Convention()) == Score(0.0, None)


def test_small_truths_are_truths_and_chance_is_that_of_one_to_ten(published, vectors, write_table, tmp_path):
    row = vectors("vsi_bench")["rows"][6]
    (tmp_path / row["dataset"]).mkdir()
    (tmp_path / row["dataset"] / f"{row['scene_name']}.mp4").write_bytes(b"v")
    write_table(tmp_path / "test.jsonl", [row | {"id": k, "ground_truth": g} for k, g in enumerate(("0", 0.5, 4))])
    benchmark = open_benchmark("vsi_bench", str(tmp_path))
    assert [item.truth for item in benchmark.items()] == [0.0, 0.5, 4.0]
    assert [benchmark.chance(item) for item in benchmark.items()] == pytest.approx(
        [0, 0, (0.1 + 0.6 + 1 + 0.6 + 0.1) / 10]
    )
