"""What a world promises a policy: go to a numbered start, act, see what a robot would see, and say when it is done.

`TaskWorld` shows everything, to ask questions about; here a policy gets pictures, the state of its own arm and an
instruction, nothing else. A start is a number: the same one is the same state, on any machine that draws with the
same versions, whatever was done before. Those for tests and those for demonstrations have no number in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, UInt8

from gemvlm.depth_map import DepthMap
from gemvlm.robot import ActionContract, RobotObservation


@runtime_checkable
class RobotWorld(Protocol):
    """One task for one robot, in closed loop.

    `name` says which task, and which stand-ins for published pictures it is drawn with, if any. `contract` says what
    the numbers of `RobotObservation.state` and of actions mean, `horizon` after how many actions an episode has failed.
    `test_starts` and `demonstration_starts` are the numbers that `reset` takes. `protocol` is what a score must state
    to mean something: versions of the simulator, how pictures are drawn, how long an episode is.
    """

    name: str
    instruction: str
    contract: ActionContract
    horizon: int
    test_starts: range
    demonstration_starts: range

    @property
    def protocol(self) -> Mapping[str, str]: ...

    def reset(self, start: int) -> RobotObservation:
        """To the start of that number, and what is seen there; its pictures may wait to be looked at (`Pictures`).

        ValueError if there is none.
        """
        ...

    def step(self, action: Float[np.ndarray, "A"]) -> tuple[RobotObservation, bool]:
        """One action in the robot's own units, clipped to what it can do; what is seen then, and whether it is done.

        ValueError for an action of another length, one that is not finite, or one beyond `horizon`.
        """
        ...

    def succeeded(self) -> bool:
        """Whether the simulator's own rule calls the task done now."""
        ...

    def depths(self) -> dict[str, DepthMap]:
        """The depth behind each picture of the last observation, in metres along the optical axis."""
        ...

    def expert_action(self) -> Float32[np.ndarray, "A"] | None:
        """What a scripted expert that knows the simulator's state would do now; None where there is no expert."""
        ...

    def close(self) -> None: ...


class Pictures(Mapping[str, UInt8[np.ndarray, "H W 3"]]):
    """The cameras' pictures of one moment, drawn when one of them is first looked at: at most moments nobody looks.

    `draw` makes a camera's picture and the depth behind it, of the world as it is then. Before the world moves on it
    calls `expire`; a first look after that is a RuntimeError. Another process gets a dict of what is seen.
    """

    def __init__(self, cameras: tuple[str, ...], draw: Callable[[str], tuple[np.ndarray, DepthMap]]) -> None:
        self._cameras = cameras
        self._draw: Callable[[str], tuple[np.ndarray, DepthMap]] | None = draw
        self._drawn: dict[str, tuple[np.ndarray, DepthMap]] = {}

    def __getitem__(self, camera: str) -> UInt8[np.ndarray, "H W 3"]:
        return self._look(camera)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cameras)

    def __len__(self) -> int:
        return len(self._cameras)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def depths(self) -> dict[str, DepthMap]:
        """The depth behind each picture, in metres along the optical axis."""
        return {camera: self._look(camera)[1] for camera in self._cameras}

    def expire(self) -> None:
        """What has not been looked at by now never will be."""
        self._draw = None

    def _look(self, camera: str) -> tuple[np.ndarray, DepthMap]:
        if camera not in self._drawn:
            if camera not in self._cameras:
                raise KeyError(camera)
            if self._draw is None:
                raise RuntimeError(
                    f"picture {camera!r} is of a moment that is over; look before the next step or reset"
                )
            self._drawn[camera] = self._draw(camera)
        return self._drawn[camera]


def checked_action(action: Float[np.ndarray, "A"], contract: ActionContract, name: str) -> Float[np.ndarray, "A"]:
    """The action as float64. ValueError if its length is not the contract's or a number of it is not finite."""
    names = contract.action_names
    if action.shape != (len(names),) or not np.isfinite(action).all():
        raise ValueError(f"{name}: an action is {len(names)} finite numbers {names}, not {action.tolist()}")
    return np.asarray(action, np.float64)


def checked_start(start: int, known: tuple[range, ...], name: str) -> int:
    """The start. ValueError if it is in none of the ranges."""
    if not any(start in numbers for numbers in known):
        spans = " and ".join(f"{numbers.start} to {numbers.stop - 1}" for numbers in known)
        raise ValueError(f"{name}: there is no start {start}; there are {spans}")
    return start
