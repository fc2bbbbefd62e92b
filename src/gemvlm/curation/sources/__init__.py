"""Where samples come from, one file each.

`SOURCES` maps a name to the class of a source, whose file is loaded when it is asked for: looking at the names imports
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any


class _Registry(Mapping[str, type[Any]]):
    """Names to classes, each given as "file:class" within this package. KeyError names those there are."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> type[Any]:
        if name not in self._places:
            raise KeyError(f"unknown source {name!r}; there are {', '.join(self)}")
        file, cls = self._places[name].split(":")
        return getattr(import_module(f"{__name__}.{file}"), cls)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._places))

    def __len__(self) -> int:
        return len(self._places)


SOURCES: Mapping[str, type[Any]] = _Registry(
    {
        "7-scenes": "rgbd_folder:SevenScenes",
        "episodes": "episodes:Episodes",
        "gem-250k": "gem_250k:Gem250K",
        "libero": "libero:LiberoSource",
        "llava": "llava:LlavaFolder",
        "metaworld": "metaworld:MetaWorldSource",
        "mindcube": "mindcube:MindCube",
        "refspatial": "refspatial:RefSpatial",
        "rgbd-folder": "rgbd_folder:RgbdFolders",
        "robo2vlm": "robo2vlm:Robo2Vlm",
        "robopoint": "robopoint:RoboPoint",
        "robovqa": "robovqa:RoboVqa",
        "sat": "sat:Sat",
        "scannet": "scannet:ScanNet",
        "sharerobot": "sharerobot:ShareRobot",
        "spar": "spar:Spar",
        "tabletop": "tabletop:Tabletop",
        "tum-rgbd": "tum_rgbd:TumRgbd",
        "vsi-590k": "vsi_590k:Vsi590K",
    }
)
"""Every source by the name that plans use; its class says what it takes (`path`: where the data lie), its file what it
reads and who states that format."""
