"""A whole number shared out by weight: places of a block among sets, samples of a limit among sources."""

from __future__ import annotations

from collections.abc import Sequence


def largest_remainder(weights: Sequence[float], total: int) -> list[int]:
    """`total` shared out in whole numbers: shares rounded down, what is left to the largest fractions, then the first.

    Hamilton's method. ValueError if a weight is not positive.
    """
    if not weights or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"weights {list(weights)}: give a positive number to every set, or leave the set out")
    shares = [weight * total / sum(weights) for weight in weights]
    quotas = [int(share) for share in shares]
    by_fraction = sorted(range(len(shares)), key=lambda index: (quotas[index] - shares[index], index))
    for index in by_fraction[: total - sum(quotas)]:
        quotas[index] += 1
    return quotas
