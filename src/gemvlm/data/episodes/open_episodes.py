"""A folder of episodes, whatever its layout; what its files leave open stands in `episodes.json` beside them.

    meta/info.json       LeRobot 2.x or 3.0                 `lerobot`
    shard-*.tar          RDT2's WebDataset shards           `rdt2`
    **/*.hdf5            the released GEM-VLA code's files  `hdf5`

`episodes.json` is an object whose fields are those of the layout's class: for HDF5, which says neither its rate nor the
order of encoded colours, for instance, where pictures are encoded and nobody has aligned the rows,

    {"fps": 30, "encoded_order": "bgr", "depth": "mm", "latency": {"camera": 3, "arm": 2}, "robot": "two_arms"}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from gemvlm.data.episodes.episode import EpisodeSet
from gemvlm.data.episodes.hdf5 import ColourOrder, DepthAs, Hdf5Folder
from gemvlm.data.episodes.latency import Latency
from gemvlm.data.episodes.lerobot import LeRobotFolder
from gemvlm.data.episodes.rdt2 import Rdt2Shards

STATED = "episodes.json"
LARGEST_STATED = 1 << 20
SHOWN = 8
"""Names in a folder that is none of these, as the error shows them."""


@dataclass(frozen=True)
class Layout:
    """A layout by the file that gives it away; `stated` are the options that `episodes.json` may hold."""

    name: str
    sign: str
    folder: Callable[..., EpisodeSet]
    stated: Mapping[str, Callable[[Any], Any]]

    def open(self, place: Path) -> EpisodeSet:
        """ValueError for an `episodes.json` that says what this layout does not know."""
        file = place / STATED
        given = _stated(file) if file.is_file() else {}
        if unknown := sorted(set(given) - set(self.stated)):
            raise ValueError(
                f"{file}: {', '.join(unknown)}: for {self.name} there are {', '.join(sorted(self.stated))}"
            )
        options = {}
        for name, value in given.items():
            try:
                options[name] = self.stated[name](value)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{file}: {name} is {json.dumps(value):.80}: {error}") from error
        return self.folder(place, **options)


def open_episodes(place: Path) -> EpisodeSet:
    """The episodes of a folder. ValueError names what was looked for, and what is there instead."""
    if not place.is_dir():
        raise ValueError(f"{place}: no folder of episodes is there" + (", but a file" if place.exists() else ""))
    found = [layout for layout in LAYOUTS[:-1] if _holds(place, layout.sign)]
    if not found:  # a walk through all files: last, and only then
        found = [layout for layout in LAYOUTS[-1:] if _holds(place, layout.sign)]
    if len(found) != 1:
        names = sorted(path.name for path in place.iterdir())
        there = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        signs = "; ".join(f"{layout.sign} ({layout.name})" for layout in found or LAYOUTS)
        fault = f"holds two layouts: {signs}; give a folder of one" if found else f"no episodes; looked for {signs}"
        raise ValueError(f"{place}: {fault}; it holds {there or 'nothing'}")
    return found[0].open(place)


def _holds(place: Path, sign: str) -> bool:
    return next(place.glob(sign), None) is not None


def _stated(file: Path) -> dict[str, Any]:
    if file.stat().st_size > LARGEST_STATED:
        raise ValueError(f"{file}: larger than {LARGEST_STATED} bytes; it holds a few options only")
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON ({error})") from error
    if not isinstance(stated, dict):
        raise ValueError(f"{file}: an object with the layout's options is needed")
    return stated


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("write a text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("write a list of texts")
    return tuple(map(_text, value))


def _one_of(options: tuple[str, ...]) -> Callable[[Any], str]:
    def chosen(value: Any) -> str:
        if value not in options:
            raise ValueError(f"there are {', '.join(options)}")
        return str(value)

    return chosen


def _rate(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1000:
        raise ValueError("write a number of frames a second, up to 1000")
    return float(value)


def _latency(value: Any) -> Latency:
    names = [field.name for field in fields(Latency)]
    if not isinstance(value, dict) or not set(value) <= set(names):
        raise ValueError(f"write an object of {', '.join(names)}")
    columns = value.get("gripper_columns", [])
    whole = [*(value[name] for name in names[:3] if name in value), *columns]
    if not isinstance(columns, list) or not all(type(number) is int for number in whole):
        raise ValueError("write whole numbers of frames and columns")
    return Latency(**{**value, **({"gripper_columns": tuple(columns)} if "gripper_columns" in value else {})})


LAYOUTS = (
    Layout(
        "LeRobot",
        "meta/info.json",
        LeRobotFolder,
        {
            "licence": _text,
            "fps": _rate,
            "state_keys": _texts,
            "action_keys": _texts,
            "state_names": _texts,
            "action_names": _texts,
        },
    ),
    Layout("RDT2 shards", "shard-*.tar", Rdt2Shards, {"licence": _text}),
    Layout(
        "HDF5",
        "**/*.hdf5",
        Hdf5Folder,
        {
            "fps": _rate,
            "encoded_order": _one_of(get_args(ColourOrder)),
            "raw_order": _one_of(get_args(ColourOrder)),
            "depth": _one_of(get_args(DepthAs)),
            "latency": _latency,
            "state_names": _texts,
            "action_names": _texts,
            "robot": _text,
            "licence": _text,
        },
    ),
)
