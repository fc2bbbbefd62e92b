"""BLINK: its published layout, its rule without the judge, and lmms-eval's."""

from __future__ import annotations

import pytest

from gemvlm.evaluation.benchmark import Score
from gemvlm.evaluation.benchmarks import open_benchmark


@pytest.fixture(scope="session")
def rows(vectors, jpeg):
    def images(number: int) -> dict:
        shown = 1 + number % 3
        pictures = [{"bytes": jpeg(10 * number + k), "path": None} if k < shown else None for k in range(4)]
        return {f"image_{k + 1}": picture for k, picture in enumerate(pictures)}

    return [row | images(number) for number, row in enumerate(vectors("blink")["rows"])]


@pytest.fixture(scope="session")
def published(tmp_path_factory, rows, write_table):
    folder = tmp_path_factory.mktemp("blink")
    for row in rows:
        write_table(folder / row["sub_task"] / "val-00000-of-00001.parquet", [row])
        write_table(folder / row["sub_task"] / "test-00000-of-00001.parquet", [row | {"answer": "hidden"}])
    return str(folder)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval"])
def test_scores_as_the_sources_do(published, protocol, vectors, rows, agrees):
    replies = vectors("blink")["replies"]
    assert len(replies) >= 1000
    benchmark = open_benchmark("blink", published, protocol)
    place = {item.id: number for number, item in enumerate(benchmark.items())}
    agrees(benchmark, [[place[rows[row]["idx"]], reply, scores] for row, reply, scores in replies])


@pytest.mark.parametrize("protocol", ["official", "lmms_eval"])
def test_the_oracle_is_right_and_guesses_score_as_chance_says(published, protocol, is_fair):
    is_fair(open_benchmark("blink", published, protocol))


def test_prompts_and_images_are_those_of_the_protocol(published):
    items = {item.category: item for item in open_benchmark("blink", published).items()}
    assert items["Counting"].prompt == (
        "Q of Counting?\nSelect from the following choices.\n(A) 3\n(B) 2\n(C) 0\n(D) 1"
    )
    assert (
        items["Counting"].max_new_tokens == 1024
        and len(items["Counting"].media) == 3
        and items["Counting"].id == "val_Counting_3"
    )
    noted = {item.category: item.prompt for item in open_benchmark("blink", published, "lmms_eval").items()}
    note = "Note: You only need to respond with A, B without providing any additional information.\nQ of"
    assert noted["Relative_Depth"].startswith(note)


def test_overall_is_the_mean_of_the_tasks(published):
    benchmark = open_benchmark("blink", published)
    items = [*benchmark.items(), benchmark.items()[0]]
    right = {"Relative_Depth": 1.0, "Counting": 0.5, "Multi-view_Reasoning": 0.0, "Visual_Correspondence": 1.0}
    summary = benchmark.summary(items, [Score(right.get(item.category, 0.0), "A") for item in items])
    assert summary["overall"] == pytest.approx(2.5 / 8)
    assert summary["depth_and_relation"] == 0.5 and summary["five_spatial"] == 0.5
    pair = [item for item in items if item.category in ("Relative_Depth", "Spatial_Relation")]
    assert benchmark.summary(pair, [Score(1.0, "A")] * len(pair))["depth_and_relation"] == 1.0
    assert "depth_and_relation" not in benchmark.summary(items[:1], [Score(1.0, "A")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sub_task": "Depth"}, r"Counting/val-0.parquet:0: sub_task 'Depth' is unknown"),
        ({"answer": "hidden"}, r"the answer '' is none of the 4 options"),
        ({"answer": "(A) x"}, r"the answer '' is none of the 4 options"),
        ({"answer": "(E)"}, r"the answer 'E' is none of the 4 options"),
        ({f"image_{k}": None for k in range(1, 5)}, r"fields image_1, image_2, image_3, image_4 hold no image"),
        ({"image_2": {"bytes": b"x", "path": None}}, r"not a picture"),
        ({"choices": ["3"]}, r"field 'choices' must be a list of two texts"),
    ],
)
def test_bad_rows_are_named(rows, write_table, tmp_path, change, message):
    write_table(tmp_path / "Counting" / "val-0.parquet", [rows[2] | change])
    with pytest.raises(ValueError, match=message):
        open_benchmark("blink", str(tmp_path)).items()


def test_all_fourteen_tasks_are_known(rows, write_table, tmp_path):
    tasks = [
        "Art_Style", "Counting", "Forensic_Detection", "Functional_Correspondence", "IQ_Test", "Jigsaw",
        "Multi-view_Reasoning", "Object_Localization", "Relative_Depth", "Relative_Reflectance",
        "Semantic_Correspondence", "Spatial_Relation", "Visual_Correspondence", "Visual_Similarity",
    ]  # fmt: skip
    for task in tasks:
        write_table(tmp_path / task / "val-0.parquet", [rows[2] | {"sub_task": task, "idx": task}])
    assert [item.category for item in open_benchmark("blink", str(tmp_path)).items()] == tasks
