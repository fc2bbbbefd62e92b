"""Conversations render as Qwen3-VL writes them, and replies are read back or count as not understood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemvlm.data.conversation import (
    CoordinateFormat,
    ImageSlot,
    Segment,
    normalise,
    parse,
    render,
    render_dialogue,
)
from gemvlm.sample import AnswerKind, Box, Point, Sample

fractions = st.floats(0, 1)


def text_of(parts: list[Segment | ImageSlot]) -> str:
    return "".join(f"[{part.index}]" if isinstance(part, ImageSlot) else part.text for part in parts)


def test_images_come_first_and_answers_are_supervised_to_the_newline(make_sample: Callable[..., Sample]) -> None:
    parts = render(make_sample("a"), [0, 1], CoordinateFormat(), system="Be brief.")
    assert text_of(parts) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|>[0]<|vision_end|>Where is mug 0?<|im_end|>\n"
        "<|im_start|>assistant\n(120, 340)<|im_end|>\n"
        "<|im_start|>user\nWhere is mug 1?<|im_end|>\n"
        "<|im_start|>assistant\n(120, 340)<|im_end|>\n"
    )
    supervised = [part.text for part in parts if isinstance(part, Segment) and part.supervised]
    assert supervised == ["(120, 340)", "<|im_end|>\n"] * 2


def test_every_frame_has_a_span_of_its_own(make_sample: Callable[..., Sample]) -> None:
    """A18: two videos, or images and a video, are all their frames, each between its own markers."""
    parts = render(make_sample("a", frames=5, turns=1), [0], CoordinateFormat())
    assert text_of(parts).count("<|vision_start|>[") == text_of(parts).count("]<|vision_end|>") == 5
    assert [part.index for part in parts if isinstance(part, ImageSlot)] == [0, 1, 2, 3, 4]


def test_placeholders_keep_their_place(make_sample: Callable[..., Sample]) -> None:
    sample = make_sample("a", frames=2, turns=1, question="First <image> then\n<image>\nwhat?")
    shown = text_of(render(sample, [0], CoordinateFormat()))
    assert "user\nFirst<|vision_start|>[0]<|vision_end|>then<|vision_start|>[1]<|vision_end|>what?<|im_end|>" in shown


def test_images_come_first_when_the_turn_that_placed_them_is_not_shown(make_sample: Callable[..., Sample]) -> None:
    sample = make_sample("a", turns=2)
    first = replace(sample.turns[0], question="<image>\nWhere?")
    sample = replace(sample, turns=(first, sample.turns[1]))
    assert "user\n<|vision_start|>[0]<|vision_end|>Where is mug 1?" in text_of(render(sample, [1], CoordinateFormat()))
    assert "user\nWhere?<|im_end|>" in text_of(render(sample, [1, 0], CoordinateFormat()))


def test_a_placeholder_mismatch_names_the_sample_and_the_counts(make_sample: Callable[..., Sample]) -> None:
    with pytest.raises(ValueError, match="sample 'a': questions hold 2 <image> but the sample has 3 frames"):
        render(make_sample("a", frames=3, turns=1, question="<image><image>?"), [0], CoordinateFormat())
    with pytest.raises(ValueError, match=r"sample 'a': .*<video>"):
        render(make_sample("a", frames=3, turns=1, question="<video>?"), [0], CoordinateFormat())


def test_a_prompt_with_other_placeholders_than_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="holds 1 <image> but 2 frames"):
        render_dialogue(2, [("Where <image>?", None)])
    with pytest.raises(ValueError, match="holds 1 <image> but 0 frames"):
        render_dialogue(1, [("What?", "A mug."), ("Where <image>?", None)])


def test_without_turns_only_the_images_are_shown(make_sample: Callable[..., Sample]) -> None:
    parts = render(make_sample("a", frames=2), [], CoordinateFormat())
    assert text_of(parts) == (
        "<|im_start|>user\n<|vision_start|>[0]<|vision_end|><|vision_start|>[1]<|vision_end|><|im_end|>\n"
    )


def test_a_prompt_ends_where_the_model_must_begin() -> None:
    parts = render_dialogue(1, [("What?", "A mug."), ("Where?", None)])
    assert text_of(parts).endswith("A mug.<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n")


@given(fractions, fractions)
def test_points_come_back_within_half_a_step(x: float, y: float) -> None:
    coordinates = CoordinateFormat(step=10)
    point = parse(coordinates.write(Point(x, y)), "point", coordinates=coordinates).value
    assert isinstance(point, Point)
    assert abs(point.x - x) <= 0.005 + 1e-9 and abs(point.y - y) <= 0.005 + 1e-9


@given(fractions, fractions, fractions, fractions)
def test_boxes_come_back_within_half_a_step(a: float, b: float, c: float, d: float) -> None:
    box = Box(min(a, b), min(c, d), max(a, b), max(c, d))
    back = parse(CoordinateFormat().write(box), "box").value
    assert isinstance(back, Box)
    assert max(abs(back.x0 - box.x0), abs(back.y1 - box.y1)) <= 0.0005 + 1e-9


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("(500, 250)", Point(0.5, 0.25)),
        ("It is at (500,250).", Point(0.5, 0.25)),
        ('```json\n[{"point_2d": [500, 250], "label": "mug"}]\n```', Point(0.5, 0.25)),
        ("[500, 250]<|im_end|>\n", Point(0.5, 0.25)),
        ("(500, 1250)", None),
        ("(-5, 20)", None),
        ("(1, 2, 3, 4)", None),
        ('{"point_2d": [500]}', None),
        ('{"point_2d": "here"}', None),
        ("on the left", None),
        ("", None),
    ],
)
def test_points_are_read_or_not_understood(reply: str, expected: Point | None) -> None:
    assert parse(reply, "point").value == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("(0, 100, 500, 1000)", Box(0.0, 0.1, 0.5, 1.0)),
        ('{"bbox_2d": [0, 100, 500, 1000], "label": "mug"}', Box(0.0, 0.1, 0.5, 1.0)),
        ("(500, 100, 0, 1000)", None),
        ("(0, 100)", None),
    ],
)
def test_boxes_are_read_or_not_understood(reply: str, expected: Box | None) -> None:
    assert parse(reply, "box").value == expected


@pytest.mark.parametrize(
    ("reply", "unit", "expected"),
    [
        ("0.35 m", "m", 0.35),
        ("35 cm", "m", 0.35),
        ("350 mm", "cm", 0.35),
        ("35", "cm", 0.35),
        ("about 0.35 metres.", "m", 0.35),
        ("0.5 m (50 cm)", "m", 0.5),
        ("3", None, 3.0),
        ("three mugs", None, 3.0),
        ("3 mugs", None, 3.0),
        ("-2.5", None, -2.5),
        ("between 1 and 2 m", "m", None),
        ("far away", "m", None),
    ],
)
def test_numbers_are_read_in_metres(reply: str, unit: str | None, expected: float | None) -> None:
    assert parse(reply, "number", unit=unit).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("Yes", True), ("no.", False), ("Yes, no doubt.", True), ("I say yes", True), ("maybe", None), ("yes/no", True)],
)
def test_yes_and_no(reply: str, expected: bool | None) -> None:
    assert parse(reply, "yes_no").value is expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("red mug", "red mug"),
        ("The Red Mug.", "red mug"),
        ("B", "blue box"),
        ("(b)", "blue box"),
        ("B. blue box", "blue box"),
        ("B) red mug", None),
        ("D", None),
        ("red", None),
        ("the red mug or the blue box", None),
    ],
)
def test_choices_are_exact_options_or_letters(reply: str, expected: str | None) -> None:
    assert parse(reply, "choice", options=("red mug", "blue box", "lamp")).value == expected


def test_text_is_compared_without_case_articles_and_punctuation() -> None:
    assert normalise(" The  Red\nMug. ") == "red mug"
    assert parse("A lamp!", "text").value == "lamp"
    assert parse(" ", "text").value is None


def test_a_step_must_divide_the_scale() -> None:
    assert len(CoordinateFormat(step=10).integers) == 101
    with pytest.raises(ValueError, match="step 7"):
        CoordinateFormat(step=7)


@given(st.lists(st.tuples(fractions, fractions), min_size=1, max_size=12))
def test_several_points_come_back_in_their_order(pairs: list[tuple[float, float]]) -> None:
    points = [Point(x, y) for x, y in pairs]
    written = ", ".join(CoordinateFormat().write(point) for point in points)
    back = parse(written, "points").value
    assert isinstance(back, tuple) and len(back) == len(points)
    assert max(abs(a.x - b.x) + abs(a.y - b.y) for a, b in zip(back, points, strict=True)) <= 0.001 + 1e-9
    assert parse(written, "trajectory").value == (back if len(points) > 1 else None)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("(500, 250) and (0, 1000)", (Point(0.5, 0.25), Point(0.0, 1.0))),
        ("[[500, 250], [0, 1000]]", (Point(0.5, 0.25), Point(0.0, 1.0))),
        ('[{"point_2d": [500, 250]}, {"point_2d": [0, 1000]}]', (Point(0.5, 0.25), Point(0.0, 1.0))),
        ("(500, 250), (500, 1001)", None),
        ("(500, 250), (1, 2, 3)", None),
        ("(1, 2), " * 65, None),
        ("nowhere", None),
    ],
)
def test_several_points_are_read_or_not_understood(reply: str, expected: tuple[Point, ...] | None) -> None:
    assert parse(reply, "points").value == expected


ENDLESS = {
    "a megabyte": "word " * 200_000,
    "a million numbers": "7 " * 1_000_000,
    "a long number": "9" * 15_000,
    "brackets": "(" * 19_000,
    "braces": "{" * 19_000,
    "nested json": '{"point_2d": ' + "[" * 15_000 + "]" * 4_000 + "}",
    "a large integer in json": '{"point_2d": [' + "9" * 6_000 + ", 1]}",
    "an infinite pair in json": '{"point_2d": [1e999, NaN]}',
    "a truth value in json": '{"point_2d": [true, false]}',
}


@pytest.mark.parametrize("kind", ["choice", "yes_no", "point", "points", "box", "trajectory"])
@pytest.mark.parametrize("name", ENDLESS)
def test_endless_replies_are_not_understood(kind: AnswerKind, name: str) -> None:
    assert parse(ENDLESS[name], kind, ("red mug", "blue can")).value is None


def test_what_comes_after_the_end_of_a_turn_is_not_read() -> None:
    assert parse("(500, 250)<|im_end|>" + "(1, 2) " * 100_000, "points").value == (Point(0.5, 0.25),)
