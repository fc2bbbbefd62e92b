"""Low-rank adapters (peft's LoRA) on a Gem's backbone for the length of one stage, and back to plain weights.

A stage adds them (`add_lora`), its optimiser trains them in place of their groups (`trainable_groups`), and its end
merges them (`merge_lora`): adapters never outlive a stage. In between, `base_layers` shows the model with its ordinary
names, to save or load its weights, and `save_adapter` writes the rest in peft's own layout, which
`PeftModel.from_pretrained` reads on a stock Qwen3-VL. Without adapters all of them do nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from gemvlm.model.learner import Learner
from gemvlm.runtime import deterministic
from gemvlm.training.stage import LoraConfig

ADAPTER_FILE = "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."


def add_lora(model: Learner, config: LoraConfig, seed: int) -> None:
    """Puts adapters on the layers that `config` names; the outputs stay the same, as B is 0. A is drawn from `seed`.

    ValueError for a group or a layer that isn't there, naming what is; if there are adapters already; or without peft.
    """
    if _adapted(model):
        raise ValueError(f"the model has adapters on {len(_adapted(model))} layers already; merge them first")
    if config.rank < 1 or config.alpha <= 0 or not 0 <= config.dropout < 1:
        raise ValueError(
            f"LoRA of rank {config.rank}, alpha {config.alpha}, dropout {config.dropout}: rank and alpha must be "
            "positive, dropout in [0, 1)"
        )
    names, peft = _chosen(model, config), _peft()
    adapters = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=names, bias="none"
    )
    with deterministic(seed):
        peft.inject_adapter_in_model(adapters, model.backbone.qwen)


def merge_lora(model: Learner) -> None:
    """Adds every adapter's update to its layer's weight and takes the adapter away; the outputs stay."""
    for name, layer in _adapted(model).items():
        layer.merge(safe_merge=True)
        model.backbone.qwen.set_submodule(name, layer.base_layer)
    model.backbone.qwen.__dict__.pop("peft_config", None)


def trainable_groups(model: Learner) -> dict[str, dict[str, nn.Parameter]]:
    """`Gem.parameter_groups`, but a group with adapters holds them alone: its own weights are in no group."""
    groups = model.parameter_groups()
    adapters = {name: {n: p for n, p in group.items() if ".lora_" in n} for name, group in groups.items()}
    return {name: adapters[name] or group for name, group in groups.items()}


@contextmanager
def base_layers(model: Learner) -> Iterator[None]:
    """Inside, the adapted layers are the plain ones, without their updates: the names of an ordinary checkpoint."""
    adapted = _adapted(model)
    for name, layer in adapted.items():
        model.backbone.qwen.set_submodule(name, layer.base_layer)
    try:
        yield
    finally:
        for name, layer in adapted.items():
            model.backbone.qwen.set_submodule(name, layer)


def save_adapter(model: Learner, folder: Path) -> None:
    """Writes `adapter_model.safetensors` and `adapter_config.json`; nothing if the model has no adapters."""
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in _adapter_tensors(model).items()}
    if tensors:
        save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
        model.backbone.qwen.peft_config["default"].save_pretrained(str(folder))


@torch.no_grad()
def load_adapter(model: Learner, folder: Path) -> None:
    """Fills the adapters that `add_lora` made; undoes `save_adapter`. ValueError unless names and shapes agree."""
    wanted, path = _adapter_tensors(model), folder / ADAPTER_FILE
    try:
        tensors = load_file(path) if path.is_file() else {}
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{path}: not a readable safetensors file ({error}); resume from the checkpoint before"
        ) from None
    shapes = ({(name, tuple(tensor.shape)) for name, tensor in part.items()} for part in (tensors, wanted))
    if differ := sorted(set.symmetric_difference(*shapes)):
        raise ValueError(
            f"{path}: holds {len(tensors)} adapter tensors, the stage has {len(wanted)}, {len(differ)} differ, such as "
            f"{differ[:2]}; resume with the LoRA settings that wrote it"
        )
    for name, parameter in wanted.items():
        parameter.copy_(tensors[name])


def _adapted(model: Learner) -> dict[str, Any]:
    """The layers that carry an adapter, by their names in the backbone."""
    return {name: module for name, module in model.backbone.qwen.named_modules() if hasattr(module, "lora_A")}


def _adapter_tensors(model: Learner) -> dict[str, nn.Parameter]:
    """The adapters' parameters by their names in peft's files."""
    named = model.backbone.qwen.named_parameters()
    return {PEFT_PREFIX + name.replace(".default.", "."): p for name, p in named if ".lora_" in name}


def _chosen(model: Learner, config: LoraConfig) -> list[str]:
    """Names in the backbone of the layers to adapt."""
    layers = _linear_layers(model)
    if not config.layers:
        raise ValueError(f"LoRA names no layers; there are {_described(layers)}")
    chosen = []
    for group, last_names in config.layers.items():
        there = layers.get(group, [])
        unknown = sorted(set(last_names) - {name.rpartition(".")[2] for name in there})
        if unknown or not last_names:
            raise ValueError(
                f"LoRA: group {group!r} has no linear layer named {unknown or 'nothing'}; there are "
                f"{_described(layers)}"
            )
        chosen += [name for name in there if name.rpartition(".")[2] in last_names]
    return chosen


def _linear_layers(model: Learner) -> dict[str, list[str]]:
    """The backbone's linear layers by group. A head tied to the embedding is none: it has no weight of its own."""
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    prefix = "backbone.qwen."
    found: dict[str, list[str]] = {}
    for group, parameters in model.parameter_groups().items():
        owners = [name.removesuffix(".weight") for name in parameters if name.startswith(prefix)]
        if names := [name.removeprefix(prefix) for name in owners if name in linear]:
            found[group] = names
    return found


def _described(layers: dict[str, list[str]]) -> str:
    return "; ".join(f"{group}: {sorted({n.rpartition('.')[2] for n in names})}" for group, names in layers.items())


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ImportError("LoRA needs peft: pip install 'gemvlm[lora]'") from None
    return peft
