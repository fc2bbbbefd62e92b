"""Episodes as moments to learn from: every frame of every episode with the chunk of actions that follows it.

Nothing is opened to count them but the episodes' own descriptions, nothing is written, and the order is that of the
sets. Numbers and decoded pictures are kept within the bytes that are given, in each process of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64

from gemvlm.data.actions.item import RobotItem
from gemvlm.data.actions.memory import ByteCache, frame_bytes
from gemvlm.data.actions.view import EpisodeView
from gemvlm.data.collate import keyed
from gemvlm.data.episodes.episode import Episode, EpisodeSet
from gemvlm.robot.contract import ActionContract
from gemvlm.robot.embodiments import Embodiment
from gemvlm.robot.statistics import Statistics
from gemvlm.sample import Frame

Told = Literal["task", "subtask", "both"]
NUMBER_BYTES = 64 << 20
PICTURE_BYTES = 256 << 20
RUN = 32
"""Neighbouring frames that are decoded at once where the pictures of all episodes fit into the cache."""
ROWS_AT_ONCE = 4096


class EpisodeDataset(Sequence[Any]):  # of RobotItem: a type checker at run time would draw one
    """Item i is frame i of all episodes, one episode after the other; `every` takes each n-th frame only.

    `told` says which words go with it: the task's (the sub-task's where no task is told), those of the sub-task under
    way (the task's where none is), or either. `camera_names` maps the contract's cameras to those of the episodes where
    they are called otherwise.
    Episodes may have another rate than the contract if their actions are places: the nearest frame's is taken.
    ValueError names the episode for missing cameras or columns, and for steps at another rate.
    """

    def __init__(
        self,
        sets: Sequence[EpisodeSet],
        contract: ActionContract,
        horizon: int,
        *,
        told: Told = "task",
        every: int = 1,
        camera_names: Mapping[str, str] | None = None,
        picture_bytes: int = PICTURE_BYTES,
    ) -> None:
        self.episodes: list[Episode] = [one[number] for one in sets for number in range(len(one))]
        if not self.episodes or horizon < 1 or every < 1:
            raise ValueError(
                f"{len(self.episodes)} episodes, horizon {horizon}, every {every}: each must be at least 1"
            )
        self.contract, self.horizon, self.told, self.every = contract, horizon, told, every
        self._views = [EpisodeView.of(episode, contract, camera_names or {}) for episode in self.episodes]
        counts = np.array([-(-episode.length // every) for episode in self.episodes])
        self._ends: Int64[np.ndarray, "E"] = np.cumsum(counts)
        self._signals: ByteCache[tuple[int, str], np.ndarray] = ByteCache(NUMBER_BYTES, _bytes)
        self._pictures: ByteCache[tuple[int, str, int], Frame] = ByteCache(picture_bytes, frame_bytes)
        self._run = RUN if self._decoded_bytes() <= picture_bytes else 1

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"moment {index} of {len(self)}")
        number, time = self.moment(index % len(self))
        return self.at(number, time)

    def __iter__(self) -> Iterator[RobotItem]:
        return (self[index] for index in range(len(self)))

    def moment(self, index: int) -> tuple[int, int]:
        """(episode, frame) of an item."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        begin = int(self._ends[number - 1]) if number else 0
        return number, (index - begin) * self.every

    def at(self, number: int, time: int) -> RobotItem:
        """The item of frame `time` of episode `number`."""
        episode = self.episodes[number]
        actions, valid = self._chunk(number, np.array([time]))
        return RobotItem(
            f"{episode.id}@{time}",
            self._words(episode, time),
            {camera: self._frame(number, camera, time) for camera in self.contract.cameras},
            self._state(number)[time],
            actions[0],
            valid[0],
        )

    def numbers(self, number: int) -> tuple[Float32[np.ndarray, "T S"], Float32[np.ndarray, "T A"]]:
        """States and actions of a whole episode, in the contract's order."""
        return self._state(number), self._signals.get((number, "action"), self._views[number].action)

    def chunks(
        self, number: int, part: slice = slice(None)
    ) -> tuple[Float32[np.ndarray, "T H A"], Bool[np.ndarray, "T H"]]:
        """The chunks that begin at every frame (of a part) of an episode, and where they are valid."""
        return self._chunk(number, np.arange(self.episodes[number].length)[part])

    @cached_property
    def hash(self) -> str:
        """Different for episodes or settings that differ in anything but the pixels of their pictures."""
        settings = (repr(self.contract), self.horizon, self.told, self.every)
        digest = hashlib.sha256(repr(settings).encode())
        for number, episode in enumerate(self.episodes):
            words = (episode.id, episode.instruction, episode.wordings, episode.subtasks, episode.length, episode.fps)
            digest.update(repr(words).encode())
            digest.update(repr(sorted(self._views[number].cameras.items())).encode())
            for values in self.numbers(number):
                digest.update(np.ascontiguousarray(values).tobytes())
            for begin in range(0, episode.length if episode.chunk_length else 0, ROWS_AT_ONCE):
                digest.update(self.chunks(number, slice(begin, begin + ROWS_AT_ONCE))[0].tobytes())
        return digest.hexdigest()[:16]

    def _state(self, number: int) -> Float32[np.ndarray, "T S"]:
        return self._signals.get((number, "state"), self._views[number].state)

    def _chunk(
        self, number: int, times: Int64[np.ndarray, "N"]
    ) -> tuple[Float32[np.ndarray, "N H A"], Bool[np.ndarray, "N H"]]:
        """The actions from each time on, and where the episode still goes on."""
        episode, view = self.episodes[number], self._views[number]
        if episode.chunk_length:
            steps = np.arange(self.horizon)
            kept = np.minimum(steps, episode.chunk_length - 1)
            stored = np.stack([view.chunk(int(time))[kept] for time in times])
            return stored, np.repeat((steps < episode.chunk_length)[None], len(times), axis=0)
        wanted = times[:, None] + view.steps(self.horizon)
        return self.numbers(number)[1][np.minimum(wanted, episode.length - 1)], wanted < episode.length

    def _words(self, episode: Episode, time: int) -> tuple[str, ...]:
        task = episode.wordings or (episode.instruction,)
        under_way = None if self.told == "task" and any(task) else episode.subtask_at(time)
        if under_way is None:
            return task
        part = episode.subtasks[under_way].text
        return (*task, part) if self.told == "both" and any(task) else (part,)

    def _frame(self, number: int, camera: str, time: int) -> Frame:
        def read() -> Frame:
            begin = time - time % self._run
            times = range(begin, min(begin + self._run, self.episodes[number].length)) if self._run > 1 else (time,)
            try:
                frames = self._views[number].frames(camera, times)
            except ValueError:  # a damaged neighbour must not cost this one
                return self._views[number].frames(camera, (time,))[0]
            for at, frame in zip(times, frames, strict=True):
                self._pictures.put((number, camera, at), frame)
            return frames[time - times[0]]

        return self._pictures.get((number, camera, time), read)

    def _decoded_bytes(self) -> int:
        """What all pictures would take."""
        return sum(view.decoded_bytes() for view in self._views)


def episode_statistics(dataset: EpisodeDataset, embodiment: Embodiment) -> dict[str, Statistics]:
    """Of "state" and "action" as the model sees them, before normalisation: from the tables alone, no picture is read.

    Actions that are relative to a chunk's beginning, or stored in chunks, are counted in every chunk they belong to.
    """

    def states() -> Iterator[np.ndarray]:
        for number in range(len(dataset.episodes)):
            yield embodiment.to_model(dataset.numbers(number)[0])[0]

    def actions() -> Iterator[np.ndarray]:
        for number in range(len(dataset.episodes)):
            state, own = dataset.numbers(number)
            if not embodiment.relative and not dataset.episodes[number].chunk_length:
                seen = embodiment.to_model(state, own[:, None])[1]
                assert seen is not None
                yield seen[:, 0]
                continue
            for begin in range(0, len(state), ROWS_AT_ONCE):
                part = slice(begin, begin + ROWS_AT_ONCE)
                chunks, valid = dataset.chunks(number, part)
                seen = embodiment.to_model(state[part], chunks)[1]
                assert seen is not None
                yield seen[valid]

    names = embodiment.contract.state_names if embodiment.state_size == len(embodiment.contract.state_names) else ()
    moved = embodiment.contract.action_names if embodiment.action_size == len(embodiment.contract.action_names) else ()
    return {"state": Statistics.of(states(), names), "action": Statistics.of(actions(), moved)}


def _bytes(values: np.ndarray) -> int:
    return values.nbytes


def split_episodes(episodes: EpisodeSet, held_out: float, seed: int = 0) -> tuple[list[Episode], list[Episode]]:
    """(to learn from, held out): whole episodes, each by its own id, so that more episodes move none across.

    `held_out` is a share in (0, 1). Where chance would leave a part of a small set empty, it gets the episode that is
    nearest to it. ValueError for fewer than two episodes.
    """
    if not 0 < held_out < 1 or len(episodes) < 2:
        raise ValueError(
            f"held out: {held_out} of {len(episodes)} episodes; give a share between 0 and 1, and two episodes or more"
        )
    found = [episodes[number] for number in range(len(episodes))]
    places = [keyed(seed, "held out", episode.id) for episode in found]
    chosen = [place < held_out * 2**63 for place in places]
    if not any(chosen):
        chosen[places.index(min(places))] = True
    if all(chosen):
        chosen[places.index(max(places))] = False
    parts: tuple[list[Episode], list[Episode]] = ([], [])
    for episode, is_held_out in zip(found, chosen, strict=True):
        parts[is_held_out].append(episode)
    return parts
