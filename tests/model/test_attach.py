"""Generative supervision on stock models of four families, tiny: found, paired, learnt, dropped on save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from gemvlm.batch import Target
from gemvlm.model.attach import NAME, attach
from gemvlm.model.supervision import GenerativeSupervision

WIDTH, VOCABULARY, IMAGE = 32, 64, 9
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4}
QWEN_TEXT = TEXT | {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [2, 3, 3],
        "mrope_interleaved": True,
    }
}
QWEN_VISION = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4}
QWEN3_VISION = QWEN_VISION | {"out_hidden_size": WIDTH, "num_position_embeddings": 16}
FIVE = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
CONFIGS = {
    "qwen3_vl": {"text_config": QWEN_TEXT, "vision_config": QWEN3_VISION | {"deepstack_visual_indexes": [0]}},
    "qwen2_5_vl": {
        "text_config": QWEN_TEXT,
        "vision_config": QWEN_VISION | {"out_hidden_size": WIDTH, "window_size": 16, "fullatt_block_indexes": []},
    },
    "qwen3_5": {
        "text_config": QWEN_TEXT | FIVE | {"layer_types": ["linear_attention", "full_attention"]},
        "vision_config": QWEN3_VISION,
    },
    "smolvlm": {"text_config": TEXT | {"model_type": "llama"}, "vision_config": VISION | {"image_size": 16}},
    "paligemma": {
        "text_config": TEXT | {"model_type": "gemma"},
        "vision_config": VISION | {"model_type": "siglip_vision_model", "image_size": 16, "vision_use_head": False},
        "projection_dim": WIDTH,
    },
}
REGRESSION = {"kind": "regression", "condition_width": 24, "width": 24, "depth": 1, "channels": 3}
NAMES = {"<fake_token_around_image>": 20, "<image>": IMAGE, "\n": 21, "<global-img>": 22}
NAMES |= {f"<row_{r}_col_{c}>": 20 + 4 * r + c for r in (1, 2, 3) for c in (1, 2, 3)}


class Decoder:
    def decode(self, token_ids: list[int]) -> str:
        words = {number: word for word, number in NAMES.items()}
        return "".join(words.get(token, "a") for token in token_ids)


@dataclass(frozen=True)
class Family:
    """A tiny random model, and its inputs of samples of images, each followed by two words."""

    name: str

    def model(self, seed: int = 0) -> PreTrainedModel:
        torch.manual_seed(seed)
        options = {"image_token_id": IMAGE} if self.name != "paligemma" else {"image_token_index": IMAGE}
        special = {"video_token_id": 10, "vision_start_token_id": 11, "vision_end_token_id": 12}
        options |= special if self.name.startswith("qwen") else {}
        config = AutoConfig.for_model(self.name, **CONFIGS[self.name], **options, tie_word_embeddings=True)
        model = AutoModelForImageTextToText.from_config(config)
        with torch.no_grad():  # stock spreads are tiny for widths of 16 and 32: an image would hardly reach the states
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4)
        return model

    def inputs(self, samples: Sequence[Sequence[Image.Image]]) -> dict[str, Tensor]:
        make = {"smolvlm": self._smolvlm, "paligemma": self._paligemma}.get(self.name, self._qwen)
        texts, pixels = make(samples)
        texts = [[*ids, 3, 4 + number] for number, ids in enumerate(texts)]
        longest = max(map(len, texts))
        ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
        mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
        labels = torch.where((mask == 1) & (ids != IMAGE), ids, -100)
        inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels, **pixels}
        if self.name.startswith("qwen"):
            inputs["mm_token_type_ids"] = (ids == IMAGE).int()
        return inputs

    def _qwen(self, samples):
        processor = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=64, max_pixels=64 * 64)
        made = processor([image for images in samples for image in images], return_tensors="pt")
        counts = iter((made["image_grid_thw"].prod(1) // 4).tolist())
        texts = [sum(([11] + [IMAGE] * next(counts) + [12] for _ in images), [1]) for images in samples]
        return texts, dict(made)

    def _smolvlm(self, samples):
        processor = SmolVLMImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
        made = processor([list(images) for images in samples], return_tensors="pt", return_row_col_info=True)
        names = sorted(NAMES, key=len, reverse=True)
        texts = []
        for rows, columns in zip(made.pop("rows"), made.pop("cols"), strict=True):
            text = [1]
            for grid in zip(rows, columns, strict=True):
                prompt = get_image_prompt_string(*grid, 4, "<fake_token_around_image>", "<image>", "<global-img>")
                while prompt:
                    name = next(name for name in names if prompt.startswith(name))
                    text.append(NAMES[name])
                    prompt = prompt.removeprefix(name)
            texts.append(text)
        return texts, dict(made)

    def _paligemma(self, samples):
        processor = SiglipImageProcessorPil(size={"height": 16, "width": 16})
        made = processor([image for images in samples for image in images], return_tensors="pt")
        return [[IMAGE] * 16 * len(images) + [1] for images in samples], dict(made)

    def reached(self, inputs: dict[str, Tensor], gradient: Tensor) -> list[bool]:
        """Whether the gradient of pixel_values is anywhere not 0, for each image of `SAMPLES`."""
        if self.name.startswith("qwen"):
            parts = list(gradient.split(inputs["image_grid_thw"].prod(1).tolist()))
        elif self.name == "smolvlm":
            parts = [gradient[0, :3], gradient[0, 3:10], gradient[1, :5]]
        else:
            parts = list(gradient)
        return [bool(part.abs().sum() > 0) for part in parts]


def picture(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


SAMPLES = [[picture(0, 32, 16), picture(1, 32, 48)], [picture(2, 32, 32)]]
"""Images 0 and 1 in the first sample, 2 in the second, of three sizes."""

FAMILIES = [Family(name) for name in CONFIGS]


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request) -> Family:
    return request.param


def supervision(seed: int = 0, dropout: float = 0.0, generator: dict = REGRESSION) -> GenerativeSupervision:
    torch.manual_seed(seed)
    latents = {"kind": "patch", "patch": 8, "luma": 3, "chroma": 0}
    return GenerativeSupervision.build(WIDTH, generator, latents, shift=1.0, condition_dropout=dropout)


def target(image: int, seed: int | None = None) -> Target:
    draw = torch.Generator().manual_seed(image if seed is None else seed)
    flat = torch.rand(1, 2, 2, generator=draw).expand(3, -1, -1) * 2 - 1
    large = flat.repeat_interleave(16, 1).repeat_interleave(16, 2).contiguous()
    return Target("depth", image, large, torch.ones(32, 32, dtype=torch.bool), key=image)


def attached(family: Family, **options):
    model = family.model()
    return model, attach(model, supervision(**options), tokenizer=Decoder())


def depth_only(family: Family, samples=SAMPLES) -> dict[str, Tensor]:
    """Inputs without labels: the model's loss is then the supervision's alone."""
    return {name: value for name, value in family.inputs(samples).items() if name != "labels"}


def test_a_target_meets_its_own_image(family):
    """A2: of three images the one that the target names gets the gradient, at its tokens and back at its pixels."""
    model, carried = attached(family)
    inputs = depth_only(family)
    hidden: list[Tensor] = []
    model.base_model.register_forward_hook(lambda module, args, out: hidden.append(out[0]))
    tokens = carried.finder.find(inputs["input_ids"], inputs)
    seen = {0: [True, False, False], 1: [True, True, False], 2: [False, False, True]}  # attention is causal
    for image, expected in seen.items():
        pixels = inputs["pixel_values"].clone().requires_grad_()
        loss = model(**inputs | {"pixel_values": pixels, "targets": [target(image)]}).loss
        at_tokens, at_pixels = torch.autograd.grad(loss, [hidden[-1], pixels])
        touched = at_tokens.abs().sum(-1).flatten().nonzero()[:, 0].tolist()
        begin, end = tokens.spans[image].tolist()
        assert touched == sorted(tokens.places[begin : begin + tokens.grids[image].prod()].tolist())
        assert begin + tokens.grids[image].prod() <= end
        assert family.reached(inputs, at_pixels) == expected


def test_the_raster_is_the_picture(family):
    """A dark spot in a corner of the image is felt most at that corner of the image's grid of tokens."""
    model, carried = attached(family)
    hidden: list[Tensor] = []
    model.base_model.get_input_embeddings().register_forward_hook(lambda *_: None)
    layers = (
        model.base_model.language_model if hasattr(model.base_model, "language_model") else model.base_model.text_model
    )
    layers.register_forward_pre_hook(lambda m, args, kwargs: hidden.append(kwargs["inputs_embeds"]), with_kwargs=True)
    plain = np.full((32, 32, 3), 200, np.uint8)
    base = depth_only(family, [[Image.fromarray(plain)]])
    model(**base)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        spotted = plain.copy()
        spotted[24 * row : 24 * row + 8, 24 * column : 24 * column + 8] = 0
        inputs = depth_only(family, [[Image.fromarray(spotted)]])
        model(**inputs)
        tokens = carried.finder.find(inputs["input_ids"], inputs)
        rows, columns = tokens.grids[0].tolist()
        change = (
            (tokens.states(hidden[-1]) - tokens.states(hidden[0])).norm(dim=-1)[: rows * columns].view(rows, columns)
        )
        where = int(change.argmax())
        assert (where // columns >= rows // 2, where % columns >= columns // 2) == (bool(row), bool(column))


def test_several_images_in_any_order_and_images_without_a_target(family):
    model, carried = attached(family)
    model.eval()
    inputs = depth_only(family)
    together = model(**inputs, targets=[target(2), target(0)])
    alone = [model(**inputs, targets=[target(image)]).loss for image in (0, 2)]
    torch.testing.assert_close(together.loss, sum(alone) / 2)
    swapped = model(**inputs, targets=[target(0, seed=2), target(2, seed=0)]).loss
    assert not torch.isclose(swapped, together.loss, rtol=1e-3)


def test_the_loss_is_the_models_own_and_a_tenth_of_depth(family):
    model, carried = attached(family)
    inputs = family.inputs(SAMPLES)
    plain = model(**inputs)
    assert carried.losses == {}
    with_depth = model(**inputs, targets=[target(0), target(2)])
    assert torch.equal(with_depth.logits, plain.logits)
    torch.testing.assert_close(with_depth.loss, plain.loss + 0.1 * carried.losses["depth"])
    assert list(with_depth.keys())[0] == "loss"


def test_it_learns_and_is_dropped_on_save(family, tmp_path: Path):
    """The loss falls, the backbone gets a gradient from depth alone, and the saved model is a stock one, bit for bit."""
    model, carried = attached(family)
    inputs, targets = depth_only(family), [target(image) for image in range(3)]
    model.train()
    model(**inputs, targets=targets).loss.backward()
    reached = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any("embed" in name or "patch" in name for name in reached)
    assert any(name.startswith(NAME + ".connector") for name in reached)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    first = None
    for _ in range(15):
        optimizer.zero_grad()
        loss = model(**inputs, targets=targets).loss
        loss.backward()
        optimizer.step()
        first = first if first is not None else float(loss)
    assert float(loss) < 0.5 * first
    model.eval().save_pretrained(tmp_path)
    stock, report = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not any(NAME in name for name in stock.state_dict())
    with torch.no_grad():
        assert torch.equal(stock.eval()(**inputs).logits, model(**inputs).logits)
