"""The benchmark of depth sampling: its frozen sampler and ours agree, a difference is noticed, rows are plotted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gemvlm.flow import Steps
from gemvlm.inference import load

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    import depth_sampling
finally:
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def nano():
    return load("nano", "cpu")


@pytest.fixture(scope="module")
def samples():
    return depth_sampling.views(2, (96, 96))


def test_both_samplers_paint_alike_and_a_difference_is_noticed(nano, samples, monkeypatch) -> None:
    monkeypatch.setattr(depth_sampling, "PUBLISHED_STEPS", 3)
    scene = depth_sampling.look(nano, samples)
    assert depth_sampling.check(scene) <= depth_sampling.TOLERANCE
    paint = type(scene).paint
    monkeypatch.setattr(type(scene), "paint", lambda self, steps, guidance: paint(self, steps, 1.0))
    with pytest.raises(AssertionError, match="pictures differ"):
        depth_sampling.check(scene)


def test_rows_say_speed_and_quality_and_are_plotted(nano, samples, tmp_path) -> None:
    scene = depth_sampling.look(nano, samples)
    ways = [
        depth_sampling.Setting(name, lambda member, count=count: scene.paint(Steps(count), 1.0, member))
        for name, count in (("published", 2), ("1 step", 1))
    ]
    scores = {way.name: depth_sampling.quality(way, nano, samples, 2) for way in ways}
    assert scores["1 step"].stated == pytest.approx(1 / 3)
    seconds = depth_sampling.measure(ways, 1, torch.device("cpu"), cpu_time=True)
    rows = depth_sampling.rows_of(seconds, scores, len(samples))
    assert all(0 < row["abs_rel"] < 1 and 0 <= row["coverage"] <= 1 for row in rows)
    mean, low, high = rows[1]["abs_rel gain"]
    assert low <= mean <= high and mean == pytest.approx(rows[1]["abs_rel"] - rows[0]["abs_rel"])
    assert rows[0]["abs_rel gain"] == [0, 0, 0]
    depth_sampling.report(rows)
    assert rows[0]["faster"] == 1 and all(np.isfinite(row["images_per_s"]) for row in rows)
    depth_sampling.plot(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_every_setting_has_its_own_name(nano, samples) -> None:
    scene = depth_sampling.look(nano, samples)
    names = [way.name for way in depth_sampling.settings(scene, scene, scene)]
    assert len(set(names)) == len(names) and names[0] == "published"
