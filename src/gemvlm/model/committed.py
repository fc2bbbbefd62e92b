"""Actions that a chunk must begin with, because they will have been executed before it arrives: their weights."""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor


def soft_mask(frozen: int, length: int) -> Float32[Tensor, "K"]:
    """Weights of `length` actions of the chunk before: 1 for the `frozen` first, then falling to 0 as in real-time
    chunking (arXiv 2506.07339, eq. 5)."""
    if not 0 <= frozen <= length:
        raise ValueError(f"frozen={frozen} must lie between 0 and the {length} actions that are left")
    rest = torch.arange(length - frozen, 0, -1) / (length - frozen + 1)
    return torch.cat([torch.ones(frozen), rest * torch.expm1(rest) / (torch.e - 1)])


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
