"""What is played and what counts, as data: a score without its protocol can't be compared with anything.

The horizons, trials and success rules of the published benchmarks, with where they are stated:

- LIBERO: 50 stored initial states of each task, 220 / 280 / 300 / 520 steps (libero_spatial, object, goal, 10), before
  them 10 of waiting, success at any step, seed 7, mean over suites (moojink/openvla-oft 213c5ff,
  experiments/robot/libero/run_libero_eval.py; allenai/vla-evaluation-harness 0038c68, benchmarks/libero/benchmark.py).
- Meta-World: 50 placements of each task, 500 steps, success if the flag is up at any step (Farama-Foundation/Metaworld
  7ea2b50).
- SimplerEnv counts at the last step in its own evaluator and at any step in others; one policy scored 75 % and 29 % by
  the two (allenai/vla-evaluation-harness 998f40f, docs/reproductions/common-pitfalls.md). It is reached through
  `evaluation.harness_server`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gemvlm.evaluation.rollout.lane import WorldFacts
from gemvlm.robot import Policy
from gemvlm.robot.contract import ImageTurn

SuccessRule = Literal["any_step", "last_step"]
RULES: tuple[SuccessRule, ...] = ("any_step", "last_step")
TRIALS = 50
METAWORLD_STEPS = 500
LIBERO_STEPS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
LIBERO_TASKS = dict.fromkeys(LIBERO_STEPS, 10) | {"libero_90": 90}


@dataclass(frozen=True)
class Task:
    """One task by the name that the maker of worlds knows. Tasks of a `group` (a suite) are averaged before groups."""

    name: str
    steps: int
    group: str = ""


@dataclass(frozen=True)
class Start:
    """One episode to play: a task from its initial state number `start`, with a seed of the policy's."""

    task: Task
    start: int
    seed: int

    @property
    def id(self) -> str:
        return f"{self.task.name}/{self.start}/{self.seed}"


@dataclass(frozen=True)
class Protocol:
    """Each task from each of `starts` with each of `seeds`.

    Of every chunk `execute` actions are carried out before the policy is asked again. With `delay` the new chunk
    arrives so many steps late: the robot goes on with the old one meanwhile, and the policy is told so (`committed`).
    `success` "any_step" stops at the first step at which the world says that the task is done; "last_step" plays to the
    end and counts what is true there. `image_turn` is how worlds must turn their pictures.
    """

    name: str
    tasks: tuple[Task, ...]
    starts: tuple[int, ...]
    execute: int
    success: SuccessRule = "any_step"
    seeds: tuple[int, ...] = (0,)
    delay: int = 0
    image_turn: ImageTurn = "none"

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        for field, values in (("tasks", names), ("starts", self.starts), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"protocol {self.name!r}, {field}: give at least one, each once; got {list(values)}")
        if self.success not in RULES:
            raise ValueError(f"protocol {self.name!r}, success: {self.success!r} is not one of {', '.join(RULES)}")
        if not 0 <= self.delay <= self.execute or self.execute < 1 or min(task.steps for task in self.tasks) < 1:
            raise ValueError(
                f"protocol {self.name!r}: of a chunk at least 1 action is executed, not {self.execute}, and it arrives "
                f"at most so many steps late, not {self.delay}; a task has at least 1 step"
            )

    def episodes(self) -> list[Start]:
        """All of them, task by task."""
        return [Start(task, start, seed) for task in self.tasks for start in self.starts for seed in self.seeds]


def metaworld_protocol(
    tasks: Sequence[str], trials: int = TRIALS, first: int = 100, execute: int = 8, steps: int = METAWORLD_STEPS
) -> Protocol:
    """Meta-World's own rule for `tasks` from initial states `first` up; 50 trials of 500 steps are published."""
    played = tuple(Task(name, steps) for name in tasks)
    return Protocol("metaworld", played, tuple(range(first, first + trials)), execute)


def libero_protocol(
    suites: Sequence[str],
    trials: int = TRIALS,
    first: int = 0,
    execute: int = 8,
    image_turn: ImageTurn = "none",
    seeds: Sequence[int] = (7,),
) -> Protocol:
    """LIBERO's rule for whole suites, tasks named libero/SUITE/INDEX; papers play 50 trials and average three seeds."""
    if unknown := [suite for suite in suites if suite not in LIBERO_STEPS]:
        raise ValueError(f"LIBERO has no suite {', '.join(unknown)}; choose from {', '.join(LIBERO_STEPS)}")
    played = tuple(
        Task(f"libero/{suite}/{i}", LIBERO_STEPS[suite], suite) for suite in suites for i in range(LIBERO_TASKS[suite])
    )
    starts = tuple(range(first, first + trials))
    return Protocol("libero", played, starts, execute, seeds=tuple(seeds), image_turn=image_turn)


def misfits(policy: Policy | None, world: WorldFacts, task: Task, protocol: Protocol) -> list[str]:
    """Everything that keeps a policy from being scored in a world, one line each; nothing if it may be.

    None stands for the world's own expert, which fits every contract.
    """
    lines = []
    if policy is not None:
        lines += [f"{line} (policy here, world there)" for line in policy.contract.differences(world.contract)]
        if policy.horizon < protocol.execute + protocol.delay:
            lines.append(f"horizon: the policy's chunks have {policy.horizon} actions, the protocol executes "
                         f"{protocol.execute} and {protocol.delay} more while it waits")  # fmt: skip
    if world.contract.image_turn != protocol.image_turn:
        lines.append(f"image_turn: the world turns its pictures {world.contract.image_turn!r}, the protocol wants "
                     f"{protocol.image_turn!r}")  # fmt: skip
    if task.steps > world.horizon:
        lines.append(f"steps: the protocol plays {task.steps}, an episode of this world ends after {world.horizon}")
    if seen := [start for start in protocol.starts if start not in world.test_starts]:
        known = f"{world.test_starts.start} to {world.test_starts.stop - 1}"
        lines.append(f"starts: {seen[:5]} ({len(seen)} in all) are not among those for tests, {known}; demonstrations "
                     "may have been recorded from them")  # fmt: skip
    return lines
