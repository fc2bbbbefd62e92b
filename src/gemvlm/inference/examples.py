"""Pictures inside the package to try a model on: tabletop scenes of no training, with true depth, camera and pose.

`runs/make_examples.py` makes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.depth import MILLIMETRES, read_png16
from gemvlm.inference.images import read_image


@dataclass(frozen=True)
class Example:
    """One picture: its file, what can be pointed to in it (in words that fit nothing else), and its view."""

    name: str
    path: Path
    things: tuple[str, ...]
    view: View

    def image(self) -> UInt8[np.ndarray, "H W 3"]:
        return read_image(self.path)

    def depth(self) -> DepthMap:
        """True z-depth, to the millimetre."""
        counts = read_png16(self.path.with_name(f"{self.name}-depth.png"))
        return DepthMap.from_values(counts / MILLIMETRES, source="tabletop")


@cache
def examples() -> tuple[Example, ...]:
    """All of them, in order."""
    folder = Path(str(files("gemvlm.inference"))) / "pictures"
    found = []
    for about in json.loads((folder / "examples.json").read_text(encoding="utf-8")):
        path = folder / f"{about['name']}.jpg"
        height, width = read_image(path).shape[:2]
        view = View(Camera(width, height, *about["camera"]), np.array(about["camera_to_world"]))
        found.append(Example(about["name"], path, tuple(about["things"]), view))
    return tuple(found)
