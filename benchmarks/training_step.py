"""One training step (forward and backward) of ours against a straightforward one, `straightforward_step.py`.

    python benchmarks/training_step.py                       # gem_nano, 16 images, float32: under 3 minutes
    python benchmarks/training_step.py --turns 8             # conversations of like length, as gem_nano's own training
    python benchmarks/training_step.py --images 32 --dtype bfloat16 --threads 2
    python benchmarks/training_step.py --size 2b --device cuda     # the paper's size, see step_at_size.py
    python benchmarks/training_step.py --size debug                # the same on a CPU, small

Both use the same weights, the same samples (tabletop scenes with conversations of 1 to 16 turns), the same random
numbers, dtype, threads and PyTorch attention, and neither is compiled. Before anything is timed, every loss and the
gradient of every parameter are asserted equal in float32, for every variant (`assert_equal`); that warms up, too.
Variants take turns; a ratio is the median over rounds of the ratio within a round, above 1 where ours is faster.
Run it on an idle machine. Ours must not cost more than 1.25 times its parts that must run, timed alone in the same run
(`step_parts.py`): the run fails if it does.

Stages 1 and 2 freeze the backbone, in both steps. There the straightforward step does what the authors' release does:
it feeds whole conversations and computes the text loss with its logits. Ours ends at the last image and has no
language head. Random weights: no number here depends on what they have learned.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from step_parts import parts, report_parts, timed
from straightforward_step import Rows, Straightforward
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gemvlm.batch import IGNORE, Batch
from gemvlm.data.collate import Collator
from gemvlm.data.conversation import Segment, render
from gemvlm.data.targets.depth import DepthTarget
from gemvlm.data.tokenizer import SpecialIds, train_tokenizer
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import GROUPS, Gem
from gemvlm.model.generator import Draw
from gemvlm.model.weights import named_tensors
from gemvlm.recipes import get
from gemvlm.recipes.data import development_samples
from gemvlm.recipes.recipe import Recipe
from gemvlm.runtime import deterministic
from gemvlm.sample import Sample

STAGES = {
    "stage 1": ("connector",),
    "stage 2": ("connector", "generator"),
    "stage 3": tuple(name for name in GROUPS if name != "latents"),
}
"""The module groups that learn."""
WEIGHTS = {"text": 1.0, "depth": 0.1}
TURNS = (1, 4, 8, 16)
"""Turns of the first sample, the second, ..., again and again."""
FEW = 4
"""How many of the samples are run one at a time, and with an autoencoder."""
PUBLISHED_VOCABULARY = 151_936
LIMIT = 1.25
"""Ours may cost this many times the sum of its parts."""
TOLERANCE = 1e-4
"""A gradient may differ by this share of its norm; rounding alone makes about 3e-6."""

DC_AE = {
    "kind": "dc_ae",
    "in_channels": 3,
    "latent_channels": 32,
    "attention_head_dim": 32,
    "scaling_factor": 0.4,
    "encoder_block_types": ["ResBlock"] * 4,
    "decoder_block_types": ["ResBlock"] * 4,
    "encoder_block_out_channels": [32, 64, 128, 128],
    "decoder_block_out_channels": [32, 64, 128, 128],
    "encoder_layers_per_block": [1, 1, 1, 1],
    "decoder_layers_per_block": [1, 1, 1, 1],
    "encoder_qkv_multiscales": [[], [], [], []],
    "decoder_qkv_multiscales": [[], [], [], []],
}
"""A small autoencoder of the published architecture: 8 pixels and 32 channels to a latent, as gem_nano's codec."""

Losses = Callable[[], dict[str, Tensor]]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """One model in both forms, over the same parameters, and one batch in both forms."""

    gem: Gem
    plain: Straightforward
    batch: Batch
    rows: Rows


# ---- the same model and the same batch, twice ----


def make_model(config: GemConfig) -> tuple[Gem, Straightforward]:
    """Ours and the straightforward one, which shares the parameters of ours."""
    with deterministic(0):
        gem = Gem(config)
    sana = {key: value for key, value in config.generator.items() if key != "kind"}
    plain = Straightforward(config.backbone, sana, config.shift, gem.supervision.latents.encode)
    ours = named_tensors(gem)
    for name, _ in list(plain.named_parameters(remove_duplicate=False)):
        owner, _, leaf = name.rpartition(".")
        setattr(plain.get_submodule(owner), leaf, ours[name.removeprefix("qwen.")])
    return gem.train(), plain.train()


def with_turns(samples: Sequence[Sample], turns: Sequence[int]) -> list[Sample]:
    """The samples that have turns, each with some of them drawn: `turns` gives the numbers, in rotation."""
    asked = [sample for sample in samples if sample.turns]
    counts = [min(turns[i % len(turns)], len(sample.turns)) for i, sample in enumerate(asked)]
    draw = random.Random(0)
    return [replace(s, turns=tuple(draw.sample(s.turns, n))) for s, n in zip(asked, counts, strict=True)]


def make_batch(recipe: Recipe, samples: Sequence[Sample]) -> tuple[Batch, SpecialIds]:
    """The samples as a recipe's training packs them, with a tokenizer trained on their conversations."""
    parts = (part for s in samples for part in render(s, range(len(s.turns)), recipe.coordinates))
    texts = (part.text for part in parts if isinstance(part, Segment))
    tokenizer = train_tokenizer(texts, recipe.vocabulary, recipe.coordinates.integers)
    maker = DepthTarget(recipe.model.encoding, *recipe.target)
    collator = Collator(tokenizer, recipe.coordinates, recipe.image, [maker])
    return collator(samples), SpecialIds.of(tokenizer)


def with_special_ids(config: GemConfig, ids: SpecialIds) -> GemConfig:
    """The stock class finds images by these ids."""
    special = {
        "image_token_id": ids.image_pad,
        "vision_start_token_id": ids.vision_start,
        "vision_end_token_id": ids.vision_end,
    }
    return replace(config, backbone={**config.backbone, **special})


def samples_of(batch: Batch, first: int, last: int) -> Batch:
    """Samples first..last-1 of a batch of samples with one image and one target each."""
    kept = (batch.segment_ids >= first) & (batch.segment_ids < last)
    before = int((batch.segment_ids < first).sum())
    patches = batch.image_grid_thw.prod(1).cumsum(0)
    start = int(patches[first - 1]) if first else 0
    return Batch(
        input_ids=batch.input_ids[kept],
        segment_ids=batch.segment_ids[kept] - first,
        position_ids=batch.position_ids[:, kept],
        labels=batch.labels[kept],
        pixel_values=batch.pixel_values[start : int(patches[last - 1])],
        image_grid_thw=batch.image_grid_thw[first:last],
        spans=batch.spans[first:last] - before,
        targets=tuple(replace(target, image=target.image - first) for target in batch.targets[first:last]),
        sample_ids=batch.sample_ids[first:last],
    )


def as_rows(batch: Batch, gem: Gem) -> Rows:
    """The batch right-padded, with the random numbers that ours draws from the keys of its targets."""
    lengths, device = batch.lengths.tolist(), batch.input_ids.device

    def padded(values: Tensor, filling: int) -> Tensor:
        return nn.utils.rnn.pad_sequence(values.split(lengths), batch_first=True, padding_value=filling)

    pictures = torch.stack([target.picture for target in batch.targets])
    draws = [Draw.of(target.key) for target in batch.targets]
    shape = (gem.supervision.latents.channels, *gem.supervision.latents.grid(*pictures.shape[-2:]))
    return Rows(
        input_ids=padded(batch.input_ids, 0),
        attention_mask=padded(torch.ones_like(batch.input_ids), 0),
        position_ids=torch.stack([padded(axis, 0) for axis in batch.position_ids]),
        labels=padded(batch.labels, IGNORE),
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
        pictures=pictures,
        valid=torch.stack([target.valid for target in batch.targets]),
        noise=torch.stack([draw.noise(shape) for draw in draws]).to(device),
        time=torch.tensor([draw.time for draw in draws], device=device),
        dropped=torch.tensor([draw.dropout < gem.supervision.condition_dropout for draw in draws], device=device),
    )


def with_latents(batch: Batch, gem: Gem) -> Batch:
    """The batch as a cache gives it: targets already encoded."""
    latents = gem.supervision.latents.encode(torch.stack([target.picture for target in batch.targets]))
    cached = zip(batch.targets, latents, strict=True)
    return replace(batch, targets=tuple(replace(target, latent=latent) for target, latent in cached))


# ---- ours, and ours with one trick switched off ----


def variants(case: Case, stage: str) -> dict[str, Losses]:
    """The steps that compute a stage's losses, the straightforward one and ours first."""
    gem, plain, batch, rows = case.gem, case.plain, case.batch, case.rows
    grids, cached = gem.token_grids(batch), with_latents(batch, gem)

    def depth(states: Tensor) -> dict[str, Tensor]:
        return gem.supervision(states, batch.spans, grids, batch.targets)

    def logits_everywhere(states: Tensor) -> Tensor:
        logits = gem.backbone.logits(states).float()
        return F.cross_entropy(logits[:-1], batch.labels[1:], ignore_index=IGNORE)

    def whole_with_logits() -> dict[str, Tensor]:
        states = gem.backbone(batch).states
        return {"text": logits_everywhere(states), **depth(states)}

    def padded_rows() -> dict[str, Tensor]:
        states = plain.states(rows)[rows.attention_mask.bool()]
        return {"text": gem.backbone.text_loss(states, batch), **depth(states)}

    if stage == "stage 3":
        return {
            "straightforward": lambda: plain(rows),
            "ours": lambda: gem(batch),
            "latents cached": lambda: gem(cached),
            "padded rows": padded_rows,
            "logits everywhere": whole_with_logits,
        }
    return {
        "straightforward": lambda: plain(rows),
        "ours": lambda: gem(batch, ("depth",)),
        "latents cached": lambda: gem(cached, ("depth",)),
        "whole conversation": lambda: depth(gem.backbone(batch).states),
        "and its logits": whole_with_logits,
        "graph of the backbone": lambda: gem(batch, ("depth",)),
    }


GAINS = {
    "packed rows, not padded rows with a mask": ("padded rows", "ours"),
    "logits at supervised tokens, not everywhere": ("logits everywhere", "ours"),
    "nothing after the last image": ("whole conversation", "ours"),
    "no language head": ("and its logits", "whole conversation"),
    "no graph of the backbone (neither step has one)": ("graph of the backbone", "ours"),
    "latents cached, not encoded in the step": ("ours", "latents cached"),
}
"""Trick → the variant without it and the variant with it."""


@contextlib.contextmanager
def learning(gem: Gem, stage: str, variant: str) -> Iterator[None]:
    """Freezes what the stage freezes; "graph of the backbone" forgets to."""
    groups = gem.parameter_groups()
    wanted = STAGES["stage 3" if variant == "graph of the backbone" else stage]
    for name, parameters in groups.items():
        for parameter in parameters.values():
            parameter.requires_grad_(name in wanted)
    gem.zero_grad(set_to_none=True)
    yield
    gem.zero_grad(set_to_none=True)


def step(losses: Losses, dtype: torch.dtype) -> dict[str, Tensor]:
    """Forward and backward; returns the losses."""
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = losses()
    sum(WEIGHTS[name] * loss.float() for name, loss in found.items()).backward()
    return {name: loss.detach() for name, loss in found.items()}


# ---- equal results ----


def gradients(gem: Gem, stage: str) -> dict[str, Tensor]:
    """The gradient of every parameter that the stage trains; one that got none is an error."""
    groups = gem.parameter_groups()
    trained = {name: p for group in STAGES[stage] for name, p in groups[group].items()}
    missing = [name for name, parameter in trained.items() if parameter.grad is None]
    assert not missing, f"{stage}: no gradient for {missing}"
    return {name: parameter.grad.clone() for name, parameter in trained.items()}


def assert_equal(
    losses: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    reference_losses: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    what: str,
) -> float:
    """Asserts that losses and gradients agree; returns the largest difference of a gradient as a share of its norm."""
    for name, loss in losses.items():
        torch.testing.assert_close(loss, reference_losses[name], rtol=1e-5, atol=0, msg=f"{what}: {name} loss differs")
    assert found.keys() == reference.keys(), f"{what}: gradients of {sorted(found.keys() ^ reference.keys())}"
    worst = 0.0
    for name, gradient in reference.items():
        difference, norm = float((found[name] - gradient).norm()), float(gradient.norm())
        assert difference <= TOLERANCE * norm, f"{what}: gradient of {name} is off by {difference:.1e}, norm {norm:.1e}"
        if difference > 0:
            worst = max(worst, difference / norm)
    return worst


def check(case: Case, stage: str, names: Sequence[str] | None = None) -> float:
    """Asserts in float32 that all variants of a stage (or those named) have equal losses and gradients."""
    steps = variants(case, stage)
    reference: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None
    worst = 0.0
    for name in names or steps:
        with learning(case.gem, stage, name):
            losses, found = step(steps[name], torch.float32), gradients(case.gem, stage)
        if reference is None:
            reference = losses, found
        worst = max(worst, assert_equal(losses, found, *reference, what=f"{stage}, {name}"))
    return worst


# ---- time and work ----


def measure(
    cases: Sequence[Case], stage: str, dtype: torch.dtype, repeats: int, names: Sequence[str] | None = None
) -> dict[str, list[float]]:
    """Seconds of each variant in each round, summed over the cases. To be called warm, after `check`."""
    steps = [variants(case, stage) for case in cases]
    seconds: dict[str, list[float]] = {name: [] for name in names or steps[0]}
    for _ in range(repeats):
        for name, times in seconds.items():
            total = 0.0
            for case, own in zip(cases, steps, strict=True):
                with learning(case.gem, stage, name):
                    start = time.perf_counter()
                    step(own[name], dtype)
                    total += time.perf_counter() - start
            times.append(total)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], slow: str, fast: str) -> float:
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def _backward_of(gradient, inputs, weight, *options, out_shape=None, **ignored: object) -> int:
    """Operations of a convolution's backward pass; torch's own count takes a depthwise convolution for a dense one."""
    wanted = options[-1]  # gradients of inputs, weight, bias
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * sum(wanted[:2])


def operations(case: Case, stage: str, name: str) -> int:
    """Multiplications and additions of one step's matrix products, convolutions and attention (counted as dense)."""
    steps = variants(case, stage)
    with (
        learning(case.gem, stage, name),
        sdpa_kernel(SDPBackend.MATH),  # the counter doesn't know the fused CPU kernels
        FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _backward_of}) as counter,
    ):
        step(steps[name], torch.float32)
    return counter.get_total_flops()


def matrix_rate(dtype: torch.dtype, device: torch.device = CPU, repeats: int = 6) -> float:
    """Operations per second of a large matrix product, the best of some."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(timed(lambda: a @ b, device) for _ in range(repeats))


def measure_parts(case: Case, stage: str, dtype: torch.dtype, repeats: int, limit: float | None) -> float:
    """Times ours and each of its parts alone, in turn; returns the step as a multiple of their sum."""

    def autocast() -> contextlib.AbstractContextManager[object]:
        return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)

    with learning(case.gem, stage, "ours"):
        losses = variants(case, stage)["ours"]
        works = parts(case.gem, case.batch, stage == "stage 3", autocast)
        seconds: dict[str, list[float]] = {name: [] for name in works}
        whole = []
        for _ in range(repeats + 1):
            whole.append(timed(lambda: step(losses, dtype), CPU))
            for name, work in works.items():
                seconds[name].append(timed(work, CPU))
    return report_parts(seconds, whole, limit)


# ---- the report ----


def report(title: str, seconds: Mapping[str, Sequence[float]]) -> None:
    """Time of each step and ratio to ours, then the gain of each trick that was switched off."""
    print(f"\n{title}")
    for name, times in seconds.items():
        print(f"  {name:<24}{1e3 * statistics.median(times):9.1f} ms   {ratio(seconds, name, 'ours'):5.2f} x ours")
    for trick, (without, with_it) in GAINS.items():
        if without in seconds and with_it in seconds:
            print(f"    {trick:<48} x {ratio(seconds, without, with_it):.2f}")


def report_work(case: Case, stage: str, seconds: Mapping[str, Sequence[float]], rate: float) -> None:
    for name in ("straightforward", "ours"):
        work = operations(case, stage, name)
        share = work / statistics.median(seconds[name]) / rate
        print(f"    {name:<16} {work / 1e9:7.1f} G operations a step, {100 * share:4.1f} % of the matrix rate")


def make_case(config: GemConfig, batch: Batch) -> Case:
    gem, plain = make_model(config)
    return Case(gem, plain, batch, as_rows(batch, gem))


def one_by_one(case: Case, count: int) -> list[Case]:
    """The first samples of a case, each as a batch of its own."""
    batches = [samples_of(case.batch, i, i + 1) for i in range(min(count, len(case.batch.lengths)))]
    return [Case(case.gem, case.plain, batch, as_rows(batch, case.gem)) for batch in batches]


def compare_stages(case: Case, dtype: torch.dtype, repeats: int, limit: float | None) -> None:
    """The three stages, all images at once and one image at a time, with every trick and the share of `matrix_rate`.

    AssertionError if ours costs more than `limit` times its parts.
    """
    rate = matrix_rate(dtype)
    print(f"matrix rate {rate / 1e9:.0f} G operations/s")
    singles, images = one_by_one(case, FEW), len(case.batch.image_grid_thw)
    for stage in reversed(STAGES):
        worst = max(check(case, stage), *(check(single, stage, ("straightforward", "ours")) for single in singles))
        print(f"\n{stage}: losses and every gradient equal in float32, worst gradient off by {worst:.0e} of its norm")
        seconds = measure([case], stage, dtype, repeats)
        report(f"{stage}, {images} images at once", seconds)
        report_work(case, stage, seconds, rate)
        measure_parts(case, stage, dtype, repeats, limit)
        alone = measure(singles, stage, dtype, repeats, ("straightforward", "ours"))
        report(f"{stage}, {len(singles)} images one at a time", alone)


def compare_autoencoder(config: GemConfig, batch: Batch, dtype: torch.dtype, repeats: int) -> None:
    """A convolutional autoencoder in the place of the patch codec."""
    channels = {"in_channels": DC_AE["latent_channels"], "out_channels": DC_AE["latent_channels"]}
    generator: dict[str, Any] = {**config.generator, **channels}
    few = samples_of(batch, 0, min(FEW, len(batch.lengths)))
    case = make_case(replace(config, latents=DC_AE, generator=generator), few)
    names = ("straightforward", "ours", "latents cached")
    for stage in ("stage 3", "stage 2"):
        check(case, stage, names)
        title = f"{stage}, {len(few.lengths)} images at once, a small DC-AE"
        report(title, measure([case], stage, dtype, repeats, names))


def compare_vocabulary(config: GemConfig, batch: Batch, dtype: torch.dtype, repeats: int, vocabulary: int) -> None:
    """A large vocabulary on two layers and the first two samples: logits of every token are most of work and memory."""
    text = {**config.backbone["text_config"], "vocab_size": vocabulary, "num_hidden_layers": 2}
    two = samples_of(batch, 0, 2)
    case = make_case(replace(config, backbone={**config.backbone, "text_config": text}), two)
    names = ("straightforward", "ours", "logits everywhere")
    check(case, "stage 3", names)
    title = f"stage 3, 2 images at once, a vocabulary of {vocabulary} on two layers"
    report(title, measure([case], "stage 3", dtype, repeats, names))


def run(
    recipe: Recipe,
    samples: Sequence[Sample],
    dtype: torch.dtype,
    repeats: int,
    vocabulary: int,
    limit: float | None = LIMIT,
) -> None:
    """Everything that the module promises, for one recipe's model and at least two samples of one image each."""
    batch, ids = make_batch(recipe, samples)
    config = with_special_ids(recipe.model, ids)
    case = make_case(config, batch)
    parameters, lengths = sum(p.numel() for p in case.gem.parameters()), batch.lengths
    print(
        f"{recipe.name}: {parameters / 1e6:.1f} M parameters, {len(samples)} images, "
        f"rows of {lengths.min()} to {lengths.max()} tokens (mean {lengths.float().mean():.0f}), "
        f"{str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads, {repeats} rounds"
    )
    compare_stages(case, dtype, repeats, limit)
    compare_autoencoder(config, batch, dtype, repeats)
    compare_vocabulary(config, batch, dtype, repeats, vocabulary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="gem_nano")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument(
        "--turns", type=int, nargs="+", default=TURNS, help="of the samples' conversations, in rotation"
    )
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=None, help="float32, bfloat16 on a GPU")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=PUBLISHED_VOCABULARY, help="of the last comparison")
    parser.add_argument("--size", choices=("2b", "8b", "debug"), help="a model of this size instead of a recipe's")
    parser.add_argument("--device", default="cpu", help="with --size: cpu or cuda")
    parser.add_argument("--keep-activations", action="store_true", help="with --size: nothing is recomputed")
    options = parser.parse_args()
    if options.images < 2 or options.repeats < 1 or min(options.turns) < 1:
        parser.error("--images must be at least 2, --repeats and --turns at least 1")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype or ("float32" if options.device == "cpu" else "bfloat16"))
    if options.size is not None:
        import step_at_size

        recompute = not options.keep_activations
        step_at_size.run(options.size, torch.device(options.device), dtype, options.images, options.repeats, recompute)
        return
    recipe = get(options.recipe)
    scenes = development_samples(recipe.data, 2 * options.images)
    samples = with_turns(scenes, options.turns)[: options.images]
    run(recipe, samples, dtype, options.repeats, options.vocabulary)


if __name__ == "__main__":
    main()
