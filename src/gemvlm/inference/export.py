"""A checkpoint in the layout of other projects: plain Qwen3-VL for transformers, vLLM and SGLang, or the authors' GEM.

    qwen3-vl   the language model and its vision tower alone, as Qwen publishes them: the generator is dropped
    gem        all of it, under the authors' names: `sana.*`, `vae.*`, `diffusion_connector.*`

Both hold the files of a processor. Names and values of those are as in the repositories Qwen/Qwen3-VL-2B-Instruct and
-8B-Instruct of the Hugging Face hub; configurations are written in the form of transformers 4, which version 5 reads as
well.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from gemvlm.data.tokenizer import VIDEO_PAD
from gemvlm.inference.load import checkpoint_folder, load
from gemvlm.inference.pipeline import GemPipeline
from gemvlm.model.weights import BACKBONE, save_weights

Layout = Literal["qwen3-vl", "gem"]

ARCHITECTURE = "Qwen3VLForConditionalGeneration"
LARGEST_VIDEO_PIXELS, LEAST_VIDEO_PIXELS = 25_165_824, 4096


def export_model(
    path_or_name: str | os.PathLike[str], out: Path, to: Layout, dtype: torch.dtype = torch.bfloat16
) -> Path:
    """Writes the checkpoint into the new folder `out`, which then is whole or absent; returns it.

    ValueError if `out` exists, or if the authors' layout has no place for the checkpoint's generator or autoencoder.
    """
    folder = checkpoint_folder(path_or_name)
    if out.exists():
        raise ValueError(f"{out}: exists already; an export writes a new folder: remove it, or choose another")
    pipeline = load(folder, "cpu")
    model = pipeline.card.model
    if to == "gem" and (model.generator["kind"], model.latents["kind"]) != ("sana", "dc_ae"):
        raise ValueError(
            f"{folder}: a generator of kind {model.generator['kind']!r} that paints in latents of kind "
            f"{model.latents['kind']!r}; the authors' code knows Sana and DC-AE alone: export --to qwen3-vl"
        )
    draft = out.with_name(out.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    save_weights(pipeline.gem, draft, dtype, parts=BACKBONE if to == "qwen3-vl" else None)
    _write(draft / "config.json", _config(draft, pipeline, dtype))
    _write_tokenizer(draft, pipeline)
    for name, values in _processor(pipeline.card.image).items():
        _write(draft / name, values)
    ids = [pipeline.tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    _write(draft / "generation_config.json", {"eos_token_id": ids, "pad_token_id": ids[1], "do_sample": False})
    draft.rename(out)
    return out


def _config(draft: Path, pipeline: GemPipeline, dtype: torch.dtype) -> dict[str, Any]:
    """The backbone's configuration as transformers 4 writes it, with the ids of this tokenizer."""
    config = json.loads((draft / "config.json").read_text(encoding="utf-8"))
    rope = dict(config["text_config"].pop("rope_parameters"))
    config["text_config"] |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    video = pipeline.tokenizer.convert_tokens_to_ids(VIDEO_PAD)
    return config | {
        "architectures": [ARCHITECTURE],
        "dtype": str(dtype).removeprefix("torch."),
        "eos_token_id": pipeline.tokenizer.eos_token_id,
        "video_token_id": video,
    }


def _write_tokenizer(draft: Path, pipeline: GemPipeline) -> None:
    """`tokenizer.json` decides alone: a class of Qwen's own would split text by its own rule."""
    pipeline.tokenizer.save_pretrained(str(draft))
    path = draft / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["additional_special_tokens"] = config.pop("extra_special_tokens", [])
    _write(path, config)


def _processor(image: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The files by which transformers cuts images and videos as this model has seen images cut."""
    both = {
        "patch_size": image["patch_size"],
        "temporal_patch_size": image["temporal_patch_size"],
        "merge_size": image["merge_size"],
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
    }
    sizes = {"longest_edge": image["max_pixels"], "shortest_edge": image["min_pixels"]}
    videos = {"longest_edge": LARGEST_VIDEO_PIXELS, "shortest_edge": LEAST_VIDEO_PIXELS}
    return {
        "preprocessor_config.json": {"size": sizes, **both, "image_processor_type": "Qwen2VLImageProcessorFast"},
        "video_preprocessor_config.json": {"size": videos, **both, "video_processor_type": "Qwen3VLVideoProcessor"},
    }


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
