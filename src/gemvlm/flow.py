"""The one flow-matching convention of this package.

    x_t = (1 - t) noise + t data,   t from 0 (noise) to 1 (data),   velocity = dx/dt = data - noise

States, velocities and times are float32 or float64 here whatever the network computes in: near 1 half precision has
0.004 between neighbours, as coarse as a step of the flow. The published Sana weights run the other way; `SigmaTable`
holds their numbers (sigma = 1 - t) and the one place that flips directions is their adapter in `model/generator.py`.

    Lipman et al., Flow Matching for Generative Modeling, 2023 (arXiv 2210.02747)
    Esser et al., Scaling Rectified Flow Transformers, 2024 (arXiv 2403.03206): the shift of the noise levels
    Black et al., Real-Time Execution of Action Chunking Flow Policies, 2025 (arXiv 2506.07339): guided inpainting
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Solver = Literal["euler", "midpoint", "heun"]


@dataclass(frozen=True)
class Steps:
    """How a flow is followed from noise to data.

    `solver`: "euler" is of first order; "midpoint" (at half of each step) and "heun" (at both ends of it, the last step
    by Euler, as no network learns at t = 1 itself) are of second order and ask twice for each step. `shift` spaces the
    steps by a shift of the noise levels other than the model's own: 1 is uniform, more takes smaller steps near noise.
    """

    count: int
    solver: Solver = "euler"
    shift: float | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or self.solver not in get_args(Solver) or (self.shift is not None and not self.shift > 0):
            raise ValueError(
                f"steps ({self.count}) must be at least 1, the solver ({self.solver!r}) one of "
                f"{', '.join(get_args(Solver))}, and the shift ({self.shift}) positive"
            )

    @classmethod
    def of(cls, steps: int | Steps) -> Steps:
        """A plain number means so many Euler steps, spaced as the model's own."""
        return steps if isinstance(steps, Steps) else cls(steps)

    @property
    def evaluations(self) -> int:
        """How often the network is asked."""
        return {"euler": self.count, "midpoint": 2 * self.count, "heun": 2 * self.count - 1}[self.solver]


def interpolate(
    noise: Float[Tensor, "N *shape"], data: Float[Tensor, "N *shape"], t: Float[Tensor, "N"]
) -> Float[Tensor, "N *shape"]:
    """The state at time t: (1 - t) noise + t data."""
    noise, data = precise(noise), precise(data)
    t = precise(t).reshape(-1, *[1] * (data.ndim - 1))
    return (1 - t) * noise + t * data


def velocity(noise: Float[Tensor, "N *shape"], data: Float[Tensor, "N *shape"]) -> Float[Tensor, "N *shape"]:
    """What the network predicts: data - noise, the same at every t."""
    return precise(data) - precise(noise)


@torch.no_grad()
def integrate(
    velocity_at: Callable[[Tensor, Tensor], Tensor],
    noise: Float[Tensor, "N *shape"],
    times: Float[Tensor, "K_plus_1"],
    solver: Solver = "euler",
) -> Float[Tensor, "N *shape"]:
    """From times[0] to times[-1], by Euler's method x <- x + (t_next - t) velocity_at(x, t) or another (see `Steps`).

    `velocity_at` gets the state (N, ...) and the time of each item (N,), in the order of `evaluation_times`. `times`
    increase from 0 to 1 to sample.
    """
    if times.ndim != 1 or len(times) < 2 or not bool((times[1:] > times[:-1]).all()):
        raise ValueError(f"times must increase and be at least two, got {times.tolist()}")
    state, times = precise(noise), precise(times).to(noise.device)

    def slope(at: Tensor, time: Tensor) -> Tensor:
        return precise(velocity_at(at, time.to(state.dtype).expand(len(state))))

    for now, later in pairwise(times):
        step = (later - now).to(state.dtype)
        found = slope(state, now)
        if solver == "midpoint":
            found = slope(state + 0.5 * step * found, (now + later) / 2)
        elif solver == "heun" and bool(later < times[-1]):
            found = 0.5 * (found + slope(state + step * found, later))
        state = state + step * found
    return state


def evaluation_times(times: Float[Tensor, "K_plus_1"], solver: Solver = "euler") -> Float[Tensor, "E"]:
    """The times at which `integrate` asks for a velocity, in order: what depends on time alone can be had before."""
    if solver == "midpoint":
        return torch.stack([times[:-1], (times[:-1] + times[1:]) / 2], dim=1).flatten()
    if solver == "heun":
        return torch.stack([times[:-1], times[1:]], dim=1).flatten()[:-1]
    return times[:-1]


def uniform_times(steps: int) -> Float[Tensor, "K_plus_1"]:
    """0, 1/steps, ..., 1."""
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def logit_normal(u: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Times whose logit is standard normal, from uniform draws u in [0, 1): sigmoid of u's quantile."""
    return torch.special.ndtri(precise(u)).sigmoid()


def data_estimate(
    state: Float[Tensor, "N *shape"], predicted: Float[Tensor, "N *shape"], t: Float[Tensor, "N"]
) -> Float[Tensor, "N *shape"]:
    """The data that a velocity points to from x_t: x_t + (1 - t) velocity, the mean of what may lie there."""
    return precise(state) + (1 - precise(t).reshape(-1, *[1] * (state.ndim - 1))) * precise(predicted)


def towards(
    velocity_at: Callable[[Tensor, Tensor], Tensor],
    known: Float[Tensor, "N *shape"],
    weight: Float[Tensor, "N *shape"],
    strongest: float = 5.0,
) -> Callable[[Tensor, Tensor], Tensor]:
    """`velocity_at`, guided so that the data agree with `known` where `weight` (0 to 1) says, and fit it elsewhere.

    The gradient of the weighted error of the data estimate is added, with factor min(strongest, (1-t)/(t r^2)),
    r^2 = (1-t)^2 / (t^2 + (1-t)^2). Where an item's weights are all 0 its velocity is unchanged.
    """

    def guided(state: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = precise(state).detach().requires_grad_()
            predicted = precise(velocity_at(leaf, t))
            estimate = data_estimate(leaf, predicted, t)
            error = (weight * (known - estimate)).detach()
            (pull,) = torch.autograd.grad(estimate, leaf, error)
        factor = ((t**2 + (1 - t) ** 2) / (t * (1 - t)).clamp(min=1e-9)).clamp(max=strongest)
        return predicted.detach() + factor.reshape(-1, *[1] * (state.ndim - 1)) * pull

    return guided


@dataclass(frozen=True)
class SigmaTable:
    """The noise levels of the published Sana weights: sigma = 1 - t, and the timestep `steps` x sigma that Sana gets.

    Every level is moved by s' = shift s / (1 + (shift - 1) s). The shift has no default: the scheduler file of the
    published weights reads as 1 or as 3 depending on the class that loads it. Nothing here changes, so that sampling
    can't disturb training.
    """

    shift: float
    steps: int = 1000

    def shifted(self, sigma: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        return self.shift * sigma / (1 + (self.shift - 1) * sigma)

    def training(self, u: Float[Tensor, "N"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """(timestep, sigma) for draws u in [0, 1): entry floor(steps u) of the table that falls from 1 to 1/steps."""
        index = torch.floor(precise(u) * self.steps).clamp(0, self.steps - 1)
        sigma = self.shifted((self.steps - index.double()) / self.steps).to(precise(u).dtype)
        return sigma * self.steps, sigma

    def sampling(self, count: int) -> tuple[Float[Tensor, "K"], Float[Tensor, "K_plus_1"]]:
        """(timesteps, sigmas) of `count` Euler steps: linspace(1, 1/count) shifted, and a closing 0; float64."""
        sigma = self.shifted(torch.linspace(1, 1 / count, count, dtype=torch.float64))
        return sigma * self.steps, torch.cat([sigma, sigma.new_zeros(1)])

    def sampling_times(self, count: int) -> Float[Tensor, "K_plus_1"]:
        """The same steps as times of this package, t = 1 - sigma, from 0 to 1."""
        return 1 - self.sampling(count)[1]

    def times(self, steps: Steps) -> Float[Tensor, "K_plus_1"]:
        """`sampling_times`, by the steps' own shift if they have one."""
        table = self if steps.shift is None else replace(self, shift=steps.shift)
        return table.sampling_times(steps.count)


def precise(x: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """float64 stays, everything shorter becomes float32."""
    return x if x.dtype == torch.float64 else x.float()
