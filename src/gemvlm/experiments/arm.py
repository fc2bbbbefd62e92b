"""An arm of an experiment: how one training differs from the others, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gemvlm.experiments.altered import GRID_FAMILY, Alteration
from gemvlm.recipes.recipe import Recipe
from gemvlm.recipes.small import DEPTH_WEIGHT
from gemvlm.training.stage import Stage

Matching = Literal["steps", "compute"]
Matched = Literal["steps", "compute", "path"]
CERTAIN = math.inf
"""Weight of a family of questions that every sample shows, after the others."""


@dataclass(frozen=True)
class Arm:
    """What the stages after the shared stage 0 learn from.

    `target` is what the generator paints, None for text alone. `progressive` trains the connector alone and then the
    generator before everything, as the paper does. `detached` stops the gradient before the backbone.
    `frozen_generator` keeps the generator as it is in the last stage. `matching` "compute" stretches the last stage of
    an arm without a generator to the operations of the whole `depth` arm.
    """

    name: str
    says: str
    target: Literal["depth", "rgb"] | None = "depth"
    weight: float = DEPTH_WEIGHT
    alteration: Alteration = field(default_factory=Alteration)
    generator: Literal["flow", "regression"] = "flow"
    progressive: bool = True
    detached: bool = False
    frozen_generator: bool = False
    encoding: Mapping[str, Any] | None = None
    matching: Matching = "steps"


ARMS = {
    arm.name: arm
    for arm in (
        Arm("text", "no generator: the questions alone", target=None),
        Arm("text_long", "text, for the operations of all stages of depth", target=None, matching="compute"),
        Arm("depth", "the paper's: connector, then generator, then everything"),
        Arm("depth_direct", "depth without the first two stages", progressive=False),
        Arm("rgb", "the image itself as target", target="rgb"),
        Arm("regression", "depth by a plain head instead of a flow", generator="regression"),
        Arm("depth_as_text", "the same depth as numbers in words", None, alteration=Alteration(in_words=True)),
        Arm("shuffled", "another scene's depth", alteration=Alteration("other_scene")),
        Arm("noise", "no scene's depth: independent pixels", alteration=Alteration("noise")),
        Arm("detached", "the generator learns, the backbone hears nothing of it", detached=True),
        Arm("frozen_generator", "the generator rests while everything else learns", frozen_generator=True),
        *(Arm(f"weight_{w:g}", f"depth with weight {w:g}", weight=w) for w in (0.03, 0.3, 1.0)),
        *(Arm(f"encoding_{e}", f"depth encoded as {e}", encoding={"name": e}) for e in ("spectral", "sqrt_disparity")),
        *(
            Arm(f"share_{100 * s:g}", f"depth for {100 * s:g} % of the samples", alteration=Alteration(share=s))
            for s in (0.1, 0.3)
        ),
        Arm("teacher", "depth that a network made of the image", alteration=Alteration("teacher")),
        Arm("noisy", "depth with ten per cent of error in each pixel", alteration=Alteration("noisy")),
        Arm("sparse", "depth at one pixel in twenty", alteration=Alteration("sparse")),
    )
}
"""Every arm there is, by name: the paper's Table 4 and the controls."""


def get_arm(name: str) -> Arm:
    """ValueError lists what there is."""
    if name not in ARMS:
        raise ValueError(f"unknown arm {name!r}; there are {', '.join(ARMS)}")
    return ARMS[name]


def matchings(arm: Arm, control: Arm) -> tuple[Matched, ...]:
    """What a gap between two arms holds equal.

    steps: as many steps on the same samples in the same order. compute: as many operations. path: the same head, weight
    and route of the gradient besides, so that the target alone differs.
    """
    by_length: Matched = "steps" if arm.matching == control.matching else "compute"
    if arm.target is None or control.target is None:
        return (by_length,)
    return (by_length, "path") if _route(arm) == _route(control) else (by_length,)


def _route(arm: Arm) -> Arm:
    """The arm but for what it paints."""
    return replace(arm, name="", says="", target="depth", alteration=Alteration())


def recipe_of(arm: Arm, base: Recipe, seed: int, rate: float = 1.0, stretch: float = 1.0) -> Recipe:
    """The training of an arm after stage 0: the last three stages of `base` are its `depth` arm as it stands.

    `rate` scales the learning rates of the last stage, `stretch` its steps (matched compute). The data order, the
    questions drawn and the noise are those of `seed`, alike in all arms.
    """
    last = base.stages[-1]
    losses: dict[str, float] = {"text": last.loss_weights["text"]}
    rates = {group: rate * peak for group, peak in last.learning_rates.items()}
    families, turns = dict(last.families or {}), last.turns_per_sample
    if arm.alteration.in_words:
        families[GRID_FAMILY] = CERTAIN
        turns = None if turns is None else turns + 1
    if arm.target is None:
        rates = {group: peak for group, peak in rates.items() if group not in ("connector", "generator")}
    else:
        losses[f"{arm.target}_detached" if arm.detached else arm.target] = arm.weight
        if arm.frozen_generator:
            del rates["generator"]
    everything = replace(
        last,
        steps=round(stretch * last.steps),
        learning_rates=rates,
        loss_weights=losses,
        families=families,
        turns_per_sample=turns,
        targets=() if arm.target is None else (arm.target,),
    )
    stages = (*_before(arm, base), everything)
    model = base.model
    if arm.generator == "regression":
        width = model.generator["caption_channels"]
        head = {"condition_width": width, "width": width, "depth": 4, "channels": model.generator["in_channels"]}
        model = replace(model, generator={"kind": "regression", **head})
    if arm.encoding is not None:
        model = replace(model, encoding=replace(model.encoding, **arm.encoding))
    return replace(base, name=f"{base.name}-{arm.name}", model=model, stages=stages, seed=seed)


def _before(arm: Arm, base: Recipe) -> tuple[Stage, ...]:
    """Stages 1 and 2 with the arm's target, none for an arm that skips them."""
    if arm.target is None or not arm.progressive:
        return ()
    return tuple(replace(stage, loss_weights={arm.target: 1.0}, targets=(arm.target,)) for stage in base.stages[-3:-1])
