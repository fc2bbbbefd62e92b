"""Several paintings of one depth: their middle in the encoding's space, and how far they lie apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemvlm.depth_map import DepthMap, Encoding, decode
from gemvlm.evaluation.depth_metrics import interval_coverage
from gemvlm.flow import Steps
from gemvlm.inference import GemPipeline
from gemvlm.inference.depth import decode_pictures

LOG = Encoding("log", 0.5, 8.0)


def grey(*levels: float) -> np.ndarray:
    return np.stack([np.full((3, 4, 6), level, np.float32) for level in levels])


@pytest.mark.parametrize(("combine", "middle"), [("median", 0.0), ("mean", 0.1)])
def test_the_middle_is_taken_in_the_encodings_space(combine, middle) -> None:
    found = decode_pictures(grey(-0.5, 0.0, 0.8), LOG, "test", combine)
    expected = decode(grey(middle)[0], LOG)[0]
    np.testing.assert_allclose(found.depth.values, expected.values, rtol=1e-5)
    assert found.depth.kind == "metric_z" and found.depth.valid.all()


def test_spread_is_in_that_space_too() -> None:
    """Grey levels 2/ln(16) apart are one natural logarithm of depth apart."""
    unit = 2 / np.log(8.0 / 0.5)
    spread = decode_pictures(grey(-0.5 * unit, 0.5 * unit, 0.0), LOG, "test").spread
    assert spread is not None and spread.level == 0.5 and spread.space == "log"
    np.testing.assert_allclose(spread.deviation, 0.5, rtol=1e-4)
    np.testing.assert_allclose(spread.high.values / spread.low.values, np.e, rtol=1e-4)
    larger = spread.resized(8, 12)
    assert larger.deviation.shape == larger.low.values.shape == larger.high.values.shape == (8, 12)
    assert decode_pictures(grey(0.0), LOG, "test").spread is None


def test_depth_without_a_unit_has_a_spread_as_well() -> None:
    found = decode_pictures(grey(-1.0, 0.0, 1.0, 1.0), Encoding("sqrt_disparity"), "test", "mean")
    assert found.depth.kind == "affine_sqrt_disparity"
    np.testing.assert_allclose(found.depth.values, np.mean([1.0, 0.5, 0.0, 0.0]), atol=1e-6)


def test_the_stated_level_is_what_one_more_painting_keeps() -> None:
    """Exchangeable paintings: the last of E + 1 lies within the others with probability (E - 1) / (E + 1)."""
    rng = np.random.default_rng(0)
    encoding = Encoding("log", 0.25, 4.0)
    fields = np.clip(rng.normal(0, 0.2, (6, 1, 64, 64)), -1, 1).repeat(3, axis=1).astype(np.float32)
    spread = decode_pictures(fields[:5], encoding, "test").spread
    assert spread is not None
    truth = decode(fields[5], encoding)[0]
    assert interval_coverage(spread.low, spread.high, truth) == pytest.approx(spread.level, abs=0.03)
    nothing = np.zeros((64, 64), bool)
    with pytest.raises(ValueError, match="0 pixels"):
        interval_coverage(spread.low, spread.high, truth, nothing)
    relative = DepthMap.from_values(truth.values, "affine_depth")
    with pytest.raises(ValueError, match="affine_depth"):
        interval_coverage(spread.low, spread.high, relative)


def test_a_pipeline_tells_and_keeps_its_spread(pipeline: GemPipeline, image: np.ndarray, tmp_path: Path) -> None:
    found = pipeline.depth(image, steps=Steps(2, "midpoint"), ensemble=3, combine="mean")
    assert found.spread is not None and found.spread.deviation.shape == image.shape[:2]
    assert float(found.spread.deviation.max()) > 0
    found.spread.save(tmp_path / "spread.npz")
    with np.load(tmp_path / "spread.npz", allow_pickle=False) as kept:
        assert (float(kept["level"]), str(kept["space"]), str(kept["unit"])) == (0.5, "log", "m")
        assert np.array_equal(kept["deviation"], found.spread.deviation)
    assert pipeline.depth(image, steps=2).spread is None
