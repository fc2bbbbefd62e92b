"""Published text: who speaks, where pictures stand, options, answers, coordinates."""

from __future__ import annotations

import time

import numpy as np
import pytest

from gemvlm.curation.sources.choices import listed_options, matched
from gemvlm.curation.sources.conversations import (
    TurnRules,
    file_names,
    lay_out,
    make_turn,
    read_conversation,
    read_text,
)
from gemvlm.curation.sources.places import Coordinates, with_places
from gemvlm.curation.sources.records import RecordError
from gemvlm.sample import Box, Frame, Place, Point

FRAME = Frame(np.zeros((50, 100, 3), np.uint8))


def talk(*said: str, names: tuple[str, str] = ("human", "gpt")) -> list[dict[str, str]]:
    return [{"from": names[index % 2], "value": text} for index, text in enumerate(said)]


def reason(call, *args, **options) -> str:
    with pytest.raises(RecordError) as error:
        call(*args, **options)
    return error.value.reason


def test_speakers_have_many_names_and_one_order() -> None:
    said = read_conversation({"conversations": [{"from": "system", "value": "Be brief."}, *talk("a", "b", "c", "d")]})
    assert (said.system, said.exchanges) == ("Be brief.", (("a", "b"), ("c", "d")))
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert read_conversation({"messages": messages}).exchanges == (("a", "b"),)
    parts = [{"type": "video", "video": "v.mp4"}, {"type": "text", "text": "What?"}]
    said = read_conversation({"messages": [{"role": "user", "content": parts}, messages[1]]})
    assert (said.exchanges, said.videos) == ((("<video>What?", "b"),), ("v.mp4",))
    for wrong in (talk("a"), talk("a", "b", "c"), talk("a", "b", names=("gpt", "human")), [talk("a", "b")[0]] * 2):
        assert reason(read_conversation, {"conversations": wrong}) == "speakers"
    assert reason(read_conversation, {"conversations": [{"from": "robot", "value": "a"}]}) == "speakers"
    assert reason(read_conversation, {"conversations": []}) == "no_conversation"
    assert reason(read_conversation, {"text": "a"}) == "no_conversation"
    assert reason(read_conversation, {"conversations": talk("a", " ")}) == "empty_answer"


def test_text_that_would_break_later_is_refused() -> None:
    assert reason(read_text, 3, "value") == "bad_text"
    assert reason(read_text, "half a \ud800", "value") == "bad_text"
    assert reason(read_text, "at <place:0>", "value") == "place_marker"
    assert file_names({"image": ["a", "b"]}, "image") == ("a", "b")
    assert file_names({"image": None}, "image") == ()
    assert reason(file_names, {"image": [1]}, "image") == "bad_path"


def test_a_record_names_a_thousand_files_at_most() -> None:
    assert len(file_names({"image": ["a.png"] * 1000}, "image")) == 1000
    assert reason(file_names, {"image": ["a.png"] * 1001}, "image") == "too_many_files"
    asked = [{"type": "image", "image": "a.png"}] * 1001
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": "So many."}]
    assert reason(read_conversation, {"messages": messages}) == "too_many_files"


def test_tags_take_files_in_their_order() -> None:
    exchanges = (("<video> and <image>?", "a"), ("more?", "b"))
    laid, frames = lay_out(exchanges, [FRAME], [[FRAME, FRAME]])
    assert laid == (("<image><image> and <image>?", "a"), ("more?", "b"))
    assert len(frames) == 3
    assert reason(lay_out, exchanges, [FRAME], []) == "placeholders"
    assert reason(lay_out, (("a", "b"),), [FRAME]) == "placeholders"
    assert reason(lay_out, (("a", "b"), ("<image>c", "d")), [FRAME]) == "late_placeholder"
    assert lay_out((("a", "b"),), [FRAME], tags="optional")[1] == (FRAME,)


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Which? (A) the left one (B) the right one", ("the left one", "the right one")),
        ("Which?\nA. left\nB. right\nC. none\nAnswer with a letter.", ("left", "right", "none")),
        ("Which? A. left B. right", ("left", "right")),
        ("Options:\n A) yes, it is\n B) no", ("yes, it is", "no")),
        ("Which? (A) left (C) right", ()),
        ("Plan A. is good", ()),
        ("What colour?", ()),
    ],
)
def test_listed_options(question: str, options: tuple[str, ...]) -> None:
    assert listed_options(question) == options


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        ("B", ("A", "B")),
        ("(b)", ("(a)", "(b)")),
        ("B. right", ("A. left", "B. right")),
        ("(B) Right.", ("(A) left.", "(B) Right.")),
        ("Right", ("left", "Right")),
    ],
)
def test_options_are_written_as_the_answer_is(answer: str, options: tuple[str, ...]) -> None:
    assert matched(answer, ("left", "right")) == (answer, options)


def test_an_option_that_is_not_there_is_never_the_first() -> None:
    for answer in ("C", "(D)", "A. right", "B) left", "up"):
        assert reason(matched, answer, ("left", "right")) == "option_not_found"
    assert matched("Because of the light.", ("left", "right"), required=False) is None
    assert reason(matched, "C", ("left", "right"), required=False) == "option_not_found"
    assert reason(matched, "left", ("left", "Left.")) == "options_alike"
    rules = TurnRules("f", choices="required")
    assert reason(make_turn, "What colour?", "red", rules, None) == "no_options"


@pytest.mark.parametrize(
    ("text", "coordinates", "marked", "places"),
    [
        ("(0.407, 0.852)", Coordinates("fractions"), "<place:0>", [Point(0.407, 0.852)]),
        ("[(0.1, .2), (1, 0)]", Coordinates("fractions"), "[<place:0>, <place:1>]", [Point(0.1, 0.2), Point(1.0, 0.0)]),
        ("at (40.7, 85) %", Coordinates("percent"), "at <place:0> %", [Point(0.407, 0.85)]),
        ("[100, 200, 300, 400]", Coordinates("thousandths"), "<place:0>", [Box(0.1, 0.2, 0.3, 0.4)]),
        ("(10, 20, 30, 10)", Coordinates("pixels", "xywh"), "<place:0>", [Box(0.1, 0.4, 0.4, 0.6)]),
        ("(100.4, -0.5)", Coordinates("pixels"), "<place:0>", [Point(1.0, 0.0)]),
        (
            '```json\n[{"bbox_2d": [0, 0, 10, 20], "label": "mug"}, {"point_2d": [1, 2]}]\n```',
            Coordinates("thousandths"),
            "mug <place:0>, <place:1>",
            [Box(0.0, 0.0, 0.01, 0.02), Point(0.001, 0.002)],
        ),
        ("both (2, 3)", Coordinates("fractions", prose=False), "both (2, 3)", []),
        ("no numbers (x1, y1)", Coordinates("fractions"), "no numbers (x1, y1)", []),
    ],
)
def test_coordinates_become_markers(text: str, coordinates: Coordinates, marked: str, places: list[Place]) -> None:
    found: list[Place] = []
    assert with_places(text, coordinates, (50, 100), found) == marked
    for place, expected in zip(found, places, strict=True):
        assert vars(place) == pytest.approx(vars(expected))


def test_places_outside_the_image_are_refused() -> None:
    def convert(text: str, scale, boxes="xyxy") -> None:
        with_places(text, Coordinates(scale, boxes), (50, 100), [])

    assert reason(convert, "(1.006, 0.5)", "fractions") == "point_outside"
    assert reason(convert, "(1006, 6)", "thousandths") == "point_outside"
    assert reason(convert, "(5, 51)", "pixels") == "point_outside"
    assert reason(convert, "(0.5, 0.5, 0.4, 0.6)", "fractions") == "box_inside_out"
    convert("(1.004, 0.5)", "fractions")
    with_places("(0.7, 0.5, 0.311, 0.1)", Coordinates("fractions", "xywh", slack=0.02), (5000, 5000), [])


def test_undeclared_coordinates_stay_text() -> None:
    turn = make_turn("Where?", "(0.4, 0.5)", TurnRules("f"), (50, 100))
    assert (turn.kind, turn.answer, turn.places) == ("text", "(0.4, 0.5)", ())


@pytest.mark.parametrize(
    "piece",
    [
        "(A) ",
        " ",
        "\n",
        "(",
        "(1",
        "1",
        "A. ",
        "\nA. ",
        "```",
        "coordinates should be between ",
        "[{",
        "(A)",
        "1, ",
        "(0.1, ",
    ],
)
def test_no_text_takes_long_to_read(piece: str) -> None:
    """Time grows with the length of a text, not with its square: a quarter of a million characters take a moment."""
    text = "(A) a (B) " + piece * ((1 << 18) // len(piece)) + "x"
    start = time.process_time()
    for question, answer in ((text, "A"), ("Where?", text), (text + " A. b B. c", "A" + " " * 100_000 + "x")):
        try:
            make_turn(question, answer, TurnRules("f", coordinates=Coordinates("fractions")), (50, 100))
        except RecordError:
            continue
    assert time.process_time() - start < 2
