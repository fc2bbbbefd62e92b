"""Checkpoints that are whole or absent, explain themselves, and resume bit for bit.

A checkpoint folder is complete on its own: weights in the authors' key layout, the backbone's Hugging Face config,
tokenizer, `gem.json`. While a run goes on, `state.json` and `optimizer.safetensors` beside them let it continue
exactly.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from gemvlm.model.card import CheckpointCard
from gemvlm.model.gem import Gem
from gemvlm.model.weights import load_weights, save_weights
from gemvlm.training.optimizer import GroupOptimizer

STATE_FILE = "state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
DRAFT = ".draft"


@dataclass(frozen=True)
class RunState:
    """Where a run stands: the stage, the steps done in it, and the steps done in all.

    `unlogged` holds (sum, count) of every number since the last logged step, so that the next line is the mean that an
    uninterrupted run would log.
    """

    stage: int
    stage_step: int
    step: int
    unlogged: Mapping[str, tuple[float, int]] = field(default_factory=dict)


def save_checkpoint(
    folder: Path,
    gem: Gem,
    tokenizer: PreTrainedTokenizerBase,
    card: CheckpointCard,
    *,
    dtype: torch.dtype = torch.float32,
    optimizer: GroupOptimizer | None = None,
    state: RunState | None = None,
) -> None:
    """Write beside `folder` and rename: a reader, or a resume after a kill, sees all of it or none."""
    draft = folder.with_name(folder.name + DRAFT)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_weights(gem, draft, dtype)
    tokenizer.save_pretrained(str(draft))
    card.write(draft)
    if optimizer is not None:
        save_file(optimizer.state_tensors(), draft / OPTIMIZER_FILE)
    if state is not None:
        (draft / STATE_FILE).write_text(json.dumps(asdict(state)), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    draft.replace(folder)


def latest_checkpoint(folder: Path) -> Path | None:
    """The resumable checkpoint with the most steps under `folder`, or None; drafts of killed runs are not seen."""
    return max(_checkpoints(folder), key=_step, default=None)


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if path.suffix != DRAFT and (path / STATE_FILE).is_file()]


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def read_state(folder: Path) -> RunState:
    fields = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    unlogged = {name: (total, count) for name, (total, count) in fields.pop("unlogged", {}).items()}
    return RunState(**fields, unlogged=unlogged)


def restore(folder: Path, gem: Gem, optimizer: GroupOptimizer | None) -> RunState:
    """Load weights, and the optimiser's state if one is given, from a resumable checkpoint."""
    load_weights(gem, folder)
    if optimizer is not None:
        optimizer.load_state_tensors(load_file(folder / OPTIMIZER_FILE))
    return read_state(folder)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the `keep` newest resumable checkpoints, and drafts (C3 of the release keeps every one)."""
    old = sorted(_checkpoints(folder), key=_step)[:-keep]
    for path in [*old, *folder.glob(f"step-*{DRAFT}")]:
        shutil.rmtree(path)
