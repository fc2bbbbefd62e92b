"""Contracts that differ are told apart field by field; how firmly the rest of a chunk stands."""

from dataclasses import replace

import numpy as np
import pytest

from gemvlm.robot import ActionContract, Committed

PANDA = ActionContract(
    embodiment="panda",
    state_names=("x", "y", "z"),
    action_names=("dx", "dy", "dz", "gripper"),
    control="delta",
    rotation="none",
    gripper="high_closes",
    rate_hz=20.0,
    cameras=("front",),
)


def test_equal_contracts_do_not_differ():
    assert PANDA.differences(replace(PANDA)) == []


def test_each_differing_field_is_told_with_both_values():
    other = replace(PANDA, gripper="high_opens", image_turn="half")
    assert PANDA.differences(other) == [
        "gripper: 'high_closes' here, 'high_opens' there",
        "image_turn: 'none' here, 'half' there",
    ]


def test_what_is_committed_stands_and_the_rest_ever_less():
    """Two of six fixed: the published exponential of 4/5, 3/5, 2/5 and 1/5."""
    left = np.array([1, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5])
    weights = Committed(np.zeros((6, 2), np.float32), 2).weights
    np.testing.assert_allclose(weights, left * np.expm1(left) / np.expm1(1), rtol=1e-6)
    assert Committed(np.zeros((3, 2), np.float32), 3).weights.tolist() == [1, 1, 1]


@pytest.mark.parametrize("fixed", [0, 4])
def test_at_least_one_action_and_at_most_all_are_fixed(fixed: int):
    with pytest.raises(ValueError, match="at least 1 and at most all"):
        Committed(np.zeros((3, 2), np.float32), fixed)
