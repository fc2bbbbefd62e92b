"""Targets for a stranger's images: counted over the batch, left out without depth, refused if they can't be paired."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gemvlm.data.targets import DepthTarget
from gemvlm.data.targets.loose import depth_targets
from gemvlm.depth_map import DepthMap, Encoding
from gemvlm.sample import Frame

LOG = Encoding("log", 0.3, 3.0)


def depth(seed: int, height: int = 48, width: int = 64, **options) -> DepthMap:
    values = np.random.default_rng(seed).uniform(0.5, 2.0, (height, width)).astype(np.float32)
    return DepthMap.from_values(values, **options)


def test_images_are_counted_over_the_batch():
    nothing = DepthMap.from_values(np.zeros((8, 8)))
    made = depth_targets([depth(0), None, depth(1, 64, 48), nothing, depth(2)], "abcde", LOG)
    assert [target.image for target in made] == [0, 2, 4]
    assert [tuple(target.picture.shape) for target in made] == [(3, 320, 448), (3, 448, 320), (3, 320, 448)]
    assert len({target.key for target in made}) == 3
    assert {target.kind for target in made} == {"depth"}


def test_the_picture_is_the_one_that_samples_get():
    one = depth(0)
    made = depth_targets([one], ["a"], LOG, height=32, width=64)[0]
    picture, valid = DepthTarget(LOG, 32, 64).make(Frame(np.zeros((48, 64, 3), np.uint8), one))
    assert torch.equal(made.picture, picture)
    assert torch.equal(made.valid, valid)


def test_keys_follow_names():
    first, second = (depth_targets([depth(0)], [("scene", n)], LOG)[0].key for n in (0, 1))
    assert first != second
    assert depth_targets([depth(3)], [("scene", 0)], LOG)[0].key == first


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="2 depths but 1 names"):
        depth_targets([depth(0), None], ["a"], LOG)
    with pytest.raises(ValueError, match="make it z-depth first"):
        depth_targets([depth(0, kind="ray_distance", source="lidar")], ["a"], Encoding("spectral"))
