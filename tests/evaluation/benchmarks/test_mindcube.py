"""MindCube: its published layout, its rule and those of two harnesses."""

from __future__ import annotations

import pytest

from gemvlm.evaluation.benchmark import Convention, Score
from gemvlm.evaluation.benchmarks import open_benchmark
from gemvlm.evaluation.benchmarks.mindcube import options_in


def publish(folder, rows, jpeg, write_table, name="MindCube_tinybench"):
    write_table(folder / "raw" / f"{name}.jsonl", rows)
    for row in rows:
        for number, path in enumerate(row["images"]):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(jpeg(number))


@pytest.fixture(scope="session")
def rows(vectors):
    return vectors("mindcube")["rows"]


@pytest.fixture(scope="session")
def published(tmp_path_factory, rows, jpeg, write_table):
    folder = tmp_path_factory.mktemp("mindcube")
    publish(folder / "data", rows, jpeg, write_table)
    publish(folder / "data", rows[:2], jpeg, write_table, "MindCube")
    return str(folder)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval", "vlmevalkit"])
def test_scores_as_the_sources_do(published, protocol, vectors, agrees):
    replies = vectors("mindcube")["replies"]
    assert len(replies) >= 1000
    agrees(open_benchmark("mindcube", published, protocol), replies)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval", "vlmevalkit"])
def test_the_oracle_is_right_and_guesses_score_as_chance_says(published, protocol, is_fair):
    is_fair(open_benchmark("mindcube", published, protocol))


def test_the_folder_is_the_unpacked_one_or_its_parent_and_full_is_a_protocol(published):
    assert len(open_benchmark("mindcube", f"{published}/data").items()) == 6
    assert len(open_benchmark("mindcube", published, "lmms_eval/full").items()) == 2


def test_items_are_as_published(published):
    benchmark = open_benchmark("mindcube", published)
    items = benchmark.items()
    assert items[0].prompt.startswith("[Task]\nYour task is to analyze the spatial arrangement of objects in the scene")
    assert items[0].prompt.endswith(
        "your response should **only** be '<answer>A. Above</answer>'.\n\n[Question]\n"
        "Where is the bed? A. Above B. Under C. Front D. Behind"
    )
    assert items[0].options == ("Above", "Under", "Front", "Behind") and len(items[0].media) == 4
    assert items[0].max_new_tokens == 4096
    assert items[0].scene == "other_all_image/among/among_group001_q0_1"
    assert benchmark.oracle(items[0], Convention()) == "<answer>C. Front</answer>"
    assert [item.category for item in items] == ["among", "rotation", "around", "around", "translation", "other"]


def test_overall_counts_questions_alike(published):
    benchmark = open_benchmark("mindcube", published)
    items = benchmark.items()
    summary = benchmark.summary(items, [Score(value, "A") for value in (1.0, 0.0, 1.0, 0.0, 1.0, 1.0)])
    assert summary["overall"] == pytest.approx(4 / 6) and summary["around"] == 0.5


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Is plan A. or so? A. x y B. z", ("x y", "z")),
        ("Which? A. Above\nB. Under\nC. U.S.A. flag", ("Above", "Under", "U.S.A. flag")),
        ("Is it A) or B) there? A. x B. y", ("x", "y")),
        ("A. x B) y", ("x B) y",)),
        ("None here", ()),
        ("A. only D. skipped", ("only D. skipped",)),
    ],
)
def test_options_are_read_from_the_question(question, options):
    assert options_in(question) == options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gt_answer": "E"}, r"raw/MindCube_tinybench.jsonl:0: the answer 'E' is none of the 4 options"),
        ({"question": "Where is the bed?"}, r"the answer 'C' is none of the 0 options"),
        ({"images": []}, r"field 'images' is empty"),
        ({"images": ["other_all_image/gone.jpg"]}, r"other_all_image/gone.jpg is missing"),
        ({"images": ["/etc/passwd"]}, r"leads out of the benchmark's folder"),
        ({"id": 7}, r"field 'id' must be str, found int 7"),
    ],
)
def test_bad_rows_are_named(rows, jpeg, write_table, tmp_path, change, message):
    publish(tmp_path, rows[:1], jpeg, write_table)
    write_table(tmp_path / "raw" / "MindCube_tinybench.jsonl", [rows[0] | change])
    with pytest.raises(ValueError, match=message):
        open_benchmark("mindcube", str(tmp_path)).items()


def test_settings_are_found_in_ids_of_any_case(rows, jpeg, write_table, tmp_path):
    publish(tmp_path, [rows[0] | {"id": "AMONG_group1_around"}, rows[0] | {"id": "Rotation_among"}], jpeg, write_table)
    assert [item.category for item in open_benchmark("mindcube", str(tmp_path)).items()] == ["around", "rotation"]
