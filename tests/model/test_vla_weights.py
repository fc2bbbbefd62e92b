"""Checkpoints in the authors' layout: each tensor finds its place, and whatever doesn't fit is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gemvlm.model.action_expert import ExpertConfig
from gemvlm.model.gem import Gem
from gemvlm.model.gem_vla import GemVla, GemVlaConfig, SupervisionConfig
from gemvlm.model.vla_weights import load_published
from gemvlm.model.weights import load_weights, named_tensors, save_weights

EXPERT = ExpertConfig(
    action=3,
    state=4,
    horizon=5,
    width=32,
    depth=2,
    heads=4,
    kv_heads=2,
    registers=2,
    conditioning="layer_inputs",
    layers=(1, 2),
    time_scale=1.0,
    ffn_multiple_of=16,
)
BACKBONE, DEPTH = ("model.", "lm_head."), ("diffusion_connector.", "sana.", "head.")


@pytest.fixture
def vla_config(regression_config) -> GemVlaConfig:
    return GemVlaConfig(
        regression_config.backbone, EXPERT, SupervisionConfig.of(regression_config), backbone_gradient=1.0
    )


def drawn(config: GemVlaConfig, seed: int) -> GemVla:
    torch.manual_seed(seed)
    policy = GemVla(config)
    with torch.no_grad():
        for parameter in policy.expert.parameters():
            parameter.normal_()
    return policy


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.detach().clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def training_file(policy: GemVla) -> dict[str, torch.Tensor]:
    """As a DeepSpeed training of the authors names its tensors."""
    found = {}
    for name, tensor in named_tensors(policy).items():
        if name.startswith("expert."):
            found["rdt." + name.removeprefix("expert.")] = tensor
        else:
            found[("vlm." if name.startswith(BACKBONE) else "depth_expert.") + name] = tensor
    return found


def bare(policy: GemVla) -> dict[str, torch.Tensor]:
    return dict(policy.expert.state_dict())


def equal(first: GemVla, second: GemVla, prefixes: tuple[str, ...] = ("",)) -> bool:
    ours, theirs = named_tensors(first), named_tensors(second)
    return all(torch.equal(t, theirs[name]) for name, t in ours.items() if name.startswith(prefixes))


def test_a_training_file_loads_strictly_into_every_part(vla_config, tmp_path):
    """A16: prefixes are mapped; strict, where the release failed on its own files."""
    source, policy = drawn(vla_config, 0), drawn(vla_config, 1)
    load_published(policy, write(tmp_path / "published", training_file(source)), ("backbone", "supervision", "expert"))
    assert equal(policy, source)


def test_an_expert_alone_and_the_rest_stays(vla_config, tmp_path):
    source, policy, before = drawn(vla_config, 0), drawn(vla_config, 1), drawn(vla_config, 1)
    load_published(policy, write(tmp_path / "expert", bare(source)), ("expert",))
    assert equal(policy, source, ("expert.",))
    assert equal(policy, before, BACKBONE + DEPTH)


def test_the_backbone_of_a_gem_alone(vla_config, regression_config, tmp_path):
    torch.manual_seed(2)
    gem = Gem(regression_config)
    save_weights(gem, tmp_path, torch.float32)
    policy = drawn(replace(vla_config, supervision=None), 1)
    load_published(policy, tmp_path, ("backbone",))
    assert torch.equal(
        policy.backbone.qwen.model.language_model.layers[0].mlp.up_proj.weight,
        gem.backbone.qwen.model.language_model.layers[0].mlp.up_proj.weight,
    )


@pytest.mark.parametrize("wrapper", ["", "rdt."])
def test_a_distilled_expert_and_its_teacher(vla_config, tmp_path, wrapper):
    student, teacher = drawn(vla_config, 0), drawn(vla_config, 1)
    both = {f"{wrapper}generator.{n}": t for n, t in bare(student).items()}
    both |= {f"{wrapper}real_score.{n}": t for n, t in bare(teacher).items()}
    policy = drawn(vla_config, 2)
    load_published(policy, write(tmp_path / "distilled", both), ("expert",))
    assert equal(policy, student, ("expert.",))
    load_published(policy, tmp_path / "distilled", ("expert",), role="teacher")
    assert equal(policy, teacher, ("expert.",))


def test_a_reader_of_keys_leaves_the_idle_projections(vla_config, tmp_path):
    reading = replace(vla_config, expert=replace(EXPERT, conditioning="keys_values", layers=(0, 1)))
    source, policy = drawn(vla_config, 0), drawn(reading, 1)
    load_published(policy, write(tmp_path / "expert", bare(source)), ("expert",))
    kept = bare(policy)
    assert all(torch.equal(t, bare(source)[n]) for n, t in kept.items())
    assert len(bare(source)) - len(kept) == 4 + 2 * 3


def test_our_own_layout_round_trip(vla_config, tmp_path):
    source, policy = drawn(vla_config, 0), drawn(vla_config, 1)
    save_weights(source, tmp_path, torch.float32)
    load_weights(policy, tmp_path)
    assert equal(policy, source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.register_tokens"), r"1 missing \(expert.model.register_tokens\)"),
        (lambda t: t.update({"model.new": torch.zeros(1)}), r"1 unexpected \(expert.model.new\)"),
        (lambda t: t.update({"words": torch.zeros(1)}), r"1 unexpected \(words\)"),
        (
            lambda t: t.update({"act_adaptor.0.weight": torch.zeros(32, 9)}),
            r"1 mis-shaped \(expert.act_adaptor.0.weight \(32, 9\) for \(32, 3\)\)",
        ),
        (lambda t: t.clear(), "missing"),
    ],
)
def test_what_does_not_fit_is_named(vla_config, tmp_path, change, message):
    """A16: nothing is skipped in silence, and a file in which nothing matches is no success."""
    tensors = bare(drawn(vla_config, 0))
    change(tensors)
    policy, before = drawn(vla_config, 1), drawn(vla_config, 1)
    with pytest.raises(ValueError, match=message):
        load_published(policy, write(tmp_path / "damaged", tensors), ("expert",))
    assert equal(policy, before)


def test_the_same_tensor_twice_is_refused(vla_config, tmp_path):
    tensors = bare(drawn(vla_config, 0))
    tensors["rdt.model.register_tokens"] = tensors["model.register_tokens"].clone()
    with pytest.raises(ValueError, match=r"would both be expert.model.register_tokens"):
        load_published(drawn(vla_config, 1), write(tmp_path / "twice", tensors), ("expert",))


@pytest.mark.parametrize("name", ["mp_rank_00_model_states.pt", "pytorch_model.bin"])
def test_a_pickle_is_refused_with_the_remedy(vla_config, tmp_path, name):
    """A16, C1: pickles aren't opened."""
    (tmp_path / name).write_bytes(b"\x80\x04.")
    policy = drawn(vla_config, 0)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=f"{name}: a pickle.*convert it once.*weights_only=True"):
            load_published(policy, path, ("expert",))


def test_the_remedy_works(vla_config, tmp_path):
    source = drawn(vla_config, 0)
    torch.save({"module": {f"rdt.{n}": t for n, t in bare(source).items()}}, tmp_path / "states.pt")
    with pytest.raises(ValueError, match="convert it once") as refusal:
        load_published(source, tmp_path, ("expert",))
    code = str(refusal.value).split('python -c "')[1].split('"')[0]
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    policy = drawn(vla_config, 1)
    load_published(policy, tmp_path, ("expert",))
    assert equal(policy, source, ("expert.",))


def test_unknown_parts_and_places(vla_config, tmp_path):
    policy = drawn(vla_config, 0)
    with pytest.raises(ValueError, match="name some of"):
        load_published(policy, tmp_path, ())
    with pytest.raises(ValueError, match="give the folder that holds it"):
        load_published(policy, tmp_path / "model.safetensors", ("expert",))
    with pytest.raises(ValueError, match="holds none of"):
        load_published(policy, tmp_path / "nowhere", ("expert",))
