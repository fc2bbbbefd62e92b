"""Pictures changed at random: by their key alone, within their sizes, depth along with colour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gemvlm.camera import Camera, View
from gemvlm.data.actions import Augmentation
from gemvlm.data.actions.augmentation import _hue_turn
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame

SIDE = 40


def _frame() -> Frame:
    """Depth is told by the red channel, so that colour and depth can be compared after a shift."""
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    image = np.stack([across * 3 + 40, down * 3 + 40, np.full_like(across, 90)], -1).astype(np.uint8)
    return Frame(image, DepthMap.from_values(image[..., 0].astype(np.float32) / 100), encoded=b"file")


def test_a_key_is_a_picture() -> None:
    """B17: no generator is shared or forked; a key gives the same bytes everywhere, another key others."""
    augment, frame = replace(Augmentation.published(), share=1.0, shift=0.1), _frame()
    pictures = [augment(frame, key).image.tobytes() for key in range(40)]
    assert pictures == [augment(frame, key).image.tobytes() for key in range(40)]
    assert len(set(pictures)) == 40
    assert augment(frame, 3).encoded is None and frame.encoded == b"file"


def test_nothing_asked_nothing_changed() -> None:
    for key in range(20):
        changed = Augmentation(share=1.0)(_frame(), key)
        np.testing.assert_array_equal(changed.image, _frame().image)
        assert changed.depth is not None and changed.depth.valid.all()


def test_half_of_the_pictures_are_changed_as_published() -> None:
    frame, augment = _frame(), Augmentation.published()
    changed = [not np.array_equal(augment(frame, key).image, frame.image) for key in range(400)]
    assert 0.42 < np.mean(changed) < 0.56


def test_depth_moves_with_its_picture() -> None:
    for key in range(60):
        changed = Augmentation(shift=0.25)(_frame(), key)
        depth = changed.depth
        assert depth is not None and changed.view is None
        np.testing.assert_allclose(depth.values, changed.image[..., 0] / 100, rtol=1e-6)
        rows, columns = depth.valid.any(1).sum(), depth.valid.any(0).sum()
        assert min(rows, columns) >= 0.7 * SIDE and depth.valid.sum() == rows * columns


def test_shifts_go_in_every_direction_up_to_their_size() -> None:
    places = []
    for key in range(200):
        valid = Augmentation(shift=0.1)(_frame(), key).depth.valid  # type: ignore[union-attr]
        places.append((int(valid[:, 20].argmax()), int(valid[20].argmax()), int(valid[:, 20].sum())))
    assert max(top for top, _, _ in places) == max(left for _, left, _ in places) == 4
    assert min(rows for _, _, rows in places) == 36


def test_distances_along_the_ray_become_depth_before_they_move() -> None:
    camera = Camera(SIDE, SIDE, 30.0, 30.0, 20.0, 20.0)
    along = DepthMap(np.full((SIDE, SIDE), 2.0, np.float32), np.ones((SIDE, SIDE), bool), "ray_distance", "m", "t")
    frame = replace(_frame(), depth=along, view=View(camera, np.eye(4)))
    shifted = Augmentation(shift=0.2)(frame, 5).depth
    assert shifted is not None and shifted.kind == "metric_z"
    np.testing.assert_allclose(shifted.values[shifted.valid].max(), 2.0, rtol=1e-3)


@pytest.mark.parametrize("fraction", [0.0, 0.03, -0.03, 1 / 3])
def test_a_hue_turn_keeps_grey_and_brightness(fraction: float) -> None:
    turn = _hue_turn(fraction)
    np.testing.assert_allclose(turn @ np.ones(3), 1, atol=1e-6)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    if fraction == 1 / 3:
        np.testing.assert_allclose(turn @ [1, 0, 0], [0, 1, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "spread"),
    [({"brightness": 0.3}, 25.0), ({"contrast": 0.4}, 5.0), ({"saturation": 0.5}, 4.0), ({"noise": 0.02}, 0.5)],
)
def test_each_change_changes(options: dict[str, float], spread: float) -> None:
    frame, augment = _frame(), Augmentation(**options)
    apart = [np.abs(augment(frame, key).image.astype(float) - frame.image).mean() for key in range(60)]
    assert max(apart) > spread and min(apart) == 0  # a third of the keys draws the other kind


def test_blur_and_compression_keep_size_and_kind() -> None:
    for key in range(12):
        image = Augmentation(blur=1.0, compression=1.0)(_frame(), key).image
        assert image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8
