"""Makes the pictures inside the package, `src/gemvlm/inference/pictures`: tabletop scenes of no training, each with the
true depth, camera and pose, and what to ask about it.

python runs/make_examples.py src/gemvlm/inference/pictures
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from gemvlm.curation.questions.visibility import Seen
from gemvlm.worlds.tabletop import build_scene

SEEDS = (2_910_000, 2_910_003, 2_910_007)
"""Of no training; chosen among eight for being clear to look at, not for what a model makes of them."""
SIZE = 192
QUALITY = 85


def make(folder: Path, seeds: tuple[int, ...] = SEEDS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = []
    for number, seed in enumerate(seeds, start=1):
        seen = Seen(observation := build_scene(seed).observe(0, (SIZE, SIZE)))
        name = f"table-{number}"
        Image.fromarray(observation.image).save(folder / f"{name}.jpg", quality=QUALITY, subsampling=0)
        millimetres = np.round(observation.depth.values * 1000).astype(np.uint16)
        Image.fromarray(millimetres).save(folder / f"{name}-depth.png", optimize=True)
        things = [o.full_name for o in seen.referable if o.can_be_pointed_at and seen.fits_one(o.full_name)]
        camera, pose = observation.view.camera, observation.view.camera_to_world
        about.append(
            {
                "name": name,
                "seed": seed,
                "things": things,
                "camera": [camera.fx, camera.fy, camera.cx, camera.cy],
                "camera_to_world": np.round(pose, 6).tolist(),
            }
        )
    (folder / "examples.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]), tuple(map(int, sys.argv[2:])) or SEEDS)
