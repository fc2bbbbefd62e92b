"""The memory that `gemvlm train --plan` foresees, against what training steps take.

    python benchmarks/plan_memory.py              # the six configurations, under a minute on one core

Measured is every byte that PyTorch's CPU allocator hands out: the weights and the optimiser's state as they lie, plus
the highest point of the running sum of the profiler's memory events over one whole step (forward, backward, clipping,
update), the second, when the optimiser has its state. The allocator's own events are more reliable than the resident
size of a process, which holds libraries and whatever the C library has not given back. Planned is
`training/budget.py`, from sizes alone. The model's fitted constants were chosen on FITTED; none of the six was used.
Precision is float32: on a CPU, bfloat16 attention keeps its scores, which a GPU's does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.profiler import ProfilerActivity, profile

from gemvlm.batch import IGNORE, Batch, Target
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem
from gemvlm.recipes.debug import DEBUG
from gemvlm.recipes.gem_nano import GEM_NANO
from gemvlm.recipes.quickstart import QUICKSTART
from gemvlm.recipes.recipe import Recipe
from gemvlm.recipes.small import small_backbone, small_generator
from gemvlm.training.budget import Budget, Load
from gemvlm.training.optimizer import GroupOptimizer
from gemvlm.training.stage import OptimizerConfig, Stage

TOLERANCE = 0.10


@dataclass(frozen=True)
class Configuration:
    """A model, a stage of recipe `recipe` by its place, and so many samples of one image and `text` tokens each."""

    name: str
    recipe: Recipe
    stage: int
    samples: int
    text: tuple[int, ...]
    model: GemConfig | None = None
    optimizer: OptimizerConfig | None = None


WIDER = replace(
    GEM_NANO.model,
    backbone=small_backbone(
        vocabulary=8192, width=384, layers=4, vision_width=256, vision_layers=3, deepstack=[0], positions=144
    ),
    generator=small_generator(channels=32, heads=8, layers=3),
)
ADAMW = OptimizerConfig("adamw", betas=(0.9, 0.999), weight_decay=0.0)

FITTED = (
    Configuration("nano, everything, 6", GEM_NANO, -1, 6, (60,)),
    Configuration("debug, everything, 8", DEBUG, -1, 8, (40,)),
    Configuration("debug, generator, 24", DEBUG, -2, 24, (12,)),
    Configuration("nano, connector, 16", GEM_NANO, -3, 16, (12,)),
    Configuration("debug, connector, 40", DEBUG, -3, 40, (12,)),
)
SIX = (
    Configuration("quickstart, connector, 9 samples", QUICKSTART, -3, 9, (12,)),
    Configuration("quickstart, everything, 12 samples of unequal length", QUICKSTART, -1, 12, (30, 90, 150)),
    Configuration("nano, generator, 5 samples", GEM_NANO, -2, 5, (12,)),
    Configuration("nano, everything, 16 samples", GEM_NANO, -1, 16, (120,)),
    Configuration("nano, everything by AdamW, 3 samples", GEM_NANO, -1, 3, (200,), optimizer=ADAMW),
    Configuration("wider, large vocabulary, 8 samples", GEM_NANO, -1, 8, (100,), model=WIDER, optimizer=ADAMW),
)


def main(configurations: Sequence[Configuration] = SIX) -> bool:
    """Prints one line each; whether all are within the tolerance."""
    print(f"{'configuration':54} {'planned':>9} {'measured':>9}  planned / measured")
    ratios = []
    for configuration in configurations:
        planned, measured = plan(configuration), measure(configuration)
        ratios.append(planned / measured)
        print(f"{configuration.name:54} {planned / 2**20:6.1f} MB {measured / 2**20:6.1f} MB  {ratios[-1]:.3f}")
    return all(abs(ratio - 1) <= TOLERANCE for ratio in ratios)


def plan(configuration: Configuration) -> float:
    """Bytes that the plan foresees."""
    model, stage, batch = parts(configuration)
    budget = Budget(model)
    return budget.memory(stage, Load.of(batch, stage, budget.factor), "float32", on_cpu=True).total


def measure(configuration: Configuration) -> float:
    """Bytes that a step takes."""
    model, stage, batch = parts(configuration)
    gem = Gem(model).train()
    optimizer = GroupOptimizer(gem, stage)
    step(gem, stage, batch, optimizer)
    resting = sum(tensor.nbytes for tensor in gem.parameters())
    resting += sum(tensor.nbytes for tensor in optimizer.state_tensors().values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(gem, stage, batch, optimizer)
    events = sorted(
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    running = highest = 0
    for _, size in events:
        running += size
        highest = max(highest, running)
    return float(resting + highest)


def step(gem: Gem, stage: Stage, batch: Batch, optimizer: GroupOptimizer) -> None:
    """One update, as the training loop makes it."""
    optimizer.set_factor(1.0)
    losses = gem(batch, losses=tuple(stage.loss_weights))
    sum(stage.loss_weights[name] * loss for name, loss in losses.items()).backward()
    optimizer.clip()
    optimizer.step()


def parts(configuration: Configuration) -> tuple[GemConfig, Stage, Batch]:
    recipe = configuration.recipe
    stage = recipe.stages[configuration.stage]
    if configuration.optimizer is not None:
        stage = replace(stage, optimizer=configuration.optimizer)
    return configuration.model or recipe.model, stage, make_batch(recipe, configuration)


def make_batch(recipe: Recipe, configuration: Configuration) -> Batch:
    """Random tokens and pixels: memory does not depend on what they say."""
    torch.manual_seed(0)
    image = recipe.image
    side = round(image.max_pixels**0.5) // image.token_size * image.token_size
    grid = (1, side // image.patch_size, side // image.patch_size)
    seen = image.tokens(grid)
    lengths, spans, segments, positions, labels, total = [], [], [], [], [], 0
    for number in range(configuration.samples):
        text = configuration.text[number % len(configuration.text)]
        length = 3 + seen + text
        spans.append((total + 3, total + 3 + seen))
        segments.append(torch.full((length,), number))
        positions.append(torch.arange(length).expand(3, -1))
        labels.append(torch.full((length,), IGNORE))
        labels[-1][-(text // 2) :] = 5
        lengths.append(length)
        total += length
    height, width = recipe.target
    targets = tuple(
        Target("depth", n, torch.rand(3, height, width) * 2 - 1, torch.ones(height, width, dtype=torch.bool), key=n)
        for n in range(configuration.samples)
    )
    return Batch(
        input_ids=torch.randint(20, 600, (total,)),
        segment_ids=torch.cat(segments),
        position_ids=torch.cat(positions, dim=1),
        labels=torch.cat(labels),
        pixel_values=torch.randn(configuration.samples * grid[1] * grid[2], image.patch_values),
        image_grid_thw=torch.tensor([grid] * configuration.samples),
        spans=torch.tensor(spans),
        targets=targets,
        sample_ids=tuple(map(str, range(configuration.samples))),
    )


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
