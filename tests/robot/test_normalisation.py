"""Statistics of states and actions, and normalisation by them."""

from __future__ import annotations

import json
import pickle
import time
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemvlm.robot import statistics
from gemvlm.robot.statistics import Method, Normalisation, Normaliser, Statistics, published_action_statistics

RNG = np.random.default_rng(3)
ROWS = (RNG.normal(size=(5000, 4)) * [1, 10, 0.1, 0] + [0, 5, -2, 7]).astype(np.float32)


def test_statistics_are_those_of_numpy_however_the_rows_are_cut() -> None:
    whole = Statistics.of([ROWS])
    parts = Statistics.of(np.split(ROWS, [1, 70, 71, 1000, 1000, 4990]), names=("a", "b", "c", "d"))
    exact = ROWS.astype(np.float64)
    for own in (whole, parts):
        np.testing.assert_allclose(own.mean, exact.mean(0), rtol=1e-12)
        np.testing.assert_allclose(own.std, exact.std(0), rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(own.minimum, exact.min(0))
        np.testing.assert_array_equal(own.maximum, exact.max(0))
        np.testing.assert_allclose([own.q01, own.q99], np.quantile(exact, [0.01, 0.99], axis=0))
    assert (whole.count, whole.names, parts.names) == (5000, (), ("a", "b", "c", "d"))


def test_quantiles_of_long_sets_come_from_evenly_spread_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "KEPT_ROWS", 1000)
    ramp = np.arange(100_000, dtype=np.float32)[:, None]
    own = Statistics.of(np.split(ramp, range(777, 100_000, 777)))
    assert abs(own.q01[0] - 1000) < 300 and abs(own.q99[0] - 99_000) < 300
    assert (own.minimum[0], own.maximum[0], own.count) == (0, 99_999, 100_000)
    np.testing.assert_allclose(own.mean, 49_999.5)


def test_a_million_rows_take_seconds() -> None:
    rows = RNG.normal(size=(250_000, 14)).astype(np.float32)
    begin = time.process_time()
    Statistics.of([rows] * 4)
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("method", ["mean_std", "min_max", "quantiles"])
def test_normalise_and_back(method: statistics.Method) -> None:
    own = Normaliser(Statistics.of([ROWS]), method)
    values = ROWS.reshape(50, 100, 4)
    scaled = own.normalise(values)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(own.denormalise(scaled), values, rtol=1e-5, atol=1e-5)
    if method == "mean_std":
        np.testing.assert_allclose(scaled.reshape(-1, 4).std(0), [1, 1, 1, 0], atol=1e-3)
    else:
        inside = np.mean(np.abs(scaled[..., :3]) <= 1 + 1e-5)
        assert inside == 1 if method == "min_max" else 0.97 < inside < 0.99


@given(st.integers(0, 2**32 - 1), st.sampled_from(["mean_std", "min_max", "quantiles"]))
@settings(max_examples=30, deadline=None)
def test_any_value_comes_back(seed: int, method: statistics.Method) -> None:
    """Also far outside the range that was seen, and where a number never changed."""
    random = np.random.default_rng(seed)
    own = Normaliser(Statistics.of([ROWS]), method)
    values = random.uniform(-100, 100, (7, 4)).astype(np.float32)
    np.testing.assert_allclose(own.denormalise(own.normalise(values)), values, rtol=1e-4, atol=1e-4)


def test_a_number_that_hardly_ever_changes_is_not_blown_up() -> None:
    """A gripper that is closed in 1 step of 200, beside a number that never changes and one that does."""
    rows = np.zeros((1000, 3), np.float32)
    rows[::200, 0], rows[:, 1], rows[:, 2] = 1, 7, np.linspace(-3, 3, 1000)
    normaliser = Normaliser(Statistics.of([rows]), "quantiles")
    assert np.abs(normaliser.normalise(rows)).max() < 1.1
    np.testing.assert_allclose(normaliser.denormalise(normaliser.normalise(rows)), rows, atol=1e-6)
    np.testing.assert_allclose(normaliser.normalise(rows)[[0, 1], 0], [1, -1])


def test_the_authors_file_gives_the_authors_numbers() -> None:
    low, high = np.array([-0.5, 0.0, 2.0]), np.array([0.5, 1e-5, 6.0])
    text = json.dumps(
        {
            "action_count": 10,
            "action_mean": [0, 0, 4],
            "action_std": [1, 0, 1],
            "action_min": low.tolist(),
            "action_max": high.tolist(),
        }
    )
    own = Normaliser(published_action_statistics(text), "min_max")
    actions = RNG.uniform(-1, 6, (20, 3)).astype(np.float32)
    theirs = 2 * (actions - low) / np.maximum(high - low, 1e-3) - 1
    np.testing.assert_allclose(own.normalise(actions), theirs, rtol=1e-5, atol=1e-5)


def test_scale_and_offset_give_their_numbers() -> None:
    scale, offset = [2.0, 0.25, 2000.0], [-1.0, 3.0, 0.5]
    own = Normaliser(published_action_statistics(json.dumps({"action": {"scale": scale, "offset": offset}})), "min_max")
    actions = RNG.uniform(-1, 1, (20, 3)).astype(np.float32)
    np.testing.assert_allclose(own.normalise(actions), actions * scale + offset, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("method", get_args(Method))
def test_statistics_of_no_rows_leave_numbers_as_they_are(method: Method) -> None:
    own = Normaliser(Statistics.identity(4), method)
    rows = (ROWS * 100).astype(np.float32)
    np.testing.assert_array_equal(own.normalise(rows), rows)
    np.testing.assert_array_equal(own.denormalise(rows), rows)


def test_a_missing_field_is_an_error_that_lists_those_there() -> None:
    """A5 and needs 1.12: never raw numbers in silence, and no file that nothing produces."""
    table = Normalisation("quantiles", {"action": Statistics.of([ROWS]), "state": Statistics.of([ROWS[:, :2]])})
    with pytest.raises(ValueError, match=r"no statistics of 'proprio'; there are \['action', 'state'\]"):
        table["proprio"]
    with pytest.raises(ValueError, match="2 numbers, but the statistics are of 4"):
        table["action"].normalise(ROWS[:, :2])
    with pytest.raises(ValueError, match="q99"):
        Statistics.from_dict({key: value for key, value in table.to_dict()["fields"]["action"].items() if key != "q99"})


def test_the_checkpoint_file_is_json_and_exact() -> None:
    table = Normalisation("quantiles", {"action": Statistics.of([ROWS], names=("a", "b", "c", "d"))})
    again = Normalisation.from_dict(json.loads(json.dumps(table.to_dict())))
    assert again.method == "quantiles" and again.fields["action"].names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(again["action"].normalise(ROWS), table["action"].normalise(ROWS))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "not one row"),
        ([np.zeros((0, 3), np.float32)], "not one row"),
        ([np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)], "4 columns after 3"),
        ([ROWS, np.array([[0, 0, np.nan, 0]], np.float32)], "row 5000, column 2 is NaN"),
    ],
)
def test_bad_rows_are_refused(rows: list[np.ndarray], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Statistics.of(rows)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "a JSON object is needed"),
        ('{"action_mean": [1]}', "action_count"),
        ('{"proprio": {"scale": [1], "offset": [1]}}', "there are .'proprio'."),
        ('{"action": {"scale": [0], "offset": [1]}}', "scales must lie in"),
        ('{"action": {"scale": ["x"], "offset": [1]}}', "not a list of numbers"),
        ('{"action": {"scale": [1, 2], "offset": [1]}}', "two equal vectors"),
    ],
)
def test_bad_files_are_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        published_action_statistics(text)


def test_workers_can_have_them() -> None:
    own = Normaliser(Statistics.of([ROWS]), "quantiles")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(own)).normalise(ROWS), own.normalise(ROWS))
