"""What a world shows at one moment, with the truth behind it: the contract between worlds and question writers.

The world frame has z up, in metres. Everything a question may need is here; nothing here names a simulator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int16, UInt8

from gemvlm.camera import View
from gemvlm.depth_map import DepthMap


@dataclass(frozen=True)
class OrientedBox:
    """A box in the world frame: columns of `rotation` are its axes, `half_extents` (metres) lie along them."""

    center: Float[np.ndarray, "3"]
    rotation: Float[np.ndarray, "3 3"]
    half_extents: Float[np.ndarray, "3"]

    def corners(self) -> Float[np.ndarray, "8 3"]:
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        return self.center + (signs * self.half_extents) @ self.rotation.T


@dataclass(frozen=True)
class ObjectState:
    """One object or structure as it is now.

    `id` is its value in `Observation.ids`. `category` is the shape ("mug"), `colour` a colour word; structures (table,
    shelf, wall, floor) have `movable` False. `supported_by` names the ids that carry it by contact (several if it leans
    on several; empty if it hangs, and `hanging` is then True). `visible_fraction` is visible pixels over the pixels of
    the object rendered alone in the same view, 0 if out of view.
    """

    id: int
    category: str
    colour: str
    box: OrientedBox
    movable: bool
    visible_fraction: float
    visible_pixels: int
    supported_by: tuple[int, ...] = ()
    hanging: bool = False

    @property
    def name(self) -> str:
        """Colour and category, "red mug"; the category alone where there is no colour word."""
        return f"{self.colour} {self.category}".strip()


@dataclass(frozen=True)
class Observation:
    """One finished view: colour, exact z-depth, instance ids (0 = nothing), camera, and every object's state."""

    image: UInt8[np.ndarray, "H W 3"]
    depth: DepthMap
    ids: Int16[np.ndarray, "H W"]
    view: View
    objects: tuple[ObjectState, ...]
    scene: str


@dataclass(frozen=True)
class Event:
    """One thing that was done to an object, between two observations of a `History`.

    `action` is a verb ("pick", "place", "push", "stack", "open", ...), `words` the whole in English ("put the red mug
    on the blue box"). It began after observation `start` and was over at observation `end`.
    """

    action: str
    words: str
    object_id: int
    start: int
    end: int
    succeeded: bool
    target_id: int | None = None


@dataclass(frozen=True)
class History:
    """Several observations of one scene: one moment from several places, or moments of a video with their `times_s`.

    `task` is the instruction that was followed, "" if none. Ids of objects mean the same in every observation.
    """

    observations: tuple[Observation, ...]
    times_s: tuple[float, ...] | None = None
    events: tuple[Event, ...] = ()
    task: str = ""
