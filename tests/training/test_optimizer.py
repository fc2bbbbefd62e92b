"""Groups of modules learn, are clipped and decay each on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from gemvlm.model.gem import Gem
from gemvlm.runtime import detect
from gemvlm.training.optimizer import GroupOptimizer
from gemvlm.training.stage import OptimizerConfig
from gemvlm.training.step import train_step

GROUPS = ("connector", "generator", "language", "merger", "vision")


def give_gradients(groups: Mapping[str, Mapping[str, nn.Parameter]], seed: int = 0, **scales: float) -> None:
    """Normal gradients times the scale of their group, 0 for groups not named; the same for a seed."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameters in groups.items():
        for parameter in parameters.values():
            parameter.grad = scales.get(name, 0.0) * torch.randn(parameter.shape, generator=draw)


def test_only_the_groups_of_the_stage_learn(workshop: Any, stage_of: Any) -> None:
    """B11: the release's switch left the DeepStack mergers frozen; here they are of the group "merger"."""
    gem = workshop.gem().train()
    stage = stage_of(3, learning_rates={"merger": 1e-3, "generator": 1e-3})
    before = {name: p.detach().clone() for name, p in gem.named_parameters()}
    optimizer = GroupOptimizer(gem, stage)
    for step in range(2):
        train_step(gem, stage, [next(workshop.stream(stage, step))], optimizer, step, detect("cpu"))
    groups = gem.parameter_groups()
    for group, parameters in groups.items():
        learns = group in stage.learning_rates
        assert all(p.requires_grad == learns for p in parameters.values())
        assert any(not torch.equal(p, before[name]) for name, p in parameters.items()) == learns
    assert any("deepstack_merger_list" in name for name in groups["merger"])


def test_a_stage_after_another_thaws_what_it_trains(workshop: Any, stage_of: Any) -> None:
    gem = workshop.gem()
    GroupOptimizer(gem, stage_of(1))
    GroupOptimizer(gem, stage_of(3))
    groups = gem.parameter_groups()
    assert all(p.requires_grad for group in GROUPS for p in groups[group].values())


@pytest.mark.parametrize("name", ["conector", "latents"])
def test_groups_that_are_not_there_or_never_trained_are_refused(name: str, workshop: Any, stage_of: Any) -> None:
    with pytest.raises(ValueError, match=rf"stage '1-connector': no module group \['{name}'\] to train; .*'connector'"):
        GroupOptimizer(workshop.gem(), stage_of(1, learning_rates={name: 1e-3}))


def test_a_huge_gradient_of_one_module_leaves_the_others_steps_alone(workshop: Any, stage_of: Any) -> None:
    steps = {}
    for scale in (1e-6, 1e6):
        gem = workshop.gem()
        optimizer = GroupOptimizer(gem, stage_of(3, clip=0.5))
        groups = {name: parameters for name, parameters in gem.parameter_groups().items() if parameters}
        give_gradients(groups, language=scale, connector=1e-4)
        norms = optimizer.clip()
        assert float(norms["language"]) == pytest.approx(1000 * scale, rel=0.9)
        clipped = torch.cat([p.grad.flatten() for p in groups["language"].values() if p.grad is not None])
        assert float(clipped.norm()) <= 0.5 * (1 + 1e-4)
        optimizer.set_factor(1.0)
        optimizer.step()
        steps[scale] = [p.detach().clone() for p in groups["connector"].values()]
    assert all(torch.equal(a, b) for a, b in zip(*steps.values(), strict=True))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_norms_biases_and_embeddings_do_not_decay(kind: Any, workshop: Any, stage_of: Any) -> None:
    """B10: the release decays norms, biases, embeddings and registers too."""
    gem = workshop.gem()
    stage = stage_of(3, optimizer=OptimizerConfig(kind, (0.9, 0.95), weight_decay=0.5))
    optimizer = GroupOptimizer(gem, stage)
    with torch.no_grad():
        for parameter in gem.parameters():
            parameter.add_(1.0)  # zero biases would not show decay
    before = {name: p.detach().clone() for name, p in gem.named_parameters()}
    give_gradients(gem.parameter_groups())
    optimizer.set_factor(1.0)
    optimizer.step()
    still = {name for name, p in gem.named_parameters() if torch.equal(p, before[name])}
    smaller = {name for name, p in gem.named_parameters() if bool((p < before[name])[before[name] > 0.5].all())}
    assert still | smaller == set(before) and not still & smaller
    for name, parameter in gem.named_parameters():
        if (
            parameter.ndim < 2
            or "norm" in name
            or name.endswith("bias")
            or "embed_tokens" in name
            or "pos_embed" in name
        ):
            assert name in still, name
    assert any("mlp" in name for name in smaller) and any("connector" in name for name in smaller)
    assert any("attn" in name for name in smaller) and len(smaller) > len(before) / 3


def test_rates_are_the_peak_of_each_group_times_the_factor(workshop: Any, stage_of: Any) -> None:
    peaks = {"connector": 1e-3, "language": 2e-4}
    optimizer = GroupOptimizer(workshop.gem(), stage_of(3, learning_rates=peaks))
    for factor in (0.5, 0.25):
        optimizer.set_factor(factor)
        rates = {group["lr"] for inner in optimizer.optimizers.values() for group in inner.param_groups}
        assert rates == {factor * peak for peak in peaks.values()}


def steps_of(gem: Gem, optimizer: GroupOptimizer, seeds: range) -> None:
    groups = {name: parameters for name, parameters in gem.parameter_groups().items() if name in optimizer.groups}
    for seed in seeds:
        give_gradients(groups, seed, connector=1.0, generator=1.0)
        optimizer.set_factor(1.0)
        optimizer.step()


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_state_goes_to_tensors_and_back(kind: Any, workshop: Any, stage_of: Any) -> None:
    stage = stage_of(2, optimizer=OptimizerConfig(kind, (0.9, 0.95), weight_decay=0.1))
    gem, other = workshop.gem(), workshop.gem()
    optimizer = GroupOptimizer(gem, stage)
    steps_of(gem, optimizer, range(2))
    tensors = optimizer.state_tensors()
    other.load_state_dict(gem.state_dict())
    resumed = GroupOptimizer(other, stage)
    resumed.load_state_tensors(tensors)
    for module, its in ((gem, optimizer), (other, resumed)):
        steps_of(module, its, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(gem.parameters(), other.parameters(), strict=True))


def test_a_parameter_that_never_had_a_gradient_has_no_state_and_needs_none(workshop: Any, stage_of: Any) -> None:
    gem, stage = workshop.gem(), stage_of(2)
    optimizer = GroupOptimizer(gem, stage)
    give_gradients({"connector": gem.parameter_groups()["connector"]}, connector=1.0)
    optimizer.step()
    tensors = optimizer.state_tensors()
    assert tensors and all("connector" in name for name in tensors)
    GroupOptimizer(gem, stage).load_state_tensors(tensors)


def test_the_state_of_another_stage_is_refused(workshop: Any, stage_of: Any) -> None:
    gem = workshop.gem()
    optimizer = GroupOptimizer(gem, stage_of(2))
    steps_of(gem, optimizer, range(1))
    with pytest.raises(ValueError, match=r"not trained in stage '1-connector' .*another recipe: start in a new folder"):
        GroupOptimizer(workshop.gem(), stage_of(1)).load_state_tensors(optimizer.state_tensors())
