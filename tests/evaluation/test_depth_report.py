"""Generated depth scored beside blind baselines, on scenes with a table, a wall and boxes."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from gemvlm.depth_map import DepthMap, Encoding
from gemvlm.evaluation.depth_report import BLIND, DepthReport, evaluate_depth
from gemvlm.inference import DepthPrediction
from gemvlm.sample import Frame, Region, Sample

SIZE = 32
LOG = Encoding("log", 0.2, 5.0)


def scene(seed: int) -> Sample:
    """A table seen at an angle, a wall behind it, and two boxes nearer than the table. The image holds the seed."""
    rng = np.random.default_rng(seed)
    rows, _ = np.mgrid[:SIZE, :SIZE]
    depth = np.where(rows < 8, 2.5, 1 / (0.35 + 0.02 * rows))
    objects = np.zeros((SIZE, SIZE), bool)
    for _ in range(2):
        top, left = rng.integers(8, 22), rng.integers(2, 22)
        objects[top : top + 8, left : left + 8] = True
        depth[top : top + 8, left : left + 8] = rng.uniform(0.5, 0.9)
    image = np.full((SIZE, SIZE, 3), seed, np.uint8)
    frame = Frame(image, DepthMap.from_values(depth.astype(np.float32)))
    return Sample(
        f"s{seed}", (frame,), (), f"scene {seed}", "test", {"object_mask": [asdict(Region.from_mask(objects))]}
    )


class Painter:
    """Knows the truth of every image and paints it with some error."""

    def __init__(self, error: float, metric: bool = True) -> None:
        self.error = error
        self.metric = metric

    @property
    def encoding(self) -> Encoding:
        return LOG if self.metric else Encoding("log")

    def depth_batch(
        self, images: list[np.ndarray], *, steps: int, guidance: float, seed: int, unconditional: bool = False
    ) -> list[DepthPrediction]:
        rng = np.random.default_rng(seed)
        found = []
        for image in images:
            seen = 150 + int(rng.integers(100)) if unconditional else int(image[0, 0, 0])
            values = scene(seen).frames[0].depth.values * np.exp(rng.normal(0, self.error, (SIZE, SIZE)))  # type: ignore[union-attr]
            depth = DepthMap.from_values(values.astype(np.float32))
            if not self.metric:
                depth = DepthMap.from_values(np.log(values).astype(np.float32), "affine_log_depth")
            found.append(DepthPrediction(depth, np.ones((SIZE, SIZE), np.float32), image))
        return found


TEST, TRAIN = [scene(seed) for seed in range(20)], [scene(seed) for seed in range(100, 130)]


@pytest.fixture(scope="module")
def report() -> DepthReport:
    return evaluate_depth(Painter(0.03), TEST, TRAIN, steps=1)


def test_a_good_painter_beats_every_blind_baseline_on_objects(report: DepthReport) -> None:
    own = report.mean()
    name, blind = report.best_blind()
    error = 0.03 * np.sqrt(2 / np.pi)
    assert report.mean(reading="metric").mean == pytest.approx(error, rel=0.1)
    assert own.mean < error
    assert own.high < 0.5 * blind.low, name
    assert report.against(name).is_significant
    assert report.mean(metric="delta1").mean > 0.99


def test_from_another_image_it_falls_to_the_unconditional_score(report: DepthReport) -> None:
    other, free = report.mean("other image"), report.mean("unconditional")
    assert other.mean > 3 * report.mean().mean
    assert other.low < free.high and free.low < other.high


def test_whole_images_flatter_the_mean_map(report: DepthReport) -> None:
    assert report.mean("mean map", "all", "metric").mean < 0.5 * report.mean("mean map", "objects", "metric").mean


def test_the_support_plane_is_the_table_though_a_wall_stands_behind_it() -> None:
    """Fitted to the background as a whole it would lie between table and wall."""
    test = TEST[:8]
    exact = evaluate_depth(Painter(0.0), test, TRAIN, steps=1)
    empty = [np.zeros((SIZE, SIZE), bool)] * len(test)
    below = [np.broadcast_to((np.arange(SIZE) >= 30)[:, None], (SIZE, SIZE)).copy() for _ in test]
    table = evaluate_depth(Painter(0.0), test, TRAIN, steps=1, object_masks=below)
    assert table.mean("support plane", reading="metric").mean < 0.05
    assert exact.mean().mean < 1e-5
    assert evaluate_depth(Painter(0.0), test, TRAIN, steps=1, object_masks=empty).without_objects == len(test)


def test_affine_depth_is_scored_aligned_only() -> None:
    report = evaluate_depth(Painter(0.03, metric=False), TEST, TRAIN, steps=1)
    assert report.mean().mean < 0.05
    with pytest.raises(ValueError, match="metric"):
        report.mean(reading="metric")
    assert "model" not in report.methods(reading="metric")


def test_the_report_goes_to_json(report: DepthReport) -> None:
    tree = json.loads(json.dumps(report.to_dict()))
    mean, low, high = tree["aligned"]["objects"]["model"]["abs_rel"]
    assert low <= mean <= high
    assert set(tree["metric"]["all"]) == {
        "model",
        "constant",
        "mean map",
        "support plane",
        "unconditional",
        "other image",
    }
    assert tree["space"] == "log" and tree["images"] == 20


def test_every_reading_has_every_metric_beside_every_blind_method(report: DepthReport) -> None:
    tree = report.to_dict()
    readings = {"aligned", "metric", "scale, depth", "scale, disparity", "affine, depth", "affine, disparity"}
    assert readings < tree.keys()
    metrics = {"abs_rel", "sq_rel", "rmse", "log_rmse", "si_log", "delta1", "delta2", "delta3", "boundary_f1"}
    for reading in readings:
        for pixels in ("all", "objects"):
            methods = tree[reading][pixels]
            assert set(methods) == {"model", *BLIND, "other image"}
            assert all(set(values) == metrics for values in methods.values())
    # the best constant is the best constant, however the one that was learned is scaled
    constant = [report.mean("constant", "all", reading).mean for reading in ("scale, depth", "affine, depth")]
    assert constant[0] == pytest.approx(constant[1], rel=1e-4)
    assert report.mean(reading="affine, depth").mean <= report.mean(reading="metric").mean * 1.2
    assert (
        report.mean(metric="rmse", reading="affine, depth").mean
        <= report.mean(metric="rmse", reading="scale, depth").mean
    )


def test_what_is_not_metric_has_no_other_space() -> None:
    report = evaluate_depth(Painter(0.03, metric=False), TEST[:4], TRAIN, steps=1)
    assert "model" not in report.methods(reading="scale, depth")
    assert "mean map" in report.methods(reading="scale, depth")


def test_scenes_in_both_sets_and_missing_depth_are_refused() -> None:
    with pytest.raises(ValueError, match="1 scenes are in both"):
        evaluate_depth(Painter(0.0), TEST, [*TRAIN, TEST[3]], steps=1)
    bare = Sample("b", (Frame(np.zeros((4, 4, 3), np.uint8)),), (), "b", "test")
    with pytest.raises(ValueError, match="0 test frames"):
        evaluate_depth(Painter(0.0), [bare], TRAIN, steps=1)
    with pytest.raises(ValueError, match="1 object masks for 20"):
        evaluate_depth(Painter(0.0), TEST, TRAIN, steps=1, object_masks=[np.ones((SIZE, SIZE), bool)])
