"""What every embodiment has: the contract of its robot, and the way of its numbers to a model and back.

In a model's numbers a high gripper always opens, rotations of a state are 6-D, and where `relative` is set actions say
how to move from where the robot is when a chunk begins. The two directions of a robot stand side by side in its file.
Pictures are taken as they come: a contract's `image_turn` says how they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Shaped

from gemvlm.robot.contract import ActionContract


@runtime_checkable
class Embodiment(Protocol):
    """A robot's numbers ⇄ a model's. Leading axes are free, so whole episodes are converted at once.

    `state_size` and `action_size` are the model's; the robot's are the lengths of the contract's names.
    """

    @property
    def contract(self) -> ActionContract: ...

    @property
    def state_size(self) -> int: ...

    @property
    def action_size(self) -> int: ...

    @property
    def relative(self) -> bool:
        """Whether a chunk's actions depend on the state at its beginning."""
        ...

    def to_model(
        self, state: Float[np.ndarray, "*batch S"], actions: Float[np.ndarray, "*batch H A"] | None = None
    ) -> tuple[Float32[np.ndarray, "*batch s"], Float32[np.ndarray, "*batch H a"] | None]:
        """The state at the beginning of a chunk and its actions, as a model sees them, not yet normalised."""
        ...

    def to_robot(
        self, actions: Float[np.ndarray, "*batch H a"], state: Float[np.ndarray, "*batch S"]
    ) -> Float32[np.ndarray, "*batch H A"]:
        """Undoes `to_model` for actions; `state` is the robot's own, at the chunk's beginning."""
        ...


@dataclass(frozen=True)
class Plain:
    """A robot whose numbers go to the model as they are: what a new robot starts from."""

    contract: ActionContract
    relative: bool = False

    def __post_init__(self) -> None:
        if self.relative:
            raise ValueError("a plain embodiment has no relative actions; write an embodiment of its own")

    @property
    def state_size(self) -> int:
        return len(self.contract.state_names)

    @property
    def action_size(self) -> int:
        return len(self.contract.action_names)

    def to_model(
        self, state: Float[np.ndarray, "*batch S"], actions: Float[np.ndarray, "*batch H A"] | None = None
    ) -> tuple[Float32[np.ndarray, "*batch s"], Float32[np.ndarray, "*batch H a"] | None]:
        check_sizes(self.contract, state, actions)
        return state.astype(np.float32), None if actions is None else actions.astype(np.float32)

    def to_robot(
        self, actions: Float[np.ndarray, "*batch H a"], state: Float[np.ndarray, "*batch S"]
    ) -> Float32[np.ndarray, "*batch H A"]:
        check_sizes(self.contract, state, actions)
        return actions.astype(np.float32)


def check_sizes(
    contract: ActionContract, state: Float[np.ndarray, "*batch S"], actions: Float[np.ndarray, "*batch H A"] | None
) -> None:
    """ValueError unless state and actions have as many numbers as the contract has names."""
    pairs = (("state", state, contract.state_names), ("action", actions, contract.action_names))
    for what, values, names in pairs:
        if values is not None and values.shape[-1] != len(names):
            raise ValueError(
                f"{contract.embodiment}: {values.shape[-1]} numbers of {what}, but the contract names {len(names)}: "
                f"{list(names)}; is this data of another robot?"
            )


def mirrored(picture: Shaped[np.ndarray, "H W *channels"]) -> Shaped[np.ndarray, "H W *channels"]:
    """A picture (or a map of depth or ids) with left and right exchanged; its own inverse."""
    return np.ascontiguousarray(picture[:, ::-1])
