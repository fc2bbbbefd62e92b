"""Samples from the simulated tabletop: image, exact depth, camera, and questions of every family (extra `worlds`)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cache, partial
from itertools import islice

import numpy as np

from gemvlm.curation.questions import write_questions
from gemvlm.sample import Frame, Region, Sample
from gemvlm.worlds.tabletop import SceneConfig, build_scene

WINDOW = 32
"""Scenes per process that may wait for the reader: enough to keep every process busy, little enough for any memory."""


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

    `size` is (height, width) in pixels. A sample holds up to `turns_per_family` turns of each of `families` (all, by
    default; description first). `meta["object_mask"]` holds each frame's object pixels as the fields of a `Region`.
    Processes are spawned, so a script that asks for more than one needs the usual
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
    without = cache(scene.without)
    samples = []
    for view in range(views_per_scene):
        observation = scene.observe(view, size)
        turns = write_questions(observation, (seed, view), families, turns_per_family, without)
        frame = Frame(observation.image, observation.depth, observation.view)
        movable = [state.id for state in observation.objects if state.movable]
        objects = Region.from_mask(np.isin(observation.ids, movable))
        meta = {"seed": seed, "view": view, "object_mask": [asdict(objects)]}
        sample_id = f"{observation.scene}-{view}"
        samples.append(Sample(sample_id, (frame,), tuple(turns), observation.scene, "tabletop", meta))
    return samples
