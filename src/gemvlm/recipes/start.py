"""What a training begins with: random weights, published parts, or a whole checkpoint, read without re-initialising.

A place is a folder, or a hub id that is fetched by huggingface_hub. What is found there is compared with what the
recipe expects before a tensor is read, and a difference is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from gemvlm.data.tokenizer import load_tokenizer
from gemvlm.inference.load import checkpoint_folder
from gemvlm.model.card import CARD_FILE, CheckpointCard
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem
from gemvlm.model.weights import load_parts, load_weights, read_config, uninitialised
from gemvlm.recipes.recipe import Recipe, Start
from gemvlm.runtime import deterministic, get_log

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
FETCHED = ("*.json", "*.safetensors", "*.jinja", "*.txt")
"""Of a published repository: no pickles, no code."""
NOT_COMPARED = ("rope_theta", "rope_scaling", "rope_parameters", "max_position_embeddings", "sample_size")
"""Numbers that change no tensor, and that publishers write in different ways."""


@dataclass(frozen=True)
class Beginning:
    """Where the parts of a recipe's start lie, and the model that they make; `load` reads them."""

    model: GemConfig
    tokenizer: PreTrainedTokenizerFast
    parts: Mapping[str, Path]

    def load(self, model: GemConfig, seed: int) -> Gem:
        """`model` with every tensor as its file has it; a connector, which no part has, is drawn from `seed`."""
        with deterministic(seed):
            gem = uninitialised(model)
            if "checkpoint" in self.parts:
                load_weights(gem, self.parts["checkpoint"])
            else:
                load_parts(gem, self.parts["qwen"], self.parts["sana"], self.parts.get("dc_ae"))
        return gem


def find_start(recipe: Recipe, start: Start) -> Beginning:
    """Looks at the places of a start; ValueError says what is missing, or what is of another size, encoding or stage.

    A place that is neither a folder nor a hub id is refused; a hub id is fetched.
    """
    if start.checkpoint is not None:
        return _whole(recipe, start.trained, start.checkpoint)
    if start.qwen is None or start.sana is None:
        wanted = "--start CHECKPOINT, a GEM-2B" if start.qwen is None else "--start sana=PLACE"
        raise ValueError(f"recipe {recipe.name} begins with given weights: add {wanted}, as a folder or a hub id")
    places = {"qwen": start.qwen, "sana": start.sana} | ({"dc_ae": start.dc_ae} if start.dc_ae else {})
    parts = {name: located(place) for name, place in places.items()}
    model = replace(
        recipe.model,
        backbone=read_config(parts["qwen"]),
        generator={"kind": "sana", **read_config(parts["sana"] / "transformer")},
        latents={"kind": "dc_ae", **read_config(parts.get("dc_ae", parts["sana"] / "vae"))},
    )
    _refuse_other_sizes(recipe, model, " and ".join(map(str, parts.values())))
    return Beginning(model, load_tokenizer(parts["qwen"]), parts)


def located(place: str) -> Path:
    """The folder of a place. ValueError unless it is a folder, or a hub id that can be fetched."""
    folder = Path(place)
    if folder.is_dir():
        return folder
    if not HUB_ID.fullmatch(place) or folder.parent.is_dir():
        raise ValueError(f"--start {place}: no such folder, and no hub id (OWNER/NAME); check the path")
    from huggingface_hub import snapshot_download

    get_log().info("fetching %s from the hub", place)
    try:
        return Path(snapshot_download(place, allow_patterns=list(FETCHED)))
    except Exception as error:  # of the hub, of the network and of the disk, in as many classes
        raise ValueError(
            f"--start {place}: no such folder, and as a hub id not to be had ({type(error).__name__}: {error}); check "
            "the name, or give the folder of a copy"
        ) from error


def _whole(recipe: Recipe, trained: tuple[str, ...], place: str) -> Beginning:
    """A checkpoint of ours, which says what it is, or one in the authors' layout, whose generator the recipe knows."""
    from gemvlm.inference.load import shipped_checkpoints

    folder = shipped_checkpoints().get(place) or located(place)
    if not (folder / CARD_FILE).is_file() and not (folder / "config.json").is_file():
        checkpoint_folder(folder)  # says what is missing
    if (folder / CARD_FILE).is_file():
        card = CheckpointCard.read(checkpoint_folder(folder))
        model = replace(
            card.model,
            condition_dropout=recipe.model.condition_dropout,
            generator=_taught(recipe.model.generator, card.model.generator),
        )
        missing = sorted(set(trained) - set(card.trained_groups))
        if missing:
            raise ValueError(
                f"{folder}: written in stage {card.stage!r} of {card.recipe}, which has trained "
                f"{', '.join(card.trained_groups) or 'nothing'}; recipe {recipe.name} needs a trained "
                f"{' and '.join(missing)}: finish the earlier stages first"
            )
    else:
        model = replace(recipe.model, backbone=read_config(folder))
    _refuse_other_sizes(recipe, model, str(folder))
    return Beginning(model, load_tokenizer(folder), {"checkpoint": folder})


def _taught(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The generator found, painting as the recipe teaches it to: kinds of Sana share their weights."""
    if not all(str(generator["kind"]).startswith("sana") for generator in (wanted, found)):
        return found
    kept = {name: value for name, value in found.items() if name != "guidance"}
    return kept | {name: wanted[name] for name in ("kind", "guidance") if name in wanted}


def _refuse_other_sizes(recipe: Recipe, found: GemConfig, where: str) -> None:
    wanted, there = _plain(recipe.model), _plain(found)
    differing = list(_differences(wanted, there))
    if differing:
        raise ValueError(
            f"{where}: another model than recipe {recipe.name} trains: {'; '.join(differing[:6])}"
            f"{'; ...' if len(differing) > 6 else ''}; choose the recipe of that model, or the weights of this one"
        )


def _plain(model: GemConfig) -> dict[str, Any]:
    values = json.loads(json.dumps(model.to_dict()))
    return {name: values[name] for name in ("backbone", "generator", "latents", "encoding", "shift")}


def _differences(wanted: Mapping[str, Any], there: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Conventions that differ, and sizes: whole numbers, switches and lists of them. What only one side names is left
    to the tensors' shapes, which are compared when they are read."""
    for name, value in wanted.items():
        if name in NOT_COMPARED or name.endswith("_token_id") or name not in there or value == there[name]:
            continue
        if isinstance(value, Mapping) and isinstance(there[name], Mapping):
            yield from _differences(value, there[name], f"{path}{name}.")
        elif isinstance(value, int | list) or name in ("kind", "shift") or path == "encoding.":
            yield f"{path}{name} is {there[name]}, expected {value}"
