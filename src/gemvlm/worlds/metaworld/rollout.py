"""The package's scripted expert at a task, as a history with its steps told by contact and by success."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from gemvlm.camera import View
from gemvlm.worlds.metaworld.world import MetaWorld
from gemvlm.worlds.observation import Event, History

SETTLING_STEPS = 5
STEP_S = 0.0125
"""Of simulated time per action: five physics steps of 2.5 ms."""
MOVED_M = 0.01
FINISHING_STEPS = 40
"""After the first success: the package counts a lid as on its box while it still hangs over it."""


def rollout(world: MetaWorld, camera: str | View, size: tuple[int, int], frames: int = 6) -> History:
    """Up to `frames` (at least 3) moments from the start to half a second after success, or to the horizon without one.

    The last moment of a success is one at which the package calls the task done.

    The events are "reach" (until the gripper first touches the target) and the task's own verb (until it is done); both
    begin and end at a moment that is shown. The world is reset first.
    """
    if frames < 3:
        raise ValueError(f"rollout: {frames} frames can't show start, touch and end; ask for 3 or more")
    world.reset()
    for _ in range(SETTLING_STEPS):
        world.step(np.zeros(world.action_size))
    target, robot = world.id_of(world.task.target), world.id_of("robot")
    assert target is not None and robot is not None
    snapshots = [world.snapshot()]
    touch: int | None = None
    start = world.view.box(world.data, target).center
    ahead = world.horizon - SETTLING_STEPS - 1
    finish = last_done = 0
    while len(snapshots) <= ahead and (not finish or len(snapshots) <= finish):
        done = world.step(world.expert_action())
        snapshots.append(world.snapshot())
        if done:
            last_done = len(snapshots) - 1
            finish = finish or last_done + FINISHING_STEPS
        moved = np.linalg.norm(world.view.box(world.data, target).center - start) > MOVED_M
        touches = (min(target, robot), max(target, robot)) in world.view.touching(world.data)
        if touch is None and (moved or touches):
            touch = len(snapshots) - 1
    last, succeeded = last_done or len(snapshots) - 1, bool(last_done)
    shown = sorted({0, last, *([] if touch is None else [touch]), *_between(0, last, frames)})
    seen = []
    for index in shown:
        world.restore(snapshots[index])
        seen.append(world.observe(camera, size))
    end = len(shown) - 1
    events = []
    reached = shown.index(touch) if touch in shown else None
    thing = world.view.things[target - 1]
    if reached:
        name = f"{thing.colour} {thing.category}".strip()
        events.append(Event("reach", f"reach for the {name}", target, 0, reached, True))
    if world.task.verb != "reach":
        place = world.id_of(world.task.place) if world.task.place else None
        events.append(Event(world.task.verb, world.instruction, target, reached or 0, end, succeeded, place))
    times = tuple(index * STEP_S for index in shown)
    return History(tuple(seen), times, tuple(events), world.instruction)


def _between(first: int, last: int, count: int) -> list[int]:
    spread: Float[np.ndarray, "count"] = np.linspace(first, last, count - 1)
    return [round(float(index)) for index in spread]
