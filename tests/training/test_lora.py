"""LoRA on the backbone: same outputs when added, same outputs when merged, the ordinary layout in between and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gemvlm.batch import Batch
from gemvlm.model.gem import Gem
from gemvlm.model.weights import load_weights, named_tensors, save_weights
from gemvlm.recipes.debug import DEBUG
from gemvlm.training.lora import add_lora, base_layers, load_adapter, merge_lora, save_adapter, trainable_groups
from gemvlm.training.stage import LoraConfig

peft = pytest.importorskip("peft", reason="the extra `lora` is not installed")

LANGUAGE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA = LoraConfig(rank=2, alpha=4.0, layers={"language": LANGUAGE, "vision": ("qkv", "proj")}, dropout=0.0)


@pytest.fixture
def gem(workshop) -> Gem:
    return workshop.gem().eval()


@pytest.fixture
def batch(workshop) -> Batch:
    return next(iter(workshop.stream(replace(DEBUG.stages[-1], batch_size=2))))


def losses(gem: Gem, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([gem(batch)[name] for name in ("text", "depth")])


def disturb(gem: Gem, by: float = 0.05) -> None:
    """Adapters as a training leaves them."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for group in trainable_groups(gem).values():
            for name, parameter in group.items():
                if ".lora_B." in name:
                    parameter.copy_(by * torch.randn(parameter.shape, generator=draw))


def test_adding_changes_nothing_and_merging_keeps_what_was_learned(gem, batch):
    names, before = list(named_tensors(gem)), losses(gem, batch)
    add_lora(gem, LORA, seed=0)
    assert torch.equal(losses(gem, batch), before)
    disturb(gem)
    learned = losses(gem, batch)
    assert not torch.allclose(learned, before, rtol=1e-3)
    merge_lora(gem)
    torch.testing.assert_close(losses(gem, batch), learned, rtol=1e-5, atol=1e-6)
    assert list(named_tensors(gem)) == names


def test_only_adapters_learn_in_their_groups_and_the_rest_in_full(gem):
    plain = gem.parameter_groups()
    assert trainable_groups(gem).keys() == plain.keys()
    sizes = {name: sum(p.numel() for p in group.values()) for name, group in plain.items()}
    add_lora(gem, LORA, seed=0)
    groups = trainable_groups(gem)
    for name in ("language", "vision"):
        assert groups[name] and all(".lora_" in parameter for parameter in groups[name])
        assert sum(p.numel() for p in groups[name].values()) < 0.3 * sizes[name]
    for name in ("merger", "connector", "generator"):
        assert {n: p.shape for n, p in groups[name].items()} == {n: p.shape for n, p in plain[name].items()}


def test_the_gradient_reaches_adapters_connector_and_generator(gem, batch):
    add_lora(gem, LORA, seed=0)
    disturb(gem)
    groups = trainable_groups(gem)
    for parameter in gem.parameters():
        parameter.requires_grad_(False)
    for name in ("language", "vision", "connector", "generator"):
        for parameter in groups[name].values():
            parameter.requires_grad_(True)
    sum(gem.train()(batch).values()).backward()
    for name in ("language", "vision", "connector", "generator"):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in groups[name].values()), name
    trained = {id(p) for name in ("language", "vision", "connector", "generator") for p in groups[name].values()}
    assert all(p.grad is None for p in gem.parameters() if id(p) not in trained)


def test_a_resumed_stage_goes_on_with_the_same_numbers(gem, workshop, batch, tmp_path: Path):
    """Base weights under their ordinary names, the adapter beside them; loaded into a fresh model, bit for bit."""
    add_lora(gem, LORA, seed=0)
    disturb(gem)
    with base_layers(gem):
        save_weights(gem, tmp_path, torch.float32)
    save_adapter(gem, tmp_path)
    learned = losses(gem, batch)
    fresh = workshop.gem().eval()
    load_weights(fresh, tmp_path)
    add_lora(fresh, LORA, seed=1)
    with base_layers(fresh):
        load_weights(fresh, tmp_path)
    load_adapter(fresh, tmp_path)
    assert torch.equal(losses(fresh, batch), learned)
    with pytest.raises(ValueError, match=r"adapter tensors, the stage has 0"):
        load_adapter(workshop.gem(), tmp_path)
    other = workshop.gem()
    add_lora(other, replace(LORA, rank=3), seed=0)
    with pytest.raises(ValueError, match="resume with the LoRA settings that wrote it"):
        load_adapter(other, tmp_path)


def test_stock_peft_reads_the_adapter(gem, tmp_path: Path):
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    def stock() -> Qwen3VLForConditionalGeneration:
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**gem.config.backbone)).eval()
        model.load_state_dict(gem.backbone.qwen.state_dict())
        return model

    plain = stock()
    add_lora(gem, LORA, seed=0)
    disturb(gem)
    save_adapter(gem, tmp_path)
    adapted = peft.PeftModel.from_pretrained(plain, tmp_path)
    merge_lora(gem)
    ids = torch.arange(20, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(input_ids=ids).logits, stock()(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


def test_adapters_are_drawn_from_the_seed_alone(workshop):
    drawn = []
    for number in (0, 0, 1):
        gem = workshop.gem()
        torch.manual_seed(len(drawn))
        add_lora(gem, LORA, seed=number)
        drawn.append(next(p for n, p in trainable_groups(gem)["language"].items() if ".lora_A." in n))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(LORA, layers={"language": ("q_proj", "c_proj")}), r"no linear layer named \['c_proj'\]; .*down_proj"),
        (replace(LORA, layers={"speech": ("q_proj",)}), r"group 'speech' .* there are vision: \[.*'qkv'"),
        (replace(LORA, layers={"language": ("lm_head",)}), "no linear layer named"),
        (replace(LORA, layers={"vision": ("q_proj",)}), "'vision' has no linear layer"),
        (replace(LORA, layers={"language": ()}), "named nothing"),
        (replace(LORA, layers={}), "names no layers; there are"),
        (replace(LORA, rank=0), "rank 0"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(gem, config, message):
    with pytest.raises(ValueError, match=message):
        add_lora(gem, config, seed=0)


def test_adapters_are_not_stacked(gem):
    add_lora(gem, LORA, seed=0)
    with pytest.raises(ValueError, match="merge them first"):
        add_lora(gem, LORA, seed=0)


def test_without_adapters_nothing_happens(gem, tmp_path: Path):
    before = {name: tensor.clone() for name, tensor in named_tensors(gem).items()}
    with base_layers(gem):
        merge_lora(gem)
    save_adapter(gem, tmp_path)
    load_adapter(gem, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in named_tensors(gem).items())
