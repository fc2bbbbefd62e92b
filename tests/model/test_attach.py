"""Generative supervision on stock models of four families, tiny: found, paired, learnt, dropped on save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
SANA = {
    "kind": "sana", "in_channels": 3, "out_channels": 3, "num_layers": 1, "num_attention_heads": 2,
    "attention_head_dim": 8, "num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16,
    "caption_channels": 16, "mlp_ratio": 2.0, "qk_norm": "rms_norm_across_heads", "sample_size": 4, "patch_size": 1,
}  # fmt: skip
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
    model, _ = attached(family)
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
    heads: list[int] = []
    model.lm_head.register_forward_hook(lambda *_: heads.append(1))
    plain = model(**inputs)
    assert carried.losses == {}
    with_depth = model(**inputs, targets=[target(0), target(2)])
    assert len(heads) == 2
    assert torch.equal(with_depth.logits, plain.logits)
    torch.testing.assert_close(with_depth.loss, plain.loss + 0.1 * carried.losses["depth"])
    assert next(iter(with_depth.keys())) == "loss"


def test_it_learns_and_is_dropped_on_save(family, tmp_path: Path):
    """The loss falls, the backbone gets a gradient from depth alone, and what is saved is a stock model."""
    model, _ = attached(family)
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
        first = first or loss.item()
    assert loss.item() < 0.5 * first
    model.eval().save_pretrained(tmp_path)
    stock, report = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not any(NAME in name for name in stock.state_dict())
    with torch.no_grad():
        assert torch.equal(stock.eval()(**inputs).logits, model(**inputs).logits)


QWEN = FAMILIES[0]


def test_detached_it_is_the_model_that_it_was():
    model, _ = attached(QWEN)
    plain, inputs = QWEN.model(), QWEN.inputs(SAMPLES)
    before = set(plain.__dict__)
    carried = attach(plain, supervision(), tokenizer=Decoder())
    assert set(plain.state_dict()) == set(model.state_dict())
    module = carried.detach()
    assert set(plain.__dict__) == before and type(plain).accepts_loss_kwargs == plain.accepts_loss_kwargs
    assert set(plain.state_dict()) == {name for name in model.state_dict() if not name.startswith(NAME)}
    assert torch.equal(plain(**inputs).loss, model.eval()(**inputs).loss)
    attach(plain, module)


def test_noise_is_new_at_every_visit_in_training_and_the_same_in_evaluation():
    """B5, B16: draws follow the target's key and the count of passes; evaluation is not noisy."""
    model, carried = attached(QWEN, generator=SANA)
    inputs = depth_only(QWEN)
    model.eval()
    assert torch.equal(model(**inputs, targets=[target(0)]).loss, model(**inputs, targets=[target(0)]).loss)
    model.train()
    visits = [float(model(**inputs, targets=[target(0)]).loss.detach()) for _ in range(3)]
    assert len(set(visits)) == 3
    carried.passes = 0
    assert [float(model(**inputs, targets=[target(0)]).loss.detach()) for _ in range(3)] == visits


def test_a_batch_without_depth_gives_every_parameter_a_zero_gradient():
    """Ranks that reduce gradients together: DDP itself refuses a pass that leaves parameters out."""
    model, carried = attached(QWEN)
    inputs = QWEN.inputs(SAMPLES)
    plain = QWEN.model()(**inputs).loss
    hole = target(1)
    hole.valid[:] = False
    for targets in ({}, {"targets": []}, {"targets": [hole]}):
        model.train().zero_grad()
        loss = model(**inputs, **targets).loss
        assert torch.equal(loss, plain)
        loss.backward()
        own = [p.grad for p in carried.supervision.parameters() if p.requires_grad]
        assert own and all(gradient is not None and not gradient.any() for gradient in own)
        assert carried.losses == {}
    with torch.no_grad():
        assert torch.equal(model(**inputs).loss, plain)


def test_it_goes_on_from_what_it_saved(tmp_path: Path):
    model, carried = attached(QWEN)
    inputs, targets = depth_only(QWEN), [target(0), target(2)]
    model.train()(**inputs, targets=targets).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    carried.save(tmp_path)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    resumed = attach(again, supervision(seed=5))
    resumed.load(tmp_path)
    assert resumed.passes == carried.passes == 1
    assert torch.equal(again.train()(**inputs, targets=targets).loss, model(**inputs, targets=targets).loss)
    with pytest.raises(ValueError, match=r"nowhere.*not readable.*No such file"):
        resumed.load(tmp_path / "nowhere")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/generative_supervision.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="not readable"):
        resumed.load(tmp_path / "broken")
    again = attach(QWEN.model(), supervision(generator=REGRESSION | {"depth": 2}))
    with pytest.raises(ValueError, match=r"10 tensors differ, .*generator.head.2"):
        again.load(tmp_path)


def test_half_precision_inside_autocast_and_out():
    """The states arrive in the model's precision; the supervision computes in its own, and its loss is float32."""
    inputs, targets = depth_only(QWEN), [target(0)]
    model, _ = attached(QWEN)
    exact = float(model.eval()(**inputs, targets=targets).loss.detach())
    with torch.autocast("cpu", torch.bfloat16):
        assert float(model(**inputs, targets=targets).loss.detach()) == pytest.approx(exact, rel=0.05)
    half = QWEN.model().bfloat16()
    attach(half, supervision())
    loss = half.eval()(**inputs, targets=targets).loss
    assert loss.dtype == torch.float32 and float(loss.detach()) == pytest.approx(exact, rel=0.05)


def test_with_lora_of_peft():
    """On a PeftModel the adapters and the supervision learn, and nothing else; the loss is the same."""
    peft = pytest.importorskip("peft", reason="the extra `lora` is not installed")
    adapted = peft.get_peft_model(QWEN.model(), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    attach(adapted, supervision())
    model, _ = attached(QWEN)
    inputs, targets = QWEN.inputs(SAMPLES), [target(0), target(2)]
    loss = adapted.train()(**inputs, targets=targets).loss
    assert torch.equal(loss, model.train()(**inputs, targets=targets).loss)
    loss.backward()
    learning = {name for name, p in adapted.named_parameters() if p.grad is not None}
    assert all("lora_" in name or NAME in name for name in learning)
    assert any("lora_" in name for name in learning) and any(NAME in name for name in learning)


def test_micro_batches_weigh_alike_in_a_trainer(tmp_path: Path):
    """A Trainer divides only means by the number of micro-batches; taken for a sum, depth would count several times."""
    from transformers import Trainer, TrainingArguments

    family = next(family for family in FAMILIES if family.name == "smolvlm")
    plain = Trainer(family.model(), TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    model, _ = attached(family)
    trainer = Trainer(model, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    assert plain.model_accepts_loss_kwargs and not trainer.model_accepts_loss_kwargs


@pytest.fixture
def process_group():
    """Of this process alone: enough for DDP and FSDP2 to do, and to refuse, what they do with many."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def steps(model: torch.nn.Module, calls: Sequence[dict]) -> list[float]:
    """Losses of SGD steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for call in calls:
        optimizer.zero_grad()
        loss = model(**call).loss
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_under_ddp_batches_with_and_without_depth_mix(process_group):
    """Without the zero gradients the pass after a batch without depth raises, or hangs with other ranks."""
    inputs = QWEN.inputs(SAMPLES)
    calls = [inputs | {"targets": targets} for targets in ([target(0)], [], [target(1), target(2)], [])]
    alone, _ = attached(QWEN)
    model, _ = attached(QWEN)
    wrapped = torch.nn.parallel.DistributedDataParallel(model.train())
    assert steps(wrapped, calls) == pytest.approx(steps(alone.train(), calls), rel=1e-5)


def test_under_fsdp2(process_group, tmp_path: Path):
    """Sharded with the model it learns the same, and its file holds whole tensors."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    inputs = QWEN.inputs(SAMPLES)
    calls = [inputs | {"targets": targets} for targets in ([target(0)], [], [target(1), target(2)])]
    alone, whole = attached(QWEN)
    model, carried = attached(QWEN)
    mesh = init_device_mesh("cpu", (1,))
    for layer in model.model.language_model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert steps(model.train(), calls) == pytest.approx(steps(alone.train(), calls), rel=1e-5)
    carried.save(tmp_path)
    expected = {name: tensor.clone() for name, tensor in whole.supervision.state_dict().items()}
    again = attach(QWEN.model(), supervision(seed=5))
    again.load(tmp_path)
    for name, tensor in again.supervision.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6)
    carried.load(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda inputs: inputs | {"targets": [target(3)]}, r"for image 3: the batch has 3 images"),
        (lambda inputs: inputs | {"targets": [replace(target(0), kind="rgb")]}, r"kind 'rgb' .* weights are for"),
        (lambda inputs: inputs | {"targets": [target(0)], "return_dict": False}, "call it with return_dict=True"),
    ],
)
def test_what_cannot_be_paired_is_refused(wrong, message):
    model, _ = attached(QWEN)
    with pytest.raises(ValueError, match=message):
        model(**wrong(QWEN.inputs(SAMPLES)))


def test_what_cannot_carry_it_is_refused():
    model, _ = attached(QWEN)
    with pytest.raises(ValueError, match="carries a supervision already: True"):
        attach(model, supervision())
    narrow = GenerativeSupervision.build(
        16, REGRESSION, {"kind": "patch", "patch": 8, "luma": 3, "chroma": 0}, shift=1.0, condition_dropout=0.1
    )
    with pytest.raises(ValueError, match="states are 32 wide, the connector takes 16"):
        attach(QWEN.model(), narrow)
    with pytest.raises(ValueError, match="Linear is no transformers model"):
        attach(torch.nn.Linear(2, 2), narrow)
