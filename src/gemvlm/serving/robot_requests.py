"""What a robot may ask of its server: a chunk for an observation, or a new episode. Wrong fields are told by name.

The fields of an observation, in either of the two layouts that openpi's own robots use (its LIBERO and DROID examples,
and its ALOHA example):

    observation/<camera>      or  images: {<camera>: ...}     uint8 (height, width, 3), RGB, first row at the top
    observation/state         or  state                       the contract's numbers, in its order
    prompt                                                    what to do, in words

and of ours, all optional: `step` (actions executed since the episode began), `time_s` (when the pictures were taken)
and `sent_s` (when this was sent), both on the robot's clock; `committed` (real-time chunking, see `robot_session`);
`seed`. A new episode is `{"reset": true, "seed": ...}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gemvlm.robot import ActionContract, RobotObservation

MAX_SIDE = 4096
MAX_PROMPT = 4096
_PREFIX = "observation/"


class RequestError(ValueError):
    """A request that is not served; says which field is to blame and what it should be."""


@dataclass(frozen=True)
class Reset:
    """A new episode: nothing of the last one counts any more."""

    seed: int | None = None


@dataclass(frozen=True)
class Question:
    """An observation and how it wants to be answered. None: the robot did not say."""

    observation: RobotObservation
    step: int | None = None
    time_s: float | None = None
    sent_s: float | None = None
    committed: int = 0
    seed: int | None = None


@dataclass(frozen=True)
class RequestReader:
    """Reads requests to one contract. `cameras` renames what a robot calls its cameras: {"image": "agentview"}."""

    contract: ActionContract
    cameras: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strange = sorted(set(self.cameras.values()) - set(self.contract.cameras))
        if strange:
            raise ValueError(f"cameras: {', '.join(strange)} stand for none of {', '.join(self.contract.cameras)}")

    def read(self, message: Mapping[str, Any]) -> Question | Reset:
        """The request in a message. RequestError names the first field that is wrong, missing or unknown."""
        left = dict(message)
        if "reset" in left:
            if left.pop("reset") is not True:
                raise RequestError("reset: must be true")
            request: Question | Reset = Reset(_whole(left, "seed", 2**63 - 1))
        else:
            images = self._images(left)
            state = self._state(left)
            instruction = _text(left, "prompt")
            step, time_s = _whole(left, "step", 2**31), _seconds(left, "time_s")
            request = Question(
                RobotObservation(images, state, instruction, step or 0, time_s or 0.0),
                step,
                time_s,
                _seconds(left, "sent_s"),
                _whole(left, "committed", 2**31) or 0,
                _whole(left, "seed", 2**63 - 1),
            )
        if left:
            raise RequestError(f"{_shown(next(iter(left)))}: an unknown field; {self._known()}")
        return request

    def _images(self, left: dict[str, Any]) -> dict[str, np.ndarray]:
        nested = left.pop("images", {})
        if not isinstance(nested, dict):
            raise RequestError(f"images: a map of cameras to pictures, not {_what(nested)}")
        flat = {name: left.pop(name) for name in list(left) if name.startswith(_PREFIX) and name != f"{_PREFIX}state"}
        images = {}
        for name, value in [*nested.items(), *((name.removeprefix(_PREFIX), value) for name, value in flat.items())]:
            camera = self.cameras.get(name, name)
            if camera not in self.contract.cameras:
                raise RequestError(f"{_PREFIX}{_shown(name)}: no such camera; {self._known()}")
            if camera in images:
                raise RequestError(f"{_PREFIX}{camera}: came twice")
            images[camera] = _picture(value, f"{_PREFIX}{camera}")
        missing = [camera for camera in self.contract.cameras if camera not in images]
        if missing:
            raise RequestError(f"{_PREFIX}{missing[0]}: is missing; {self._known()}")
        return {camera: images[camera] for camera in self.contract.cameras}

    def _state(self, left: dict[str, Any]) -> np.ndarray:
        names = [name for name in (f"{_PREFIX}state", "state") if name in left]
        if len(names) != 1:
            raise RequestError(f"{_PREFIX}state: {'came twice' if names else 'is missing; ' + self._known()}")
        value = left.pop(names[0])
        if isinstance(value, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value):
            value = np.array([_float(x) for x in value], np.float64)
        wanted = f"{len(self.contract.state_names)} numbers ({', '.join(self.contract.state_names)})"
        if not isinstance(value, np.ndarray) or value.shape != (len(self.contract.state_names),):
            raise RequestError(f"{names[0]}: must be {wanted}, is {_what(value)}")
        with np.errstate(over="ignore"):
            state = value.astype(np.float32)
        for name, number in zip(self.contract.state_names, state, strict=True):
            if not np.isfinite(number):
                raise RequestError(f"{names[0]}: {name} is {number}; every number must be finite")
        return state

    def _known(self) -> str:
        cameras = ", ".join(_PREFIX + camera for camera in self.contract.cameras)
        return (
            f"this server reads {cameras}, {_PREFIX}state, prompt, and if wanted step, time_s, sent_s, committed, seed"
        )


def _float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:  # an int of any length may come
        return math.inf


def _picture(value: Any, name: str) -> np.ndarray:
    wanted = f"must be an RGB picture, uint8 of shape (height, width, 3) with sides of at most {MAX_SIDE}"
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
        raise RequestError(f"{name}: {wanted}, is {_what(value)}")
    if not (0 < value.shape[0] <= MAX_SIDE and 0 < value.shape[1] <= MAX_SIDE):
        raise RequestError(f"{name}: {wanted}, is {_what(value)}")
    return value


def _text(left: dict[str, Any], name: str) -> str:
    value = left.pop(name, None)
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_PROMPT:
        raise RequestError(f"{name}: must be text of 1 to {MAX_PROMPT} characters, is {_what(value)}")
    return value


def _whole(left: dict[str, Any], name: str, most: int) -> int | None:
    value = left.pop(name, None)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= most:
        raise RequestError(f"{name}: must be a whole number from 0 to {most}, is {_what(value)}")
    return value


def _seconds(left: dict[str, Any], name: str) -> float | None:
    value = left.pop(name, None)
    if value is None:
        return None
    if type(value) not in (int, float) or not abs(value) < 1e15:
        raise RequestError(f"{name}: must be seconds on the robot's clock, is {_what(value)}")
    return float(value)


def _what(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    if value is None or isinstance(value, bool | int | float):
        return "nothing" if value is None else _shown(str(value))
    return f"a {type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else f"a {type(value).__name__}"


def _shown(text: str) -> str:
    """A stranger's text, short and on one line, as it may stand in a message or a log."""
    return "".join(c if c.isprintable() else "?" for c in text[:60])
