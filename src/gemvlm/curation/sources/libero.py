"""Samples from LIBERO's four suites of ten tasks (`make worlds-libero`): the start, three places, the goals reached.

LIBERO's code is under MIT, its data sets under CC BY 4.0; its meshes and textures come from several publishers on terms
of their own (github.com/Lifelong-Robot-Learning/LIBERO at 8f1084e says nothing about them), so samples have no SPDX id.
Goals are brought about by the state of the simulation, not by a robot: pictures show what stands where, not how it got
there. A folder of assets with stand-ins is named so in every sample's provenance. Starts are drawn by LIBERO's own
sampler: policies are tested on the official ones, and one that stands on a GEM of this set must not have seen them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from gemvlm.camera import View
from gemvlm.curation.questions.wording import pick, shuffled
from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.simulated_task import Sheet, Told, picture_sample, video_sample, views_sample
from gemvlm.sample import Provenance, Sample, Turn
from gemvlm.worlds.libero import SUITES, LiberoWorld, stand_ins, task_names, versions
from gemvlm.worlds.libero.history import goal_history
from gemvlm.worlds.libero.names import instruction, place_words
from gemvlm.worlds.mujoco_view import Drawing
from gemvlm.worlds.viewpoints import Orbit

LICENCE = "LicenseRef-LIBERO-assets"
VERSION = "2"
"""Of our words and viewpoints."""
TASKS_PER_SUITE, STATES = 10, 50
DRAWN = 2**31
"""Seeds of LIBERO's sampler that may be named."""
STATES_PER_PART = 10
ORBIT = Orbit(azimuth_deg=(-65.0, 65.0), elevation_deg=(25.0, 60.0), distance_m=(0.9, 1.3))
"""From the side across from the robot."""
VIEWS, DRAWS = 3, 8
SEEN_WELL, SEEN_LARGE = 0.5, 0.01
"""Share of a thing's own pixels, or of the picture: a closed drawer shows only its front."""
SMALL = (64, 64)
MAIN = "agentview"


@dataclass(frozen=True)
class LiberoSource:
    """`states` starts of each task of `suites`, with LIBERO's meshes and textures from `assets`.

    Starts are drawn by LIBERO's sampler from the seeds `first_state` on; with `official` they are the official initial
    states of these numbers. A start gives a picture, the same from three places, and, where its goals can be brought
    about, a picture of the end, the whole and two of its moments in any order. `size` is (height, width) in pixels;
    `drawing` "plain" needs no OpenGL. ValueError for unknown suites; `parts` raises ImportError where LIBERO is not
    installed.
    """

    assets: Path | str
    suites: tuple[str, ...] = SUITES
    states: int = 1
    first_state: int = 0
    official: bool = False
    size: tuple[int, int] = (256, 256)
    turns_per_family: int = 2
    drawing: Drawing = "opengl"
    name: str = "libero"

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.suites) - set(SUITES)):
            raise ValueError(f"libero: suites {unknown} are unknown; choose from {SUITES}")
        end = self.first_state + self.states
        if self.states < 1 or not 0 <= self.first_state < end <= (STATES if self.official else DRAWN):
            raise ValueError(
                f"libero: first_state {self.first_state} and states {self.states} must name some of the "
                f"{f'{STATES} official states' if self.official else f'{DRAWN:,} seeds of drawn ones'}"
            )
        if min(self.size) < 1:
            raise ValueError(f"libero: size {self.size} (height, width) must be positive")

    def parts(self) -> Sequence[str]:
        """A suite, a task and a range of starts each: "libero_goal:3:0-9". ValueError if the assets are not there."""
        if not (Path(self.assets) / "scenes").is_dir():
            raise ValueError(f"{self.assets}: no folder of LIBERO assets (no subfolder 'scenes'); give its path")
        task_names(self.suites[0])
        end = self.first_state + self.states
        starts = range(self.first_state, end, STATES_PER_PART)
        return [
            f"{suite}:{index}:{a}-{min(a + STATES_PER_PART, end) - 1}"
            for suite in self.suites
            for index in range(TASKS_PER_SUITE)
            for a in starts
        ]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        if part not in self.parts():
            raise ValueError(f"libero: no part {part!r}; parts are such as {self.parts()[0]!r}")
        suite, index, states = part.split(":")
        first, last = (int(state) for state in states.split("-"))
        world = LiberoWorld(suite, int(index), self.assets, drawing=self.drawing)
        try:
            for state in range(first, last + 1):
                (world.reset if self.official else world.draw)(state)
                yield from self._episode(world)
        finally:
            world.close()

    def _episode(self, world: LiberoWorld) -> Iterator[Sample | Rejection]:
        state = f"state {world.state_index}" if world.drawn is None else f"drawn from seed {world.drawn}"
        record = f"{world.suite}, task {world.index}, {state}"
        provenance = Provenance(_version(self.assets), "", LICENCE, record)
        sheet = Sheet(self.name, world.name, provenance, self.turns_per_family)
        views = self._viewpoints(world)
        yield picture_sample(sheet, "start", world.observe(views[0]), _can_put_in(world, sheet.key("start")))
        yield views_sample(sheet, "views", [world.observe(view) for view in views])
        history, reached = goal_history(world, views[0], self.size)
        if not reached:
            words = "; ".join(world.goal_words(goal) for goal in world.goals)
            detail = f"{record}: the goal does not come about by itself ({words}); only its start is used"
            yield Rejection("import", "goal_not_reached", detail, f"{self.name}-{world.name}-video", record)
            return
        last = len(history.observations) - 1
        done = (False, *(None,) * (last - 1), True if world.succeeded() else None)
        told = Told(history, done, _other_tasks(world))
        yield picture_sample(sheet, "end", history.observations[last], _can_put_in(world, sheet.key("end")))
        yield video_sample(sheet, "video", told, tuple(range(last + 1)))
        if last > 1:
            yield video_sample(sheet, "begun", told, tuple(range(last)))
        rng = np.random.default_rng(sheet.key("order"))
        yield video_sample(sheet, "order", told, tuple(int(i) for i in rng.permutation([0, last])), ordered=False)

    def _viewpoints(self, world: LiberoWorld) -> list[View]:
        """Three places, the suite's own view among them, from which the task's things are well seen, if there are."""
        start = world.state_index if world.drawn is None else world.drawn
        rng = np.random.default_rng((start, world.index, SUITES.index(world.suite)))
        things = {thing for goal in world.goals if (thing := world.thing_of(goal[1])) is not None}
        centres = [world.view.box(world.data, thing).center for thing in sorted(things)]
        own = world.named_view(MAIN, self.size)
        middle = np.mean([*centres, world.centre()], axis=0)
        found: list[View] = []
        for _ in range(DRAWS * VIEWS):
            view = ORBIT.draw(rng, middle, self.size)
            small = View(view.camera.resized(SMALL[1], SMALL[0]), view.camera_to_world)
            seen = world.view.visible_shares(world.data, small)
            if all(seen[thing][0] >= SEEN_WELL or seen[thing][1] >= SEEN_LARGE for thing in things):
                found.append(view)
            if len(found) == VIEWS - 1:
                break
        return shuffled([own, *found], rng) if found else [own]


def _can_put_in(world: LiberoWorld, key: tuple[int, int]) -> list[Turn]:
    """Can something be put in there as things are (P5)? Yes if LIBERO calls it open, no if it is shut; one of each."""
    rng = np.random.default_rng((*key, 2))
    regions = world.compartments()
    yes = [name for name in regions if world.holds(("open", name))]
    no = [name for name in regions if world.is_shut(name)]
    turns = []
    for a, b in zip(shuffled(yes, rng), shuffled(no, rng), strict=False):
        for name, answer in shuffled([(a, "yes"), (b, "no")], rng):
            place = place_words(name)
            question = pick(
                (
                    f"Could something be put in the {place} right now, without opening anything?",
                    f"As things are, is the {place} open enough to put something in?",
                ),
                rng,
            )
            turns.append(Turn(question, answer, "can_put_in", "planning", "yes_no"))
    return turns


def _other_tasks(world: LiberoWorld) -> tuple[str, ...]:
    """The suite's other instructions, where all ten are about one scene."""
    if world.suite != "libero_goal":
        return ()
    return tuple(instruction(task) for index, task in enumerate(task_names(world.suite)) if index != world.index)


@cache
def _version(assets: Path | str) -> str:
    made = stand_ins(assets)
    kind = f"assets with {made} stand-ins: not LIBERO's pictures" if made else "LIBERO's assets"
    return f"{versions()}, names {VERSION}, {kind}"
