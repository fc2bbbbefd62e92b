"""A step over packs is the step over the same samples one by one: losses to 1e-5, and every gradient.

The weights: a token counts 1/(supervised tokens of the whole step), a target 1/(targets of the whole step), whatever
pack they are in. So a sample with more answers counts more, as it does in an unpacked batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gemvlm.batch import Batch
from gemvlm.data.collate import Collator, TurnSampler
from gemvlm.data.packing import Budget, PackedStream
from gemvlm.model.gem import Gem
from gemvlm.recipes.data import target_makers
from gemvlm.recipes.debug import DEBUG
from gemvlm.training.share import learnable, supervised

NAMES = ("text", "depth")


def step(gem: Gem, batches: Sequence[Batch]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Losses and gradients over all batches, each loss weighted by its share of what the step supervises."""
    gem.zero_grad()
    batches = [learnable(batch) for batch in batches]
    counts = [supervised(batch, NAMES) for batch in batches]
    totals = {name: sum(count[name] for count in counts) for name in NAMES}
    sums = dict.fromkeys(NAMES, 0.0)
    for batch, count in zip(batches, counts, strict=True):
        for name, loss in gem(batch).items():
            part = loss * count[name] / totals[name]
            part.backward(retain_graph=True)
            sums[name] += float(part.detach())
    return sums, {name: p.grad.clone() for name, p in gem.named_parameters() if p.grad is not None}


def test_packs_and_single_samples_have_equal_losses_and_gradients(mixed_workshop):
    collator = Collator(
        mixed_workshop.tokenizer,
        DEBUG.coordinates,
        DEBUG.image,
        [target_makers(DEBUG)["depth"]],
        turns=TurnSampler(2),
    )
    stream = PackedStream(mixed_workshop.samples, collator, Budget(tokens=170, patches=200, targets=4), window=3)
    packs, members, state = [], [], stream.state()
    for _ in range(3):
        found, state = stream._packer.next(state)
        members += found
        packs.append(next(stream))
    assert [len(pack.sample_ids) for pack in packs] != [1, 1, 1]
    singles = [collator([mixed_workshop.samples[index]], [epoch]) for epoch, index in members]
    assert [single.sample_ids[0] for single in singles] == [name for pack in packs for name in pack.sample_ids]
    gem = mixed_workshop.gem().train()
    losses, gradients = step(gem, packs)
    alone, reference = step(gem, singles)
    for name in NAMES:
        assert abs(losses[name] - alone[name]) < 1e-5 * alone[name]
    assert gradients.keys() == reference.keys()
    for name, gradient in reference.items():
        assert (gradients[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-8, name
