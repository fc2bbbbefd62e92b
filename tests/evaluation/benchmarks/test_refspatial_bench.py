"""RefSpatial-Bench: the published layout, the publisher's rule and the harnesses' to the letter, every convention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemvlm.evaluation.benchmark import Convention, Item, Score
from gemvlm.evaluation.benchmarks import open_benchmark
from gemvlm.evaluation.benchmarks.refspatial_bench import PROTOCOLS, RefSpatialBench
from gemvlm.evaluation.pointing import mask_levels

FRACTION, THOUSAND, PIXEL = Convention("fraction"), Convention("thousand"), Convention("pixel")
SUFFIX = "Your answer should be formatted as a list of tuples, i.e. [(x1, y1)]."


def ellipse(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.where(((x - width * 0.6) / width) ** 2 + ((y - height * 0.3) / height) ** 2 < 0.05, 255, 0).astype(
        np.uint8
    )


def row(number: int, jpeg: Any, png: Any, size: tuple[int, int] = (64, 48)) -> dict[str, Any]:
    return {
        "id": number,
        "image": {"bytes": jpeg(number, (64, 48)), "path": f"{number}.jpg"},
        "mask": {"bytes": png(ellipse(*size)), "path": f"{number}.png"},
        "object": f"the cup left of plate {number}",
        "prompt": f"Please point out the cup left of plate {number}.",
        "suffix": SUFFIX,
        "step": 2,
    }


@pytest.fixture
def folder(tmp_path: Path, jpeg: Any, png: Any, write_table: Any) -> Path:
    for split, numbers in {"location": (1, 2), "placement": (1,), "unseen": (5,)}.items():
        rows = [row(n, jpeg, png, (64, 48) if n == 1 else (128, 72)) for n in numbers]
        write_table(tmp_path / f"data/{split}-00000-of-00001.parquet", rows)
    return tmp_path


def test_items_are_the_published_rows_in_their_order(folder: Path) -> None:
    items = open_benchmark("refspatial_bench", str(folder)).items()
    assert [item.id for item in items] == ["location/1", "location/2", "placement/1", "unseen/5"]
    assert items[0].prompt == f"Please point out the cup left of plate 1. {SUFFIX}"
    assert items[0].meta == {"width": 64, "height": 48, "step": 2} and items[0].category == "location"
    assert np.array_equal(mask_levels(items[1].truth), ellipse(128, 72))


@pytest.mark.parametrize(
    ("protocol", "prompt"),
    [
        (
            "lmms_eval",
            f"Please point out the cup left of plate 1. {SUFFIX} Return only list of tuples, don't add anything else.",
        ),
        (
            "lmms_eval_json",
            "Locate the cup left of plate 1 in this image and output the point coordinates in JSON format.",
        ),
        (
            "official_qwen",
            "Locate the cup left of plate 1 in this image and output the point coordinates in JSON format.",
        ),
    ],
)
def test_each_protocol_asks_in_its_words(folder: Path, protocol: str, prompt: str) -> None:
    assert RefSpatialBench.open(str(folder), protocol).items()[0].prompt == prompt


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_oracle_is_perfect_and_guesses_hit_by_the_masks_area(
    folder: Path, protocol: str, pointing_is_fair: Any
) -> None:
    pointing_is_fair(
        RefSpatialBench.open(str(folder), protocol), None if protocol == "official" else [FRACTION, THOUSAND]
    )


@pytest.mark.parametrize("protocol", ["official", "official_skip", "lmms_eval", "lmms_eval_json", "vlmevalkit"])
def test_scores_are_the_published_functions(protocol: str, vectors: Any) -> None:
    stored = vectors("refspatial_bench")
    benchmark, (convention, _) = RefSpatialBench(Path(), protocol), PROTOCOLS[protocol]
    column = stored["protocols"].index(protocol.removesuffix("_skip"))
    assert len(stored["cases"]) == 1000
    for number, reply, scores in stored["cases"]:
        mask = stored["masks"][number]
        item = Item("1", (), "", mask, "location", "1", meta={"width": mask["width"], "height": mask["height"]})
        ours = benchmark.score(item, reply, convention)
        theirs = scores[column]
        if theirs is None:
            assert ours.value == 0 and ours.parsed is None and ours.counted == (protocol != "official_skip"), reply
        else:
            assert ours.counted and ours.value == pytest.approx(theirs, abs=1e-12), reply


def half(width: int = 640, height: int = 480) -> Item:
    """A mask whose right half is set, of a picture of the same size."""
    from gemvlm.evaluation.benchmark import Media
    from gemvlm.evaluation.pointing import mask_truth

    levels = np.zeros((height, width), np.uint8)
    levels[:, width // 2 :] = 255
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    truth = mask_truth(Media(file.getvalue()), "mask")
    return Item("1", (), "", truth, "location", "1", meta={"width": 640, "height": 480})


@pytest.mark.parametrize(
    ("reply", "convention", "value"),
    [
        ("[(0.75, 0.5)]", FRACTION, 1.0),
        ("[(0.25, 0.5)]", FRACTION, 0.0),
        ("[(0.75, 0.5), (0.25, 0.5)]", FRACTION, 0.5),  # the mean, not any
        ("[(0.75, 0.5), (1.5, 0.5), (0.8, 0.1), (0.9, 0.2)]", FRACTION, 0.75),  # outside the image counts as a miss
        ("[(480, 240)]", FRACTION, 1.0),  # whole numbers are pixels
        ("[(500, 500)]", FRACTION, 0.0),  # thousandths taken for pixels lie outside a picture of 640 x 480
        ("[(0, 1)]", FRACTION, 0.0),
        ("[(0.5, 0.0)]", FRACTION, 1.0),  # the mask's first column
        ("[(1.0, 1.0)]", FRACTION, 0.0),  # one beyond the last pixel
        ("[(.75, .5)]", FRACTION, 0.0),  # not of the pattern
        ("( 0.75, 0.5)", FRACTION, 0.0),
        ("[0.75, 0.5]", FRACTION, 0.0),
        ("(0.25, 0.25, 0.75, 0.75)", FRACTION, 0.5),  # a filled box
        ("(0, 0, 1, 1)", FRACTION, 0.5),  # a box is of fractions even if it is written in whole numbers
        ("[(0.4999, 0.5)]", FRACTION, 0.0),  # 319.94 is pixel 319
        ("[(500, 500)]", THOUSAND, 1.0),
        ('[{"point_2d": [750, 500]}]', THOUSAND, 1.0),
        ('[{"point_2d": [250, 750]}]', THOUSAND, 0.0),  # x before y
        ('[{"point_2d": [250, 750]}]', Convention("thousand", "yx"), 1.0),
        ("[(480, 240)]", PIXEL, 1.0),
        ("[(319, 240)]", PIXEL, 0.0),
        ("[(320, 240)]", PIXEL, 1.0),
        ("no idea", FRACTION, 0.0),
    ],
)
def test_the_official_rule_by_hand(reply: str, convention: Convention, value: float) -> None:
    score = RefSpatialBench(Path()).score(half(), reply, convention)
    assert score.value == value and score.counted
    wide = RefSpatialBench(Path()).score(half(1280, 240), reply, convention)  # a mask of another size than the image
    assert convention == FRACTION or wide.value == value


def test_an_unread_reply_is_counted_and_only_the_skipping_protocol_drops_what_the_script_drops() -> None:
    inside_out = "(0.9, 0.1, 0.2, 0.5)"
    assert RefSpatialBench(Path()).score(half(), inside_out, FRACTION) == Score(0.0, None, outside=0)
    skipping = RefSpatialBench(Path(), "official_skip")
    assert not skipping.score(half(), inside_out, FRACTION).counted
    assert skipping.score(half(), "no idea", FRACTION) == Score(0.0, None)
    assert skipping.score(half(), "(" + "9" * 5000 + ", 1)", FRACTION).counted is False


def test_points_outside_the_convention_are_told() -> None:
    assert RefSpatialBench(Path()).score(half(), "[(750, 500)]", FRACTION).outside == 1
    assert RefSpatialBench(Path()).score(half(), "[(0.75, 0.5)]", THOUSAND).outside == 1


def test_the_headline_is_the_mean_of_location_and_placement(folder: Path) -> None:
    benchmark = RefSpatialBench.open(str(folder))
    scores = [Score(1.0, []), Score(0.5, []), Score(0.25, []), Score(0.0, None)]
    found = benchmark.summary(benchmark.items(), scores)
    assert found == {"overall": 0.5, "location": 0.75, "placement": 0.25, "unseen": 0.0}
    assert RefSpatialBench(folder, "lmms_eval").summary(benchmark.items(), scores)["overall"] == 1.75 / 4
    dropped = [Score(1.0, []), Score(0.0, None, counted=False), *scores[2:]]
    assert benchmark.summary(benchmark.items(), dropped)["location"] == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask": None}, "placement-0.parquet:0 mask"),
        ({"mask": {"bytes": b"no picture", "path": None}}, "not a picture"),
        ({"image": {"bytes": None, "path": "../away.jpg"}}, "leads out"),
        ({"image": {"bytes": None, "path": "gone.jpg"}}, "missing"),
        ({"step": "two"}, "'step' must be int"),
        ({"prompt": None}, "'prompt' must be str"),
    ],
)
def test_a_broken_row_is_named(
    folder: Path, jpeg: Any, png: Any, write_table: Any, change: dict[str, Any], words: str
) -> None:
    next(folder.glob("data/placement*")).unlink()
    write_table(folder / "data/placement-0.parquet", [row(1, jpeg, png) | change])
    with pytest.raises(ValueError, match=words):
        RefSpatialBench.open(str(folder)).items()


def test_an_empty_mask_a_missing_split_and_an_unknown_protocol_are_errors(
    folder: Path, jpeg: Any, png: Any, write_table: Any
) -> None:
    with pytest.raises(ValueError, match="protocol 'easi' is unknown"):
        RefSpatialBench.open(str(folder), "easi")
    next(folder.glob("data/unseen*")).unlink()
    with pytest.raises(ValueError, match=r"data/unseen-\*"):
        RefSpatialBench.open(str(folder)).items()
    empty = row(1, jpeg, png) | {"mask": {"bytes": png(np.zeros((4, 4), np.uint8)), "path": None}}
    write_table(folder / "data/location-00000-of-00001.parquet", [empty])
    with pytest.raises(ValueError, match="0 pixels set"):
        RefSpatialBench.open(str(folder)).items()
