"""Robots by name: one file each, its numbers to a model and back side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gemvlm.robot.contract import ActionContract
from gemvlm.robot.embodiments.bimanual import BimanualArms
from gemvlm.robot.embodiments.bridge import BridgeWidowX
from gemvlm.robot.embodiments.embodiment import Embodiment, Plain, mirrored
from gemvlm.robot.embodiments.joint_arm import JointArm
from gemvlm.robot.embodiments.libero import LiberoPanda
from gemvlm.robot.embodiments.metaworld import MetaWorldArm
from gemvlm.robot.embodiments.rdt2 import Rdt2Hands

EMBODIMENTS: Mapping[str, Embodiment] = {
    "metaworld": MetaWorldArm(),
    "libero": LiberoPanda(),
    "libero_turned": LiberoPanda(replace(LiberoPanda().contract, image_turn="half")),
    "bimanual": BimanualArms(),
    "bimanual_relative": BimanualArms(relative=True),
    "bridge": BridgeWidowX(),
    "joint_arm": JointArm(),
    "rdt2": Rdt2Hands(),
}
PLAIN = "plain"
"""The name of an embodiment that is nothing but its contract."""


def open_embodiment(name: str, contract: ActionContract | None = None) -> Embodiment:
    """The embodiment that a checkpoint or a user names, on a robot of this contract (by default, its own).

    Cameras, rate and the pictures' turn may be the robot's own; ValueError if anything else differs, or for a name that
    is neither in `EMBODIMENTS` nor "plain" with a contract.
    """
    if name == PLAIN and contract is not None:
        return Plain(contract)
    if name not in EMBODIMENTS:
        raise ValueError(f"embodiment {name!r} is not one of {sorted(EMBODIMENTS)}, nor {PLAIN!r} with a contract")
    known = EMBODIMENTS[name]
    if contract is None:
        return known
    same = replace(known.contract, cameras=contract.cameras, rate_hz=contract.rate_hz, image_turn=contract.image_turn)
    if wrong := same.differences(contract):
        raise ValueError(f"embodiment {name!r} does not fit this contract: {'; '.join(wrong)}")
    return replace(known, contract=contract)  # type: ignore[type-var]  # every one of them is a frozen dataclass


__all__ = ["EMBODIMENTS", "PLAIN", "Embodiment", "Plain", "mirrored", "open_embodiment"]
