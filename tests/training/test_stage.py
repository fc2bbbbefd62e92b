"""Schedules over all their parameters, and stages that can't be meant."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemvlm.training.stage import OptimizerConfig, Schedule, Stage

shares = st.floats(0, 1)
schedules = st.builds(Schedule, st.integers(0, 50), st.sampled_from(["constant", "cosine", "linear"]), shares, shares)


@given(schedules, st.integers(1, 500))
def test_a_factor_is_positive_and_at_most_one(schedule: Schedule, steps: int) -> None:
    assert all(0 < schedule.factor(step, steps) <= 1 for step in range(steps))


@given(schedules, st.integers(1, 500))
def test_the_rate_rises_over_the_warm_up_then_never_again(schedule: Schedule, steps: int) -> None:
    """B10: the release's warm-up is ignored."""
    factors = [schedule.factor(step, steps) for step in range(steps)]
    warm, rest = factors[: schedule.warmup], factors[schedule.warmup :]
    assert all(a < b for a, b in pairwise(warm))
    assert all(a >= b for a, b in pairwise(rest))
    if rest:
        assert factors[max(schedule.warmup - 1, 0)] == 1


@given(st.sampled_from(["cosine", "linear"]), st.integers(0, 20), shares, st.floats(0, 0.9), st.integers(50, 500))
def test_the_fall_begins_after_the_hold_and_ends_at_the_final_factor(
    shape: Any, warmup: int, final: float, hold: float, steps: int
) -> None:
    schedule = Schedule(warmup, shape, final, hold)
    held = range(warmup, int(hold * steps) + 1)
    assert all(schedule.factor(step, steps) == 1 for step in held if step < steps)
    assert schedule.factor(steps, steps) == pytest.approx(final)


def test_a_constant_schedule_never_falls() -> None:
    assert {Schedule(0, "constant", final=0.1).factor(step, 30) for step in range(30)} == {1.0}


def make_stage(**changes: Any) -> Stage:
    fields = {"learning_rates": {"connector": 1e-3}, "loss_weights": {"depth": 1.0}, "steps": 5, "batch_size": 2}
    optimizer = OptimizerConfig("adamw", (0.9, 0.95), 0.1)
    return Stage(
        "1-connector", schedule=Schedule(0, "constant"), optimizer=optimizer, turns_per_sample=0, **(fields | changes)
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"learning_rates": {}}, "stage '1-connector': name at least one module group"),
        ({"loss_weights": {}}, "one loss"),
        ({"steps": 0}, "0 steps of 2 samples.*leave the stage out"),
        ({"batch_size": 0}, "5 steps of 0 samples"),
    ],
)
def test_a_stage_that_does_nothing_is_refused(changes: dict[str, Any], told: str) -> None:
    make_stage()
    with pytest.raises(ValueError, match=told):
        make_stage(**changes)
