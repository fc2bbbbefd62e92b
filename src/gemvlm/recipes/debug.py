"""debug: the whole walk in under a minute, for tests.

gemvlm train debug --out out/debug
"""

from __future__ import annotations

from gemvlm.data.conversation import CoordinateFormat
from gemvlm.data.frames import ImageConfig
from gemvlm.depth_map import Encoding
from gemvlm.model.config import GemConfig
from gemvlm.recipes.recipe import Recipe, TabletopData
from gemvlm.recipes.small import LESSONS, small_backbone, small_generator, small_stages

DEBUG = Recipe(
    name="debug",
    model=GemConfig(
        backbone=small_backbone(
            vocabulary=640, width=64, layers=2, vision_width=64, vision_layers=2, deepstack=[0], positions=36
        ),
        generator=small_generator(channels=16, heads=2, layers=2),
        latents={"kind": "patch", "patch": 8, "luma": 12, "chroma": 2},
        encoding=Encoding("log", 0.25, 8.0),
        shift=1.0,
        condition_dropout=0.1,
    ),
    image=ImageConfig(patch_size=8, merge_size=2, temporal_patch_size=2, min_pixels=48 * 48, max_pixels=48 * 48),
    coordinates=CoordinateFormat(scale=1000, step=10),
    target=(48, 48),
    vocabulary=640,
    data=TabletopData(scenes=12, views_per_scene=2, size=(48, 48), turns_per_family=1, families=LESSONS),
    stages=small_stages(pretraining=10, connector=5, generator=10, everything=10, batch_size=4, rate=1e-3),
    seed=0,
    precision="float32",
)
