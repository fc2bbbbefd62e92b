"""What a robot may be told to do."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemvlm.robot import RobotObservation
from gemvlm.robot.embodiments import EMBODIMENTS
from gemvlm.robot.limits import Guard, Limits, Move, check_observation

HAND = EMBODIMENTS["metaworld"].contract
JOINTS = EMBODIMENTS["joint_arm"].contract
STEPS = Limits(
    ranges={"grip": (-1.0, 1.0)},
    workspace={"x": (-0.1, 0.1), "z": (0.05, 0.4)},
    speeds={"x": 0.8, "y": 0.4},
    moves={"dx": Move("x", 0.01), "dy": Move("y", 0.01), "dz": Move("z", 0.01)},
)
PLACES = Limits(
    workspace={"joint_1": (-1.5, 1.5), "gripper": (0.0, 1.0)},
    speeds={"joint_1": 3.0, "joint_2": 1.5},
    stale_after_s=0.3,
)
START = np.array([0, 0, 0.1, 1], np.float32)


def _chunk(steps: int, **columns: float) -> np.ndarray:
    actions = np.zeros((steps, 4), np.float32)
    for name, value in columns.items():
        actions[:, HAND.action_names.index(name)] = value
    return actions


def test_what_is_within_limits_is_left_alone() -> None:
    asked = _chunk(5, dx=0.5, dz=-0.2, grip=1)
    kept = Guard(HAND, STEPS).limit(asked, START, 0.1)
    np.testing.assert_array_equal(kept.actions, asked)
    assert kept.clipped == () and kept.stopped is None
    open_ended = Guard(HAND, Limits()).limit(asked * 1000, START)
    np.testing.assert_array_equal(open_ended.actions, asked * 1000)


def test_steps_stay_inside_the_box_and_say_so() -> None:
    kept = Guard(HAND, STEPS).limit(_chunk(20, dx=1.0, dz=-1.0), START)
    path = START[:3] + np.cumsum(kept.actions[:, :3] * 0.01, axis=0)
    assert path[:, 0].max() <= 0.1 + 1e-6 and path[:, 2].min() >= 0.05 - 1e-6
    np.testing.assert_allclose(path[-1], [0.1, 0, 0.05], atol=1e-6)
    cuts = {(cut.name, cut.reason): cut for cut in kept.clipped}
    assert set(cuts) == {("dx", "workspace"), ("dz", "workspace")}
    assert (cuts["dx", "workspace"].step, cuts["dx", "workspace"].steps) == (10, 10)
    assert str(cuts["dz", "workspace"]).startswith("dz: workspace, -1 became")


def test_the_way_back_into_the_box_is_no_larger_an_action_than_allowed() -> None:
    limits = Limits(ranges={"dz": (-1.0, 1.0)}, workspace={"z": (0.05, 0.4)}, moves={"dz": Move("z", 0.01)})
    kept = Guard(HAND, limits).limit(_chunk(8, dz=0.0), np.zeros(4, np.float32))
    column = kept.actions[:, HAND.action_names.index("dz")]
    np.testing.assert_allclose(column, [1, 1, 1, 1, 1, 0, 0, 0], atol=1e-5)


def test_speeds_and_ranges() -> None:
    kept = Guard(HAND, STEPS).limit(_chunk(4, dx=3, dy=-3, grip=7), START)
    np.testing.assert_allclose(kept.actions[0], [1, -0.5, 0, 1], atol=1e-6)  # 0.8 m/s at 80 Hz is 1 cm a step
    assert [(cut.name, cut.reason, cut.steps) for cut in kept.clipped] == [
        ("grip", "range", 4),
        ("dx", "speed", 4),
        ("dy", "speed", 4),
    ]


def test_places_are_reached_no_faster_than_allowed() -> None:
    state = np.zeros(8, np.float32)
    asked = np.zeros((10, 8), np.float32)
    asked[:, 0], asked[:, 1], asked[:, 7] = 9, 0.25, 1.5
    guard = Guard(JOINTS, PLACES)
    kept = guard.limit(asked, state)
    np.testing.assert_allclose(kept.actions[:, 0], np.minimum(0.2 * np.arange(1, 11), 1.5), atol=1e-6)
    np.testing.assert_allclose(kept.actions[:, 1], np.minimum(0.1 * np.arange(1, 11), 0.25), atol=1e-6)
    np.testing.assert_array_equal(kept.actions[:, 7], 1)
    assert {(cut.name, cut.reason) for cut in kept.clipped} == {
        ("joint_1", "workspace"),
        ("joint_1", "speed"),
        ("joint_2", "speed"),
        ("gripper", "workspace"),
    }
    sent = np.full(8, 0.2, np.float32)
    later = guard.limit(asked, state, previous=sent)
    np.testing.assert_allclose(later.actions[0, :2], [0.4, 0.25], atol=1e-6)


def test_outside_the_box_a_robot_may_only_come_back() -> None:
    state = np.array([0.2, 0, 0.1, 1], np.float32)
    outwards, inwards = (Guard(HAND, STEPS).limit(_chunk(30, dx=dx), state) for dx in (1.0, -0.1))
    for kept in (outwards, inwards):
        path = 0.2 + np.cumsum(kept.actions[:, 0] * 0.01)
        assert path[0] < 0.2 and (np.diff(path) <= 1e-6).all() and path[-1] <= 0.1 + 1e-6
        assert np.abs(kept.actions[:, 0]).max() <= 1 + 1e-6


@pytest.mark.parametrize("age_s", [0.51, 30.0, -0.2, float("nan")])
def test_stale_observations_hold_still(age_s: float) -> None:
    kept = Guard(HAND, STEPS).limit(_chunk(3, dx=1, grip=1), START, age_s, previous=_chunk(1, dx=1, grip=1)[0])
    np.testing.assert_array_equal(kept.actions, _chunk(3, grip=1))
    assert kept.stopped is not None and "s old" in kept.stopped


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_hold_still(bad: float) -> None:
    guard = Guard(JOINTS, PLACES)
    state = np.linspace(0, 0.7, 8).astype(np.float32)
    asked = np.repeat(state[None], 3, 0)
    asked[2, 4] = bad
    kept = guard.limit(asked, state)
    np.testing.assert_allclose(kept.actions, np.repeat(state[None], 3, 0), atol=1e-7)
    assert kept.stopped == "the actions hold NaN or infinity: ['joint_5']"
    state[0] = bad
    kept = guard.limit(np.zeros((3, 8), np.float32), state, previous=np.ones(8, np.float32))
    np.testing.assert_array_equal(kept.actions, 1)
    assert kept.stopped == "the state holds NaN or infinity: ['joint_1']"


def test_a_stop_lasts_until_it_is_released() -> None:
    guard = Guard(HAND, STEPS)
    guard.stop("emergency button")
    guard.stop("later reason")
    for _ in range(2):
        kept = guard.limit(_chunk(3, dx=1), START)
        assert kept.stopped == "emergency button" and not kept.actions.any()
    guard.release()
    assert guard.limit(_chunk(3, dx=1), START).stopped is None


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_no_chunk_gets_past(seed: int) -> None:
    """Whatever is asked, the path stays in the box (from inside it) and under the speeds."""
    random = np.random.default_rng(seed)
    asked = (random.normal(size=(12, 4)) * 10 ** random.uniform(-2, 4)).astype(np.float32)
    state = np.array([random.uniform(-0.1, 0.1), 0, random.uniform(0.05, 0.4), 0], np.float32)
    kept = Guard(HAND, STEPS).limit(asked, state).actions
    path = state[:3] + np.cumsum(kept[:, :3].astype(np.float64) * 0.01, axis=0)
    assert (np.abs(path[:, 0]) <= 0.1 + 1e-5).all() and ((path[:, 2] >= 0.05 - 1e-5) & (path[:, 2] <= 0.4 + 1e-5)).all()
    assert (np.abs(kept[:, 0]) <= 1 + 1e-5).all() and (np.abs(kept[:, 1]) <= 0.5 + 1e-5).all()


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(ranges={"dw": (0.0, 1.0)}), r"ranges name \['dw'\]"),
        (Limits(workspace={"x": (0.0, 1.0)}), r"workspace name \['x'\].*moves"),
        (Limits(moves={"dx": Move("w")}), r"states name \['w'\]"),
    ],
)
def test_limits_of_another_robot_are_refused(limits: Limits, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Guard(HAND, limits)


def test_a_robot_that_cant_be_held_is_refused() -> None:
    with pytest.raises(ValueError, match=r"actions \['gripper'\] are places of nothing"):
        Guard(replace(JOINTS, state_names=JOINTS.state_names[:-1]), Limits())
    turning = replace(EMBODIMENTS["rdt2"].contract, state_names=("x",))
    with pytest.raises(ValueError, match="turns by steps of rotation_6d, whose zeros are no rotation"):
        Guard(turning, Limits())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"workspace": {"x": [1, 0]}}, "1.0 is not below 0.0"),
        ({"speeds": {"x": 0}}, "not above 0"),
        ({"moves": {"dx": {"state": "x", "gain": 0}}}, "gains"),
        ({"stale_after_s": -1}, "stale after"),
        ({"box": {}}, r"\['box'\] are unknown"),
        ({"ranges": {"x": 3}}, "map names to"),
        ({"moves": {"dx": "x"}}, "map names to"),
    ],
)
def test_limits_that_make_no_sense_are_refused(values: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Limits.from_dict(values)


def test_limits_are_json() -> None:
    assert Limits.from_dict(json.loads(json.dumps(STEPS.to_dict()))) == STEPS
    assert Limits.from_dict({}) == Limits()


def test_chunks_of_another_robot_are_refused() -> None:
    with pytest.raises(ValueError, match="the contract has 4 and 4 numbers"):
        Guard(HAND, STEPS).limit(np.zeros((3, 7), np.float32), START)


def test_what_is_wrong_with_an_observation_is_listed() -> None:
    images = {name: np.zeros((8, 8, 3), np.uint8) for name in HAND.cameras}
    good = RobotObservation(images, START, "reach")
    assert check_observation(HAND, good) == []
    bad = replace(
        good, images={"right": images["right"]}, state=np.array([0, np.nan, 0, 0], np.float32), instruction=" "
    )
    assert [line.split(":")[0] for line in check_observation(HAND, bad)] == [
        "cameras ['left'] are missing; there are ['right']",
        "state",
        "instruction",
    ]
