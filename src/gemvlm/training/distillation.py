"""One-step students of a policy: its noise becomes a chunk by a single evaluation of the expert.

Two methods, named for what they are:

* `regression`: the student learns, noise by noise, the end of the teacher's own path. It is what the authors' release
  calls DMD; squared error between paths that diverge averages them.
* `distribution_matching`: DMD. The student's samples are moved by the difference of two data estimates at a random
  noise level: the frozen teacher's, and that of a fake network which keeps learning the student's own distribution.
  Noise and sample need not pair as the teacher pairs them.

The teacher and all that it looks at, the backbone included, are frozen (B19), and the result holds the student alone.

    Yin et al., One-step Diffusion with Distribution Matching Distillation, 2023 (arXiv 2311.18828)
    Yin et al., Improved Distribution Matching Distillation, 2024 (arXiv 2405.14867): several fake updates for one
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from gemvlm.batch import Batch
from gemvlm.flow import data_estimate, integrate, interpolate, uniform_times, velocity
from gemvlm.model.action_expert import ActionExpert, Context
from gemvlm.model.gem_vla import GemVla, robots
from gemvlm.model.generator import Draw
from gemvlm.runtime import Runtime
from gemvlm.training.average import Average

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(state (N, ...), time (N,)) → the estimate of data − noise (N, ...)."""


def one_step(student: Velocity, noise: Float32[Tensor, "N *shape"]) -> Float32[Tensor, "N *shape"]:
    """noise + velocity(noise, 0): Euler's method with a single step."""
    return noise + student(noise, noise.new_zeros(len(noise)))


def regression_loss(
    student: Velocity, teacher: Velocity, noise: Float32[Tensor, "N *shape"], times: Float[Tensor, "K_plus_1"]
) -> Float32[Tensor, ""]:
    """Mean squared distance of the student's single step from the end of the teacher's path along `times`."""
    return (one_step(student, noise) - integrate(teacher, noise, times)).square().mean()


def matching_loss(
    generated: Float32[Tensor, "N *shape"],
    teacher: Velocity,
    fake: Velocity,
    noise: Float32[Tensor, "N *shape"],
    time: Float32[Tensor, "N"],
) -> Float32[Tensor, ""]:
    """Its gradient is that of the divergence between the student's and the teacher's distribution, estimated at `time`.

    Only the gradient means something: with respect to `generated` it is (fake estimate − teacher's estimate), each item
    divided by its mean distance from the teacher's estimate, over the number of numbers.
    """
    with torch.no_grad():
        state = interpolate(noise, generated, time)
        real = data_estimate(state, teacher(state, time), time)
        direction = data_estimate(state, fake(state, time), time) - real
        scale = (generated - real).abs().flatten(1).mean(1).clamp(min=1e-3)
        wanted = generated - direction / scale.reshape(-1, *[1] * (generated.ndim - 1))
    return 0.5 * (generated - wanted).square().mean()


def flow_loss(
    network: Velocity, data: Float32[Tensor, "N *shape"], noise: Float32[Tensor, "N *shape"], time: Float32[Tensor, "N"]
) -> Float32[Tensor, ""]:
    """Plain flow matching: what keeps the fake network abreast of the student."""
    return (network(interpolate(noise, data, time), time) - velocity(noise, data)).square().mean()


@dataclass(frozen=True)
class DistillationConfig:
    """`teacher_steps` are those of the path to learn (regression), `draws` the noises for each observation.

    `fake_updates` of the fake network come before each of the student; `earliest` and `latest` bound the flow times at
    which distributions are compared. `regression_weight` adds the other loss to distribution matching. `average` is the
    decay of a running average of the student, which is the result.
    """

    method: Literal["regression", "distribution_matching"]
    steps: int
    learning_rate: float
    teacher_steps: int = 5
    draws: int = 4
    fake_updates: int = 5
    fake_learning_rate: float | None = None
    regression_weight: float = 0.0
    earliest: float = 0.02
    latest: float = 0.98
    clip: float = 1.0
    average: float | None = 0.99

    def __post_init__(self) -> None:
        if self.method not in ("regression", "distribution_matching"):
            raise ValueError(f"method={self.method!r} must be 'regression' or 'distribution_matching'")
        if min(self.steps, self.teacher_steps, self.draws, self.fake_updates) < 1 or self.learning_rate <= 0:
            raise ValueError(f"steps, draws, updates and learning rate of a distillation must be positive, got {self}")
        if not 0 <= self.earliest < self.latest <= 1:
            raise ValueError(f"earliest={self.earliest} and latest={self.latest} must lie in order within [0, 1]")


def distil(
    policy: GemVla,
    batches: Iterable[Batch],
    config: DistillationConfig,
    runtime: Runtime,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
) -> ActionExpert:
    """A student of the policy's expert, to take its place: `policy.expert = distil(policy, ...)`, then `act` by 1 step.

    Noise and times are drawn from the keys of the robot samples, so batches must come with new keys. `report` gets each
    step's losses. ValueError if the batches end before `config.steps`.
    """
    students = _Students(policy.eval(), config)
    done = 0
    for done, batch in enumerate(islice(batches, config.steps), start=1):
        found = students.step(batch.to(runtime.device), runtime)
        if report is not None:
            report(done - 1, found)
    if done < config.steps:
        raise ValueError(f"the batches ended after {done} of {config.steps} steps; give a stream that goes on")
    return students.result()


class _Students:
    """The networks that learn, beside the policy that doesn't."""

    def __init__(self, policy: GemVla, config: DistillationConfig):
        self.policy, self.config = policy, config
        self.student = copy.deepcopy(policy.expert).requires_grad_(True).train()
        self.times = uniform_times(config.teacher_steps)
        self.student_optimizer = _optimizer(self.student, config.learning_rate)
        if config.method == "distribution_matching":
            self.fake = copy.deepcopy(policy.expert).requires_grad_(True).train()
            self.fake_optimizer = _optimizer(self.fake, config.fake_learning_rate or config.learning_rate)
        parameters = dict(self.student.named_parameters())
        self.average = None if config.average is None else Average(parameters, config.average)
        self.steps = 0

    def step(self, batch: Batch, runtime: Runtime) -> dict[str, float]:
        """Updates of the fake network, if there is one, and one of the student; their losses."""
        draws = [Draw.of(key + i) for key in robots(batch).keys for i in range(self.config.draws)]
        with runtime.autocast(), torch.no_grad():
            context = self.policy.context(batch)
        found = {}
        if self.config.method == "distribution_matching":
            found["fake"] = self._follow(context, batch, draws, runtime)
        with runtime.autocast():
            loss = self._student_loss(context, batch, draws)
        self._update(self.student, self.student_optimizer, loss)
        if self.average is not None:
            self.average.update(self.steps)
        self.steps += 1
        return {"student": float(loss.detach()), **found}

    def result(self) -> ActionExpert:
        if self.average is not None:
            self.average.take_over()
        return self.student.eval()

    def _student_loss(self, context: Context, batch: Batch, draws: list[Draw]) -> Tensor:
        noise = self._noise(draws, batch)
        student = self._velocity(self.student, context, batch)
        with torch.no_grad():
            teacher = self._velocity(self.policy.expert, context, batch)
        if self.config.method == "regression":
            return regression_loss(student, teacher, noise, self.times)
        with torch.no_grad():
            fake = self._velocity(self.fake, context, batch)
        made = one_step(student, noise)
        loss = matching_loss(made, teacher, fake, self._noise(draws, batch), self._time(draws, batch))
        if self.config.regression_weight:
            loss = loss + self.config.regression_weight * (made - integrate(teacher, noise, self.times)).square().mean()
        return loss

    def _follow(self, context: Context, batch: Batch, draws: list[Draw], runtime: Runtime) -> float:
        """The fake network learns what the student makes now; the mean loss of its updates."""
        total = 0.0
        for _ in range(self.config.fake_updates):
            with runtime.autocast():
                with torch.no_grad():
                    made = one_step(self._velocity(self.student, context, batch), self._noise(draws, batch))
                network = self._velocity(self.fake, context, batch)
                loss = flow_loss(network, made, self._noise(draws, batch), self._time(draws, batch))
            self._update(self.fake, self.fake_optimizer, loss)
            total += float(loss.detach())
        return total / self.config.fake_updates

    def _velocity(self, expert: ActionExpert, context: Context, batch: Batch) -> Velocity:
        observed = expert.observe(context, robots(batch).state).repeated(self.config.draws)
        return lambda state, time: expert.velocity(state, time.to(state), observed)

    def _noise(self, draws: list[Draw], batch: Batch) -> Tensor:
        shape = robots(batch).chunk.shape[1:]
        return torch.stack([draw.noise(shape) for draw in draws]).to(batch.input_ids.device)

    def _time(self, draws: list[Draw], batch: Batch) -> Tensor:
        uniform = torch.stack([torch.rand((), generator=draw.stream) for draw in draws])
        earliest, latest = self.config.earliest, self.config.latest
        return (earliest + (latest - earliest) * uniform).to(batch.input_ids.device)

    def _update(self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), self.config.clip, error_if_nonfinite=True)
        optimizer.step()


def _optimizer(network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=0.0)
