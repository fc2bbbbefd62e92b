"""What a policy's plan says: parameters exactly, products of the forward pass as torch counts them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gemvlm.model.action_expert import ActionExpert, Context
from gemvlm.model.gem_vla import GemVla
from gemvlm.recipes import get_policy
from gemvlm.recipes.vla_2b import VLA_2B, VLA_2B_DEPTH
from gemvlm.recipes.vla_debug import VLA_DEBUG
from gemvlm.training.budget import Load
from gemvlm.training.policy_budget import PolicyBudget


@pytest.mark.parametrize("name", ["vla_debug", "vla_nano", "vla_nano_action"])
def test_parameters_are_those_of_the_model(name: str) -> None:
    recipe = get_policy(name)
    with torch.device("meta"):
        model = GemVla(recipe.policy(4, 4))
    budget = PolicyBudget(recipe.policy(4, 4), recipe.model)
    there = {group: sum(p.numel() for p in own.values()) for group, own in model.parameter_groups().items()}
    assert {k: v for k, v in budget.groups.items() if v} == {k: v for k, v in there.items() if v}


def test_the_published_expert_has_the_published_size() -> None:
    """483.4 M in the transformer, and adaptors of 3.15 M and twice 2.11 M (reference-spec.md, measured)."""
    budget = PolicyBudget(VLA_2B.policy(14, 14), VLA_2B.model)
    assert budget.groups["expert"] / 1e6 == pytest.approx(483.4 + 3.15 + 2 * 2.11, abs=0.3)


def test_actions_alone_need_half_of_the_decoder() -> None:
    """B1: layers above the last that is looked at are neither run nor kept."""
    load = Load((600,) * 4, (1200,) * 8, 0, (), ())
    alone = PolicyBudget(VLA_2B.policy(14, 14), VLA_2B.model).operations(VLA_2B.stages[0], load)
    joint = PolicyBudget(VLA_2B_DEPTH.policy(14, 14), VLA_2B.model).operations(VLA_2B_DEPTH.stages[0], load)
    assert 0.4 < alone["language"] / joint["language"] < 0.52
    assert alone["expert"] == joint["expert"] > 0 and "generator" not in alone


def test_products_are_those_that_torch_counts() -> None:
    config = replace(VLA_DEBUG.expert, width=128, heads=4, kv_heads=2, depth=3, horizon=16)
    rows, tokens = 3, 40
    expert = ActionExpert(config, 64)
    with FlopCounterMode(display=False) as counter:
        context = Context(states=tuple(torch.randn(rows, tokens, 64) for _ in config.layers))
        observed = expert.observe(context, torch.randn(rows, 4))
        expert.velocity(torch.randn(rows, 16, 4), torch.rand(rows), observed)
    recipe = replace(VLA_DEBUG, expert=config)
    budget = PolicyBudget(recipe.policy(4, 4), recipe.model)
    part = budget.parts(Load((tokens,) * rows, (), 0, (), ()), "float32")[-1]
    assert part.name == "expert"
    assert part.forward == pytest.approx(counter.get_total_flops(), rel=0.1)
