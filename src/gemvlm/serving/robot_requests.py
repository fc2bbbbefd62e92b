"""What a robot may ask of its server: a chunk for an observation, or a new episode. Wrong fields are told by name.

The fields of an observation, as openpi's examples send them (LIBERO and DROID the first, ALOHA the second of each two):

    observation/<camera>      or  images: {<camera>: ...}     uint8 (height, width, 3) or (3, height, width), RGB, first
                                                              row at the top
    observation/state         or  state                       the contract's numbers, in its order; DROID's come as
                                                              observation/joint_position and /gripper_position
    prompt                                                    what to do, in words; ALOHA's robots send none, and are
                                                              served where the server was given one

What is read are layouts. What numbers and pictures mean is the contract's: openpi's LIBERO example sends robosuite's
pictures turned by 180 degrees, which are mirror images, so a policy that is served to it must have learned from such
(`--turn`; its contract's `image_turn` is "half"). Nothing here can see that.

The fields of ours, all optional: `step` (actions executed since the episode began), `time_s` (when the pictures were
taken) and `sent_s` (when this was sent), both on the robot's clock; `committed` (real-time chunking, see
`robot_session`); `seed`. A new episode is `{"reset": true, "seed": ...}`.
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
_STATE = (f"{_PREFIX}state", "state")
_PARTS = (f"{_PREFIX}joint_position", f"{_PREFIX}gripper_position")


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
    """Reads requests to one contract. `cameras` renames what a robot calls its cameras: {"image": "agentview"}.

    `prompt` is what a robot is to do that does not say it. ValueError for names of other cameras and for no such text.
    """

    contract: ActionContract
    cameras: Mapping[str, str] = field(default_factory=dict)
    prompt: str | None = None

    def __post_init__(self) -> None:
        if self.prompt is not None and not _is_prompt(self.prompt):
            raise ValueError(f"prompt: must be text of 1 to {MAX_PROMPT} characters, is {_what(self.prompt)}")
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
            instruction = self._instruction(left)
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
        flat = {name: left.pop(name) for name in list(left) if name.startswith(_PREFIX) and name not in _STATE + _PARTS}
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
        names = [name for name in _STATE if name in left]
        parts = [name for name in _PARTS if name in left]
        if len(names) + bool(parts) != 1:
            raise RequestError(f"{_STATE[0]}: {'came twice' if names else 'is missing; ' + self._known()}")
        if len(parts) == 1:
            raise RequestError(f"{parts[0]}: {' and '.join(_PARTS)} make up a state together")
        name = " and ".join(names or parts)
        value = _numbers(left.pop(names[0])) if names else _joined([_numbers(left.pop(part)) for part in parts])
        wanted = f"{len(self.contract.state_names)} numbers ({', '.join(self.contract.state_names)})"
        if not isinstance(value, np.ndarray) or value.shape != (len(self.contract.state_names),):
            raise RequestError(f"{name}: must be {wanted}, is {_what(value)}")
        with np.errstate(over="ignore"):
            state = value.astype(np.float32)
        for own, number in zip(self.contract.state_names, state, strict=True):
            if not np.isfinite(number):
                raise RequestError(f"{name}: {own} is {number}; every number must be finite")
        return state

    def _instruction(self, left: dict[str, Any]) -> str:
        value = left.pop("prompt", None)
        if value is None and self.prompt is not None:
            return self.prompt
        if not _is_prompt(value):
            none = "; for robots that send none: `gemvlm vla serve --prompt TEXT`" if value is None else ""
            raise RequestError(f"prompt: must be text of 1 to {MAX_PROMPT} characters, is {_what(value)}{none}")
        return str(value)

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


def _numbers(value: Any) -> Any:
    """A list of numbers as an array; anything else as it is."""
    if isinstance(value, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value):
        return np.array([_float(x) for x in value], np.float64)
    return value


def _joined(values: list[Any]) -> Any:
    """Rows of numbers one after the other, or what among them is no row; an array of no axes is a row of one."""
    wrong = [value for value in values if not isinstance(value, np.ndarray) or value.ndim > 1]
    return wrong[0] if wrong else np.concatenate([np.atleast_1d(value) for value in values])


def _picture(value: Any, name: str) -> np.ndarray:
    """(height, width, 3), also of a picture that came as (3, height, width)."""
    shapes = "(height, width, 3) or (3, height, width)"
    wanted = f"must be an RGB picture, uint8 of shape {shapes} with sides of at most {MAX_SIDE}"
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 3 or 3 not in value.shape[::2]:
        raise RequestError(f"{name}: {wanted}, is {_what(value)}")
    picture = value if value.shape[2] == 3 else np.ascontiguousarray(value.transpose(1, 2, 0))
    if not (0 < picture.shape[0] <= MAX_SIDE and 0 < picture.shape[1] <= MAX_SIDE):
        raise RequestError(f"{name}: {wanted}, is {_what(value)}")
    return picture


def _is_prompt(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= MAX_PROMPT


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
