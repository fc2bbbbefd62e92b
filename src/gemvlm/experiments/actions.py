"""What depth is worth to a robot: policies on the arms of a verdict, in closed loop, by few demonstrations.

    gemvlm experiment actions_nano --out out/verdict        # beside the finished arms of verdict_nano; resumes

Each policy begins with the backbone that an arm of the verdict ended with and learns from demonstrations of the worlds'
scripted experts; `joint` goes on painting the depth of every camera meanwhile, as the paper does. All play the same new
starts. A seed has its own arms and its own order; with few demonstrations it has others than its neighbours, with
all that were recorded the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gemvlm.experiments.experiment import Contrast
from gemvlm.experiments.verdict import BASE
from gemvlm.recipes.vla import VlaRecipe
from gemvlm.recipes.vla_nano import JOINT, VLA_NANO

PLACE = "actions"
"""The folder in the verdict's."""
PART = 5
"""Demonstrations of each task that are recorded together: numbers of demonstrations are multiples."""


@dataclass(frozen=True)
class ActionArm:
    """A policy that begins with arm `begins_with` of the verdict; `paints` says whether depth is learned on."""

    name: str
    says: str
    begins_with: str
    paints: bool = False


@dataclass(frozen=True)
class ActionTask:
    """One policy: trained on so many demonstrations of each task, and played."""

    arm: str
    seed: int
    demonstrations: int

    @property
    def name(self) -> str:
        """Its folder below `PLACE`: "seed-0/depth-5"."""
        return f"seed-{self.seed}/{self.arm.replace(' ', '-')}-{self.demonstrations}"

    def folder(self, out: Path) -> Path:
        return out / PLACE / self.name


@dataclass(frozen=True)
class ActionExperiment:
    """Everything that decides an outcome. `verdict` names the experiment whose arms are in the same folder.

    `recipe` learns actions and depth; arms that paint nothing leave depth out of it. `recorded` demonstrations of each
    of `worlds` are shared; `demonstrations` are how many of each a policy learns from. Every policy plays `trials`
    starts of each world that no demonstration has, and so do the `blind` ones, made of the same demonstrations.
    """

    name: str
    verdict: str
    recipe: VlaRecipe
    worlds: tuple[str, ...]
    recorded: int
    demonstrations: tuple[int, ...]
    trials: int
    arms: tuple[ActionArm, ...]
    blind: tuple[str, ...]
    seeds: tuple[int, ...]
    contrasts: tuple[Contrast, ...]

    def __post_init__(self) -> None:
        known = {arm.name for arm in self.arms}
        if unknown := sorted({n for c in self.contrasts for n in (c.arm, c.control)} - known):
            raise ValueError(f"experiment {self.name}: {', '.join(unknown)} compared but not among the arms")
        wrong = [n for n in (*self.demonstrations, self.recorded) if n % PART or not 0 < n <= self.recorded]
        if wrong:
            raise ValueError(
                f"experiment {self.name}: {wrong} demonstrations; give multiples of {PART} up to {self.recorded}"
            )

    @property
    def trained(self) -> tuple[str, ...]:
        return tuple(arm.name for arm in self.arms)

    def arm(self, name: str) -> ActionArm:
        """Of a trained policy."""
        return next(arm for arm in self.arms if arm.name == name)

    def tasks(self) -> Iterator[ActionTask]:
        """Most demonstrations first: where nobody succeeds nothing is learned."""
        for count in sorted(self.demonstrations, reverse=True):
            for seed in self.seeds:
                yield from (ActionTask(name, seed, count) for name in (*self.trained, *self.blind))

    def parts_of(self, task: ActionTask) -> list[int]:
        """Which parts of the recording a policy learns from: as many as it needs, from its seed's first one on."""
        every = self.recorded // PART
        return [(task.seed + number) % every for number in range(task.demonstrations // PART)]

    def recipe_of(self, task: ActionTask) -> VlaRecipe:
        """The joint recipe, or what is left of it without depth."""
        stages = self.recipe.stages
        if not self.arm(task.arm).paints:
            stages = tuple(
                replace(
                    stage,
                    learning_rates={
                        group: rate
                        for group, rate in stage.learning_rates.items()
                        if group not in ("connector", "generator")
                    },
                    loss_weights={"action": stage.loss_weights["action"]},
                    targets=(),
                )
                for stage in stages
            )
        return replace(self.recipe, name=f"{self.name}-{task.arm}", stages=stages, seed=task.seed)


POLICY = replace(
    VLA_NANO,
    name="actions_nano",
    model=BASE.model,
    image=BASE.image,
    coordinates=BASE.coordinates,
    target=BASE.target,
    vocabulary=BASE.vocabulary,
    start=None,
    stages=(replace(JOINT, steps=800),),
    expert=replace(VLA_NANO.expert, width=96, depth=4, heads=3, kv_heads=3, layers=(0, 1, 2, 3), ffn_multiple_of=32),
    held_out=0.0,
)
"""`vla_nano` on the model of the verdict; its start is an arm's last weights."""

ACTIONS_NANO = ActionExperiment(
    name="actions_nano",
    verdict="verdict_nano",
    recipe=POLICY,
    worlds=tuple(
        f"metaworld/{task}-v3"
        for task in (
            "reach", "button-press-topdown", "drawer-open", "window-open", "plate-slide", "pick-place", "shelf-place",
        )
    ),
    recorded=25,
    demonstrations=(5, 10, 25),
    trials=15,
    arms=(
        ActionArm("text", "on a backbone that never saw depth", "text"),
        ActionArm("depth", "on one that learned to generate depth", "depth"),
        ActionArm("joint", "the same, and depth is generated on", "depth", paints=True),
    ),
    blind=("nearest neighbour",),
    seeds=(0, 1, 2),
    contrasts=(
        Contrast("depth", "text", "Having generated depth helps to act"),
        Contrast("joint", "depth", "Generating depth on helps to act"),
    ),
)  # fmt: skip
