"""Padding that packing removes, on a realistic mix of lengths, and what it costs to pack.

    python benchmarks/packing.py                              # a second or two; no model, no images

20,000 samples of the kinds that embodied training mixes, with Qwen3-VL's tokens of 32 x 32 pixels: questions about one
image, grounding with many turns, several views, videos of 32 frames, and text alone. They are batched in four ways:

* right-padded rows of samples as they come, as many as a pack holds on average;
* the same, sorted by length within windows of 64 batches (`BatchStream(lengths=...)`);
* packs that are closed by the first sample that doesn't fit;
* packs of `PackedStream`, which go on until 32 samples didn't fit.

"Padding" is the share of computed token places that hold no token: in rows, what fills them up to the longest; in packs
none, as a pack is as long as its tokens. "Filled" is the tokens' share of the budget of 16,384: how equal the work of
steps, and so of ranks that wait for each other, is. Attention inside a pack pads for itself: "scores" is how many its
kernels compute per score that is needed.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import astuple, dataclass

import numpy as np

from gemvlm.data.loader import Shuffled
from gemvlm.data.packing import WINDOW, Budget, Costs, Packer
from gemvlm.model.tiled_attention import BLOCK

BUDGET = Budget(tokens=16_384, patches=65_536, targets=32)


@dataclass(frozen=True)
class Kind:
    """Samples of one kind: their share, and ranges (both ends included) of images, tokens of each image and of text."""

    name: str
    share: float
    images: tuple[int, int]
    tokens: tuple[int, int]
    text: tuple[int, int]


MIX = (
    Kind("a question about one image", 0.40, (1, 1), (196, 400), (30, 150)),
    Kind("grounding, many turns", 0.20, (1, 1), (300, 1200), (200, 1500)),
    Kind("several views", 0.15, (2, 8), (150, 300), (60, 400)),
    Kind("video", 0.10, (32, 32), (60, 110), (60, 300)),
    Kind("text alone", 0.15, (0, 0), (0, 0), (40, 900)),
)
"""Ours: no publisher says how long its samples are. Depth is given to every image but a video's."""


def realistic_mix(count: int, seed: int = 0) -> Costs:
    """(tokens, patches, targets) of each sample."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(len(MIX), size=count, p=[kind.share for kind in MIX])
    costs = np.zeros((count, 3), dtype=np.int64)
    for row, number in zip(costs, kinds, strict=True):
        kind = MIX[number]
        images = rng.integers(*kind.images, endpoint=True)
        visual = images * rng.integers(*kind.tokens, endpoint=True)
        text = int(np.exp(rng.uniform(*np.log(kind.text))))
        row[:] = visual + 2 * images + text, 4 * visual, images if images <= 8 else 0
    return costs


def packs(costs: Costs, window: int) -> list[list[int]]:
    """The samples of each pack until every one was shown about once."""
    packer = Packer(Shuffled(len(costs), 0), costs, BUDGET, window)
    state, found, shown = packer.start, [], 0
    while shown < len(costs):
        members, state = packer.next(state)
        found.append([index for _, index in members])
        shown += len(members)
    return found


def rows(costs: Costs, size: int, bucket: int) -> list[list[int]]:
    """Batches of `size` samples in the stream's order, sorted by length within windows of `bucket` batches."""
    plan, step = Shuffled(len(costs), 0), size * bucket
    order = [plan.member(position)[1] for position in range(len(costs))]
    windows = [sorted(order[i : i + step], key=lambda j: costs[j, 0]) for i in range(0, len(order), step)]
    return [
        window[i : i + size] for window in (windows if bucket > 1 else [order]) for i in range(0, len(window), size)
    ]


def padding(costs: Costs, batches: list[list[int]]) -> float:
    """Share of token places without a token, in right-padded rows."""
    places = sum(len(batch) * int(costs[batch, 0].max()) for batch in batches)
    return 1 - sum(int(costs[batch, 0].sum()) for batch in batches) / places


def filled(costs: Costs, batches: list[list[int]]) -> float:
    """Mean share of the budget's tokens in a pack."""
    return float(np.mean([costs[batch, 0].sum() for batch in batches])) / BUDGET.tokens


def scores(costs: Costs, batches: list[list[int]]) -> dict[str, float]:
    """Scores computed per score that causal attention within samples needs."""
    lengths = [costs[batch, 0] for batch in batches]
    needed = sum(float((n * (n + 1) / 2).sum()) for n in lengths)
    tiles = sum(float((np.ceil(n / BLOCK) * BLOCK * (n + BLOCK) / 2).sum()) for n in lengths)
    padded = sum(float(len(n) * n.max() ** 2) for n in lengths)
    whole = sum(float(n.sum() ** 2) for n in lengths)
    return {
        "tiles": tiles / needed,
        "rows, padded to the longest": padded / needed,
        "one row with a mask": whole / needed,
    }


@dataclass(frozen=True)
class Result:
    """Shares in [0, 1] of the four ways; the last two for packs."""

    as_they_come: float
    sorted: float
    closed_early: float
    filled: float


def run(count: int, seed: int = 0, window: int = WINDOW) -> Result:
    costs = realistic_mix(count, seed)
    print(f"{count} samples of {costs[:, 0].min()} to {costs[:, 0].max()} tokens, mean {costs[:, 0].mean():.0f}")
    start = time.perf_counter()
    packed = packs(costs, window)
    seconds = time.perf_counter() - start
    size = round(count / len(packed))
    result = Result(
        padding(costs, rows(costs, size, 1)),
        padding(costs, rows(costs, size, 64)),
        filled(costs, packs(costs, window=1)),
        filled(costs, packed),
    )
    over = max(int((costs[batch].sum(0) > astuple(BUDGET)).any()) for batch in packed)
    assert not over, "a pack is over its budget"
    print(f"rows of {size:3d} samples as they come          padding {100 * result.as_they_come:5.1f} %")
    print(f"rows of {size:3d} samples of like length        padding {100 * result.sorted:5.1f} %")
    print(f"packs closed by the first that doesn't fit  padding   0.0 %   filled {100 * result.closed_early:5.1f} %")
    print(f"packs closed when {window:3d} didn't fit          padding   0.0 %   filled {100 * result.filled:5.1f} %")
    for name, share in scores(costs, packed).items():
        print(f"    scores computed, per score needed: {name:<28} {share:6.2f}")
    print(f"packing takes {1e3 * seconds / len(packed):.2f} ms a pack")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--window", type=int, default=WINDOW)
    options = parser.parse_args()
    run(options.samples, window=options.window)


if __name__ == "__main__":
    main()
