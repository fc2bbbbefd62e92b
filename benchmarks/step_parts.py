"""What a training step can't do without, each part alone: how much of a step is anything else.

The parts are the vision tower with its mergers, the decoder, the language head with its cross entropy, and the
connector with the generator, forward and backward where the stage needs it, on the same batch and with the same
kernels. Frozen parts run forward only, and stages that freeze the backbone have no head.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gemvlm.batch import Batch
from gemvlm.model.attention import Packing
from gemvlm.model.backbone import until_last_image
from gemvlm.model.gem import Gem

Work = Callable[[], object]


def parts(gem: Gem, batch: Batch, text: bool, autocast: Callable[[], object]) -> dict[str, Work]:
    """The parts of a step on `batch` for what is set to learn in `gem`; `text` says whether the text loss is wanted."""
    learns = any(p.requires_grad for p in gem.backbone.parameters())
    read = batch if text else until_last_image(batch)
    backbone, depth = gem.backbone, gem.backbone.depth
    packing = Packing(read.lengths.tolist(), causal=True, device=read.input_ids.device)
    with torch.no_grad(), autocast():  # type: ignore[attr-defined]
        embeds, deepstack = backbone._embed(read)
        states = backbone(read).states

    def seen() -> list[Tensor]:
        found, features = backbone._embed(read)
        return [found, *(feature for _, feature in features)]

    def decoded() -> list[Tensor]:
        added = [(places, _leaf(feature, learns)) for places, feature in deepstack]
        hidden = backbone._decode(_leaf(embeds, learns), read.position_ids, packing, None, added, (), depth)[1]
        return [backbone.qwen.model.language_model.norm(hidden)]

    work = {"vision": seen, "decoder": decoded}
    if text:
        work["head"] = lambda: [backbone.text_loss(_leaf(states, learns), read)]
    if batch.targets:
        grids = gem.token_grids(read)
        work["generator"] = lambda: list(
            gem.supervision(_leaf(states, learns), read.spans, grids, batch.targets).values()
        )
    return {name: _both_ways(function, autocast) for name, function in work.items()}


def _leaf(tensor: Tensor, learns: bool) -> Tensor:
    return tensor.detach().requires_grad_(learns)


def _both_ways(function: Callable[[], Sequence[Tensor]], autocast: Callable[[], object]) -> Work:
    def run() -> None:
        with autocast():  # type: ignore[attr-defined]
            outputs = function()
        learnt = [output for output in outputs if output.requires_grad]
        if learnt:
            torch.autograd.backward(learnt, [torch.ones_like(output) for output in learnt])

    return run


def timed(work: Work, device: torch.device) -> float:
    """Seconds, the device's queue emptied before and after."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report_parts(seconds: Mapping[str, Sequence[float]], whole: Sequence[float], limit: float | None) -> float:
    """Prints the least time of each part and of the step; returns the step's as a multiple of the parts' sum.

    AssertionError if that is more than `limit`.
    """
    least = {name: min(times) for name, times in seconds.items()}
    multiple = min(whole) / sum(least.values())
    named = ", ".join(f"{name} {1e3 * value:.1f}" for name, value in least.items())
    print(f"    parts alone, ms: {named}; the step {1e3 * min(whole):.1f} is {multiple:.2f} x their sum")
    assert limit is None or multiple <= limit, f"a step costs {multiple:.2f} x its parts, more than {limit}"
    return multiple
