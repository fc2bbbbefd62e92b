"""Statistics of a LeRobot folder: as numpy counts them from every value."""

from __future__ import annotations

import numpy as np

from gemvlm.data.episodes.depth_codes import DepthCodes
from gemvlm.data.episodes.lerobot_stats import QUANTILES, Levels, of_numbers

RNG = np.random.default_rng(0)


def test_levels_give_what_every_pixel_gives() -> None:
    pictures = (RNG.normal(100, 30, (5, 12, 16, 3)).clip(0, 255)).astype(np.uint8)
    levels = Levels(3, 256)
    for picture in pictures:
        levels.add(picture)
    found = levels.statistics(np.arange(256) / 255)
    assert found is not None and found["count"] == [5]
    pixels = pictures.reshape(-1, 3) / 255
    for name, truth in (
        ("min", pixels.min(0)),
        ("max", pixels.max(0)),
        ("mean", pixels.mean(0)),
        ("std", pixels.std(0)),
    ):
        np.testing.assert_allclose(found[name], truth[:, None, None], atol=1e-12)
    for name, share in QUANTILES.items():
        truth = np.quantile(pixels, share, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(found[name], truth[:, None, None], atol=1e-12)


def test_depth_that_is_not_known_does_not_count() -> None:
    codes = DepthCodes()
    levels = Levels(1, 4096)
    levels.add(np.array([[0, 4095, 1000], [2000, 0, 0]], np.uint16))
    found = levels.statistics(codes.metres())
    assert found is not None
    both = codes.decode(np.array([[1000, 2000]], np.uint16)).values.astype(np.float64)
    np.testing.assert_allclose(found["mean"], both.mean().reshape(1, 1, 1), rtol=1e-6)
    np.testing.assert_allclose([found["min"], found["max"]], both.reshape(2, 1, 1, 1), rtol=1e-6)
    nothing = Levels(1, 4096)
    nothing.add(np.zeros((2, 2), np.uint16))
    assert nothing.statistics(codes.metres()) is None


def test_numbers_are_summed_exactly() -> None:
    values = (1e4 + RNG.normal(size=(1000, 2))).astype(np.float32)
    found = of_numbers(values)
    np.testing.assert_allclose(found["std"], values.astype(np.float64).std(0), rtol=1e-12)
    np.testing.assert_allclose(found["q99"], np.quantile(values.astype(np.float64), 0.99, axis=0))
    assert found["count"] == [1000]
