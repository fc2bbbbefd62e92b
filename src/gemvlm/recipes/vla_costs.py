"""What a policy's training takes on the moments that it really sees: memory beforehand, operations as it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gemvlm.batch import Batch
from gemvlm.model.gem_vla import GemVlaConfig
from gemvlm.recipes.plan import check_fits
from gemvlm.recipes.vla import VlaRecipe
from gemvlm.runtime import Runtime
from gemvlm.training.parallel import Sharding
from gemvlm.training.policy_budget import PolicyBudget, policy_load
from gemvlm.training.stage import Stage

Example = Callable[[Stage], Sequence[Batch]]
"""Of a stage: batches of one sample each, one of every kind of sample that it reads."""


@dataclass(frozen=True)
class PolicyCosts:
    """A recipe on the model that it trains, which may stand on another backbone than the recipe's own."""

    recipe: VlaRecipe
    model: GemVlaConfig

    @property
    def budget(self) -> PolicyBudget:
        return PolicyBudget(self.model, replace(self.recipe.model, backbone=self.model.backbone))

    def check_memory(self, example: Example, runtime: Runtime, sharding: Sharding | None = None) -> None:
        """ValueError if a stage takes more memory than this process has, with what to change."""
        budget, shards = self.budget, (sharding or Sharding()).mesh(runtime.world, runtime.local_world)[1]
        for stage in self.recipe.stages:
            for batch in example(stage):
                memory = budget.memory(
                    stage,
                    policy_load(batch, stage, budget.factor).times(stage.micro_size(runtime.world)),
                    self.recipe.precision,
                    shards=shards,
                    micro_batches=stage.micro_batches(runtime.world),
                    recompute=stage.recompute,
                    on_cpu=runtime.device.type == "cpu",
                )
                check_fits(memory, stage, self.recipe.name, runtime)

    def operations(self) -> Callable[[Stage, Batch], float]:
        """Useful ones of a batch in a stage, forward and backward, for the log's utilisation."""
        budget, precision = self.budget, self.recipe.precision

        def of(stage: Stage, batch: Batch) -> float:
            return float(sum(budget.operations(stage, policy_load(batch, stage, budget.factor), precision).values()))

        return of
