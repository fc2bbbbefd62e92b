"""Checkpoints that are whole or absent, explain themselves, and resume bit for bit.

A checkpoint folder is complete on its own: weights in the authors' key layout, the backbone's Hugging Face config,
tokenizer, `gem.json`. While a run goes on, `state.json`, `optimizer` and `average` tensors beside them let it continue
exactly. The number of processes that wrote a folder leaves no trace in it: any number goes on from there.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gemvlm.model.card import CheckpointCard
from gemvlm.model.learner import Learner
from gemvlm.model.weights import EMBEDDING, HEAD, named_tensors
from gemvlm.runtime import Runtime
from gemvlm.shards import files
from gemvlm.training.average import Average
from gemvlm.training.lora import base_layers, load_adapter, save_adapter
from gemvlm.training.optimizer import GroupOptimizer
from gemvlm.training.parallel import Processes
from gemvlm.training.stage import Stage
from gemvlm.training.tensor_files import TensorFiles, size_of, write_tensors

STATE_FILE = "state.json"
WEIGHTS, OPTIMIZER, AVERAGE = "model", "optimizer", "average"
DRAFT = ".draft"
MARGIN = 64 * 2**20
"""Bytes left free beside a checkpoint, for its small files and the logs."""

ALONE = Processes(Runtime(rank=0, world=1, device=torch.device("cpu"), precision="float32"))

FREE_FIELDS = ("steps", "at_once", "recompute", "notes")
"""Of a stage, what may differ when a run goes on: its length, how a step is computed, and remarks."""


class DiskFullError(OSError):
    """There is no room for a checkpoint; the one before is untouched."""


@dataclass(frozen=True)
class RunState:
    """Where a run stands: the stage, the steps done in it, and the steps done in all.

    `unlogged` holds (sum, count) of every number since the last logged step, so that the next line is the mean that an
    uninterrupted run would log. `stream` is the state of the stage's stream of batches, None at its begin. `skipped`
    counts the steps whose losses or gradients were no numbers.
    """

    stage: int
    stage_step: int
    step: int
    unlogged: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    stream: Sequence[Any] | None = None
    skipped: int = 0


@dataclass(frozen=True)
class Identity:
    """What a checkpoint and the run that goes on from it must share: facts by name, the model, and the stages."""

    facts: Mapping[str, str]
    model: Mapping[str, Any]
    stages: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, facts: Mapping[str, str], card: CheckpointCard, stages: Sequence[Stage]) -> Identity:
        plain = [{k: v for k, v in asdict(stage).items() if k not in FREE_FIELDS} for stage in stages]
        return cls(**json.loads(json.dumps({"facts": facts, "model": card.model.to_dict(), "stages": plain})))

    def refuse_unless_equal(self, found: Identity | None, stage: int, folder: Path) -> None:
        """ValueError, with what differs, unless `found` in a checkpoint allows to go on in stage number `stage`.

        Stages that have not begun may be changed; their names may not.
        """
        if found is None:
            raise ValueError(f"{folder}: written by an older gemvlm, which did not note its recipe; {REMEDY}")
        differ = _differences("", found.facts, self.facts) + _differences("model.", found.model, self.model)
        names = [[one["name"] for one in identity.stages] for identity in (found, self)]
        if names[0] != names[1]:
            differ.append(f"stages: {names[0]} there, {names[1]} here")
        else:
            pairs = zip(names[0], found.stages[: stage + 1], self.stages, strict=False)
            differ += [text for name, theirs, ours in pairs for text in _differences(f"{name}.", theirs, ours)]
        if differ:
            raise ValueError(f"{folder} belongs to another run: {'; '.join(differ[:SHOWN])}; {REMEDY}")


SHOWN = 6
REMEDY = "train into another folder, or restore the recipe and data of the run that began here"


def _differences(prefix: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    found = []
    for name in sorted({*theirs, *ours}):
        there, here = theirs.get(name), ours.get(name)
        if isinstance(there, dict) and isinstance(here, dict):
            found += _differences(f"{prefix}{name}.", there, here)
        elif there != here:
            found.append(f"{prefix}{name} is {there!r} there, {here!r} here")
    return found


def save_checkpoint(
    folder: Path,
    model: Learner,
    tokenizer: PreTrainedTokenizerBase,
    card: CheckpointCard,
    *,
    dtype: torch.dtype = torch.float32,
    optimizer: GroupOptimizer | None = None,
    average: Average | None = None,
    state: RunState | None = None,
    identity: Identity | None = None,
    processes: Processes = ALONE,
) -> None:
    """Write beside `folder` and rename: a reader, or a resume after a kill, sees all of it or none.

    Every process calls it. DiskFullError if there is no room, before anything is written where that can be told; what
    was there before is then untouched.
    """
    parts: list[tuple[str, Mapping[str, Tensor], torch.dtype | None]] = [(WEIGHTS, weights_of(model), dtype)]
    if optimizer is not None:
        parts.append((OPTIMIZER, optimizer.state_tensors(), None))
    if average is not None:
        parts.append((AVERAGE, average.tensors, None))
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_room(folder, sum(size_of(tensors, kind) for _, tensors, kind in parts), processes)
    draft = folder.with_name(folder.name + DRAFT)
    if processes.is_main:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
    processes.barrier()
    failure = ""
    try:
        for stem, tensors, kind in parts:
            write_tensors(draft, stem, tensors, processes, kind)
        if processes.is_main:
            _write_words(draft, model, tokenizer, card, state, identity)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        failure = f"{NO_SPACE} ({failure})" if full else failure
    failures = [text for text in processes.texts(failure) if text]
    if failures:
        if processes.is_main:
            shutil.rmtree(draft, ignore_errors=True)
        kind_of = DiskFullError if any(NO_SPACE.lower() in text.lower() for text in failures) else OSError
        raise kind_of(f"{folder} was not written: {failures[0]}; {_kept(folder)}")
    if processes.is_main:
        files.fsync(draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
        files.fsync(folder.parent)
    processes.barrier()


NO_SPACE = "No space left on device"


def _write_words(
    folder: Path,
    model: Learner,
    tokenizer: PreTrainedTokenizerBase,
    card: CheckpointCard,
    state: RunState | None,
    identity: Identity | None,
) -> None:
    model.backbone.qwen.config.save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))
    card.write(folder)
    save_adapter(model, folder)
    if state is not None:
        written = asdict(state) | {"identity": identity and asdict(identity)}
        files.put(folder / STATE_FILE, json.dumps(written).encode())


def _check_room(folder: Path, needed: int, processes: Processes) -> None:
    free = int(processes.sum([float(shutil.disk_usage(folder.parent).free) if processes.is_main else 0.0])[0])
    if free < needed + MARGIN:
        raise DiskFullError(
            f"{folder} was not written: it needs {needed / 1e9:.2f} GB and {MARGIN / 1e9:.2f} to spare, the disk has "
            f"{free / 1e9:.2f} GB free; {_kept(folder)}"
        )


def _kept(folder: Path) -> str:
    newest = latest_checkpoint(folder.parent)
    there = f"{newest.name} is untouched" if newest else "there is no checkpoint yet"
    return f"{there}: make room on the disk of {folder.parent}"


def weights_of(model: Learner) -> dict[str, Tensor]:
    """The tensors of a model by their names in a checkpoint, without adapters, and a head that is the embedding."""
    with base_layers(model):
        tensors = named_tensors(model)
    if model.backbone.qwen.config.tie_word_embeddings:
        tensors.pop(HEAD, None)
        assert EMBEDDING in tensors
    return tensors


def latest_checkpoint(folder: Path) -> Path | None:
    """The resumable checkpoint with the most steps under `folder`, or None; drafts of killed runs are not seen."""
    return max(_checkpoints(folder), key=_step, default=None)


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if path.suffix != DRAFT and (path / STATE_FILE).is_file()]


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def read_state(folder: Path) -> tuple[RunState, Identity | None]:
    """Where the run stood, and whose it is. ValueError if the file is damaged."""
    path = folder / STATE_FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        identity = fields.pop("identity", None)
        unlogged = {name: (total, count) for name, (total, count) in fields.pop("unlogged", {}).items()}
        return RunState(**fields, unlogged=unlogged), Identity(**identity) if identity else None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not readable ({error}); remove {folder.name}, and the run goes on from the checkpoint before"
        ) from None


def restore(folder: Path, model: Learner, optimizer: GroupOptimizer | None, average: Average | None = None) -> None:
    """Load weights, and what else is given, from a resumable checkpoint; each process its own rows."""
    with TensorFiles(folder, WEIGHTS) as tensors:
        tensors.fill(weights_of(model))
    if optimizer is not None:
        with TensorFiles(folder, OPTIMIZER) as tensors:
            likes = optimizer.parameters()
            empty = torch.empty(0)
            read = {key: tensors.read(key, likes.get(key.rpartition("/")[0], empty)) for key in tensors}
        optimizer.load_state_tensors(read)
        load_adapter(model, folder)
    if average is not None:
        with TensorFiles(folder, AVERAGE) as tensors:
            tensors.fill(average.tensors)


@torch.no_grad()
def restore_latents(folder: Path, model: Learner) -> None:
    """Load the autoencoder alone, which no stage trains: cached latents are checked against it before a run goes on."""
    if model.supervision is None:
        return
    own = {id(tensor) for tensor in model.supervision.latents.state_dict(keep_vars=True).values()}
    with TensorFiles(folder, WEIGHTS) as tensors:
        for name, tensor in weights_of(model).items():
            if id(tensor) in own:
                tensor.copy_(tensors.read(name, tensor))


def prune(folder: Path, keep: int) -> None:
    """Delete all but the `keep` newest resumable checkpoints, and drafts (C3 of the release keeps every one)."""
    old = sorted(_checkpoints(folder), key=_step)[:-keep]
    for path in [*old, *folder.glob(f"step-*{DRAFT}")]:
        shutil.rmtree(path)
