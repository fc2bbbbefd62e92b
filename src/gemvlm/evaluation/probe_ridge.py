"""Linear probes in closed form, from sums that grow image by image: the states themselves are never kept.

With features standardised by their training mean and deviation, correlation matrix C, and covariance c with the target:

    W(penalty) = (C + penalty I)^-1 c,    one eigendecomposition of C for all penalties

Hoerl and Kennard, Ridge Regression, 1970.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Relative to the features' own variance, so that they mean the same for any number of rows."""


class RidgeSums:
    """Sums over rows of features (n, D) and targets (n, K), in float64 where the device has it."""

    def __init__(self) -> None:
        self.rows = 0
        self._x: Tensor | None = None
        self._y: Tensor | None = None
        self._xx: Tensor | None = None
        self._xy: Tensor | None = None

    def add(self, features: Float[Tensor, "n D"], targets: Float[Tensor, "n K"]) -> None:
        x, y = exact(features), exact(targets)
        parts = (x.sum(0), y.sum(0), x.T @ x, x.T @ y)
        self.rows += len(x)
        if self._x is None:
            self._x, self._y, self._xx, self._xy = parts
        else:
            for total, part in zip((self._x, self._y, self._xx, self._xy), parts, strict=True):
                assert total is not None
                total += part

    def solve(self) -> RidgePath:
        """The solutions for all `PENALTIES`. ValueError without rows."""
        if self._x is None or self._y is None or self._xx is None or self._xy is None or not self.rows:
            raise ValueError("probe: no training token has this target; give frames with depth")
        mean, target_mean = self._x / self.rows, self._y / self.rows
        covariance = self._xx / self.rows - torch.outer(mean, mean)
        deviation = covariance.diagonal().clamp(min=0).sqrt()
        # a feature that never changes (a cell that no token lies in) says nothing
        scale = torch.where(deviation > 1e-7 * deviation.max().clamp(min=1e-12), 1 / deviation.clamp(min=1e-30), 0.0)
        values, vectors = torch.linalg.eigh(covariance * torch.outer(scale, scale))
        cross = vectors.T @ ((self._xy / self.rows - torch.outer(mean, target_mean)) * scale[:, None])
        values = values.clamp(min=0)
        weights = torch.stack([vectors @ (cross / (values + penalty)[:, None]) for penalty in PENALTIES])
        return RidgePath(mean, target_mean, weights * scale[:, None])


@dataclass(frozen=True)
class RidgePath:
    """Probes for all `PENALTIES`; `target_mean` is what someone says who has no features."""

    mean: Float64[Tensor, "D"]
    target_mean: Float64[Tensor, "K"]
    weights: Float64[Tensor, "penalties D K"]

    def predict(self, features: Float[Tensor, "n D"]) -> Float64[Tensor, "penalties n K"]:
        return self.target_mean + (exact(features) - self.mean) @ self.weights

    def chosen(self, index: int) -> RidgePath:
        """The path with one penalty alone."""
        return RidgePath(self.mean, self.target_mean, self.weights[index : index + 1])


def exact(values: Tensor) -> Float64[Tensor, "..."]:
    """In float64; Apple's graphics have none, so there it is done by the processor."""
    return (values.cpu() if values.device.type == "mps" else values).double()
