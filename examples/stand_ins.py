"""What the examples need that you have already: a model, its processor, and images with depth. Tiny, random, on a CPU.

The model is a stock Qwen3-VL of 0.1 M parameters, the frames are scenes of our simulated table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gemvlm.worlds.tabletop.generate import generate_views

IMAGE, START, END = 256, 257, 258

GENERATOR = {"kind": "regression", "condition_width": 48, "width": 48, "depth": 2, "channels": 6}
LATENTS = {"kind": "patch", "patch": 8, "luma": 6, "chroma": 0}


def tiny_model(seed: int = 0) -> Qwen3VLForConditionalGeneration:
    """`Qwen3VLForConditionalGeneration.from_pretrained("Qwen/Qwen3-VL-2B-Instruct")` of another size."""
    torch.manual_seed(seed)
    text = {
        "vocab_size": 260, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16,
        "num_attention_heads": 3, "num_key_value_heads": 1, "initializer_range": 0.1,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3], "mrope_interleaved": True,
        },
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8, "out_hidden_size": 48,
        "num_position_embeddings": 64, "deepstack_visual_indexes": [0], "initializer_range": 0.1,
    }  # fmt: skip
    special = {"image_token_id": IMAGE, "vision_start_token_id": START, "vision_end_token_id": END}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **special)
    return Qwen3VLForConditionalGeneration(config)


class TinyProcessor:
    """As `AutoProcessor`, but for bytes: images, then words, right-padded; labels on the words."""

    def __init__(self) -> None:
        self.images = Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, min_pixels=64, max_pixels=96 * 96)

    def __call__(self, images: Sequence[Sequence[Image.Image]], text: Sequence[str]) -> dict[str, Any]:
        made = self.images([image for of_sample in images for image in of_sample], return_tensors="pt")
        counts = iter((made["image_grid_thw"].prod(1) // 4).tolist())
        rows = []
        for of_sample, words in zip(images, text, strict=True):
            spans = [token for _ in of_sample for token in (START, *[IMAGE] * next(counts), END)]
            rows.append(torch.tensor([*spans, *words.encode()]))
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        labels: Tensor = torch.where((mask == 1) & (ids < IMAGE), ids, -100)
        is_image = (ids == IMAGE).int()
        return {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": is_image, "labels": labels, **made}


def rgbd_samples(count: int) -> list[dict[str, Any]]:
    """Samples of one or two images in two sizes, with z-depth in metres for all but every fourth image."""
    views = []
    for scene in range(count):
        views.append(list(generate_views([scene], 1 + scene % 2, size=((48, 64), (64, 64))[scene % 2])))
    return [
        {
            "id": f"scene-{scene}",
            "images": [Image.fromarray(view.image) for view in of_scene],
            "depths": [None if (scene + n) % 4 == 3 else view.depth for n, view in enumerate(of_scene)],
            "text": "a table with " + ", ".join(sorted({o.name for o in of_scene[0].objects if o.movable}))[:24],
        }
        for scene, of_scene in enumerate(views)
    ]
