"""Pictures, curves and the report."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemvlm.figure import (
    DepthRow,
    Exchange,
    Report,
    Score,
    colour_depth,
    depth_panel,
    draw_points_boxes,
    enlarge,
    error_map,
    loss_curves,
    png_bytes,
)

GREYS = {(150, 150, 150), (196, 196, 196)}


def ramp(height: int = 12, width: int = 16) -> np.ndarray:
    return np.linspace(0.5, 2.0, height * width, dtype=np.float32).reshape(height, width)


def test_near_is_warm_and_far_is_cool() -> None:
    picture = colour_depth(ramp()).astype(int)
    assert picture[0, 0, 0] > picture[0, 0, 2]
    assert picture[-1, -1, 2] > picture[-1, -1, 0]


def test_invalid_and_non_finite_pixels_are_hatched_grey_and_do_not_move_the_scale() -> None:
    depth, valid = ramp(), np.ones((12, 16), bool)
    plain = colour_depth(depth)
    spoiled = depth.copy()
    spoiled[3, 3], spoiled[5, 5], valid[3, 3] = 1e9, np.nan, False
    picture = colour_depth(spoiled, valid)
    assert tuple(picture[3, 3]) in GREYS and tuple(picture[5, 5]) in GREYS
    assert np.abs(picture[8:].astype(int) - plain[8:]).max() <= 8


def test_a_picture_without_any_valid_pixel_is_all_grey() -> None:
    picture = colour_depth(ramp(), np.zeros((12, 16), bool))
    assert {tuple(colour) for colour in picture.reshape(-1, 3).tolist()} <= GREYS


def test_constant_depth_is_painted_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    assert colour_depth(np.full((4, 4), 2.0, np.float32)).shape == (4, 4, 3)
    assert not recwarn.list


def test_given_limits_make_pictures_comparable() -> None:
    whole = colour_depth(ramp(), None, 0.5, 2.0)
    part = colour_depth(ramp()[:4], None, 0.5, 2.0)
    np.testing.assert_array_equal(whole[:4], part)


def test_error_map_is_dark_where_right_bright_where_wrong_and_grey_where_unknown() -> None:
    true = np.full((4, 4), 2.0, np.float32)
    generated = true.copy()
    generated[0, 0], true[3, 3] = 3.0, 0.0
    picture = error_map(generated, true)
    assert picture[1, 1].sum() < 20
    assert picture[0, 0].sum() > 500
    assert tuple(picture[3, 3]) in GREYS


def test_marks_lie_where_the_fractions_say() -> None:
    image = np.full((96, 96, 3), 200, np.uint8)
    marked = draw_points_boxes(image, [(0.25, 0.75)], [(0.5, 0.25, 0.9, 0.5)], side=480)
    assert marked.shape == (480, 480, 3)
    assert tuple(marked[360, 120]) == (230, 57, 70)
    changed = np.argwhere((marked != 200).any(axis=-1) & (np.arange(480)[None] > 200))
    assert changed.min(axis=0) == pytest.approx([120, 240], abs=3)
    assert changed.max(axis=0) == pytest.approx([240, 432], abs=3)


def test_places_of_one_label_have_one_colour() -> None:
    image = np.full((480, 480, 3), 200, np.uint8)
    marked = draw_points_boxes(image, [(0.2, 0.2), (0.5, 0.5), (0.8, 0.8)], labels=["true", "said", "true"])
    first, second, third = (tuple(marked[at, at]) for at in (96, 240, 384))
    assert first == third != second


def test_marks_at_the_border_and_boxes_inside_out_are_drawn() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    marked = draw_points_boxes(image, [(0.0, 0.0), (1.0, 1.0)], [(0.9, 0.9, 0.1, 0.1)], ["a", "a long name", "b"])
    assert marked.any()


def test_enlarging_repeats_pixels_and_leaves_large_images_alone() -> None:
    small = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(enlarge(small, 6)[::3, ::3], small)
    assert enlarge(np.zeros((500, 400, 3), np.uint8), 240).shape == (500, 400, 3)


def test_a_panel_shows_truth_only_where_there_is_one() -> None:
    image = np.zeros((12, 16, 3), np.uint8)
    full, bare = DepthRow(image, ramp(), ramp(), aligned=True), DepthRow(image, ramp())
    assert full.headings() == ("Image", "True depth", "Generated, aligned", "Error: dark 0, pale 20%")
    assert len(bare.pictures()) == len(bare.headings()) == 2
    panel = depth_panel([full, bare], side=48)
    assert panel.width > 4 * 48 and panel.height > 2 * 36
    with pytest.raises(ValueError, match="no rows"):
        depth_panel([])


def test_a_row_is_coloured_by_its_truth() -> None:
    """A generated depth of another scale must look wrong."""
    _, true, generated, _ = DepthRow(np.zeros((12, 16, 3), np.uint8), ramp() * 3, ramp()).pictures()
    assert (true != generated).any()
    assert len(np.unique(generated.reshape(-1, 3), axis=0)) < len(np.unique(true.reshape(-1, 3), axis=0))


def records(count: int = 60) -> list[dict[str, object]]:
    return [
        {"step": i, "stage": "joint" if i > 30 else "warm up", "loss/text": 3 / (i + 1), "images_per_s": 9.0}
        | ({"loss/depth": 1.0} if i > 30 else {})
        for i in range(count)
    ]


def test_loss_curves_draw_each_loss_and_name_the_stages() -> None:
    svg = loss_curves(records()).decode()
    assert ">text<" in svg and ">depth<" in svg and ">joint<" in svg
    assert "images" not in svg
    assert svg == loss_curves(records()).decode()
    with Image.open(io.BytesIO(loss_curves(records(), ["loss/text"], file_format="png"))) as picture:
        assert picture.size[0] > 300


def test_loss_curves_without_losses_say_what_is_missing() -> None:
    with pytest.raises(ValueError, match="none of 2 records"):
        loss_curves([{"step": 1}, {"step": 2}])


class Checker(HTMLParser):
    """Every tag is closed in its order, and every address stays inside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def full_report() -> Report:
    evil = "<script>alert('x')</script> & \"quotes\""
    picture = np.zeros((8, 8, 3), np.uint8)
    report = Report(f"Title {evil}", f"Sub {evil}")
    report.heading(f"Section {evil}")
    report.subheading(evil)
    report.text(f"A **bold** `code` {evil}\n\n- one {evil}\n- two")
    report.facts([(evil, evil, evil)])
    report.table([evil, "n"], [[evil, 3], ["b", 1.23456]], evil)
    report.scores([Score(evil, 0.9, 0.85, 0.95, {evil: 0.5}, 0.85, 1200, note=evil)], evil)
    report.scores([Score("AbsRel", 0.2, 0.1, float("nan"), {"constant": 0.4}, 0.1, better="lower")], percent=False)
    report.figure(picture, evil)
    report.gallery([(Image.fromarray(picture), evil), (loss_curves(records()), evil)], evil)
    report.picture_table(["a", evil], [(evil, [picture, png_bytes(picture)])], evil)
    report.conversation(picture, [Exchange(evil, evil, evil, False), Exchange("q", "", "t", True)], evil)
    report.details(evil, evil)
    return report


def test_a_report_is_well_formed_self_contained_and_escapes_every_text() -> None:
    page = full_report().to_html()
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert "script" not in checker.names and "link" not in checker.names
    assert all(address.startswith(("data:image/", "#")) for address in checker.addresses)
    assert not re.search(r"url\(|@import|https?://", page)
    assert "<strong>bold</strong>" in page and "<code>code</code>" in page and "<li>two</li>" in page


def test_a_score_says_whether_its_goal_is_reached() -> None:
    assert Score("a", 0.85, 0.8, 0.9, goal=0.85).reached() is True
    assert Score("a", 0.2, 0.1, 0.3, goal=0.1, better="lower").reached() is False
    assert Score("a", 0.2, 0.1, 0.3).reached() is None
    page = full_report().to_html()
    assert "goal ≥&nbsp;85.0: reached" in page and "goal ≤&nbsp;0.100: open" in page


def test_only_small_pictures_are_shown_as_pixels() -> None:
    """Drawn labels are shrunk smoothly; what a small model sees is enlarged as it is."""
    for side, shown in ((96, True), (480, False)):
        report = Report("t")
        report.figure(np.zeros((side, side, 3), np.uint8))
        assert ('<img class="pixels"' in report.to_html()) == shown


def test_a_table_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells for 2 headers"):
        Report("t").table(["a", "b"], [[1, 2], [1]])


def test_writing_replaces_the_page_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "report.html"
    report = full_report()
    assert report.write(path) == path
    assert path.read_text("utf-8") == report.to_html()
    Report("second").write(path)
    assert "second" in path.read_text("utf-8")
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
