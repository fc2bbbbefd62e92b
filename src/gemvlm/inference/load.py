"""A path or a name → a pipeline that is ready to answer, or an error that says what is missing."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import torch

from gemvlm.data.tokenizer import load_tokenizer
from gemvlm.inference.hub import named_folder
from gemvlm.inference.pipeline import GemPipeline
from gemvlm.inference.quantise import Scheme, quantise_text
from gemvlm.model.card import CARD_FILE, CheckpointCard
from gemvlm.model.policy_card import POLICY_FILE
from gemvlm.model.weights import load_weights, uninitialised
from gemvlm.runtime import Precision, default_device

NEEDED = (CARD_FILE, "config.json", "model.safetensors", "tokenizer.json")
SHARD_INDEX = "model.safetensors.index.json"


def load(
    path_or_name: str | os.PathLike[str],
    device: str | torch.device | None = None,
    dtype: torch.dtype | Precision | None = None,
    quantised: Scheme | None = None,
) -> GemPipeline:
    """The pipeline of a checkpoint folder, of a shipped checkpoint ("nano"), or of one on a hub ("owner/model@main").

    `device` is the best one there is by default; `dtype` is float32 by default, whatever the weights are stored in.
    With `quantised` the language model's weights are made smaller, on a CPU alone (`inference.quantise`).
    ValueError if the folder is not a whole checkpoint.
    """
    folder = checkpoint_folder(path_or_name)
    card = CheckpointCard.read(folder)
    tokenizer = load_tokenizer(folder)
    gem = uninitialised(card.model)
    load_weights(gem, folder)
    gem.to(device=default_device(None if device is None else str(device)), dtype=as_dtype(dtype))
    if quantised is not None:
        quantise_text(gem.backbone, quantised)
    return GemPipeline(gem.eval(), tokenizer, card)


def as_dtype(dtype: torch.dtype | Precision | None) -> torch.dtype:
    """float32 by default."""
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32


def shipped_checkpoints() -> dict[str, Path]:
    """Name → folder of the checkpoints inside the package."""
    home = Path(str(files("gemvlm"))) / "checkpoints"
    return {path.name: path for path in sorted(home.glob("*")) if (path / CARD_FILE).is_file()}


def any_checkpoint_folder(path_or_name: str | os.PathLike[str]) -> Path:
    """`checkpoint_folder` of a GEM, or the folder of a policy, here or on a hub."""
    folder = named_folder(path_or_name, CARD_FILE, POLICY_FILE)
    return folder if (folder / POLICY_FILE).is_file() else checkpoint_folder(folder)


def checkpoint_folder(path_or_name: str | os.PathLike[str]) -> Path:
    """The folder that a user means, fetched if it is on a hub, and checked to hold every file of a checkpoint."""
    shipped = shipped_checkpoints()
    name = os.fspath(path_or_name)
    folder = shipped[name] if name in shipped else named_folder(path_or_name)
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: neither a folder nor a shipped checkpoint ({', '.join(shipped) or 'none is shipped'}); "
            "give a folder written by `gemvlm train`, or owner/model of a hub"
        )
    there = {entry.name for entry in folder.iterdir()}
    missing = [name for name in NEEDED if name not in there]
    if SHARD_INDEX in there and "model.safetensors" in missing:
        missing.remove("model.safetensors")
    if POLICY_FILE in there:
        raise ValueError(
            f"{folder}: a policy, which acts and does not answer: use it with `gemvlm vla` or "
            "gemvlm.inference.policy.load_policy"
        )
    if missing:
        cards = (*folder.glob(f"*/{CARD_FILE}"), *folder.glob(f"*/{POLICY_FILE}"))
        inner = sorted(card.parent for card in cards if card.parent.suffix != ".draft")
        remedy = f"this is the folder of a run: give {inner[0]}" if inner else "copy the whole checkpoint folder again"
        raise ValueError(f"{folder}: {', '.join(missing)} missing ({_listing(there)}); {remedy}")
    return folder


def _listing(names: set[str]) -> str:
    if not names:
        return "the folder is empty"
    shown = sorted(names)
    return "there is " + ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
