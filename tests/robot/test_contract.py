"""Contracts that differ are told apart field by field."""

from dataclasses import replace

from gemvlm.robot import ActionContract

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
