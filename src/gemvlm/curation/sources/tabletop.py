"""Samples from the simulated tabletop (extra `worlds`): views, several views at once, videos, things being handled.

`tabletop_samples` gives single views to recipes; `Tabletop` is the source that a curation names.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import islice
from typing import Any

import numpy as np

from gemvlm.curation.questions import FAMILIES, write_questions
from gemvlm.curation.questions.histories import HISTORY_FAMILIES, write_history_questions
from gemvlm.curation.source import Rejection
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.origin import DepthOrigin
from gemvlm.sample import Frame, Provenance, Region, Sample
from gemvlm.worlds.observation import History, Observation
from gemvlm.worlds.tabletop import (
    Episode,
    SceneConfig,
    TabletopScene,
    build_scene,
    follow_plan,
    handle,
    look_around,
    walk_past,
)

WINDOW = 32
"""Scenes per process that may wait for the reader: enough to keep every process busy, little enough for any memory."""
SCENES_PER_PART = 16
VERSION = "2"
"""Of what the tabletop's seeds mean. Views are as in version 1, which had nothing else."""
LICENCE = "Apache-2.0"
_ACTS, _TASK, _ORDER, _VIEWS, _WALK = range(101, 106)
"""Keys of the samples' random streams, beside the numbers of single views."""


def tabletop_samples(
    seeds: Iterable[int],
    views_per_scene: int = 2,
    size: tuple[int, int] = (96, 96),
    config: SceneConfig | None = None,
    processes: int = 1,
    families: Iterable[str] | None = None,
    turns_per_family: int | Mapping[str, int] = 2,
) -> Iterator[Sample]:
    """One sample per view of each seed's scene, in the order of the seeds: the same bytes for any `processes`.

    `size` is (height, width) in pixels. A sample holds up to `turns_per_family` turns of each of `families`
    (`CORE_FAMILIES` by default; description first). `meta["object_mask"]` holds each frame's object pixels as the
    fields of a `Region`. Processes are spawned, so a script that asks for more than one needs the usual
    `if __name__ == "__main__"` guard. ValueError for counts below 1 and for unknown families.
    """
    if views_per_scene < 1 or processes < 1:
        raise ValueError(f"tabletop: views_per_scene {views_per_scene} and processes {processes} must be at least 1")
    write = partial(
        _scene_samples,
        views_per_scene=views_per_scene,
        size=size,
        config=config or SceneConfig(),
        families=None if families is None else tuple(families),
        turns_per_family=turns_per_family,
    )
    if processes == 1:
        for seed in seeds:
            yield from write(seed)
        return
    waiting = iter(seeds)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        while window := list(islice(waiting, WINDOW * processes)):
            for samples in pool.imap(write, window):
                yield from samples


def _scene_samples(
    seed: int,
    views_per_scene: int,
    size: tuple[int, int],
    config: SceneConfig,
    families: tuple[str, ...] | None,
    turns_per_family: int | Mapping[str, int],
) -> list[Sample]:
    scene = build_scene(seed, config)
    return list(_view_samples(scene, views_per_scene, size, families, turns_per_family))


def _view_samples(
    scene: TabletopScene,
    views: int,
    size: tuple[int, int],
    families: tuple[str, ...] | None,
    turns_per_family: int | Mapping[str, int],
) -> Iterator[Sample]:
    seed, without = scene.seed, cache(scene.without)
    for view in range(views):
        observation = scene.observe(view, size)
        turns = write_questions(observation, (seed, view), families, turns_per_family, without)
        frame = Frame(observation.image, observation.depth, observation.view)
        meta = {"seed": seed, "view": view, "object_mask": [_object_mask(observation)]}
        sample_id = f"{observation.scene}-{view}"
        yield Sample(sample_id, (frame,), tuple(turns), observation.scene, "tabletop", meta)


@dataclass(frozen=True)
class Tabletop:
    """`scenes` scenes from seed `first_scene`, and of each so many samples of every sort.

    `views` are single pictures, `several_views` one moment from three places, `videos` walks past a still table.
    `interaction` counts videos of acts (push, put, drop) and as many tasks, each of which gives one sample that ends
    anywhere between two steps, and one of two moments in any order. `size` is (height, width) in pixels; `families` of
    `FAMILIES` and `HISTORY_FAMILIES`, all by default. A scene that offers nothing to do, and images that give nothing
    to ask about, come out as a `Rejection`.
    """

    scenes: int = 1000
    first_scene: int = 0
    views: int = 2
    several_views: int = 1
    videos: int = 1
    interaction: int = 1
    size: tuple[int, int] = (96, 96)
    families: tuple[str, ...] | None = None
    turns_per_family: int = 2
    name: str = "tabletop"

    def __post_init__(self) -> None:
        counts = (self.first_scene, self.views, self.several_views, self.videos, self.interaction)
        if self.scenes < 1 or min(counts) < 0 or min(self.size) < 1:
            raise ValueError(
                f"tabletop: scenes {self.scenes} must be at least 1, first_scene and the counts of samples {counts} "
                f"at least 0 and size {self.size} (height, width) positive"
            )
        if unknown := sorted(set(self.families or ()) - FAMILIES.keys() - HISTORY_FAMILIES.keys()):
            known = sorted({*FAMILIES, *HISTORY_FAMILIES})
            raise ValueError(f"tabletop: families {unknown} are unknown; choose from {known}")

    def parts(self) -> Sequence[str]:
        """Ranges of seeds, "0-15", "16-31", ..."""
        end = self.first_scene + self.scenes
        starts = range(self.first_scene, end, SCENES_PER_PART)
        return [f"{start}-{min(start + SCENES_PER_PART, end) - 1}" for start in starts]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        if part not in self.parts():
            raise ValueError(f"tabletop: no part {part!r}; parts are ranges of seeds such as {self.parts()[0]!r}")
        first, last = (int(seed) for seed in part.split("-"))
        for seed in range(first, last + 1):
            for item in self._scene(seed):
                yield item if isinstance(item, Rejection) or item.turns else _no_question(item)

    def _scene(self, seed: int) -> Iterator[Sample | Rejection]:
        if self.views or self.several_views or self.videos:
            scene = build_scene(seed)
            single = tuple(f for f in self.families or FAMILIES if f in FAMILIES)
            for sample in _view_samples(scene, self.views, self.size, single, self.turns_per_family):
                yield replace(sample, frames=_with_origin(sample.frames), provenance=_provenance(seed))
            for index in range(self.several_views):
                yield self._told(
                    seed, f"views-{index}", (seed, _VIEWS, index), look_around(scene, index, size=self.size)
                )
            for index in range(self.videos):
                yield self._told(seed, f"walk-{index}", (seed, _WALK, index), walk_past(scene, index, size=self.size))
        if self.interaction:
            scene = build_scene(seed, SceneConfig(hanging_chance=0.0))
            for index in range(self.interaction):
                yield from self._interaction(scene, seed, index)

    def _interaction(self, scene: TabletopScene, seed: int, index: int) -> Iterator[Sample | Rejection]:
        acts, task = handle(scene, index, size=self.size), follow_plan(scene, index, size=self.size)
        if acts is None:
            yield _nothing_to_do(seed, f"acts-{index}")
        else:
            yield self._told(seed, f"acts-{index}", (seed, _ACTS, index), acts.history, without=_removal(acts))
        if task is None:
            yield _nothing_to_do(seed, f"task-{index}")
            return
        rng = np.random.default_rng((seed, _TASK, index))
        ends = [0, *(event.end for event in task.history.events)]
        last = int(rng.choice(ends))
        key = (seed, _TASK, index)
        yield self._told(seed, f"task-{index}", key, task.history, tuple(range(last + 1)), without=_removal(task))
        pair = tuple(int(i) for i in rng.permutation(ends)[:2])
        yield self._told(seed, f"order-{index}", (seed, _ORDER, index), task.history, pair, ordered=False)

    def _told(
        self,
        seed: int,
        what: str,
        key: tuple[int, ...],
        history: History,
        shown: tuple[int, ...] | None = None,
        **more: Any,
    ) -> Sample:
        """The sample of a history's shown observations; `more` goes to `write_history_questions`."""
        families = None if self.families is None else [f for f in self.families if f in HISTORY_FAMILIES]
        shown = tuple(range(len(history.observations))) if shown is None else shown
        turns = write_history_questions(history, key, families, self.turns_per_family, shown, **more)
        times = history.times_s if more.get("ordered", True) else None
        frames = tuple(
            _frame(history.observations[index], None if times is None else times[index] - times[shown[0]])
            for index in shown
        )
        scene = f"tabletop-{seed}"
        meta = {"seed": seed, "object_mask": [_object_mask(history.observations[index]) for index in shown]}
        return Sample(f"{scene}-{what}", frames, tuple(turns), scene, "tabletop", meta, _provenance(seed))


def _frame(observation: Observation, time_s: float | None) -> Frame:
    return Frame(observation.image, _true(observation.depth), observation.view, time_s=time_s)


def _with_origin(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    return tuple(replace(frame, depth=_true(frame.depth)) for frame in frames)


def _true(depth: DepthMap | None) -> DepthMap | None:
    return depth and replace(depth, origin=DepthOrigin("simulator", licence=LICENCE))


def _provenance(seed: int) -> Provenance:
    return Provenance(version=VERSION, licence=LICENCE, record=f"seed {seed}")


def _removal(episode: Episode) -> Any:
    """What would move if an object were taken away at a moment of the episode."""
    return cache(lambda index, object_id: episode.scenes[index].without(object_id))


def _nothing_to_do(seed: int, what: str) -> Rejection:
    scene = f"tabletop-{seed}"
    detail = f"{scene}: nothing visible could be handled as {what} asks, from any of the views tried"
    return Rejection("import", "nothing_to_do", detail, f"{scene}-{what}", f"seed {seed}")


def _no_question(sample: Sample) -> Rejection:
    detail = f"{sample.id}: none of the families asked for has a question about what its images show"
    return Rejection("questions", "no_question", detail, sample.id, sample.provenance.record)


def _object_mask(observation: Observation) -> dict[str, Any]:
    movable = [state.id for state in observation.objects if state.movable]
    return asdict(Region.from_mask(np.isin(observation.ids, movable)))
