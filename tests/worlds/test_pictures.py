"""Pictures of a moment are drawn when somebody looks, once, and never of another moment."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from gemvlm.depth_map import DepthMap
from gemvlm.worlds.robot_world import Pictures


class Drawer:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, camera: str) -> tuple[np.ndarray, DepthMap]:
        self.count += 1
        depth = DepthMap.from_values(np.full((2, 3), 1.5, np.float32))
        return np.full((2, 3, 3), ord(camera), np.uint8), depth


def test_nothing_is_drawn_before_somebody_looks_and_then_once() -> None:
    pictures = Pictures(("a", "b"), draw := Drawer())
    assert (list(pictures), len(pictures), "a" in list(pictures), draw.count) == (["a", "b"], 2, True, 0)
    assert pictures["a"][0, 0, 0] == ord("a") and draw.count == 1
    assert pictures["a"] is pictures["a"] and set(pictures.depths()) == {"a", "b"} and draw.count == 2


def test_a_look_after_the_world_moved_on_is_an_error_unless_it_had_been_drawn() -> None:
    pictures = Pictures(("a", "b"), Drawer())
    seen = pictures["a"]
    pictures.expire()
    assert pictures["a"] is seen
    with pytest.raises(RuntimeError, match="look before the next step"):
        pictures["b"]


def test_another_camera_is_no_key() -> None:
    with pytest.raises(KeyError):
        Pictures(("a",), Drawer())["b"]


def test_another_process_gets_what_was_seen() -> None:
    sent = pickle.loads(pickle.dumps(Pictures(("a",), Drawer())))
    assert type(sent) is dict and sent["a"].shape == (2, 3, 3)
