"""Targets are pictures in [-1, 1] with the mask of what counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gemvlm.camera import Camera, View
from gemvlm.data.targets import DepthTarget, RgbTarget, TargetKind
from gemvlm.depth_map import DepthMap, Encoding, decode
from gemvlm.sample import Frame

ENCODING = Encoding("log", 0.3, 6.0)


def frame(depth: DepthMap | None = None, view: View | None = None) -> Frame:
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Frame(image, depth, view)


def two_walls() -> DepthMap:
    return DepthMap.from_values(np.where(np.arange(32) < 15, 0.5, 4.0)[None].repeat(24, 0), source="walls")


def test_kinds_are_named() -> None:
    targets: list[TargetKind] = [DepthTarget(ENCODING, 8, 8), RgbTarget(8, 8)]
    assert [target.kind for target in targets] == ["depth", "rgb"]


def test_a_frame_without_depth_has_no_depth_target() -> None:
    nothing = DepthMap(np.zeros((24, 32), np.float32), np.zeros((24, 32), bool), "metric_z", "m", "x")
    assert DepthTarget(ENCODING, 8, 8).make(frame()) is None
    assert DepthTarget(ENCODING, 8, 8).make(frame(nothing)) is None
    assert RgbTarget(8, 8).make(frame()) is not None


@pytest.mark.parametrize("name", ["spectral", "log", "sqrt_disparity"])
def test_one_codec_serves_every_stage(name: str) -> None:
    """A3: the release trains two stages on two depth pictures; here the encoding that made a target decodes it."""
    encoding = Encoding(name, 0.3, 6.0)
    made = DepthTarget(encoding, 24, 32).make(frame(two_walls()))
    assert made is not None
    picture, valid = made
    decoded, _ = decode(picture.numpy(), encoding)
    assert valid.all()
    assert np.allclose(decoded.values, two_walls().values, rtol=0.05)


def test_the_scalar_is_resized_never_the_colours() -> None:
    """B15: at the seam of two walls a colour blend would decode outside of the two depths."""
    encoding = Encoding("spectral", 0.3, 6.0)
    picture, _ = DepthTarget(encoding, 12, 16).make(frame(two_walls())) or (None, None)
    decoded, confidence = decode(picture.numpy(), encoding)
    assert 0.45 < decoded.values.min() < decoded.values.max() < 4.4
    assert confidence.min() > 0.95


def test_the_mask_follows_the_depth() -> None:
    values, valid = two_walls().values.copy(), np.ones((24, 32), bool)
    valid[:12] = False
    values[:12] = np.nan
    made = DepthTarget(ENCODING, 12, 16).make(frame(DepthMap(values, valid, "metric_z", "m", "x")))
    assert made is not None
    assert not made[1][:6].any()
    assert made[1][6:].all()
    assert made[0].isfinite().all()


def test_distances_along_the_ray_need_a_camera() -> None:
    camera = Camera.from_fov(32, 24, 60.0)
    ray = DepthMap.from_values(np.linalg.norm(camera.rays() * 2.0, axis=-1), "ray_distance", "lidar")
    with pytest.raises(ValueError, match="'lidar' runs along the ray"):
        DepthTarget(ENCODING, 24, 32).make(frame(ray))
    made = DepthTarget(ENCODING, 24, 32).make(frame(ray, View(camera, np.eye(4))))
    assert made is not None
    assert made[0].std() < 1e-5


def test_without_a_size_the_published_rule_holds() -> None:
    for target in (DepthTarget(ENCODING), RgbTarget()):
        made = target.make(frame(two_walls()))
        assert made is not None
        assert made[0].shape[1:] == made[1].shape == (320, 448)


def test_images_keep_their_colours() -> None:
    flat = Frame(np.full((24, 32, 3), (0, 255, 51), np.uint8))
    picture, valid = RgbTarget(16, 8).make(flat) or (None, None)
    assert picture.shape == (3, 16, 8)
    assert valid.all()
    assert torch.allclose(picture[:, 3, 3], torch.tensor([-1.0, 1.0, -0.6]), atol=1e-6)
