"""ERQA: its layout on the hub, its rule and lmms-eval's, and where its images stand."""

from __future__ import annotations

import pytest

from gemvlm.evaluation.benchmarks import open_benchmark
from gemvlm.evaluation.benchmarks.erqa import with_images


@pytest.fixture(scope="session")
def rows(vectors, jpeg):
    return [
        {key: value for key, value in row.items() if key != "n"}
        | {"images": [{"bytes": jpeg(10 * number + k), "path": None} for k in range(row["n"])]}
        for number, row in enumerate(vectors("erqa")["rows"])
    ]


@pytest.fixture(scope="session")
def published(tmp_path_factory, rows, write_table):
    folder = tmp_path_factory.mktemp("erqa")
    write_table(folder / "data" / "test-00000-of-00001.parquet", rows)
    return str(folder)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval"])
def test_scores_as_the_sources_do(published, protocol, vectors, agrees):
    replies = vectors("erqa")["replies"]
    assert len(replies) >= 1000
    agrees(open_benchmark("erqa", published, protocol), replies)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval"])
def test_the_oracle_is_right_and_guesses_score_as_chance_says(published, protocol, is_fair):
    is_fair(open_benchmark("erqa", published, protocol))


def test_images_stand_where_the_row_says(published, rows):
    items = open_benchmark("erqa", published).items()
    assert items[0].max_new_tokens == 1024 and items[4].category == "Spatial Reasoning" and items[4].id == "ERQA_5"
    assert items[4].prompt == rows[4]["question"]
    assert items[0].prompt == rows[0]["question"] and "<image>" not in items[1].prompt and len(items[1].media) == 2
    assert items[2].prompt.startswith("<image>Look here:<image> what is it (2)?")
    pictures = [image["bytes"] for image in rows[2]["images"]]
    assert [media.content for media in items[2].media] == pictures[::-1]
    assert items[3].prompt.startswith("<image>Look here:<image><image> what is it (3)?")
    first = open_benchmark("erqa", published, "lmms_eval").items()[2]
    assert first.prompt == rows[2]["question"] and [media.content for media in first.media] == pictures


def test_marks_past_the_end_are_at_the_end():
    assert with_images("ab", [0, 1, 9]) == "<image>a<image>b<image>"
    assert with_images("ab", [1]) == "a<image>b"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "E"}, r"data/test-0.parquet:0: the answer 'E' is none of the 4 options"),
        ({"images": []}, r"field 'images' is empty"),
        ({"visual_indices": [0, 3]}, r"visual_indices \[0, 3\] must be a place .* each of 1 images"),
        ({"visual_indices": [-1]}, r"visual_indices \[-1\] must be"),
        ({"visual_indices": None}, r"field 'visual_indices' must be list, found NoneType"),
        ({"images": [{"bytes": b"no", "path": None}]}, r"not a picture"),
        ({"question": "Is <image> or <image> it?"}, r"marks 2 places of images and has 1"),
    ],
)
def test_bad_rows_are_named(rows, write_table, tmp_path, change, message):
    write_table(tmp_path / "data" / "test-0.parquet", [rows[0] | change])
    with pytest.raises(ValueError, match=message):
        open_benchmark("erqa", str(tmp_path)).items()
