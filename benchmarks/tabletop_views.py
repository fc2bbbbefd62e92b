"""Tabletop scenes and finished 96×96 views per second of one core (RGB with shadows, depth, ids, visibility).

    python benchmarks/tabletop_views.py

Prints the median and the best over scenes of CPU time, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import time

import numpy as np

from gemvlm.worlds.tabletop import build_scene

SCENES, VIEWS = 40, 4


def main() -> None:
    build_scene(0).observe(0)
    scene_s, view_s = [], []
    for seed in range(1, SCENES + 1):
        start = time.process_time()
        scene = build_scene(seed)
        settled = time.process_time()
        for view in range(VIEWS):
            scene.observe(view)
        scene_s.append(settled - start)
        view_s.append((time.process_time() - settled) / VIEWS)
    for name, seconds in (("scenes", scene_s), ("views", view_s)):
        print(f"{name} per second: median {1 / np.median(seconds):.0f}, best {1 / np.min(seconds):.0f}, mean {1 / np.mean(seconds):.0f}")


if __name__ == "__main__":
    main()
