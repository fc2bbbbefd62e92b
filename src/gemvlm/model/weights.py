"""Weights ⇄ files, in the layout of the authors' checkpoints.

    model.*, lm_head.*       the language model and its vision tower, as Qwen3-VL publishes them (no lm_head if tied)
    diffusion_connector.*    the connector
    sana.* or head.*         the flow generator, or a regression head
    vae.*                    the frozen autoencoder (a patch codec has no tensors)
    expert.*                 a policy's action expert

Nothing is skipped in silence: a missing, unexpected or mis-shaped tensor is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gemvlm.depth_map import Encoding
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem
from gemvlm.model.latents import Latents, build_latents
from gemvlm.model.learner import Learner
from gemvlm.model.supervision import GenerativeSupervision

L = TypeVar("L", bound=Learner)

PREFIXES = {
    "backbone.qwen.": "",
    "supervision.connector.": "diffusion_connector.",
    "supervision.generator.": "",
    "supervision.latents.": "",
    "expert.": "expert.",
}
"""Prefixes of our modules and of the same tensors in a checkpoint."""

HEAD, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"

BACKBONE = ("model.", "lm_head.")
"""What the names of a plain Qwen3-VL begin with."""

FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
"""Names that published folders give their weights; sharded ones have an `.index.json` beside them."""

SUPERVISION = ("diffusion_connector.", "sana.", "head.", "vae.")
"""What the names of generative supervision begin with."""

SHOWN = 10


def named_tensors(gem: Learner) -> dict[str, Tensor]:
    """Every tensor of a model by its name in a checkpoint; parameters themselves, not copies."""
    tensors = {}
    for name, tensor in gem.state_dict(keep_vars=True).items():
        ours, theirs = next(pair for pair in PREFIXES.items() if name.startswith(pair[0]))
        tensors[theirs + name.removeprefix(ours)] = tensor
    return tensors


def save_weights(gem: Learner, folder: Path, dtype: torch.dtype, parts: Sequence[str] | None = None) -> None:
    """Writes `model.safetensors` (in shards with an index if large) and the backbone's `config.json` into `folder`.

    Only tensors whose names begin with one of `parts`, if given.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in named_tensors(gem).items()
        if parts is None or name.startswith(tuple(parts))
    }
    if _is_tied(gem):
        del tensors[HEAD]
    plan = split_torch_state_dict_into_shards(
        tensors, filename_pattern="model{suffix}.safetensors", max_shard_size="5GB"
    )
    for file, names in plan.filename_to_tensors.items():
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / (FILES[0] + ".index.json")).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    gem.backbone.qwen.config.save_pretrained(folder)


def load_weights(
    gem: Learner,
    folder: Path,
    new: Sequence[str] = (),
    unused: Sequence[str] = (),
    rename: Callable[[str], str | None] = lambda name: name,
) -> None:
    """Fills a model from a folder in this layout; undoes `save_weights`. ValueError for any tensor that doesn't fit.

    Tensors of the model whose names begin with one of `new` keep their values, as the folder doesn't have them; those
    of the folder that begin with one of `unused` are left there. Both are said, never found out (A16). `rename` gives
    the name in this layout of a tensor that goes by another in the folder, None if it is left there.
    """

    def known(name: str) -> str | None:
        own = rename(name)
        return None if own is None or own.startswith(tuple(unused)) else own

    wanted = {name: tensor for name, tensor in named_tensors(gem).items() if not name.startswith(tuple(new))}
    with Reader(folder) as reader:
        reader.rename(known)
        if _is_tied(gem):
            if {HEAD, EMBEDDING} <= reader.names.keys() and not torch.equal(reader.read(HEAD), reader.read(EMBEDDING)):
                raise ValueError(
                    f"{folder}: {HEAD} differs from {EMBEDDING}, but the configuration ties them; "
                    "set tie_word_embeddings to false in the backbone's configuration"
                )
            wanted.pop(HEAD, None)
            reader.names.pop(HEAD, None)
        fill(wanted, reader)


def from_pretrained_parts(
    qwen_folder: Path,
    sana_folder: Path,
    dc_ae_folder: Path | None = None,
    *,
    encoding: Encoding,
    shift: float,
    condition_dropout: float,
) -> Gem:
    """A Gem of a plain Qwen3-VL folder and a plain Sana folder (`transformer/`, `vae/`), each tensor as its file has
    it.

    `dc_ae_folder` replaces Sana's `vae/`. Only the connector is new. The scheduler file is not read: the same file
    means a shift of 1 or of 3 depending on the class that loads it, so `shift` is said here. (A6: the release
    re-initialised Sana and the autoencoder.)
    """
    qwen, sana = read_config(qwen_folder), read_config(sana_folder / "transformer")
    vae = read_config(_autoencoder(sana_folder, dc_ae_folder))
    gem = uninitialised(
        GemConfig(qwen, {"kind": "sana", **sana}, {"kind": "dc_ae", **vae}, encoding, shift, condition_dropout)
    )
    load_parts(gem, qwen_folder, sana_folder, dc_ae_folder)
    return gem


def load_parts(gem: Learner, qwen_folder: Path, sana_folder: Path | None, dc_ae_folder: Path | None = None) -> None:
    """Fills a model from the published folders of its parts and draws a new connector; an expert is left as it is.

    `sana_folder` is None for a model without supervision. ValueError for any tensor that doesn't fit.
    """
    parts = {"": qwen_folder}
    if gem.supervision is not None:
        if sana_folder is None:
            raise ValueError(f"{qwen_folder}: a model that paints needs a Sana beside it; give its folder")
        parts |= {"sana.": sana_folder / "transformer", "vae.": _autoencoder(sana_folder, dc_ae_folder)}
        gem.supervision.connector.reset_parameters()
    tensors = named_tensors(gem)
    if _is_tied(gem):
        del tensors[HEAD]
    for prefix, folder in parts.items():
        with Reader(folder) as reader:
            if _is_tied(gem) and not prefix:
                reader.names.pop(HEAD, None)
            fill({name.removeprefix(prefix): t for name, t in tensors.items() if _belongs(name, prefix)}, reader)


def published_supervision(
    states: int, sana_folder: Path, dc_ae_folder: Path | None = None, *, shift: float, condition_dropout: float
) -> GenerativeSupervision:
    """Supervision for any model whose states are `states` wide: Sana and its autoencoder, each tensor as its file has
    it.

    Only the connector is new. Folders and `shift` as in `from_pretrained_parts`.
    """
    from transformers.initialization import no_init_weights

    folders = sana_folder / "transformer", _autoencoder(sana_folder, dc_ae_folder)
    sana, vae = (read_config(folder) for folder in folders)
    with no_init_weights():
        supervision = GenerativeSupervision.build(
            states, {"kind": "sana", **sana}, {"kind": "dc_ae", **vae}, shift=shift, condition_dropout=condition_dropout
        )
    supervision.connector.reset_parameters()
    for name, folder in zip(("generator.sana", "latents.vae"), folders, strict=True):
        with Reader(folder) as reader:
            fill(supervision.get_submodule(name).state_dict(keep_vars=True), reader)
    return supervision


def published_autoencoder(folder: Path) -> Latents:
    """A frozen DC-AE, each tensor as its file has it. `folder` is the autoencoder's own, or Sana's with its `vae/`."""
    folder = folder / "vae" if (folder / "vae").is_dir() else folder
    latents = build_latents({"kind": "dc_ae", **read_config(folder)})
    with Reader(folder) as reader:
        fill(latents.get_submodule("vae").state_dict(keep_vars=True), reader)
    return latents


def _autoencoder(sana_folder: Path, dc_ae_folder: Path | None) -> Path:
    return sana_folder / "vae" if dc_ae_folder is None else dc_ae_folder


def _belongs(name: str, prefix: str) -> bool:
    return name.startswith(prefix) if prefix else name.startswith(BACKBONE)


def uninitialised(config: GemConfig) -> Gem:
    """`undrawn` of a Gem."""
    return undrawn(lambda: Gem(config))


def undrawn(build: Callable[[], L]) -> L:
    """A model whose weights are whatever memory held, for who fills every tensor next: drawing 4 B takes minutes."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = build()
    model.backbone.qwen.tie_weights()
    return model


def _is_tied(gem: Learner) -> bool:
    qwen = gem.backbone.qwen
    return qwen.lm_head.weight is qwen.model.language_model.embed_tokens.weight


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` without the private keys that diffusers adds."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: not readable as JSON ({error}); give the folder that holds the published part"
        ) from None
    return {key: value for key, value in values.items() if not key.startswith("_")}


class Reader:
    """Tensors of a folder by name, from one file or from shards; `names` maps each name to its file and name there."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.names: dict[str, tuple[str, str]] = {}
        self.files: dict[str, Any] = {}

    def __enter__(self) -> Reader:
        for file in self._file_names():
            path = self.folder / file
            try:
                self.files[file] = safe_open(path, framework="pt").__enter__()
            except (OSError, SafetensorError) as error:
                raise ValueError(f"{path}: not a readable safetensors file ({error}); copy it again") from None
            for name in self.files[file].keys():  # noqa: SIM118, a safetensors file is no dict
                self.names[name] = (file, name)
        return self

    def __exit__(self, *exc: object) -> None:
        for file in self.files.values():
            file.__exit__(*exc)

    def _file_names(self) -> list[str]:
        for name in FILES:
            index = self.folder / (name + ".index.json")
            if index.is_file():
                return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            if (self.folder / name).is_file():
                return [name]
        raise ValueError(
            f"{self.folder}: holds none of {FILES} nor an index of shards; give the folder of a checkpoint"
        )

    def rename(self, mapping: Callable[[str], str | None]) -> None:
        """Shows the tensors by other names, without those that `mapping` gives None. ValueError if two get the same."""
        renamed: dict[str, tuple[str, str]] = {}
        for name, place in self.names.items():
            new = mapping(name)
            if new in renamed:
                raise ValueError(f"{self.folder}: {name} and {renamed[new][1]} would both be {new}; give one of them")
            if new is not None:
                renamed[new] = place
        self.names = renamed

    def read(self, name: str) -> Tensor:
        file, own = self.names[name]
        return self.files[file].get_tensor(own)

    def shape(self, name: str) -> tuple[int, ...]:
        file, own = self.names[name]
        return tuple(self.files[file].get_slice(own).get_shape())


@torch.no_grad()
def fill(wanted: Mapping[str, Tensor], reader: Reader) -> None:
    """Copies every wanted tensor from the reader, after checking that names and shapes agree on both sides."""
    missing = [name for name in wanted if name not in reader.names]
    unexpected = [name for name in reader.names if name not in wanted]
    shared = [name for name in wanted if name in reader.names]
    shaped = [
        f"{n} {reader.shape(n)} for {tuple(wanted[n].shape)}"
        for n in shared
        if reader.shape(n) != tuple(wanted[n].shape)
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shaped))
        if names
    ]
    if problems:
        raise ValueError(
            f"{reader.folder}: {len(shared) - len(shaped)} of {len(wanted)} tensors fit; {'; '.join(problems)}; "
            "give a checkpoint of this configuration, or the configuration of this checkpoint"
        )
    for name, tensor in wanted.items():
        tensor.copy_(reader.read(name))
