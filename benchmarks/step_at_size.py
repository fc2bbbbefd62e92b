"""The paper's training step at a given size, ours against the authors' way of doing it; part of `training_step.py`.

    python benchmarks/training_step.py --size 2b --device cuda         # one GPU of 80 GB or more, random weights
    python benchmarks/training_step.py --size debug                    # the same code in a minute on a CPU

The authors' way (their release's script): one sample a step, logits of all positions in float32, the autoencoder in the
step, the text loss in every stage. Ours: the same samples in packs under a budget of tokens, logits where something is
supervised, cached latents, no head and nothing after the last image in stages 1 and 2. Both recompute activations, in
autocast to the same type, with the same weights and random numbers; before anything is timed, losses and gradients over
all samples are asserted equal. Forward and backward only: the optimizer's work is the same for both.

Samples are one to eight images with a target each and their conversation (the kinds of `packing.py` that the release
can take). Utilisation is useful operations (`training/budget.py`; nothing recomputed counts) per second, as a share of
the GPU's data sheet and of the rate of a large matrix product in this run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from packing import MIX
from step_parts import parts, report_parts, timed, wait
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from training_step import (
    DC_AE,
    STAGES,
    WEIGHTS,
    Straightforward,
    as_rows,
    learning,
    make_model,
    matrix_rate,
    with_latents,
)

from gemvlm.batch import IGNORE, Batch, Target
from gemvlm.data.frames import position_ids
from gemvlm.model.backbone import supervised_tokens
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem
from gemvlm.recipes import get
from gemvlm.recipes.published import MODEL_2B, MODEL_8B
from gemvlm.training.budget import Budget, Load
from gemvlm.training.gpus import peak_of
from gemvlm.training.stage import OptimizerConfig, Schedule, Stage


@dataclass(frozen=True)
class Size:
    """A model and how large its samples are: `shrink` divides the tokens of `packing.MIX`."""

    config: GemConfig
    target: int
    tokens: int
    shrink: int


def sizes(name: str) -> Size:
    if name in ("2b", "8b"):
        return Size(MODEL_2B if name == "2b" else MODEL_8B, target=448, tokens=16_384, shrink=1)
    debug = get("debug").model
    generator = {**debug.generator, "in_channels": 32, "out_channels": 32}
    return Size(replace(debug, latents=DC_AE, generator=generator), target=48, tokens=384, shrink=24)


def with_ids(config: GemConfig) -> GemConfig:
    """Images are marked by the vocabulary's last three ids."""
    last = config.backbone["text_config"]["vocab_size"] - 1
    special = {"image_token_id": last, "vision_start_token_id": last - 1, "vision_end_token_id": last - 2}
    return replace(config, backbone={**config.backbone, **special})


def sample(size: Size, config: GemConfig, number: int) -> Batch:
    """A batch of one sample: images, then text of which the later half is supervised. A function of the number."""
    rng = np.random.default_rng((0, number))
    draw = torch.Generator().manual_seed(number)
    kinds = [kind for kind in MIX if kind.images[0] >= 1 and kind.images[1] <= 8]
    shares = np.array([kind.share for kind in kinds])
    kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
    vision, backbone = config.backbone["vision_config"], config.backbone
    images = int(rng.integers(*kind.images, endpoint=True))
    rows = max(2, int((rng.integers(*kind.tokens, endpoint=True) / size.shrink) ** 0.5))
    text = max(8, int(np.exp(rng.uniform(*np.log(kind.text))) / size.shrink))
    ids, spans = [], []
    for _ in range(images):
        start = sum(map(len, ids)) + 1
        spans.append((start, start + rows * rows))
        ids.append(torch.full((rows * rows + 2,), backbone["image_token_id"]))
        ids[-1][0], ids[-1][-1] = backbone["vision_start_token_id"], backbone["vision_end_token_id"]
    ids.append(torch.randint(0, backbone["image_token_id"] - 2, (text,), generator=draw))
    input_ids, labels = torch.cat(ids), torch.full((sum(map(len, ids)),), IGNORE)
    labels[-(text // 2) :] = input_ids[-(text // 2) :]
    side = rows * vision["spatial_merge_size"]
    grids = torch.tensor([(1, side, side)] * images)
    values = vision.get("in_channels", 3) * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    valid = torch.ones(size.target, size.target, dtype=torch.bool)
    pictures = torch.rand(images, 3, size.target, size.target, generator=draw) * 2 - 1
    return Batch(
        input_ids=input_ids,
        segment_ids=torch.zeros_like(input_ids),
        position_ids=position_ids(len(input_ids), torch.tensor(spans), grids, vision["spatial_merge_size"]),
        labels=labels,
        pixel_values=torch.randn(images * side * side, values, generator=draw),
        image_grid_thw=grids,
        spans=torch.tensor(spans),
        targets=tuple(Target("depth", i, pictures[i], valid, key=1000 * number + i) for i in range(images)),
        sample_ids=(str(number),),
    )


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches of one sample each as one pack."""
    tokens = np.cumsum([0, *(len(b.input_ids) for b in batches)]).tolist()
    images = np.cumsum([0, *(len(b.spans) for b in batches)]).tolist()
    targets = [replace(t, image=t.image + n) for b, n in zip(batches, images, strict=False) for t in b.targets]
    return Batch(
        input_ids=torch.cat([b.input_ids for b in batches]),
        segment_ids=torch.cat([torch.full_like(b.input_ids, i) for i, b in enumerate(batches)]),
        position_ids=torch.cat([b.position_ids for b in batches], dim=1),
        labels=torch.cat([b.labels for b in batches]),
        pixel_values=torch.cat([b.pixel_values for b in batches]),
        image_grid_thw=torch.cat([b.image_grid_thw for b in batches]),
        spans=torch.cat([b.spans + n for b, n in zip(batches, tokens, strict=False)]),
        targets=tuple(targets),
        sample_ids=tuple(name for b in batches for name in b.sample_ids),
    )


def packs(singles: Sequence[Batch], tokens: int) -> list[Batch]:
    """The samples in packs of at most so many tokens, closed by the first that doesn't fit."""
    groups: list[list[Batch]] = [[]]
    for single in singles:
        if groups[-1] and sum(len(b.input_ids) for b in groups[-1]) + len(single.input_ids) > tokens:
            groups.append([])
        groups[-1].append(single)
    return [joined(group) for group in groups]


@dataclass(frozen=True)
class Bench:
    """One model in both forms on one device, and its samples one by one and in packs."""

    gem: Gem
    plain: Straightforward
    singles: Sequence[Batch]
    packs: Sequence[Batch]
    device: torch.device
    dtype: torch.dtype

    @contextmanager
    def autocast(self) -> Iterator[None]:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            yield

    def authors(self, stage: str) -> dict[str, float]:
        """One sample a step; the mean losses over all samples' tokens and targets."""
        return self._all(self.singles, stage, lambda batch: self.plain(as_rows(batch, self.gem)))

    def ours(self, stage: str) -> dict[str, float]:
        names = tuple(WEIGHTS) if stage == "stage 3" else ("depth",)
        return self._all(self.packs, stage, lambda batch: self.gem(batch, names))

    def _all(
        self, batches: Sequence[Batch], stage: str, losses: Callable[[Batch], Mapping[str, Tensor]]
    ) -> dict[str, float]:
        tokens = sum(len(supervised_tokens(batch)) for batch in batches)
        targets = sum(len(batch.targets) for batch in batches)
        sums = {"text": torch.zeros((), device=self.device), "depth": torch.zeros((), device=self.device)}
        for batch in batches:
            with self.autocast():
                found = losses(batch)
            share = {"text": len(supervised_tokens(batch)) / tokens, "depth": len(batch.targets) / targets}
            parts = {name: share[name] * loss.float() for name, loss in found.items()}
            sum(WEIGHTS[name] * part for name, part in parts.items()).backward()
            for name, part in parts.items():
                sums[name] += part.detach()
        return {name: float(value) for name, value in sums.items()}

    def gradients(self) -> Tensor:
        return torch.cat([p.grad.flatten().float() for p in self.gem.parameters() if p.grad is not None])


def make(size: Size, samples: int, tokens: int, device: torch.device, dtype: torch.dtype, recompute: bool) -> Bench:
    config = with_ids(size.config)
    gem, plain = make_model(config)
    gem.to(device)
    plain.to(device)
    gem.checkpoint_activations(recompute)
    if recompute:
        plain.qwen.gradient_checkpointing_enable({"use_reentrant": False})
        plain.sana.enable_gradient_checkpointing()
    singles = [sample(size, config, number).to(device) for number in range(samples)]
    with torch.no_grad():
        cached = [with_latents(single, gem) for single in singles]
    return Bench(gem, plain, singles, packs(cached, tokens), device, dtype)


def check(bench: Bench, stage: str) -> None:
    """Asserts equal losses and gradients over all samples: to rounding in float32, to a few percent in bfloat16."""
    exact = bench.dtype == torch.float32
    with learning(bench.gem, stage, "authors"):
        expected, reference = bench.authors(stage), bench.gradients()
    with learning(bench.gem, stage, "ours"):
        found, gradient = bench.ours(stage), bench.gradients()
    for name in ("text", "depth") if stage == "stage 3" else ("depth",):
        off = abs(found[name] - expected[name]) / expected[name]
        assert off <= (1e-5 if exact else 0.02), f"{stage}: {name} loss {found[name]} is not {expected[name]}"
    off = float((gradient - reference).norm() / reference.norm())
    assert off <= (1e-4 if exact else 0.1), f"{stage}: gradients differ by {off:.1e} of their norm"
    print(f"\n{stage}: losses {found}, gradients equal to {off:.0e} of their norm")


def compare(bench: Bench, size: Size, stage: str, repeats: int) -> float:
    """Prints time, memory, utilisation, parts and profile of a stage; returns the ratio of the two ways' times."""
    check(bench, stage)
    seconds: dict[str, list[float]] = {"authors": [], "ours": []}
    peaks = {}
    for _ in range(repeats):
        for name, times in seconds.items():
            if bench.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(bench.device)
            with learning(bench.gem, stage, name):
                times.append(timed(lambda way=name: getattr(bench, way)(stage), bench.device))
            if bench.device.type == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated(bench.device) / 2**30
    ratio = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
    for name, times in seconds.items():
        memory = f", peak memory {peaks[name]:.1f} GiB" if peaks else ""
        print(f"  {name:<8}{1e3 * statistics.median(times):10.1f} ms for all samples{memory}")
    print(f"  ours is {ratio:.2f} x as fast")
    report_utilisation(bench, size, stage, statistics.median(seconds["ours"]))
    with learning(bench.gem, stage, "ours"):
        alone: dict[str, list[float]] = {}
        for batch in bench.packs:
            for name, work in parts(bench.gem, batch, stage == "stage 3", bench.autocast).items():
                work()
                alone.setdefault(name, []).append(timed(work, bench.device))
        sums = {name: [sum(times)] for name, times in alone.items()}
        report_parts(sums, seconds["ours"], None)
        report_profile(bench, stage)
    return ratio


def report_utilisation(bench: Bench, size: Size, stage: str, seconds: float) -> None:
    losses = WEIGHTS if stage == "stage 3" else {"depth": 1.0}
    description = Stage(
        name=stage,
        steps=1,
        batch_size=1,
        learning_rates=dict.fromkeys(STAGES[stage], 1e-4),
        loss_weights=losses,
        schedule=Schedule(warmup=0, shape="constant"),
        optimizer=OptimizerConfig("adamw", betas=(0.9, 0.999), weight_decay=0.0),
        turns_per_sample=0,
    )
    costs, factor = Budget(bench.gem.config), bench.gem.supervision.latents.factor
    work = 0.0
    for batch in bench.packs:
        found = costs.operations(description, Load.of(batch, description, factor))
        work += sum(value for name, value in found.items() if name != "latents")
    rate, measured = work / seconds, matrix_rate(bench.dtype, bench.device)
    of_sheet = f", {100 * rate / peak_of(bench.device):.1f} % of the data sheet" if bench.device.type == "cuda" else ""
    print(
        f"  {work / 1e9:,.1f} G useful operations, {rate / 1e9:,.1f} G/s: {100 * rate / measured:.1f} % of a large "
        f"matrix product's {measured / 1e9:,.0f} G/s{of_sheet}"
    )


CATEGORIES = {
    "matrix products": ("gemm", "cutlass", "aten::mm", "aten::addmm", "aten::bmm", "aten::linear", "nvjet", "cublas"),
    "attention": ("flash", "flex", "attention", "fmha", "TiledAttention", "softmax"),
    "convolutions": ("conv",),
    "norms": ("norm",),
    "copies and casts": ("copy", "memcpy", "memset", "_to_copy", "fill", "cat", "index", "gather", "scatter"),
}
"""Words in the names of operators and kernels; what has none of them is elementwise."""


def report_profile(bench: Bench, stage: str) -> None:
    """Where the time of one pass over the packs goes, by kind of kernel, and how much of it the device waited."""
    on_gpu = bench.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as record:
        seconds = timed(lambda: bench.ours(stage), bench.device)
        wait(bench.device)
    sums = dict.fromkeys((*CATEGORIES, "elementwise and the rest"), 0.0)
    for event in record.key_averages():
        spent = (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
        if on_gpu and event.device_type == torch.autograd.DeviceType.CPU:
            continue  # the kernels that it started are events of their own
        words = (kind for kind, names in CATEGORIES.items() if any(name in event.key.lower() for name in names))
        sums[next(words, "elementwise and the rest")] += spent
    busy = sum(sums.values())
    print(f"  profile of {1e3 * seconds:.1f} ms, the device busy for {100 * min(1.0, busy / seconds):.0f} %:")
    for kind, spent in sorted(sums.items(), key=lambda pair: -pair[1]):
        print(f"    {kind:<26}{100 * spent / busy:5.1f} %")


def run(
    name: str, device: torch.device, dtype: torch.dtype, samples: int, repeats: int, recompute: bool = True
) -> dict[str, float]:
    """All three stages; the ratio of each."""
    size = sizes(name)
    bench = make(size, samples, size.tokens, device, dtype, recompute)
    counted = sum(p.numel() for p in bench.gem.parameters()) / 1e6
    tokens = sum(len(single.input_ids) for single in bench.singles)
    print(
        f"{name}: {counted:,.1f} M parameters on {device}, {str(dtype).removeprefix('torch.')}; {samples} samples "
        f"of {tokens / samples:.0f} tokens on average, {sum(len(s.spans) for s in bench.singles)} images, "
        f"{len(bench.packs)} packs"
    )
    return {stage: compare(bench, size, stage, repeats) for stage in reversed(STAGES)}
