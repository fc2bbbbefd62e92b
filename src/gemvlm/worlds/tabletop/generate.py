"""Views of many scenes, in order, over any number of processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from functools import partial

from gemvlm.worlds.observation import Observation
from gemvlm.worlds.tabletop.layout import SceneConfig
from gemvlm.worlds.tabletop.scene import build_scene


def generate_views(
    seeds: Iterable[int],
    views_per_scene: int,
    size: tuple[int, int] = (96, 96),
    config: SceneConfig | None = None,
    processes: int = 1,
) -> Iterator[Observation]:
    """Yields views 0 ... `views_per_scene` - 1 of each seed's scene in turn, the same bytes for any `processes`.

    `size` is (height, width) in pixels. Processes are spawned, so a script that asks for more than one needs the usual
    `if __name__ == "__main__"` guard.
    """
    if views_per_scene < 1 or processes < 1:
        raise ValueError(
            f"generate_views: views_per_scene {views_per_scene} and processes {processes} must be at least 1"
        )
    look = partial(_scene_views, views_per_scene=views_per_scene, size=size, config=config or SceneConfig())
    if processes == 1:
        for seed in seeds:
            yield from look(seed)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for views in pool.imap(look, seeds):
            yield from views


def _scene_views(seed: int, views_per_scene: int, size: tuple[int, int], config: SceneConfig) -> list[Observation]:
    scene = build_scene(seed, config)
    return [scene.observe(index, size) for index in range(views_per_scene)]
