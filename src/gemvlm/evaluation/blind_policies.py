"""Policies that see nothing: what a score in closed loop must stand beside, since on many tasks they reach 22-100 %.

All know the instruction, which demonstrations followed it, and how many actions were taken. `MeanTrajectory`, `Replay`
and `RandomActions` look at nothing else; `NearestNeighbour` reads the robot's own state; `Blanked` is any other policy
with its pictures taken away. The published code has no evaluation in closed loop at all (reference-spec B13, C12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64

from gemvlm.data.episodes import Episode
from gemvlm.robot import ActionChunk, ActionContract, Committed, Policy, RobotObservation

GREY = 128
TIMES = 50
"""Moments at which two demonstrations of different length are compared."""


@dataclass(frozen=True)
class Demonstration:
    """What a robot was told, where it was and what it did: states and actions in the robot's units, one row a step."""

    instruction: str
    states: Float32[np.ndarray, "T S"]
    actions: Float32[np.ndarray, "T A"]

    def __post_init__(self) -> None:
        if len(self.actions) < 1 or len(self.states) != len(self.actions):
            raise ValueError(
                f"a demonstration of {self.instruction!r} has {len(self.states)} states and {len(self.actions)} "
                "actions; it needs one of each for every step, and a step"
            )

    @classmethod
    def read(cls, episodes: Iterable[Episode]) -> tuple[Demonstration, ...]:
        """Those of recorded episodes; what was judged a failure is left out."""
        kept = [episode for episode in episodes if episode.success is not False]
        return tuple(cls(episode.instruction, episode.state(), episode.action()) for episode in kept)


@dataclass(eq=False)
class _OfDemonstrations:
    """Groups demonstrations by their instruction, and answers one observation at a time."""

    demonstrations: tuple[Demonstration, ...]
    contract: ActionContract
    horizon: int

    def __post_init__(self) -> None:
        width, states = len(self.contract.action_names), len(self.contract.state_names)
        for index, shown in enumerate(self.demonstrations):
            if shown.actions.shape[1] != width or shown.states.shape[1] != states:
                raise ValueError(
                    f"demonstration {index}: {shown.states.shape[1]} numbers of state and {shown.actions.shape[1]} of "
                    f"action, but {self.contract.embodiment} has {states} and {width}"
                )
        if not self.demonstrations or self.horizon < 1:
            raise ValueError(
                f"{len(self.demonstrations)} demonstrations for chunks of {self.horizon}: give one or more"
            )

    @cached_property
    def by_instruction(self) -> Mapping[str, tuple[Demonstration, ...]]:
        found: dict[str, tuple[Demonstration, ...]] = {}
        for shown in self.demonstrations:
            found[shown.instruction] = (*found.get(shown.instruction, ()), shown)
        return found

    def known(self, seen: RobotObservation) -> str:
        """The instruction. ValueError if nobody demonstrated it."""
        if seen.instruction not in self.by_instruction:
            told = ", ".join(map(repr, sorted(self.by_instruction)[:5]))
            raise ValueError(f"nobody demonstrated {seen.instruction!r}; there are demonstrations of {told}")
        return seen.instruction

    def act(
        self,
        observations: Sequence[RobotObservation],
        seeds: Sequence[int],
        committed: Sequence[Committed | None] | None = None,
    ) -> list[ActionChunk]:
        return [ActionChunk(self.answer(seen), self.contract.rate_hz) for seen in observations]

    def answer(self, seen: RobotObservation) -> Float32[np.ndarray, "H A"]:
        raise NotImplementedError

    def _following(self, actions: Float32[np.ndarray, "T A"], first: int) -> Float32[np.ndarray, "H A"]:
        """The chunk that starts at row `first`; after the end the last action goes on."""
        return actions[np.minimum(np.arange(first, first + self.horizon), len(actions) - 1)]


@dataclass(eq=False)
class MeanTrajectory(_OfDemonstrations):
    """At each step the mean of what was done then; of demonstrations that had ended, their last action."""

    def answer(self, seen: RobotObservation) -> Float32[np.ndarray, "H A"]:
        return self._following(self.means[self.known(seen)], seen.step)

    @cached_property
    def means(self) -> Mapping[str, Float32[np.ndarray, "T A"]]:
        found = {}
        for instruction, shown in self.by_instruction.items():
            longest = max(len(one.actions) for one in shown)
            rows = np.minimum(np.arange(longest)[None], [[len(one.actions) - 1] for one in shown])
            held = np.stack([one.actions[row] for one, row in zip(shown, rows, strict=True)])
            found[instruction] = held.mean(axis=0, dtype=np.float64).astype(np.float32)
        return found


@dataclass(eq=False)
class Replay(_OfDemonstrations):
    """One demonstration played back: number `number` of its instruction, or (None) the most typical one.

    Typical is the one whose states, at equal fractions of its duration, have the least mean distance to all others'.
    """

    number: int | None = None

    def answer(self, seen: RobotObservation) -> Float32[np.ndarray, "H A"]:
        shown = self.by_instruction[self.known(seen)]
        chosen = self.typical[seen.instruction] if self.number is None else self.number
        if not 0 <= chosen < len(shown):
            raise ValueError(f"{seen.instruction!r} was demonstrated {len(shown)} times; there is no number {chosen}")
        return self._following(shown[chosen].actions, seen.step)

    @cached_property
    def typical(self) -> Mapping[str, int]:
        found = {}
        for instruction, shown in self.by_instruction.items():
            paths = np.stack([_path(one.states) for one in shown])
            scale = np.maximum(paths.reshape(-1, paths.shape[-1]).std(axis=0), 1e-6)
            apart = [np.linalg.norm((paths - path) / scale, axis=2).mean() for path in paths]
            found[instruction] = int(np.argmin(apart))
        return found


@dataclass(eq=False)
class NearestNeighbour(_OfDemonstrations):
    """Goes on as the demonstration did that was nearest in state and time.

    Distance is Euclidean; each number of the state, and the number of the step, is divided by its deviation over the
    demonstrations of that instruction. `time_weight` 0 leaves the step out. The first of equally near ones is taken.
    """

    time_weight: float = 1.0

    def answer(self, seen: RobotObservation) -> Float32[np.ndarray, "H A"]:
        table = self.tables[self.known(seen)]
        apart = (((table.rows - np.array([*seen.state, seen.step])) / table.scale) ** 2).sum(axis=1)
        owner, step = table.places[int(np.argmin(apart))]
        return self._following(self.by_instruction[seen.instruction][owner].actions, step)

    @cached_property
    def tables(self) -> Mapping[str, _Table]:
        found = {}
        for instruction, shown in self.by_instruction.items():
            places = [(owner, step) for owner, one in enumerate(shown) for step in range(len(one.states))]
            steps = np.array([step for _, step in places])
            rows = np.column_stack([np.concatenate([one.states for one in shown]), steps]).astype(np.float64)
            scale = np.maximum(rows.std(axis=0), 1e-6)
            scale[-1] = scale[-1] / self.time_weight if self.time_weight else np.inf
            found[instruction] = _Table(rows, scale, places)
        return found


@dataclass(frozen=True, eq=False)
class _Table:
    """Every moment of an instruction's demonstrations: state and step, what to divide them by, and whose they are."""

    rows: Float64[np.ndarray, "N D"]
    scale: Float64[np.ndarray, "D"]
    places: Sequence[tuple[int, int]]


@dataclass(eq=False)
class RandomActions(_OfDemonstrations):
    """Uniform between the least and the largest number that demonstrations hold in each dimension, anew each step."""

    def act(
        self,
        observations: Sequence[RobotObservation],
        seeds: Sequence[int],
        committed: Sequence[Committed | None] | None = None,
    ) -> list[ActionChunk]:
        chunks = []
        for seen, seed in zip(observations, seeds, strict=True):
            low, high = self.bounds[self.known(seen)]
            drawn = np.random.default_rng(seed).uniform(low, high, (self.horizon, len(low)))
            chunks.append(ActionChunk(drawn.astype(np.float32), self.contract.rate_hz))
        return chunks

    @cached_property
    def bounds(self) -> Mapping[str, tuple[Float32[np.ndarray, "A"], Float32[np.ndarray, "A"]]]:
        found = {}
        for instruction, shown in self.by_instruction.items():
            done = np.concatenate([one.actions for one in shown])
            found[instruction] = (done.min(axis=0), done.max(axis=0))
        return found


class Blanked:
    """Any policy, with every picture replaced by a grey one of its size: what the pictures are worth to it."""

    def __init__(self, policy: Policy, value: int = GREY) -> None:
        self.policy, self.value = policy, value
        self.contract, self.horizon = policy.contract, policy.horizon

    def act(
        self,
        observations: Sequence[RobotObservation],
        seeds: Sequence[int],
        committed: Sequence[Committed | None] | None = None,
    ) -> list[ActionChunk]:
        blank = [
            replace(seen, images={name: np.full_like(image, self.value) for name, image in seen.images.items()})
            for seen in observations
        ]
        return self.policy.act(blank, seeds, committed)


BLIND: Mapping[str, Callable[[tuple[Demonstration, ...], ActionContract, int], Policy]] = {
    "mean trajectory": MeanTrajectory,
    "nearest neighbour": NearestNeighbour,
    "replay": Replay,
    "random": RandomActions,
}
"""Blind policies by name, each made of demonstrations, the robot's contract and the length of a chunk."""


def _path(states: Float32[np.ndarray, "T S"]) -> Float64[np.ndarray, "F S"]:
    """States at equal fractions of the duration."""
    return states[np.round(np.linspace(0, len(states) - 1, TIMES)).astype(int)].astype(np.float64)
