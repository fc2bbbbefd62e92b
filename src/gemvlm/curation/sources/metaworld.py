"""Samples from Meta-World's 50 tasks (extra `worlds`): the start, three places at once, the scripted expert at work.

The package and its models are MIT-licensed (Farama-Foundation/Metaworld). Pictures come from our own renderer of its
models, without its goal marks, so they are not its pictures.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gemvlm.camera import View
from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.simulated_task import Sheet, Told, picture_sample, video_sample, views_sample
from gemvlm.sample import Provenance, Sample
from gemvlm.worlds.metaworld import ALTERNATIVES, TASKS, MetaWorld
from gemvlm.worlds.metaworld.rollout import rollout
from gemvlm.worlds.mujoco_view import Drawing
from gemvlm.worlds.observation import History
from gemvlm.worlds.viewpoints import Orbit

LICENCE = "MIT"
VERSION = "1"
"""Of our words and viewpoints."""
EPISODES_PER_PART = 10
ORBIT = Orbit(azimuth_deg=(-35.0, 215.0), elevation_deg=(25.0, 60.0), distance_m=(0.75, 1.25))
"""From everywhere but over the robot's back; drawers, doors and buttons face the robot."""
TABLE_M = np.array([0.0, 0.68, 0.08])
VIEWS, DRAWS = 3, 12
SEEN_WELL, SEEN_LARGE = 0.5, 0.01
"""Share of a thing's own pixels, or of the picture: a closed drawer shows only its front."""
SMALL = (48, 48)


@dataclass(frozen=True)
class MetaWorldSource:
    """`episodes` of each of `tasks` (all, by default), with places drawn from the seeds `first_seed` and on.

    An episode gives a picture of the start, the start from three places, the expert's video, that as far as its first
    touch, and two of its moments in any order. `size` is (height, width) in pixels. `drawing` "plain" needs no OpenGL.
    ValueError for unknown tasks.
    """

    tasks: tuple[str, ...] = tuple(TASKS)
    episodes: int = 1
    first_seed: int = 0
    size: tuple[int, int] = (256, 256)
    turns_per_family: int = 2
    frames: int = 6
    drawing: Drawing = "opengl"
    name: str = "metaworld"

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.tasks) - TASKS.keys()):
            raise ValueError(f"metaworld: tasks {unknown} are unknown; choose from {sorted(TASKS)}")
        if self.episodes < 1 or self.frames < 3 or min(self.size) < 1 or self.first_seed < 0:
            raise ValueError(
                f"metaworld: episodes {self.episodes} must be at least 1, frames {self.frames} at least 3, first_seed "
                f"{self.first_seed} at least 0 and size {self.size} (height, width) positive"
            )

    def parts(self) -> Sequence[str]:
        """A task and a range of seeds each: "door-open-v3:0-9"."""
        end = self.first_seed + self.episodes
        starts = range(self.first_seed, end, EPISODES_PER_PART)
        return [f"{task}:{a}-{min(a + EPISODES_PER_PART, end) - 1}" for task in self.tasks for a in starts]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        if part not in self.parts():
            raise ValueError(f"metaworld: no part {part!r}; parts are such as {self.parts()[0]!r}")
        task, seeds = part.split(":")
        first, last = (int(seed) for seed in seeds.split("-"))
        for seed in range(first, last + 1):
            yield from self._episode(task, seed)

    def _episode(self, task: str, seed: int) -> Iterator[Sample | Rejection]:
        scene, record = f"{task}-{seed}", f"{task}, seed {seed}"
        world = MetaWorld(task, seed, self.drawing)
        try:
            views = self._viewpoints(world, seed)
            if not views:
                detail = f"{record}: from none of {DRAWS * VIEWS} viewpoints can the {world.task.target} be seen well"
                yield Rejection("import", "target_hidden", detail, f"metaworld-{scene}", record)
                return
            history = rollout(world, views[0], self.size, self.frames)
            sheet = Sheet(self.name, scene, Provenance(_version(), "", LICENCE, record), self.turns_per_family)
            yield picture_sample(sheet, "start", history.observations[0])
            world.reset()
            yield views_sample(sheet, "views", [world.observe(view) for view in views])
            told = Told(history, self._done(task, history), _other_tasks(task))
            every = tuple(range(len(history.observations)))
            yield video_sample(sheet, "video", told, every)
            if len(history.events) > 1:
                yield video_sample(sheet, "begun", told, every[: history.events[0].end + 1])
            rng = np.random.default_rng(sheet.key("order"))
            yield video_sample(
                sheet, "order", told, tuple(int(i) for i in rng.permutation([0, every[-1]])), ordered=False
            )
        finally:
            world.close()

    def _viewpoints(self, world: MetaWorld, seed: int) -> list[View]:
        """Three places from each of which the task's thing is well seen; fewer, and none, if that takes too long."""
        rng = np.random.default_rng((seed, sum(world.name.encode())))
        target = world.id_of(world.task.target)
        assert target is not None
        middle = 0.5 * (TABLE_M + world.view.box(world.data, target).center)
        found: list[View] = []
        for _ in range(DRAWS * VIEWS):
            view = ORBIT.draw(rng, middle, self.size)
            small = View(view.camera.resized(SMALL[1], SMALL[0]), view.camera_to_world)
            fraction, share = world.view.visible_shares(world.data, small)[target]
            if fraction >= SEEN_WELL or share >= SEEN_LARGE:
                found.append(view)
            if len(found) == VIEWS:
                break
        return found

    def _done(self, task: str, history: History) -> tuple[bool | None, ...]:
        """False at first, True at the end of a success; None where a picture can't tell."""
        count = len(history.observations)
        if TASKS[task].hidden or not history.events or not history.events[-1].succeeded:
            return (None,) * count
        return (False, *(None,) * (count - 2), True)


def _other_tasks(task: str) -> tuple[str, ...]:
    """Instructions that the same scene would allow and that differ in what is then to be seen."""
    group = next((group for group in ALTERNATIVES if task in group), ())
    return tuple(TASKS[other].instruction for other in group if other != task)


def _version() -> str:
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("metaworld", "mujoco"))
    return f"{packages}, names {VERSION}"
