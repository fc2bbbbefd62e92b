"""Optimisers over named module groups: one learning rate and one clipping norm per group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gemvlm.model.learner import Learner
from gemvlm.training.lora import trainable_groups
from gemvlm.training.parallel import whole_tensor
from gemvlm.training.stage import OptimizerConfig, Stage

NamedParameters = dict[str, nn.Parameter]

TABLES = ("embed", "lm_head", "scale_shift_table", "register_tokens", "pos_emb")
"""Words in the names of parameters that are rows to look up, not products: embeddings, registers, positions."""


class GroupOptimizer:
    """The optimisers of one stage behind one `step`, with gradients clipped per module group.

    Parameters outside the stage's groups are frozen here (`requires_grad` False), so autograd does no work for them.
    Where processes share the weights, each optimiser works on its own rows; Muon's products gather what they need.
    """

    def __init__(self, model: Learner, stage: Stage) -> None:
        groups = trainable_groups(model)
        unknown = set(stage.learning_rates) - (set(groups) - {"latents"})
        if unknown:
            raise ValueError(
                f"stage {stage.name!r}: no module group {sorted(unknown)} to train; the model has "
                f"{sorted(set(groups) - {'latents'})}"
            )
        model.requires_grad_(False)
        for name in stage.learning_rates:
            for parameter in groups[name].values():
                parameter.requires_grad_(True)
        self.stage = stage
        self.groups: dict[str, NamedParameters] = {name: groups[name] for name in stage.learning_rates if groups[name]}
        self.optimizers = _build(self.groups, stage)

    def set_factor(self, factor: float) -> None:
        """Scale every group's peak learning rate."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor

    def clip(self) -> dict[str, Tensor]:
        """Clip each module group's gradient to the stage's norm; returns the norms before clipping.

        What no sample of the step reached has a gradient of zero, as it has where processes add theirs.
        """
        for parameters in self.groups.values():
            for parameter in parameters.values():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        return {
            name: whole_tensor(nn.utils.clip_grad_norm_(list(parameters.values()), self.stage.clip))
            for name, parameters in self.groups.items()
        }

    def step(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.drop()

    def drop(self) -> None:
        """Forget the gradients."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by `optimizer/parameter`."""
        return {f"{kind}/{name}": p for kind, inner in self.optimizers.items() for name, p in _named(inner)}

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor of the optimisers' state by `optimizer/parameter/slot`; undone by `load_state_tensors`."""
        tensors = {}
        for kind, optimizer in self.optimizers.items():
            for name, parameter in _named(optimizer):
                for slot, value in optimizer.state[parameter].items():
                    tensors[f"{kind}/{name}/{slot}"] = torch.as_tensor(value).detach().clone()
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """ValueError if the state is not of these parameters. One that never had a gradient has no state."""
        slots: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            owner, _, slot = key.rpartition("/")
            slots.setdefault(owner, {})[slot] = value.clone()
        for kind, optimizer in self.optimizers.items():
            for name, parameter in _named(optimizer):
                optimizer.state[parameter] = slots.pop(f"{kind}/{name}", {})
        if slots:
            raise ValueError(
                f"optimizer state: {len(slots)} parameters are not trained in stage {self.stage.name!r} "
                f"({', '.join(sorted(slots)[:3])}, ...); the checkpoint was written by another recipe: start in a new "
                "folder"
            )


def _named(optimizer: torch.optim.Optimizer) -> list[tuple[str, nn.Parameter]]:
    return [pair for group in optimizer.param_groups for pair in zip(group["names"], group["params"], strict=True)]


def _build(groups: Mapping[str, NamedParameters], stage: Stage) -> dict[str, torch.optim.Optimizer]:
    config = stage.optimizer
    matrices: list[dict[str, Any]] = []
    decayed: list[dict[str, Any]] = []
    plain: list[dict[str, Any]] = []
    for group_name, parameters in groups.items():
        rate = stage.learning_rates[group_name]
        by_class: dict[str, NamedParameters] = {"matrix": {}, "decayed": {}, "plain": {}}
        for name, parameter in parameters.items():
            by_class[_class_of(name, parameter, config)][name] = parameter
        for target, kind in ((matrices, "matrix"), (decayed, "decayed"), (plain, "plain")):
            if by_class[kind]:
                target.append(_param_group(by_class[kind], rate, 0.0 if kind == "plain" else config.weight_decay))
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if matrices:
        optimizers["muon"] = torch.optim.Muon(matrices, lr=0.0, adjust_lr_fn="match_rms_adamw")
    if decayed or plain:
        optimizers["adamw"] = torch.optim.AdamW(
            decayed + plain, lr=0.0, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True
        )
    return optimizers


def _param_group(parameters: NamedParameters, rate: float, weight_decay: float) -> dict[str, Any]:
    return {
        "params": list(parameters.values()),
        "names": list(parameters),
        "lr": rate,
        "peak_lr": rate,
        "weight_decay": weight_decay,
    }


def _class_of(name: str, parameter: nn.Parameter, config: OptimizerConfig) -> str:
    """Hidden matrices go to Muon; vectors, tables and embeddings are not decayed (B10: the release decays them all)."""
    table = any(words in name for words in TABLES)
    if parameter.ndim < 2 or table:
        return "plain"
    if config.kind == "muon" and parameter.ndim == 2:
        return "matrix"
    return "decayed"
