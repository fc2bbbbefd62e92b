"""From pictures to actions: the time of our policy against a straightforward one, `straightforward_policy.py`.

    python benchmarks/policy_latency.py                                  # small, float32, a CPU: two minutes
    python benchmarks/policy_latency.py --size 2b --device cuda          # the paper's size in bfloat16, random weights
    python benchmarks/policy_latency.py --steps 10 --cameras 2
    python benchmarks/policy_latency.py --cpu-time                       # where others use the machine, too

One robot with some cameras of 224 pixels asks for a chunk of 32 actions; "small" has the numbers of layers of the
paper's policy, its vocabulary and an eighth of its width. Both policies hold the same weights and start from the same
noise, and their chunks are asserted equal in float32 before anything is timed. Rounds alternate; a ratio is the median
over rounds of the ratio within a round. The one-step student costs what `act(batch, 1)` costs, whatever it has learned.
Tokens and patches are ready on the device. Run it on an idle machine.

Operations of matrix products are counted beside it (those inside fused attention kernels are not): their ratio is what
equal speed on each operation would give, 2.5 at the small size on a CPU: both must run the whole vision tower, more
than half of what is left in ours, and nothing that ours still multiplies can be left out with equal chunks.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from step_parts import timed
from straightforward_policy import Seen, Sizes, StraightforwardPolicy
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gemvlm.batch import IGNORE, Actions, Batch
from gemvlm.data.frames import position_ids
from gemvlm.flow import uniform_times
from gemvlm.model.action_expert import ExpertConfig
from gemvlm.model.attention import Packing
from gemvlm.model.gem_vla import GemVla, GemVlaConfig
from gemvlm.model.generator import Draw
from gemvlm.recipes.published import MODEL_2B
from gemvlm.runtime import deterministic

PIXELS, INSTRUCTION, KEY = 224, 24, 7
PATCHES = (PIXELS // 16) ** 2
TOLERANCE = 1e-4
"""Of the largest action: rounding in float32 makes about 1e-6."""


def policy_config(size: str) -> GemVlaConfig:
    """The paper's policy, or one an eighth as wide with as many layers."""
    expert = ExpertConfig(
        action=14,
        state=14,
        horizon=32,
        width=1024,
        depth=14,
        heads=8,
        kv_heads=4,
        registers=4,
        conditioning="layer_inputs",
        layers=tuple(range(14)),
        time_scale=1.0,
    )
    backbone: dict[str, Any] = dict(MODEL_2B.backbone)
    if size != "2b":
        depths = {"small": (28, 24, [5, 11, 17], 14, 151_936), "tiny": (4, 2, [0], 2, 4096)}
        layers, vision, deepstack, blocks, vocabulary = depths[size]
        rope = {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True}
        text = {"vocab_size": vocabulary, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": layers}
        text |= {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32, "rope_scaling": rope}
        sight = {"depth": vision, "hidden_size": 128, "intermediate_size": 512, "num_heads": 4, "out_hidden_size": 256}
        sight |= {"deepstack_visual_indexes": deepstack}
        backbone["text_config"] = {**backbone["text_config"], **text}
        backbone["vision_config"] = {**backbone["vision_config"], **sight}
        expert = replace(expert, width=128, depth=blocks, layers=tuple(range(blocks)), ffn_multiple_of=32)
    return GemVlaConfig(backbone, expert, None, backbone_gradient=1.0)


@dataclass(frozen=True)
class Case:
    """One policy in both forms over the same weights, and one moment of a robot in both forms."""

    ours: GemVla
    plain: StraightforwardPolicy
    batch: Batch
    seen: Seen

    def act(self, steps: int) -> Tensor:
        return self.ours.act(self.batch, steps)

    def act_plainly(self, steps: int, with_logits: bool = True) -> Tensor:
        expert = self.ours.config.expert
        noise = Draw.of(KEY).noise((expert.horizon, expert.action))[None].to(self.seen.state.device)
        return self.plain.act(self.seen, noise, steps, with_logits)


def make_policies(config: GemVlaConfig, device: torch.device) -> tuple[GemVla, StraightforwardPolicy]:
    """With random weights, none of which is zero, shared by both."""
    with deterministic(0), torch.device(device):
        ours = GemVla(config).eval()
        with torch.no_grad():
            for parameter in ours.expert.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.02)
        expert = config.expert
        sizes = Sizes(
            expert.width,
            expert.depth,
            expert.heads,
            expert.kv_heads,
            expert.horizon,
            expert.norm_eps,
            expert.time_scale,
            expert.layers,
        )
        plain = StraightforwardPolicy(config.backbone, sizes, {}).eval()
    return ours, plain


def share(ours: GemVla, plain: StraightforwardPolicy) -> None:
    """The plain policy reads the weights of ours, as they are now."""
    own = dict(ours.backbone.qwen.named_parameters(remove_duplicate=False))
    for name, parameter in own.items():
        owner, _, leaf = name.rpartition(".")
        setattr(plain.qwen.get_submodule(owner), leaf, parameter)
    plain.weights = dict(ours.expert.named_parameters())


def observation(config: GemVlaConfig, cameras: int, device: torch.device) -> tuple[Batch, Seen]:
    """Noise pictures of some cameras, then an instruction, as a batch and as stock classes want it."""
    vision, draw = config.backbone["vision_config"], torch.Generator().manual_seed(0)
    merge, side = vision["spatial_merge_size"], PIXELS // vision["patch_size"]
    tokens, values = (side // merge) ** 2, 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    ids = [torch.full((tokens + 2,), 3) for _ in range(cameras)]
    ids.append(torch.randint(4, 4096, (INSTRUCTION,), generator=draw))
    starts = [(tokens + 2) * i + 1 for i in range(cameras)]
    spans = torch.tensor([(start, start + tokens) for start in starts])
    grids = torch.tensor([(1, side, side)] * cameras)
    input_ids = torch.cat(ids)
    positions = position_ids(len(input_ids), spans, grids, merge)
    pixels = torch.randn(cameras * side**2, values, generator=draw)
    expert = config.expert
    state = torch.randn(1, expert.state, generator=draw)
    actions = Actions(
        samples=torch.zeros(1, dtype=torch.int64),
        state=state,
        chunk=torch.zeros(1, expert.horizon, expert.action),
        valid=torch.ones(1, expert.horizon, dtype=torch.bool),
        keys=(KEY,),
    )
    batch = Batch(
        input_ids=input_ids,
        segment_ids=torch.zeros_like(input_ids),
        position_ids=positions,
        labels=torch.full_like(input_ids, IGNORE),
        pixel_values=pixels,
        image_grid_thw=grids,
        spans=spans,
        actions=actions,
    ).to(device)
    is_image = torch.zeros(1, len(input_ids), dtype=torch.bool)
    for start, end in spans.tolist():
        is_image[0, start:end] = True
    pictures = [(p.to(device), g[None].to(device)) for p, g in zip(pixels.split(side**2), grids, strict=True)]
    seen = Seen(
        input_ids[None].to(device), positions[:, None].to(device), is_image.to(device), pictures, state.to(device)
    )
    return batch, seen


def check(case: Case, steps: int) -> float:
    """Asserts that both give the same chunk; returns the largest difference as a share of the largest action."""
    ours, plain = case.act(steps), case.act_plainly(steps)
    worst = float((ours - plain).abs().max() / plain.abs().max())
    assert worst <= TOLERANCE, f"chunks differ by {worst:.1e} of the largest action"
    return worst


def variants(case: Case, steps: int) -> dict[str, Callable[[], object]]:
    """What is timed: both policies, the parts of ours, and its one-step student."""
    times, expert = uniform_times(steps), case.ours.config.expert
    with torch.no_grad():
        observed = case.ours.observe(case.batch)
    noise = torch.zeros(1, expert.horizon, expert.action, device=case.seen.state.device)

    def look() -> None:
        with torch.no_grad():
            case.ours.observe(case.batch)

    def see() -> None:
        with torch.no_grad():
            case.ours.backbone.qwen.model.visual(
                case.batch.pixel_values.to(case.ours.expert.dtype),
                grid_thw=case.batch.image_grid_thw,
                cu_seqlens=torch.tensor([0, len(case.batch.pixel_values)], dtype=torch.int32, device=noise.device),
                packing=Packing([PATCHES] * len(case.seen.pictures), causal=False, device=noise.device),
            )

    return {
        "straightforward": lambda: case.act_plainly(steps),
        "without its logits": lambda: case.act_plainly(steps, with_logits=False),
        "ours": lambda: case.act(steps),
        "ours, looking": look,
        "its vision tower": see,
        f"ours, {steps} steps": lambda: case.ours.expert.sample(observed, noise, times),
        "one-step student": lambda: case.act(1),
    }


def operations(work: Callable[[], object]) -> float:
    """Of all matrix products, two for each weight and row."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def measure(case: Case, steps: int, rounds: int, cpu_time: bool) -> dict[str, list[float]]:
    """Seconds of each variant in each round: of the clock, or those that this process computed."""
    works = variants(case, steps)

    def one(work: Callable[[], object]) -> float:
        start = time.process_time()
        elapsed = timed(work, case.seen.state.device)
        return time.process_time() - start if cpu_time else elapsed

    for work in works.values():
        one(work)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seconds[name].append(one(work))
    return seconds


def report(seconds: Mapping[str, list[float]]) -> float:
    """Prints each variant's median and 99th percentile; returns how many times as fast ours is."""
    plain = seconds["straightforward"]
    for name, times in seconds.items():
        median, slowest = 1e3 * statistics.median(times), 1e3 * float(np.quantile(times, 0.99))
        faster = statistics.median(a / b for a, b in zip(plain, times, strict=True))
        print(f"  {name:<20}{median:9.2f} ms   p99 {slowest:9.2f} ms   {1e3 / median:7.1f} Hz   {faster:5.2f} x")
    return statistics.median(a / b for a, b in zip(plain, seconds["ours"], strict=True))


def run(
    size: str, device: torch.device, dtype: torch.dtype, cameras: int, steps: int, rounds: int, cpu_time: bool = False
) -> float:
    """Asserts equal chunks, then times; returns the ratio."""
    config = policy_config(size)
    ours, plain = make_policies(config, device)
    share(ours, plain)
    case = Case(ours, plain, *observation(config, cameras, device))
    worst = check(case, steps)
    print(
        f"{size}: {sum(p.numel() for p in ours.parameters()) / 1e6:,.1f} M parameters, of which the expert has "
        f"{sum(p.numel() for p in ours.expert.parameters()) / 1e6:,.1f} M; {cameras} cameras of {PIXELS} px, "
        f"{len(case.batch.input_ids)} tokens, {steps} steps; {device}, {str(dtype).removeprefix('torch.')}, "
        f"{torch.get_num_threads()} threads; chunks equal to {worst:.0e}"
    )
    counted = {name: operations(work) for name, work in variants(case, steps).items()}
    print("  operations: " + ", ".join(f"{name} {count / 1e9:,.1f} G" for name, count in counted.items()))
    print(f"  equal speed on each would make ours {counted['straightforward'] / counted['ours']:.2f} x as fast")
    ours.to(dtype)
    share(ours, plain)
    ratio = report(measure(case, steps, rounds, cpu_time))
    print(f"ours is {ratio:.2f} x as fast")
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "small", "2b"), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=None, help="float32, bfloat16 on a GPU")
    parser.add_argument("--cameras", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--cpu-time", action="store_true", help="count this process's computing, not the clock")
    options = parser.parse_args()
    if min(options.cameras, options.steps, options.rounds) < 1:
        parser.error("--cameras, --steps and --rounds must be at least 1")
    if options.cpu_time and options.device != "cpu":
        parser.error("--cpu-time counts nothing of what a GPU does; leave it out")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype or ("float32" if options.device == "cpu" else "bfloat16"))
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device(options.device)
    run(options.size, device, dtype, options.cameras, options.steps, options.rounds, options.cpu_time)


if __name__ == "__main__":
    main()
