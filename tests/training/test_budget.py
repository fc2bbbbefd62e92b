"""The cost model: memory that steps were measured to take, parameters and operations that can be counted."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gemvlm.recipes.debug import DEBUG
from gemvlm.recipes.gem_2b import GEM_2B
from gemvlm.recipes.gem_2b_lora import GEM_2B_LORA
from gemvlm.recipes.gem_8b import GEM_8B
from gemvlm.recipes.plan import memory_of
from gemvlm.training.budget import Budget, Load
from gemvlm.training.gpus import find_gpu, measured_rate
from gemvlm.training.parallel import Sharding

BENCHMARK = Path(__file__).parents[2] / "benchmarks/plan_memory.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("plan_memory", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plan_memory"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("number", [0, 2])
def test_planned_memory_is_within_a_tenth_of_measured(bench, number: int) -> None:
    """The smaller ones of the six; `benchmarks/plan_memory.py` shows all."""
    configuration = bench.SIX[number]
    assert bench.plan(configuration) / bench.measure(configuration) == pytest.approx(1, abs=bench.TOLERANCE)


def test_parameters_are_those_that_are_known() -> None:
    groups = Budget(GEM_2B.model).groups
    assert groups["vision"] + groups["merger"] == 406_957_056
    assert groups["language"] == 1_720_574_976
    assert groups["connector"] == 10_033_920
    assert groups["generator"] == 1_604_641_952
    assert groups["latents"] == 312_250_275


def test_the_head_of_8b_is_its_own() -> None:
    budget = Budget(GEM_8B.model)
    assert not budget.tied and budget.groups["language"] > 8.19e9


def test_operations_are_those_that_torch_counts(bench) -> None:
    """Of the forward pass, where a CPU's attention also multiplies what nobody sees. In the backward pass torch counts
    many times the work of a grouped convolution."""
    configuration = replace(bench.FITTED[1], samples=3)
    model, stage, batch = bench.parts(configuration)
    budget = Budget(model)
    planned = sum(part.forward for part in budget.parts(Load.of(batch, stage, budget.factor), "float32"))
    gem = bench.Gem(model).train()
    with FlopCounterMode(display=False) as counter:
        gem(batch, losses=tuple(stage.loss_weights))
    assert planned == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_a_frozen_module_before_which_nothing_learns_has_no_backward_pass() -> None:
    budget = Budget(DEBUG.model)
    load = Load(rows=(40,), images=(36,), supervised=0, latents=((6, 6),), conditions=(9,))
    one, two, three = (budget.operations(stage, load) for stage in DEBUG.stages[-3:])
    assert one["language"] == two["language"] == pytest.approx(three["language"] / 3)
    assert one["generator"] * 3 == pytest.approx(two["generator"] * 2)


def test_sharing_weights_and_computing_again_take_less() -> None:
    budget, stage = Budget(GEM_2B.model), GEM_2B.stages[-1]
    alone = memory_of(GEM_2B, stage, budget, 8, Sharding("replicate"))
    shared = memory_of(GEM_2B, stage, budget, 8, Sharding("shard"))
    assert shared.optimizer == pytest.approx(alone.optimizer / 8) and shared.total < alone.total
    machines = memory_of(GEM_2B, stage, budget, 32, Sharding("hybrid"))
    fours = memory_of(GEM_2B, stage, budget, 32, Sharding("hybrid"), local=4)
    assert (machines.optimizer, fours.optimizer) == pytest.approx((alone.optimizer / 8, alone.optimizer / 4))
    load = Load((440,) * 32, (1200,) * 32, 320, ((10, 14),) * 32, (300,) * 32)
    kept, again = (budget.memory(stage, load, "bfloat16", shards=8, recompute=on) for on in (False, True))
    assert again.activations < kept.activations / 4 and again.weights == kept.weights


def test_adapters_learn_in_place_of_their_group() -> None:
    recipe = GEM_2B_LORA
    planned = memory_of(recipe, recipe.stages[-1], Budget(recipe.model))
    adapters = 28 * 64 * (2 * (2048 + 2048) + 2 * (2048 + 1024))
    assert planned.optimizer == 8 * (adapters + 10_033_920 + 1_604_641_952)


def test_gpus_are_known_by_name_and_a_device_can_be_measured() -> None:
    assert find_gpu("a800-80gb").peak_tera == 312
    with pytest.raises(ValueError, match=r"unknown GPU 'a900'; there are .*h100-80gb"):
        find_gpu("a900")
    assert measured_rate(torch.device("cpu"), 128) > 1e8
