"""Marks against masks: the share of hits, every level of a mask kept, readers that nothing in a reply can stop."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemvlm.evaluation.benchmark import Convention, Item, Media
from gemvlm.evaluation.benchmarks.refspatial_bench import RefSpatialBench
from gemvlm.evaluation.coordinates import LONGEST_REPLY
from gemvlm.evaluation.pointing import (
    Marks,
    hit_share,
    in_pixels,
    mask_levels,
    mask_of,
    mask_truth,
    tuples,
    vlmevalkit_vectors,
)


def media(array: np.ndarray, mode: str | None = None) -> Media:
    file = io.BytesIO()
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(file, "PNG")
    return Media(file.getvalue())


def test_tuples_are_those_of_the_pattern() -> None:
    read = [*tuples("(1, 2) (0.5,1.) (+3, -.5) ( 1, 2) (1, 2 ) [3, 4] (-4,5.0,  6) (7) (1e3, 2)")]
    assert read == [[1, 2], [0.5, 1.0], [-4, 5.0, 6], [7]]
    assert [[type(number) for number in numbers] for numbers in read][1:3] == [[float, float], [int, float, int]]


def test_a_mark_is_a_share_of_the_mean() -> None:
    mask = np.zeros((4, 6))
    mask[1, 4], mask[2, 3] = 1, 0.5
    assert hit_share(mask, Marks()) == 0
    assert hit_share(mask, Marks(((4, 1), (1, 4), (3, 2)))) == pytest.approx(0.5)  # (1, 4) is below the mask
    assert hit_share(mask, Marks(((4, 1), (-1, 1), (4, -3), (6, 1)))) == 0.25
    assert hit_share(mask, Marks(boxes=((3, 1, 5, 3),))) == pytest.approx(1.5 / 4)
    assert hit_share(mask, Marks(boxes=((3, 1, 5, 3), (2, 2, 2, 9)))) == pytest.approx(1.5 / 4)
    assert hit_share(mask, Marks(((0, 0),), ((3, 1, 5, 3),))) == pytest.approx(1.5 / 5)
    assert hit_share(mask, Marks(boxes=((-1000, -1000, 10**9, 10**9),))) == pytest.approx(1.5 / (10**9 + 1000) ** 2)


def test_clipped_boxes_mark_the_border_as_often_as_pixels_lie_beyond_it() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((5, 7))
    for _ in range(200):
        x0, x1 = sorted(rng.integers(-9, 16, 2).tolist())
        y0, y1 = sorted(rng.integers(-9, 16, 2).tolist())
        points = [(min(max(x, 0), 6), min(max(y, 0), 4)) for x in range(x0, x1) for y in range(y0, y1)]
        boxed = hit_share(mask, Marks(boxes=((x0, y0, x1, y1),), clipped=True))
        assert boxed == pytest.approx(hit_share(mask, Marks(tuple(points))))


def test_a_pixels_number_over_the_size_is_that_pixel() -> None:
    for size in (7, 33, 640, 1000, 1919):
        assert [in_pixels((x / size, 0.0), size, 9)[0] for x in range(size)] == list(range(size))
    assert in_pixels((-0.001, 1.0), 100, 50) == (-1, 50)


@pytest.mark.parametrize("mode", [None, "RGB", "LA"])
def test_masks_keep_every_level(mode: str | None) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (9, 12), dtype=np.uint8)
    truth = mask_truth(media(levels, mode), "mask")
    assert np.array_equal(mask_levels(truth), levels)
    assert np.array_equal(mask_of(truth, "any"), levels > 0)
    assert np.array_equal(mask_of(truth, "half"), levels >= 128)
    assert np.allclose(mask_of(truth, "grey"), levels / 255)


def test_masks_of_one_bit_are_taken_and_others_refused() -> None:
    levels = np.eye(5, dtype=np.uint8) * 255
    assert np.array_equal(mask_levels(mask_truth(media(levels, "1"), "mask")), levels)
    with pytest.raises(ValueError, match="row 3 mask: the mask is uint16"):
        mask_truth(media(levels.astype(np.uint16)), "row 3 mask")
    with pytest.raises(ValueError, match="0 pixels set"):
        mask_truth(media(levels * 0), "mask")
    with pytest.raises(ValueError, match="can't be decoded"):
        mask_truth(Media(media(levels).content[:40]), "mask")


def test_vlmevalkit_reads_json_literals_and_tuples_in_the_order_of_the_reply() -> None:
    assert vlmevalkit_vectors('[{"point_2d": [500, 250]}]', 100, 50) == [(0.5, 0.25)]
    assert vlmevalkit_vectors("{'point': (0.5, 1.5)}", 100, 50) == [(0.5, 1.5)]
    assert vlmevalkit_vectors('[{"point_2d": [1.5, 0.5]}]', 100, 50) == [(1.5, 0.5)]  # to 1.5: fractions
    assert vlmevalkit_vectors('[{"point_2d": [1.6, 0.5]}]', 100, 50) == [(0.0016, 0.0005)]
    assert vlmevalkit_vectors('[{"point_2d": [1000, 500]}]', 100, 50) == [(1.0, 0.5)]
    assert vlmevalkit_vectors('[{"point_2d": [1001, 25]}]', 100, 50) == [(10.01, 0.5)]  # beyond 1000: pixels
    assert vlmevalkit_vectors("(1.5, 0.5) (1.6, 0.5)", 100, 50) == [(1.5, 0.5), (0.016, 0.01)]
    assert vlmevalkit_vectors('Sure: [{"point_2d": [500, 250]}]', 100, 50) == []  # not the whole reply
    assert vlmevalkit_vectors("(30, 40, 10, 20) (500, 25)", 100, 50) == [(0.1, 0.4, 0.3, 0.8), (5.0, 0.5)]


NASTY = [
    "", "\0", "\ud800", "1" * 60_000, "(" * 60_000, "[" * 60_000, "(1," * 30_000, "(1,1" + "1" * 60_000,
    "(" + "9" * 5000 + ", 1)", "(1e999, 2)", '[{"point_2d": [NaN, Infinity]}]', '[{"point_2d": [1e400, 1]}]',
    '{"point_2d": ' * 3000, "```\n" * 20_000, "<think>" * 20_000, "(0.1, 0.1, 0.9, 0.9) " * 500, "(0, 0.1, 0.9, 0.9)",
    "(-99999999999999999999, 0, 99999999999999999999, 9)", "(0.0, 0.0, 100000000.0, 100000000.0)", "(٣, ٤) (٣.٥, ٤.٥)",
    "__import__('os')", '[{"point_2d": "ab"}]', '[{"point_2d": [[1, 2], [3, 4]]}]', "[((1, 2), (3, 4))]",
]  # fmt: skip


@pytest.mark.parametrize("protocol", ["official", "lmms_eval_json", "vlmevalkit"])
def test_no_reply_stops_a_reader_or_takes_long(protocol: str) -> None:
    truth = mask_truth(media(np.full((48, 64), 255, np.uint8)), "mask")
    item = Item("1", (), "", truth, "location", "1", meta={"width": 64, "height": 48})
    benchmark = RefSpatialBench(Path(), protocol)
    for convention in (Convention("fraction"), Convention("thousand")):
        for reply in NASTY:
            start = time.process_time()
            score = benchmark.score(item, reply, convention)
            assert 0 <= score.value <= 1 and time.process_time() - start < 5, reply[:40]
    assert LONGEST_REPLY < 60_000
