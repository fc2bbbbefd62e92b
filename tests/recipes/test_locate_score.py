"""How far `locate` is from the truth: the measure itself, on places that are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.inference import DepthPrediction, GemPipeline, LocateRequest, Location
from gemvlm.inference.images import ImageLike
from gemvlm.inference.locate import on_level
from gemvlm.recipes import locate_score
from gemvlm.recipes.locate_score import (
    ALIGNED,
    BEST,
    BLIND,
    FOOT,
    GENERATED,
    SUPPORTED,
    TABLE,
    TRUE,
    Sought,
    estimates,
    measured,
    score_locate,
    summary,
)
from gemvlm.sample import Box, Frame, Point
from gemvlm.statistics import median_interval

CAMERA = Camera(32, 32, 32.0, 32.0, 16.0, 16.0)
DOWN = np.diag([1.0, -1.0, -1.0, 1.0])
DOWN[2, 3] = 2.0
"""Two metres above the origin, looking straight down."""
VIEW = View(CAMERA, DOWN)


def sought(scene: str = "one") -> Sought:
    """A flat plate, 5 cm above the table, 8 by 8 pixels large."""
    depth = np.full((32, 32), 2.0, np.float32)
    mask = np.zeros((32, 32), bool)
    mask[4:12, 20:28] = True
    depth[mask] = 1.95
    frame = Frame(np.zeros((32, 32, 3), np.uint8), DepthMap.from_values(depth), VIEW)
    return Sought(scene, scene, frame, "plate", mask, table_m=0.0)


def pointing(point: Point | None, scale: float = 1.0) -> Location:
    depth = sought().depth
    painted = DepthMap.from_values(depth.values * scale)
    return Location("plate", "reply", point, depth=painted if point else None)


MIDDLE_OF_PLATE = Point(24 / 32, 8 / 32)


def test_a_ray_meets_a_plane_where_it_should() -> None:
    place = on_level(Point(0.75, 0.5), VIEW, 0.5)
    np.testing.assert_allclose(place, [0.25 * 1.5, 0, 0.5])
    assert on_level(Point(0.75, 0.5), VIEW, 3.0) is None
    level = View(CAMERA, np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]], np.float64))
    assert on_level(Point(0.5, 0.2), level, 0.0) is None
    assert on_level(Point(0.5, 0.5), level, 0.0) is None


def test_errors_are_those_of_depth_and_of_the_ray() -> None:
    """Straight above the plate's middle: what each method is off by can be worked out by hand."""
    thing = sought()
    found = estimates(thing, pointing(MIDDLE_OF_PLATE, scale=1.1))
    centre = thing.surface().mean(axis=0)
    np.testing.assert_allclose(centre, [0.25 * 1.95, 0.25 * 1.95, 0.05], atol=1e-6)
    np.testing.assert_allclose(found[TRUE], centre, atol=1e-6)
    np.testing.assert_allclose(found[ALIGNED], centre, atol=1e-3)
    np.testing.assert_allclose(found[SUPPORTED], centre, atol=1e-3)
    ray = np.array([0.25, 0.25, -1.0])
    np.testing.assert_allclose(found[FOOT], found[SUPPORTED])  # seen from above a box has no foot
    np.testing.assert_allclose(found[GENERATED], [0, 0, 2] + 1.1 * 1.95 * ray, atol=1e-6)
    np.testing.assert_allclose(found[TABLE], [0, 0, 2] + 2.0 * ray, atol=1e-9)
    np.testing.assert_allclose(found[BLIND], [0, 0, 0], atol=1e-6)


def test_no_point_is_nowhere_and_the_blind_still_answers() -> None:
    found = estimates(sought(), pointing(None))
    assert found[TRUE] is found[GENERATED] is found[ALIGNED] is found[TABLE] is None
    assert found[BLIND] is not None and found[BEST] is not None
    centre = sought().surface().mean(axis=0)
    assert np.linalg.norm(found[BEST] - centre) < 0.05
    assert set(estimates(replace(sought(), table_m=None), pointing(MIDDLE_OF_PLATE))) == {TRUE, GENERATED, ALIGNED}


class Pipeline(GemPipeline):
    """Points to the middle of the plate, except for what is called "none"."""

    def __init__(self) -> None:
        pass

    def box_batch(self, requests: Sequence[tuple[ImageLike, str]]) -> list[Box | None]:
        return [None for _ in requests]

    def locate_batch(self, requests: Sequence[LocateRequest], **_: float) -> list[Location]:
        return [pointing(None if request.expression == "none" else MIDDLE_OF_PLATE) for request in requests]


def test_scores_count_a_missing_point_as_infinitely_far() -> None:
    errors = []
    for number in range(9):
        thing = replace(sought(f"scene {number}"), on_table=number < 3)
        if number >= 6:
            thing = replace(thing, expression="none")
        errors += measured(Pipeline(), [thing])
    scores = summary("test", "plates", errors)
    assert scores.things == scores.scenes == 9 and scores.pointed_at.mean == pytest.approx(6 / 9)
    assert scores.methods[TRUE]["centre_m"].mean == pytest.approx(0, abs=1e-6)
    assert scores.methods[TRUE]["centre_m"].high == np.inf
    assert scores.methods[TRUE]["within_2cm"].mean == pytest.approx(6 / 9)
    table = scores.methods[TABLE]["centre_m"].mean
    assert table == pytest.approx(0.05 * np.linalg.norm([0.25, 0.25, 1]), rel=1e-3)
    text = scores.to_markdown()
    assert "| ray meets the table | 5.3 (5.3–inf) |" in text and "9 things in 9 scenes, 66.7%" in text
    assert scores.things_on_table == 3 and scores.on_table[TRUE]["within_2cm"].mean == 1
    assert "Those 3 that stand on the table itself:" in text


def test_a_median_has_an_interval_by_cluster() -> None:
    values = [1.0, 2.0, 3.0, 4.0, np.inf]
    assert median_interval(values).mean == 3.0
    rng = np.random.default_rng(0)
    draws = rng.normal(size=400)
    alone = median_interval(draws)
    assert alone.low < np.median(draws) < alone.high and alone.high - alone.low == pytest.approx(0.25, abs=0.1)
    together = median_interval(np.repeat(draws[:40], 10), np.repeat(np.arange(40), 10).tolist())
    assert together.high - together.low > 2 * (alone.high - alone.low)
    with pytest.raises(ValueError, match="1 of them NaN"):
        median_interval([np.nan, 1.0])


def test_the_tabletop_and_frames_are_scored_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco", reason="needs the extra worlds")

    class Everywhere(Pipeline):
        def locate_batch(self, requests: Sequence[LocateRequest], **_: float) -> list[Location]:
            depth = [DepthMap.from_values(np.ones(r.image.shape[:2])) for r in requests]  # type: ignore[union-attr]
            return [Location(r.expression, "", Point(0.5, 0.5), depth=d) for r, d in zip(requests, depth, strict=True)]

    monkeypatch.setattr(locate_score, "load", lambda *_: Everywhere())
    monkeypatch.setattr(locate_score, "available_cores", lambda: 1)
    found = score_locate("test", tmp_path / "out", scenes=2)
    assert found.scenes == 2 and 2 <= found.things <= 6
    assert found.methods[TRUE]["centre_m"] == found.methods[BLIND]["centre_m"]
    written = json.loads((tmp_path / "out" / "locate.json").read_text())
    assert len(written["errors"]) == found.things and written["options"]["steps"] == 30
    assert (tmp_path / "out" / "locate.md").read_text() == found.to_markdown()


def test_of_unlabelled_frames_depth_alone_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = Path(__file__).parents[2] / "../shared/rgbd-7scenes"
    if not frames.is_dir():
        pytest.skip("the frames of 7-Scenes are not beside the repository")

    class Painter(Pipeline):
        def depth(self, image: np.ndarray, **_: float) -> DepthPrediction:
            flat = np.full(image.shape[:2], 2.0, np.float32)
            return DepthPrediction(DepthMap.from_values(flat), np.ones_like(flat), image)

    monkeypatch.setattr(locate_score, "load", lambda *_: Painter())
    found = score_locate("test", tmp_path / "out", frames=frames, registration="kinect-7scenes", scenes=2)
    assert found.scenes == 2 and found.things == 2 * locate_score.POINTS and found.pointed_at.mean == 1.0
    assert set(found.methods) == {TRUE, GENERATED, ALIGNED}
    assert found.methods[TRUE]["centre_m"].mean < 0.02 < found.methods[GENERATED]["centre_m"].mean
