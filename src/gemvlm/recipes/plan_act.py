"""Plan → act: GEM proposes the steps of a task as words, a policy carries out each, GEM judges whether it is done.

GEM sees what the robot sees and is asked which steps remain, in the words that it was taught with; the first of them is
told to the policy. After the policy has acted on it for a while, GEM is asked whether it is done (yes or no). A step
that is not done is tried again, a bounded number of times, then GEM plans anew; so it does after a step that it judges
done. The world alone says whether the task has succeeded: GEM's word ends a step, never an episode. Everything said and
done is kept as a transcript.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from gemvlm.data.collate import keyed
from gemvlm.inference.phrases import is_done, read_plan, steps_to
from gemvlm.robot import ActionChunk, Committed, Policy, RobotObservation
from gemvlm.worlds.robot_world import RobotWorld

LONGEST_STEP = 200
_YES = re.compile(r"\W*yes\b", re.IGNORECASE)
_NO_STEP = re.compile(r"\W*(yes|no|the|an?)?\W*", re.IGNORECASE)


@runtime_checkable
class Planner(Protocol):
    """Who answers questions about pictures: a `GemPipeline`, or a fake in tests."""

    def ask(self, images: Any, question: str) -> Any:
        """An answer with its `text`."""
        ...


@dataclass(frozen=True)
class PlanSettings:
    """`executed` actions of a chunk (None: all) are carried out before the next is asked for; GEM judges a step every
    `judged_every` actions. After `tries` judgements of "no" it plans anew, at most `steps` steps in an episode.

    `words` is what the policy is told: the "step", or the "task" for policies that know no other words: then plans
    decide only when to go on trying.
    """

    executed: int | None = None
    judged_every: int = 40
    tries: int = 3
    steps: int = 10
    words: Literal["step", "task"] = "step"

    def __post_init__(self) -> None:
        numbers = (1 if self.executed is None else self.executed, self.judged_every, self.tries, self.steps)
        if min(numbers) < 1 or self.words not in ("step", "task"):
            raise ValueError(f"plan and act: {self} needs numbers of at least 1, and words that are 'step' or 'task'")


Watch = Callable[[Mapping[str, UInt8[np.ndarray, "H W 3"]], int, bool], None]


@dataclass(frozen=True)
class Said:
    """One line of a transcript. `kind` is "plan" (a step is proposed), "judge" (yes or no), "act" (actions were carried
    out) or "end" (why it ended); `step` counts actions since the episode began."""

    step: int
    kind: str
    words: str
    asked: str = ""


@dataclass(frozen=True)
class Transcript:
    """What was planned, judged and done in an episode, and whether the world calls its task done."""

    task: str
    success: bool
    actions: int
    lines: tuple[Said, ...]

    @property
    def plan(self) -> tuple[str, ...]:
        """The steps that were proposed, in order."""
        return tuple(line.words for line in self.lines if line.kind == "plan")

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    def __str__(self) -> str:
        head = f"{self.task}: {'succeeded' if self.success else 'failed'} after {self.actions} actions"
        return "\n".join([head, *(f"{line.step:5d}  {line.kind:5}  {line.words}" for line in self.lines)])


def plan_and_act(
    world: RobotWorld,
    start: int,
    policy: Policy,
    gem: Planner | None,
    settings: PlanSettings,
    seed: int = 0,
    watch: Watch | None = None,
) -> Transcript:
    """One episode from `start`. Without `gem` the policy acts on the task's own words until the world says stop.

    `watch` is shown every observation, with the number of actions before it and whether the task is then done.
    ValueError, with every difference, if the policy does not fit the world, or answers with fewer actions than are to
    be executed.
    """
    if (settings.executed or 0) > policy.horizon:
        raise ValueError(
            f"{settings.executed} actions of a chunk, but the policy's have {policy.horizon}; execute fewer"
        )
    if differ := policy.contract.differences(world.contract):
        raise ValueError(f"the policy does not fit {world.name}: {'; '.join(differ)} (here: policy, there: world)")
    return _Episode(world, policy, gem, settings, seed, watch).play(start)


class _Episode:
    def __init__(
        self,
        world: RobotWorld,
        policy: Policy,
        gem: Planner | None,
        settings: PlanSettings,
        seed: int,
        watch: Watch | None,
    ):
        self.world, self.policy, self.gem, self.settings, self.seed = world, policy, gem, settings, seed
        self.watch: Watch = watch or (lambda images, step, done: None)
        self.lines: list[Said] = []
        self.actions = 0
        self.over = False

    def play(self, start: int) -> Transcript:
        self.seen = self.world.reset(start)
        self.watch(self.seen.images, 0, self.over)
        task = self.seen.instruction
        if self.gem is None:
            self._act(task, self.world.horizon)
        for _ in range(0 if self.gem is None else self.settings.steps):
            step = self._next_step(task)
            if step is None:
                break
            self._carry_out(step if self.settings.words == "step" else task, step)
            if self.over:
                break
        success = self.world.succeeded()
        ended = "the task is done" if success else "no action is left to take"
        self._say("end", ended if self.over else "no step is left to take")
        return Transcript(task, success, self.actions, tuple(self.lines))

    def _next_step(self, task: str) -> str | None:
        """None when GEM has nothing more to do. An answer that is empty, endless or a mere yes or no becomes the task
        itself: a robot must not be told what is no step."""
        question = steps_to(task, len(self.world.contract.cameras))
        reply = self._ask(question)
        steps = read_plan(task, reply).steps
        text = steps[0].strip('"') if steps else ""
        if text.lower() in ("done", "finished") or (not steps and not _NO_STEP.fullmatch(reply)):
            self._say("plan", "done", question)
            return None
        step = task if _NO_STEP.fullmatch(text) or len(text) > LONGEST_STEP else text
        self._say("plan", step, question)
        return step

    def _carry_out(self, words: str, step: str) -> None:
        """Acts until GEM calls the step done, its tries are used up, or the episode is over."""
        for _ in range(self.settings.tries):
            self._act(words, self.settings.judged_every)
            if self.over:
                return
            question = is_done(step, len(self.world.contract.cameras))
            answer = self._ask(question)
            done = bool(_YES.match(answer))
            self._say("judge", "yes" if done else "no", question)
            if done:
                return

    def _act(self, words: str, most: int) -> None:
        """At most so many actions, chunk after chunk, until the world's episode is over."""
        end = min(self.actions + most, self.world.horizon)
        before = self.actions
        while self.actions < end and not self.over:
            seen = replace(self.seen, instruction=words)
            chunk = self.policy.act([seen], [keyed(self.seed, self.actions)])[0]
            for action in self._taken(chunk, end):
                self.seen, self.over = self.world.step(action)
                self.actions += 1
                self.watch(self.seen.images, self.actions, self.over)
                if self.over:
                    break
        self.over = self.over or self.actions >= self.world.horizon
        self._say("act", f"{self.actions - before} actions: {words}")

    def _taken(self, chunk: ActionChunk, end: int) -> Float32[np.ndarray, "T A"]:
        most = len(chunk.actions) if self.settings.executed is None else self.settings.executed
        return chunk.actions[: min(most, end - self.actions)]

    def _ask(self, question: str) -> str:
        assert self.gem is not None
        return str(self.gem.ask(pictures(self.seen, self.world.contract.cameras), question).text)

    def _say(self, kind: str, words: str, asked: str = "") -> None:
        self.lines.append(Said(self.actions, kind, words, asked))


def pictures(seen: RobotObservation, cameras: Sequence[str]) -> list[UInt8[np.ndarray, "H W 3"]]:
    """What GEM is shown, in the contract's order."""
    return [seen.images[camera] for camera in cameras]


class ExpertPolicy:
    """A world's scripted expert as a policy, one action at a time: an upper bound, and a stand-in where none is
    trained."""

    horizon = 1

    def __init__(self, world: RobotWorld) -> None:
        self.world, self.contract = world, world.contract

    def act(
        self,
        observations: Sequence[RobotObservation],
        seeds: Sequence[int],
        committed: Sequence[Committed | None] | None = None,
    ) -> list[ActionChunk]:
        """What the expert of the one world would do now. ValueError where it has none."""
        action = self.world.expert_action()
        if action is None:
            raise ValueError(f"{self.world.name}: has no scripted expert; give a policy")
        return [ActionChunk(np.asarray(action, np.float32)[None], self.contract.rate_hz) for _ in observations]
