"""Depth from ready states: the published sampler, frozen below, beside ours; speed and quality in one run and one plot.

    python benchmarks/depth_sampling.py --out out/sampling                         # nano on a CPU: minutes
    python benchmarks/depth_sampling.py --out out/sampling --one-step out/nano_one_step/final
    python benchmarks/depth_sampling.py --out out/sampling --cpu-time              # where others use the machine, too
    python benchmarks/depth_sampling.py --out out/sampling --size 2b --device cuda   # speed alone, random weights

The published sampler takes 30 steps with guidance 5 and runs the whole generator on both branches at each of them. Ours
with the same settings is asserted to paint the same pictures before anything is timed. Every setting paints the same
views of tabletop scenes that no training has seen. Quality is that of single paintings: AbsRel on object pixels (scale
and shift aligned in the encoding's space) and boundary F1, as blur wins AbsRel alone; and of an ensemble: the share of
true depths between its least and its greatest, beside the share it states. What a setting gains or loses stands beside
it, paired by picture, with its 95 % interval; settings were chosen on other scenes. Rounds alternate; a ratio is the
median over rounds of the ratio within a round. The backbone, the same for all, is not timed. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from step_parts import timed
from torch import Tensor

from gemvlm.curation.sources.tabletop import tabletop_samples
from gemvlm.evaluation.depth_metrics import interval_coverage, score
from gemvlm.figure.plots import INK, LINES, quieten
from gemvlm.flow import Steps
from gemvlm.inference import load
from gemvlm.inference.depth import decode_pictures
from gemvlm.inference.pipeline import GemPipeline
from gemvlm.model.backbone import until_last_image
from gemvlm.model.generator import Draw
from gemvlm.model.supervision import GenerativeSupervision
from gemvlm.recipes.published import MODEL_2B
from gemvlm.recipes.recipe import TEST_SEED
from gemvlm.runtime import deterministic
from gemvlm.sample import Region, Sample
from gemvlm.statistics import paired_difference

PUBLISHED_STEPS, PUBLISHED_GUIDANCE = 30, 5.0
TOLERANCE = 2e-3
"""Of the pictures' range: rounding in float32 after 30 steps, which guidance 5 makes about nine times as large."""


@dataclass(frozen=True)
class Scene:
    """The states of N pictures, and the size of what is painted from them."""

    supervision: GenerativeSupervision
    states: Tensor
    spans: Tensor
    grids: Tensor
    height: int
    width: int

    def keys(self, member: int) -> list[int]:
        return [1000 * member + picture for picture in range(len(self.spans))]

    def paint(self, steps: Steps, guidance: float, member: int = 0) -> Tensor:
        return self.supervision.sample(
            self.states,
            self.spans,
            self.grids,
            self.height,
            self.width,
            steps=steps,
            guidance=guidance,
            keys=self.keys(member),
        )


@torch.no_grad()
def published(scene: Scene, member: int = 0) -> Tensor:
    """The published sampler: everything anew at every step, for both branches. Frozen: change nothing here."""
    module, images = scene.supervision, range(len(scene.spans))
    sana, table = module.generator.sana, module.generator.table
    given = module.condition(scene.states, scene.spans, scene.grids, images)
    without = module.condition(0 * scene.states, scene.spans, scene.grids, images)
    both = torch.cat([without.states, given.states]).to(sana.dtype)
    mask = None if given.mask is None else torch.cat([given.mask, given.mask])
    shape = (module.latents.channels, *module.latents.grid(scene.height, scene.width))
    latents = torch.stack([Draw.of(key).noise(shape) for key in scene.keys(member)]).to(both.device)
    for sigma, later in pairwise(table.sampling(PUBLISHED_STEPS)[1].tolist()):
        predicted = sana(
            torch.cat([latents, latents]).to(sana.dtype),
            encoder_hidden_states=both,
            timestep=torch.full((len(both),), table.steps * sigma, device=both.device),
            encoder_attention_mask=mask,
            return_dict=False,
        )[0].float()
        free, conditional = predicted.chunk(2)
        latents = latents + (later - sigma) * (free + PUBLISHED_GUIDANCE * (conditional - free))
    return module.latents.decode(latents).clamp(-1, 1)


@dataclass(frozen=True)
class Setting:
    """One way to paint; `paint(member)` gives all pictures of that member of an ensemble."""

    name: str
    paint: Callable[[int], Tensor]


def settings(scene: Scene, one_step: Scene | None = None, guided: Scene | None = None) -> list[Setting]:
    """The published sampler first, ours with the same settings second."""

    def ours(name: str, steps: Steps, guidance: float = 1.0, of: Scene = scene) -> Setting:
        return Setting(name, lambda member: of.paint(steps, guidance, member))

    found = [
        Setting("published", lambda member: published(scene, member)),
        ours("30 steps, guidance 5", Steps(PUBLISHED_STEPS), PUBLISHED_GUIDANCE),
        ours("30 steps", Steps(30)),
        ours("8 steps", Steps(8)),
        ours("4 steps", Steps(4)),
        ours("4 steps, shift 3", Steps(4, shift=3.0)),
        ours("3 steps, guidance 2.5, shift 4", Steps(3, shift=4.0), 2.5),
        ours("3 steps, guidance 3", Steps(3), 3.0),
        ours("3 steps, guidance 3, shift 5", Steps(3, shift=5.0), 3.0),
        ours("2 midpoint steps", Steps(2, "midpoint")),
        ours("3 Heun steps", Steps(3, "heun")),
        ours("2 steps", Steps(2)),
        ours("1 step", Steps(1)),
    ]
    found += [] if one_step is None else [ours("one-step head", Steps(1), of=one_step)]
    found += [] if guided is None else [ours("4 steps, guidance folded", Steps(4), of=guided)]
    return found


def check(scene: Scene) -> float:
    """Asserts that ours paints what the published sampler does; returns the largest difference."""
    worst = float((published(scene) - scene.paint(Steps(PUBLISHED_STEPS), PUBLISHED_GUIDANCE)).abs().max())
    assert worst <= TOLERANCE, f"pictures differ by {worst:.1e}"
    return worst


def measure(
    ways: Sequence[Setting], rounds: int, device: torch.device, cpu_time: bool = False
) -> dict[str, list[float]]:
    """Seconds of each way to paint all pictures once, in each round: of the clock, or those that were computed."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            start = time.process_time()
            elapsed = timed(partial(way.paint, 0), device)
            seconds[way.name].append(time.process_time() - start if cpu_time else elapsed)
    return seconds


@dataclass(frozen=True)
class Quality:
    """Of each picture, NaN where a measure says nothing of it; `stated` is what an ensemble's interval claims."""

    measures: Mapping[str, Sequence[float]]
    stated: float

    def than(self, other: Quality) -> dict[str, Any]:
        """Means, and under "NAME gain" how much more than `other` this has: mean, low, high."""
        found: dict[str, Any] = {name: float(np.nanmean(values)) for name, values in self.measures.items()}
        for name, values in self.measures.items():
            pairs = [(a, b) for a, b in zip(values, other.measures[name], strict=True) if np.isfinite(a + b)]
            gain = paired_difference(*zip(*pairs, strict=True)).interval
            found[f"{name} gain"] = [gain.mean, gain.low, gain.high]
        return found | {"stated": self.stated}


def quality(way: Setting, pipeline: GemPipeline, samples: Sequence[Sample], members: int) -> Quality:
    paintings = torch.stack([way.paint(member) for member in range(members)], dim=1).cpu().numpy()
    found: dict[str, list[float]] = {"abs_rel": [], "boundary_f1": [], "coverage": []}
    stated = float("nan")
    for pictures, sample in zip(paintings, samples, strict=True):
        truth = sample.frames[0].depth
        assert truth is not None
        regions = sample.meta["object_mask"]
        region = Region(regions[0]["height"], regions[0]["width"], tuple(regions[0]["runs"]))
        mask = region.to_mask() & truth.valid
        height, width = truth.values.shape
        single = decode_pictures(pictures[:1], pipeline.encoding, way.name).resized(height, width)
        scores = score(single.depth, truth, mask, "scale_shift", pipeline.encoding.space)
        found["abs_rel"].append(scores.abs_rel)
        found["boundary_f1"].append(scores.boundary_f1)
        spread = decode_pictures(pictures, pipeline.encoding, way.name).resized(height, width).spread
        if spread is not None and spread.low.is_metric:
            found["coverage"].append(interval_coverage(spread.low, spread.high, truth, mask))
            stated = spread.level
    return Quality({name: values for name, values in found.items() if values}, stated)


def look(pipeline: GemPipeline, samples: Sequence[Sample]) -> Scene:
    """The states of the samples' pictures."""
    target = pipeline.card.target or {"height": 448, "width": 448}
    batch = until_last_image(pipeline._collate(list(samples)).to(pipeline.device))
    with torch.no_grad():
        states = pipeline.gem.eval().backbone(batch).states
    grids = pipeline.gem.token_grids(batch)
    return Scene(pipeline.gem.supervision, states, batch.spans, grids, target["height"], target["width"])


def views(count: int, size: tuple[int, int]) -> list[Sample]:
    """Views of scenes of no training and of no choice of settings, with objects and depth."""
    made = tabletop_samples(range(TEST_SEED, TEST_SEED + 2 * count), 1, size, families=(), turns_per_family=1)
    return [sample for sample in made if sample.frames[0].depth is not None][:count]


def published_size(count: int, device: torch.device, dtype: torch.dtype) -> Scene:
    """The published connector and generator with random weights, and states of noise for pictures of 448 x 448."""
    with deterministic(0), torch.device(device):
        latents = {"kind": "patch", "patch": 32, "luma": 32, "chroma": 0}
        module = GenerativeSupervision.build(2048, MODEL_2B.generator, latents, shift=1.0, condition_dropout=0.1)
    states = torch.randn(count * 196, 2048, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    starts = torch.arange(count, device=device) * 196
    grids = torch.full((count, 2), 14, device=device)
    return Scene(module.to(dtype).eval(), states, torch.stack([starts, starts + 196], 1), grids, 448, 448)


def rows_of(seconds: Mapping[str, list[float]], scores: Mapping[str, Quality], pictures: int) -> list[dict[str, Any]]:
    plain = seconds["published"]
    return [
        {
            "setting": name,
            "images_per_s": pictures / statistics.median(times),
            "faster": statistics.median(a / b for a, b in zip(plain, times, strict=True)),
            **(scores[name].than(scores["published"]) if name in scores else {}),
        }
        for name, times in seconds.items()
    ]


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Speed against each measure of quality; the dotted line is the published sampler's."""
    from matplotlib.figure import Figure

    panels = [("abs_rel", "AbsRel, objects (less is better)"), ("boundary_f1", "boundary F1"), ("coverage", "coverage")]
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    for number, (measure_name, title) in enumerate(panels):
        axes = figure.add_subplot(1, 3, number + 1)
        for place, row in enumerate(rows):
            colour = INK if row["setting"] == "published" else LINES[place % len(LINES)]
            axes.plot(row["images_per_s"], row[measure_name], "o", color=colour, label=f"{place + 1}  {row['setting']}")
            where: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "color": colour}
            beside = (5, 4) if place % 2 else (-9, -11)  # neighbours in the table are often neighbours here
            axes.annotate(str(place + 1), (row["images_per_s"], row[measure_name]), xytext=beside, **where)
        axes.set_xscale("log")
        axes.axhline(rows[0][measure_name], color=INK, linestyle=(0, (1, 3)), linewidth=0.9)
        if measure_name == "coverage":
            axes.axhline(rows[0]["stated"], color=LINES[2], linewidth=0.9)
            title = f"coverage (line: stated, {rows[0]['stated']:.0%})"
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        axes.set_xlabel("images/s", color=INK, fontsize=9)
        quieten_log(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def quieten_log(axes: Any) -> None:
    """The house's plain axes, with a logarithmic abscissa."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    quieten(axes)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def report(rows: Sequence[Mapping[str, Any]]) -> None:
    """A row for each setting; in brackets what it has more than the published sampler, with its interval."""
    print(f"{'':<30}{'images/s':>9}{'faster':>9}{'AbsRel':>28}{'boundary F1':>28}{'covered':>28}")
    for row in rows:
        shown = "".join(
            "{:>8.3f}{:>20}".format(row[name], "({:+.3f} [{:+.3f}, {:+.3f}])".format(*row[f"{name} gain"]))
            for name in ("abs_rel", "boundary_f1", "coverage")
            if name in row
        )
        print(f"{row['setting']:<30}{row['images_per_s']:>9.1f}{row['faster']:>8.1f}x{shown}")


def run(
    out: Path,
    model: str,
    device: torch.device,
    pictures: int,
    members: int,
    rounds: int,
    one_step: str | None = None,
    guided: str | None = None,
    cpu_time: bool = False,
) -> list[dict[str, Any]]:
    """Asserts equal pictures, then times and scores every setting; writes sampling.json and sampling.png."""
    pipeline = load(model, device)
    size = pipeline.card.target or {"height": 448, "width": 448}
    samples = views(pictures, (size["height"], size["width"]))
    others = {
        name: None if place is None else look(load(place, device), samples)
        for name, place in (("one_step", one_step), ("guided", guided))
    }
    scene = look(pipeline, samples)
    worst = check(scene)
    ways = settings(scene, **others)
    scores = {way.name: quality(way, pipeline, samples, members) for way in ways}
    rows = rows_of(measure(ways, rounds, device, cpu_time), scores, len(samples))
    print(f"{model}: {len(samples)} pictures, ensembles of {members}; {device}, equal to {worst:.0e}")
    report(rows)
    out.mkdir(parents=True, exist_ok=True)
    (out / "sampling.json").write_text(json.dumps(rows, indent=1) + "\n")
    plot(rows, out / "sampling.png")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--one-step", default=None, help="checkpoint of gem_nano_one_step")
    parser.add_argument("--guided", default=None, help="checkpoint of gem_nano_guided")
    parser.add_argument("--size", choices=("own", "2b"), default="own", help="2b: speed alone, random weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--members", type=int, default=4, help="of the ensembles whose coverage is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="count this process's computing, not the clock")
    options = parser.parse_args()
    if options.members < 2 or min(options.pictures, options.rounds) < 1:
        parser.error("--members must be at least 2, --pictures and --rounds at least 1")
    device = torch.device(options.device)
    if options.size == "own":
        run(
            options.out,
            options.model,
            device,
            options.pictures,
            options.members,
            options.rounds,
            options.one_step,
            options.guided,
            options.cpu_time,
        )
        return
    scene = published_size(options.pictures, device, torch.float32 if device.type == "cpu" else torch.bfloat16)
    rows = rows_of(measure(settings(scene), options.rounds, device), {}, options.pictures)
    report(rows)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "sampling-2b.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
