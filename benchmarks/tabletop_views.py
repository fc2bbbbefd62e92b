"""Tabletop scenes and finished 96×96 views per second of one core (RGB with shadows, depth, ids, visibility).

    python benchmarks/tabletop_views.py

By CPU time, over scenes; run it on an idle machine: shared cores and caches slow it down.
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
        rates = 1 / np.array(seconds)
        print(f"{name} per second: median {np.median(rates):.0f}, worst {rates.min():.0f}, best {rates.max():.0f}")


if __name__ == "__main__":
    main()
