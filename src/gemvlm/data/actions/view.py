"""An episode as a contract sees it: which of its cameras and columns are meant, checked before anything learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from gemvlm.data.episodes.episode import Episode
from gemvlm.robot.contract import ActionContract
from gemvlm.sample import Frame

RATE_TOLERANCE = 0.01
_COLOUR_BYTES, _DEPTH_BYTES = 3, 5


@dataclass(frozen=True)
class EpisodeView:
    """`cameras` maps the contract's to the episode's; `state_columns` and `action_columns` are in its order."""

    episode: Episode
    cameras: Mapping[str, str]
    state_columns: tuple[int, ...]
    action_columns: tuple[int, ...]
    rate_hz: float

    @classmethod
    def of(cls, episode: Episode, contract: ActionContract, camera_names: Mapping[str, str]) -> EpisodeView:
        """ValueError names the episode and what it has instead of what the contract wants.

        A camera may carry a prefix that ends in a dot, as LeRobot's features do. Columns are found by name; where an
        episode's names tell nothing (`KEY_0`, `KEY_1`, ...: the file named none) they are taken by position.
        """
        if abs(episode.fps / contract.rate_hz - 1) > RATE_TOLERANCE and (
            contract.control == "delta" or episode.chunk_length
        ):
            raise ValueError(
                f"episode {episode.id!r} has {episode.fps:g} frames per second and the contract {contract.rate_hz:g}: "
                "steps can't be resampled; set the contract's rate_hz, or record places instead"
            )
        cameras = {name: _camera(episode, camera_names.get(name, name)) for name in contract.cameras}
        columns = (
            _columns(episode, "state", episode.state_names, contract.state_names),
            _columns(episode, "action", episode.action_names, contract.action_names),
        )
        return cls(episode, cameras, *columns, contract.rate_hz)

    def state(self) -> Float32[np.ndarray, "T S"]:
        return np.ascontiguousarray(self.episode.state()[:, self.state_columns])

    def action(self) -> Float32[np.ndarray, "T A"]:
        return np.ascontiguousarray(self.episode.action()[:, self.action_columns])

    def chunk(self, time: int) -> Float32[np.ndarray, "H A"]:
        return self.episode.chunk(time)[:, self.action_columns]

    def steps(self, horizon: int) -> Int64[np.ndarray, "H"]:
        """How many frames after a chunk's beginning each of its actions lies."""
        rate = self.episode.fps / self.rate_hz
        rate = 1.0 if abs(rate - 1) <= RATE_TOLERANCE else rate
        return np.rint(np.arange(horizon) * rate).astype(np.int64)

    def frames(self, camera: str, times: Sequence[int]) -> tuple[Frame, ...]:
        return self.episode.frames(self.cameras[camera], times)

    def decoded_bytes(self) -> int:
        """What the pictures of these cameras take in memory, with their depth."""
        infos = [self.episode.cameras[name] for name in self.cameras.values()]
        pixels = (info.height * info.width * (_COLOUR_BYTES + _DEPTH_BYTES * info.has_depth) for info in infos)
        return sum(pixels) * self.episode.length


def _camera(episode: Episode, wanted: str) -> str:
    found = [wanted] if wanted in episode.cameras else [n for n in episode.cameras if n.endswith(f".{wanted}")]
    if len(found) != 1:
        raise ValueError(
            f"episode {episode.id!r}: {len(found)} cameras are called {wanted!r}; there are {sorted(episode.cameras)}: "
            "name one in camera_names"
        )
    return found[0]


def _columns(episode: Episode, signal: str, names: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...]:
    if list(wanted) == list(names):
        return tuple(range(len(names)))
    if twice := sorted({name for name in wanted if names.count(name) > 1}):
        raise ValueError(
            f"episode {episode.id!r}: several {signal} columns are called {', '.join(twice)}, among {list(names)}; say "
            f"{signal}_names in episodes.json"
        )
    if set(wanted) <= set(names):
        return tuple(names.index(name) for name in wanted)
    if len(names) == len(wanted) and all(name.endswith(f"_{i}") for i, name in enumerate(names)):
        return tuple(range(len(names)))
    missing = [name for name in wanted if name not in names]
    raise ValueError(f"episode {episode.id!r}: no {signal} {missing}; it has {list(names)}: is this the robot's data?")
