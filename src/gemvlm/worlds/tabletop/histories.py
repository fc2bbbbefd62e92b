"""Histories of a tabletop: one moment from several places, walks past the table, and things being handled.

Each is a function of the scene, an index and the size alone. A History shows every act's beginning and end; an object
in the hand is seen in the air.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from gemvlm.camera import View
from gemvlm.worlds.observation import Event, History, ObjectState, Observation
from gemvlm.worlds.tabletop.camera_motion import several_views, walk
from gemvlm.worlds.tabletop.handling import Handling
from gemvlm.worlds.tabletop.layout import SceneConfig
from gemvlm.worlds.tabletop.scene import TabletopScene
from gemvlm.worlds.tabletop.script import Plan, Planner, perform, words
from gemvlm.worlds.tabletop.viewpoint import choose_view

WALK_STEP_S = 1.0
SEEN_FRACTION, SEEN_PIXELS = 0.5, 80
"""Of an object that a plan may name, in the first picture."""
LOW_ELEVATION_DEG = (8.0, 22.0)
MAX_DRAWS = 12
_SEVERAL, _WALK, _ACTS, _PLAN = 4, 5, 6, 7
"""Keys of the random streams, beside those of layout, light and single views."""


def look_around(scene: TabletopScene, index: int = 0, views: int = 3, size: tuple[int, int] = (96, 96)) -> History:
    """One moment from `views` places at `size` (height, width) pixels."""
    rng = np.random.default_rng([scene.seed, _SEVERAL, index])
    chosen = several_views(rng, scene.config, scene.layout, _centres(scene), views, size)
    return History(tuple(scene.look(view, rng) for view in chosen))


def walk_past(scene: TabletopScene, index: int = 0, frames: int = 6, size: tuple[int, int] = (96, 96)) -> History:
    """A video of a still scene: the camera passes close by, one frame a second."""
    rng = np.random.default_rng([scene.seed, _WALK, index])
    views = walk(rng, scene.config, scene.layout, _centres(scene), frames, size)
    times = tuple(WALK_STEP_S * i for i in range(frames))
    return History(tuple(scene.look(view, rng) for view in views), times)


@dataclass(frozen=True)
class Episode:
    """Things being handled before a camera that stays; `scenes` holds the whole scene at each observation."""

    history: History
    scenes: tuple[TabletopScene, ...]


def handle(scene: TabletopScene, index: int = 0, acts: int = 2, size: tuple[int, int] = (96, 96)) -> Episode | None:
    """Up to `acts` objects pushed, put elsewhere or dropped; None if nothing could be done in any of the draws.

    Half of the cameras stand low, and there one thing is put before another.
    """
    key = [scene.seed, _ACTS, index]
    low = bool(np.random.default_rng(key).random() < 0.5)
    config = replace(scene.config, elevation_deg=LOW_ELEVATION_DEG) if low else scene.config
    return _play(scene, config, key, size, lambda planner: planner.acts(acts, low))


def follow_plan(scene: TabletopScene, index: int = 0, size: tuple[int, int] = (96, 96)) -> Episode | None:
    """A task carried out step by step, until it is done or a step fails; None if there is none in any of the draws."""
    return _play(scene, scene.config, [scene.seed, _PLAN, index], size, lambda planner: planner.goal())


def _play(
    scene: TabletopScene,
    config: SceneConfig,
    key: list[int],
    size: tuple[int, int],
    draw: Callable[[Planner], Plan | None],
) -> Episode | None:
    for attempt in range(MAX_DRAWS):
        rng = np.random.default_rng([*key, attempt])
        view = choose_view(rng, config, scene.layout, list(_centres(scene)), size)
        first = scene.look(view, rng)
        plan = draw(Planner(scene, [o.id for o in first.objects if _is_well_seen(o)], rng))
        if plan and (episode := _carry_out(scene, plan, view, first, rng)):
            return episode
    return None


def _carry_out(
    scene: TabletopScene, plan: Plan, view: View, first: Observation, rng: np.random.Generator
) -> Episode | None:
    """Every step in turn; one that fails ends a task. None if a step can't be carried out at all."""
    handling = Handling(scene)
    scenes, times = [scene], [0.0]
    events: list[Event] = []

    def note() -> None:
        scenes.append(handling.now())
        times.append(round(handling.time_s, 3))

    for step in plan.steps:
        start = len(scenes) - 1
        succeeded = perform(handling, step, view.camera_to_world[:3, 3], rng, note)
        if succeeded is None:
            return None
        note()
        said = words(step, scene.states())
        end = len(scenes) - 1
        events.append(Event(step.action, said, step.object_id, start, end, succeeded, step.target_id))
        if plan.task and not succeeded:
            break
    observations = (first, *(moment.look(view, rng) for moment in scenes[1:]))
    return Episode(History(observations, tuple(times), tuple(events), plan.task), tuple(scenes))


def _is_well_seen(state: ObjectState) -> bool:
    return state.visible_fraction >= SEEN_FRACTION and state.visible_pixels >= SEEN_PIXELS


def _centres(scene: TabletopScene) -> Float[np.ndarray, "N 3"]:
    return np.stack([state.box.center for state in scene.states() if state.movable])
