"""Actions that a chunk must begin with, because they will have been executed before it arrives: their weights."""

from __future__ import annotations

import torch
from torch import Tensor


def padded_prefix(
    committed: Tensor | None, weights: Tensor | None, shape: tuple[int, int, int]
) -> tuple[Tensor | None, Tensor | None]:
    """Committed actions and their weights, as long as a chunk."""
    if committed is None:
        return None, None
    rows, horizon, size = shape
    count = committed.shape[1]
    if committed.shape != (rows, count, size) or count > horizon:
        raise ValueError(
            f"committed has shape {tuple(committed.shape)}; give ({rows}, at most {horizon}, {size}), the actions that "
            "will have been executed"
        )
    weights = torch.ones_like(committed[..., 0]) if weights is None else weights
    if weights.shape != (rows, count) or not bool(((weights >= 0) & (weights <= 1)).all()):
        raise ValueError(f"committed_weights must be ({rows}, {count}) numbers from 0 to 1, got {tuple(weights.shape)}")
    known, weight = committed.new_zeros(shape), committed.new_zeros(shape)
    known[:, :count], weight[:, :count] = committed, weights[..., None]
    return known, weight
