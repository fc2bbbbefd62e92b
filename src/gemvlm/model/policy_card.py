"""What a policy's checkpoint says of itself: `gem_vla.json`, a checkpoint's card that also knows its robot.

Loading it must need nothing else: no pickle, no file of statistics apart, no flag that a user must remember (A5, C1 of
the release). What its actions mean stands in `contract`, how large they are in `normalisation`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gemvlm.model.card import CheckpointCard
from gemvlm.model.config import fields_of
from gemvlm.model.gem_vla import GemVlaConfig
from gemvlm.robot import ActionContract
from gemvlm.robot.statistics import Normalisation

POLICY_FILE = "gem_vla.json"


@dataclass(frozen=True, kw_only=True)
class PolicyCard(CheckpointCard):
    """`embodiment` names the way of the robot's numbers to the model and back (`robot.embodiments.open_embodiment`).

    `system` is the system text of every prompt. `flow_steps` Euler steps make a chunk, with this `guidance`, and
    `executed` of its actions are meant to be carried out before the next chunk is asked for. `data` says what was
    learned from: the set's hash, how many episodes, and which were held out.
    """

    model: GemVlaConfig  # type: ignore[assignment]
    contract: ActionContract
    embodiment: str
    normalisation: Normalisation
    system: str | None
    flow_steps: int
    executed: int
    guidance: float
    data: Mapping[str, Any]

    FILE: ClassVar[str] = POLICY_FILE

    def to_dict(self) -> dict[str, Any]:
        own = {"contract": dataclasses.asdict(self.contract), "normalisation": self.normalisation.to_dict()}
        return super().to_dict() | own

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> PolicyCard:
        contract = fields_of(ActionContract, fields["contract"])
        tuples = {name: tuple(value) for name, value in contract.items() if isinstance(value, list)}
        read = {
            "model": GemVlaConfig.from_dict(fields["model"]),
            "contract": ActionContract(**{**contract, **tuples}),
            "normalisation": Normalisation.from_dict(fields["normalisation"]),
            "trained_groups": tuple(fields["trained_groups"]),
        }
        return cls(**{**fields, **read})

    @classmethod
    def read(cls, folder: Path) -> PolicyCard:
        card = super().read(folder)
        assert isinstance(card, cls)
        return card
