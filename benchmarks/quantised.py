"""Weights in 8 and 4 bits: how fast a model answers or acts with them on this CPU, and what it loses.

    python benchmarks/quantised.py                              # nano, tabletop questions: a minute
    python benchmarks/quantised.py --model GEM --scenes 50
    python benchmarks/quantised.py --policy out/vla/final       # a policy: latency, and how far its actions move
    python benchmarks/quantised.py --size 1024 --layers 4       # random weights of a given width: latency alone

Rows share one set of questions about scenes that no training has seen. The score is the mean over questions; "same" is
the share of replies that are word for word those of the weights as they are. Small models are bound by Python, not by
weights: there, fewer bits bring bytes and no time. With --size the text path alone is timed, reading 64 tokens at once
and one at a time. Run it on an idle machine, or with --cpu-time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from gemvlm.curation.sources.tabletop import tabletop_samples
from gemvlm.data.conversation import parse
from gemvlm.evaluation.scoring import score
from gemvlm.inference import load
from gemvlm.inference.pipeline import GemPipeline
from gemvlm.inference.policy import GemPolicy, load_policy
from gemvlm.inference.quantise import Quantised, Scheme, quantise, quantise_policy, quantise_text
from gemvlm.recipes.recipe import DEVELOPMENT_SEED
from gemvlm.robot import RobotObservation
from gemvlm.runtime import deterministic
from gemvlm.sample import Sample, Turn

NOTHING = Quantised("int8", 0, (), 0, 0)
"""The weights as they are."""


@dataclass(frozen=True)
class Row:
    """`seconds` are of one round; `score` is NaN where nothing is scored, `same` the share of equal answers."""

    name: str
    done: Quantised
    seconds: float
    score: float
    same: float


def clock(work: Callable[[], object], rounds: int, cpu_time: bool) -> float:
    """The median over rounds, after one that isn't counted."""
    now = time.process_time if cpu_time else time.perf_counter
    work()
    found = []
    for _ in range(rounds):
        start = now()
        work()
        found.append(now() - start)
    return statistics.median(found)


def questions(scenes: int, per_family: int) -> list[tuple[Sample, Turn]]:
    seeds = range(DEVELOPMENT_SEED, DEVELOPMENT_SEED + scenes)
    samples = tabletop_samples(seeds, 1, (96, 96), turns_per_family=per_family)
    return [(sample, turn) for sample in samples for turn in sample.turns if turn.family != "describe"]


def replies(pipeline: GemPipeline, items: Sequence[tuple[Sample, Turn]]) -> list[str]:
    asked = [
        ([frame.image for frame in sample.frames], pipeline.coordinates.fill(turn.question, turn.places))
        for sample, turn in items
    ]
    return [answer.text for answer in pipeline.ask_batch(asked, max_new_tokens=32)]


def text_rows(model: str, scenes: int, rounds: int, cpu_time: bool) -> list[Row]:
    items = questions(scenes, 1)
    rows: list[Row] = []
    exact: list[str] = []
    timed = items[: min(8, len(items))]
    for scheme in (None, *get_args(Scheme)):
        pipeline = load(model, "cpu")
        done = NOTHING if scheme is None else quantise_text(pipeline.gem.backbone, scheme)
        found = replies(pipeline, items)
        exact = exact or found
        right = [
            score(turn, parse(reply, turn.kind, turn.options, turn.unit, pipeline.coordinates))
            for reply, (_, turn) in zip(found, items, strict=True)
        ]
        same = sum(a == b for a, b in zip(found, exact, strict=True)) / len(items)
        seconds = clock(partial(replies, pipeline, timed), rounds, cpu_time) / len(timed)
        rows.append(Row(scheme or "as it is", done, seconds, float(np.mean(right)), same))
    return rows


def observation_of(policy: GemPolicy) -> RobotObservation:
    draw = np.random.default_rng(0)
    images = {name: draw.integers(0, 256, (96, 96, 3), dtype=np.uint8) for name in policy.contract.cameras}
    state = draw.normal(0, 0.1, len(policy.contract.state_names)).astype(np.float32)
    return RobotObservation(images, state, "pick up the block")


def policy_rows(path: str, rounds: int, cpu_time: bool) -> list[Row]:
    """`same` is 1 less the mean difference of actions, as a share of the actions' own spread."""
    rows: list[Row] = []
    exact: Any = None
    for scheme in (None, *get_args(Scheme)):
        policy = load_policy(path, "cpu")
        done = NOTHING if scheme is None else quantise_policy(policy.model, scheme)
        seen, seeds = [observation_of(policy)] * 4, [0, 1, 2, 3]
        actions = np.stack([chunk.actions for chunk in policy.act(seen, seeds)])
        exact = actions if exact is None else exact
        moved = float(np.abs(actions - exact).mean() / max(float(exact.std()), 1e-9))
        seconds = clock(partial(policy.act, seen[:1], [0]), rounds, cpu_time)
        rows.append(Row(scheme or "as it is", done, seconds, float("nan"), 1 - moved))
    return rows


def stack_of(width: int, layers: int) -> nn.Sequential:
    """The matrix products of a decoder of that width, in its proportions: what its weights cost to read."""
    with deterministic(0):
        blocks = [
            nn.Sequential(nn.Linear(width, 3 * width, bias=False), nn.SiLU(), nn.Linear(3 * width, width, bias=False))
            for _ in range(layers)
        ]
    return nn.Sequential(*blocks).eval().requires_grad_(False)


def size_rows(width: int, layers: int, tokens: int, rounds: int, cpu_time: bool) -> list[Row]:
    x = torch.randn(tokens, width, generator=torch.Generator().manual_seed(0))
    rows: list[Row] = []
    exact: Any = None
    for scheme in (None, *get_args(Scheme)):
        stack = stack_of(width, layers)
        done = NOTHING if scheme is None else quantise(stack, scheme)
        with torch.no_grad():
            found = stack(x)
            exact = found if exact is None else exact
            alike = float(torch.nn.functional.cosine_similarity(found.flatten(), exact.flatten(), dim=0))
            seconds = clock(partial(stack, x), rounds, cpu_time)
        rows.append(Row(scheme or "as it is", done, seconds, float("nan"), alike))
    return rows


def report(title: str, rows: Sequence[Row]) -> None:
    print(title)
    print(f"  {'':<14}{'layers':>7}{'MB':>8}{'ms':>9}{'faster':>8}{'score':>8}{'same':>8}")
    for row in rows:
        size = row.done.bytes_after if row.done.layers else rows[-1].done.bytes_before
        print(
            f"  {row.name:<14}{row.done.layers:>7}{size / 1e6:>8.2f}{1e3 * row.seconds:>9.2f}"
            f"{rows[0].seconds / row.seconds:>7.2f}x{row.score:>8.3f}{row.same:>8.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--policy", default=None)
    parser.add_argument("--size", type=int, default=None, help="width of random weights")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="count this process's computing, not the clock")
    options: Any = parser.parse_args()
    if min(options.layers, options.scenes, options.rounds, options.size or 1) < 1:
        parser.error("--size, --layers, --scenes and --rounds must be at least 1")
    if options.policy is not None:
        report(f"{options.policy}: one chunk", policy_rows(options.policy, options.rounds, options.cpu_time))
    elif options.size is not None:
        for tokens in (64, 1):
            rows = size_rows(options.size, options.layers, tokens, options.rounds, options.cpu_time)
            report(f"{options.layers} blocks of width {options.size}, {tokens} tokens at once", rows)
    else:
        rows = text_rows(options.model, options.scenes, options.rounds, options.cpu_time)
        report(f"{options.model}: one question of a batch of 8", rows)


if __name__ == "__main__":
    main()
