"""Places are read from every published form, by the model's convention and never by a guess."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gemvlm.evaluation.benchmark import Convention, Media
from gemvlm.evaluation.coordinates import (
    Places,
    from_fractions,
    read_places,
    size_of,
    to_fractions,
    write_box,
    write_points,
)

THOUSAND, FRACTION, PIXEL = Convention(), Convention("fraction"), Convention("pixel")
SIZE = (640, 480)


@pytest.mark.parametrize(
    "reply",
    [
        "(250, 500)",
        "[(250, 500)]",
        "[250, 500]",
        "[[250, 500]]",
        "It is at ( 250 ,500 ), I think.",
        '[{"point_2d": [250, 500], "label": "cup"}]',
        '```json\n[\n {"point_2d": [250, 500], "label": "(1, 2)"}\n]\n```',
        '{"point": [250, 500]}',
        '{"points": [[250, 500]]}',
        "<point>(250, 500)</point>",
        "<point>[[250, 500]]</point>",
        '<point x="250" y="500" alt="cup">cup</point>',
        "<|point_start|>(250,500)<|point_end|>",
        "250, 500",
        "250 500.",
        "<think>(1, 1) or (2, 2)?</think> (250, 500)",
        '{"box": "none"} [{"point_2d": [250, 500]}]',
    ],
)
def test_a_point_in_every_published_form(reply: str) -> None:
    assert read_places(reply, THOUSAND, SIZE) == Places(points=((0.25, 0.5),))


@pytest.mark.parametrize(
    "reply",
    [
        "[100, 200, 300, 400]",
        "(100, 200, 300, 400)",
        '[{"bbox_2d": [100, 200, 300, 400], "label": "cup"}]',
        '{"box_2d": [100, 200, 300, 400]}',
        "<|box_start|>(100,200),(300,400)<|box_end|>",
        "<box>[[100, 200, 300, 400]]</box>",
        "100 200 300 400",
    ],
)
def test_a_box_in_every_published_form(reply: str) -> None:
    assert read_places(reply, THOUSAND, SIZE) == Places(boxes=((0.1, 0.2, 0.3, 0.4),))


def test_several_places_keep_their_order() -> None:
    assert read_places("[(0, 0), (1000, 500)] and (5, 5, 5)", THOUSAND, SIZE).points == ((0, 0), (1, 0.5))
    assert read_places('<points x1="10" y1="20" x2="30" y2="40">', Convention("hundred"), SIZE).points == (
        (0.1, 0.2),
        (0.3, 0.4),
    )


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "nowhere",
        "(3)",
        "1 2 3",
        "[(a, b)]",
        "{" * 40_000,
        "(1, 2, 3)",
        "[" * 49_000,
        "(" + "1" * 49_000,
        "(1, " * 9_000,
    ],
)
def test_what_names_no_place_gives_none(reply: str) -> None:
    assert read_places(reply, THOUSAND, SIZE) == Places()


@pytest.mark.parametrize(
    ("convention", "reply", "point"),
    [
        (FRACTION, "(0.25, 0.5)", (0.25, 0.5)),
        (FRACTION, "(0, 1)", (0.0, 1.0)),
        (PIXEL, "(160, 240)", (0.25, 0.5)),
        (Convention("hundred"), "(25.0, 50.0)", (0.25, 0.5)),
        (Convention("thousand", "yx"), '{"point": [500, 250]}', (0.25, 0.5)),
    ],
)
def test_the_convention_is_the_models(convention: Convention, reply: str, point: tuple[float, float]) -> None:
    assert read_places(reply, convention, SIZE) == Places(points=(point,))


@pytest.mark.parametrize(
    ("convention", "reply"),
    [
        (THOUSAND, "(0.25, 0.5)"),
        (PIXEL, "(0.25, 0.5)"),
        (FRACTION, "(250, 500)"),
        (THOUSAND, "(1200, 30)"),
        (THOUSAND, "(-1, 30)"),
        (PIXEL, "(30, 500)"),
        (Convention("pixel", "yx"), "(500, 30)"),
        (THOUSAND, '{"bbox_2d": [0.1, 0.2, 0.3, 0.4]}'),
    ],
)
def test_another_convention_is_counted_and_not_converted(convention: Convention, reply: str) -> None:
    places = read_places(reply, convention, SIZE)
    assert places.outside == 1
    (values,) = (*places.points, *places.boxes)
    assert not all(0.01 < value < 1 for value in values), "read as written, it is no place inside the image"


def test_small_numbers_of_a_convention_are_not_suspected() -> None:
    for convention, reply in (
        (THOUSAND, "(1, 0)"),
        (THOUSAND, "(0.5, 700)"),
        (FRACTION, "(1, 0)"),
        (PIXEL, "(0.0, 0.0)"),
    ):
        assert read_places(reply, convention, SIZE).outside == 0


conventions = st.builds(
    Convention, st.sampled_from(["fraction", "hundred", "thousand", "pixel"]), st.sampled_from(["xy", "yx"])
)
fraction = st.floats(0, 1)


@settings(max_examples=150, deadline=None)
@given(
    conventions,
    st.lists(st.tuples(fraction, fraction), min_size=1, max_size=5),
    st.tuples(fraction, fraction, fraction, fraction),
)
def test_what_is_written_is_read_back(convention: Convention, points: list, box: tuple) -> None:
    read = read_places(write_points(points, convention, SIZE), convention, SIZE)
    tolerance = 0.0015
    assert np.array(read.points) == pytest.approx(np.array(points), abs=tolerance)
    assert read.outside <= sum(max(point) <= 0.01 for point in points)  # there decimals look like fractions
    assert read_places(write_box(box, convention, SIZE), convention, SIZE).boxes[0] == pytest.approx(box, abs=tolerance)
    assert to_fractions([float(v) for v in from_fractions(box, convention, SIZE)], convention, SIZE) == pytest.approx(
        box, abs=tolerance
    )


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789.,-+eE()[]{}<>/ \"'xypointbox_2d:|\n", max_size=200), conventions)
def test_no_reply_is_too_strange(reply: str, convention: Convention) -> None:
    read_places(reply, convention, SIZE)


def test_the_size_of_a_picture_is_in_its_head() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (31, 17)).save(buffer, "PNG")
    assert size_of(Media(buffer.getvalue())) == (31, 17)
    with pytest.raises(ValueError, match="can't be read"):
        size_of(Media(b"no"))
