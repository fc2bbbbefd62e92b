"""Each reader reads as its harness does, its oddities included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemvlm.evaluation.choices import (
    cosmos_answer,
    first_capital,
    first_number,
    last_number,
    mimo_after_thought,
    mimo_boxed,
    mmsi_letter,
    number_in_words,
    thinking_in_space_number,
    thinking_in_space_word,
    vlmevalkit_option,
)

OPTIONS = {"A": "left", "B": "right", "C": "behind", "D": "in front"}


@pytest.mark.parametrize(
    ("reader", "cases"),
    [
        (thinking_in_space_word, {"B.": "B", "B) left": "B)", "The answer is B": "The", "": "", "B...\n x": "B..."}),
        (
            thinking_in_space_number,
            {"3 chairs": 3.0, "About 3": None, "1e3": 1000.0, "3.": 3.0, "nan": None, "inf": None},
        ),
        (mimo_boxed, {r"so \boxed{A}, no \boxed{\text{B}}": r"\text{B}", "B": "B", r"\boxed{": r"\boxed{"}),
        (mimo_after_thought, {"<think>A</think> B ": "B", "A": "A", "a</think>b</think>c": "c"}),
        (
            cosmos_answer,
            {
                "<answer> B </answer><answer>C</answer>": "B",
                "</answer><answer>\nA\n</answer>": "A",
                "<answer>B": None,
                "B": None,
            },
        ),
        (first_capital, {"the answer: B, not A": "B", "Apple": "A", "e": None}),
        (
            mmsi_letter,
            {"``B``": "B", "`C` or D": "C", "A bike is there: B": "B", "{D}": "D", "b": None, "E": None, "`x` B": None},
        ),
        (first_number, {"about 3.5 or 4": 3.5, "-.5": -0.5, "three": None}),
        (last_number, {"about 3.5 or 4.": 4.0, "none": None}),
        (
            number_in_words,
            {
                "twenty-one": 21,
                "three hundred": 300,
                "two thousand and five": 2005,
                "one hundred and twenty three": 123,
                "hundred": 100,
                "and": None,
                "": None,
                "chair": None,
            },
        ),
    ],
)
def test_a_reader_on_its_cases(reader: Callable[[str], object], cases: dict[str, object]) -> None:
    assert {reply: reader(reply) for reply in cases} == cases


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("The answer is B.", "B"),
        ("B because it stands near the wall", None),
        ("A or B", None),
        ("it is behind", "C"),
        ("left or right", None),
        ("I can't process this file.", "Z"),
        ("Z", "Z"),
        ("behind " * 20, None),
        ("Failed to obtain answer via API", None),
    ],
)
def test_vlmevalkits_rules(reply: str, letter: str | None) -> None:
    assert vlmevalkit_option(reply, OPTIONS) == letter


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=100))
def test_no_reply_is_too_strange(reply: str) -> None:
    for read in (thinking_in_space_number, mimo_boxed, mimo_after_thought, cosmos_answer, first_capital, mmsi_letter):
        read(reply)
    for read in (first_number, last_number, number_in_words, thinking_in_space_word):
        read(reply)
    vlmevalkit_option(reply, OPTIONS)
