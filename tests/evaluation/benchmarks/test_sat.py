"""SAT on real pictures: its published layout, its rule and lmms-eval's."""

from __future__ import annotations

import pytest

from gemvlm.evaluation.benchmarks import open_benchmark
from gemvlm.evaluation.benchmarks.sat import sat_text


@pytest.fixture(scope="session")
def rows(vectors, jpeg):
    return [
        row | {"image_bytes": [jpeg(10 * number + k) for k in range(1 + number % 2)]}
        for number, row in enumerate(vectors("sat")["rows"])
    ]


@pytest.fixture(scope="session")
def published(tmp_path_factory, rows, write_table):
    folder = tmp_path_factory.mktemp("sat")
    write_table(folder / "SAT_test.parquet", rows)
    write_table(folder / "SAT_val.parquet", rows[:1])
    return str(folder)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval"])
def test_scores_as_the_sources_do(published, protocol, vectors, agrees):
    replies = vectors("sat")["replies"]
    assert len(replies) >= 1000
    agrees(open_benchmark("sat", published, protocol), replies)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval"])
def test_the_oracle_is_right_and_guesses_score_as_chance_says(published, protocol, is_fair):
    is_fair(open_benchmark("sat", published, protocol))


def test_prompts_are_those_of_the_protocol(published, rows):
    first = open_benchmark("sat", published).items()[2]
    assert first.prompt == (
        "I need to go to the sofa. Which way should I turn? Choose between the following options: "
        f"{first.options[0]}, or {first.options[1]}. Please answer just one of the options and no other text."
    )
    lettered = open_benchmark("sat", published, "lmms_eval").items()[2]
    assert lettered.prompt.startswith("I need to go to the sofa. Which way should I turn?\nWhen multiple images")
    assert lettered.prompt.endswith(
        "answer the question.\n\nA. left\nB. right\n\nOnly output the letter of the correct option and nothing else."
    )
    assert (first.max_new_tokens, lettered.max_new_tokens) == (300, 16)
    assert lettered.truth == "B" and len(open_benchmark("sat", published).items()[1].media) == 2


def test_choices_are_shuffled_alike_in_every_run_and_the_truth_moves_along(rows, write_table, tmp_path):
    many = [rows[0] | {"question": f"Where ({number})?"} for number in range(200)]
    write_table(tmp_path / "SAT_test.parquet", many)
    items, again = open_benchmark("sat", str(tmp_path)).items(), open_benchmark("sat", str(tmp_path)).items()
    assert [item.options for item in items] == [item.options for item in again]
    assert all(item.options[ord(item.truth) - ord("A")] == "rotated left" for item in items)
    assert "".join(item.truth for item in items[:12]) == "BBAABBBBAABA"
    assert 70 < sum(item.truth == "A" for item in items) < 130
    assert {item.truth for item in open_benchmark("sat", str(tmp_path), "lmms_eval").items()} == {"A"}


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (" Left ", "left"),
        ("left.", "left."),
        ("answer: left or so", "left"),
        ("answer:left", None),
        ("It is located right of me", "right"),
        ("1. left", "left"),
        ("chair (highlighted by a box)", "chair"),
    ],
)
def test_replies_are_rewritten_as_the_script_does(reply, text):
    assert sat_text(reply) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct_answer": "up"}, r"SAT_test.parquet:0: correct_answer 'up' must be one of the answers"),
        ({"answers": ["left", "left"], "correct_answer": "left"}, r"correct_answer 'left' must be one of"),
        ({"image_bytes": []}, r"field 'image_bytes' is empty"),
        ({"image_bytes": [b"no"]}, r"not a picture"),
        ({"question_type": None}, r"field 'question_type' must be str, found NoneType"),
    ],
)
def test_bad_rows_are_named(rows, write_table, tmp_path, change, message):
    write_table(tmp_path / "SAT_test.parquet", [rows[0] | change])
    with pytest.raises(ValueError, match=message):
        open_benchmark("sat", str(tmp_path)).items()
