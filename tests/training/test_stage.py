"""Schedules over all their parameters, and stages that can't be meant."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemvlm.data.packing import Budget
from gemvlm.training.stage import LoraConfig, OptimizerConfig, Schedule, Stage

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
        ({"at_once": 0}, "at_once=0 must be at least 1"),
        ({"at_once": 1, "budget": Budget(9, 9, 9)}, "a pack is computed alone"),
        ({"ema": 1.0}, "ema=1.0 is a decay, between 0 and 1"),
        ({"lora": LoraConfig(2, 4.0, {"language": ("q_proj",)})}, r"adapters on \['language'\] would never learn"),
    ],
)
def test_a_stage_that_does_nothing_is_refused(changes: dict[str, Any], told: str) -> None:
    make_stage()
    with pytest.raises(ValueError, match=told):
        make_stage(**changes)


@pytest.mark.parametrize(
    ("changes", "world", "size", "batches"),
    [
        ({"batch_size": 8}, 1, 8, 1),
        ({"batch_size": 8}, 2, 4, 1),
        ({"batch_size": 8, "at_once": 1}, 2, 1, 4),
        ({"batch_size": 8, "budget": Budget(9, 9, 9)}, 4, 1, 2),
    ],
)
def test_a_step_is_the_same_for_any_number_of_processes(
    changes: dict[str, Any], world: int, size: int, batches: int
) -> None:
    stage = make_stage(**changes)
    assert (stage.micro_size(world), stage.micro_batches(world)) == (size, batches)
    assert size * batches * world == stage.batch_size


@pytest.mark.parametrize(("batch_size", "at_once", "world"), [(3, None, 2), (8, 3, 1), (2, None, 4)])
def test_a_step_that_the_processes_cannot_share_is_refused(batch_size: int, at_once: int | None, world: int) -> None:
    with pytest.raises(ValueError, match=rf"a step of {batch_size} can't be shared by {world} processes, .* choose"):
        make_stage(batch_size=batch_size, at_once=at_once).micro_size(world)
