"""A task of LIBERO as a history: the start, and the scene after each of its goals has been brought about."""

from __future__ import annotations

from gemvlm.camera import View
from gemvlm.worlds.libero.world import Goal, LiberoWorld
from gemvlm.worlds.observation import Event, History

VERBS = {"on": "put", "in": "put", "open": "open", "close": "close", "turnon": "turn on", "turnoff": "turn off"}

STEP_S = 5.0
"""About what a robot needs for one goal: the moments are in order, but nothing was filmed."""


def goal_history(world: LiberoWorld, camera: str | View, size: tuple[int, int]) -> tuple[History, tuple[Goal, ...]]:
    """Observations from one place before and after each goal, and the goals in the order in which they came about.

    Drawers are opened before and closed after things go in. It ends at the first goal that can't be brought about by
    itself: an event is there only if LIBERO's predicate holds at its end. The world is reset first.
    """
    world.reset()
    seen = [world.observe(camera, size)]
    times = [0.0]
    events: list[Event] = []
    reached: list[Goal] = []
    for goal in _plan(world):
        if not world.fulfil(goal):
            break
        seen.append(world.observe(camera, size))
        reached.append(goal)
        times.append(times[-1] + STEP_S)
        subject, place = world.thing_of(goal[1]), world.thing_of(goal[2]) if len(goal) > 2 else None
        step = len(seen) - 1
        if subject is not None:
            words = world.goal_words(goal)
            events.append(Event(VERBS[goal[0]], words, subject, step - 1, step, True, place))
    return History(tuple(seen), tuple(times), tuple(events), world.instruction), tuple(reached)


def _plan(world: LiberoWorld) -> list[Goal]:
    """The goals that don't hold yet, with the openings that they need, in an order that works."""
    todo = sorted((goal for goal in world.goals if not world.holds(goal)), key=lambda goal: goal[0] == "close")
    plan: list[Goal] = []
    for goal in todo:
        if goal[0] == "in" and "cabinet" in goal[2] and not world.holds(("open", goal[2])):
            plan.append(("open", goal[2]))
        plan.append(goal)
    return plan
