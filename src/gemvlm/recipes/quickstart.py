"""quickstart: learn from RGB-D scenes, answer, paint depth and report, within ten minutes on two CPU cores.

gemvlm quickstart [--images DIR]
"""

from __future__ import annotations

from gemvlm.data.conversation import CoordinateFormat
from gemvlm.depth_map import Encoding
from gemvlm.model.config import GemConfig
from gemvlm.recipes.recipe import Recipe, TabletopData
from gemvlm.recipes.small import IMAGES_8, LESSONS, small_backbone, small_generator, small_stages

QUICKSTART = Recipe(
    name="quickstart",
    model=GemConfig(
        backbone=small_backbone(
            vocabulary=1280, width=128, layers=4, vision_width=128, vision_layers=4, deepstack=[1, 2], positions=144
        ),
        generator=small_generator(channels=32, heads=4, layers=3),
        latents={"kind": "patch", "patch": 8, "luma": 24, "chroma": 4, "gain": 2.0},
        encoding=Encoding("log", 0.35, 4.5),
        shift=1.0,
        condition_dropout=0.1,
    ),
    image=IMAGES_8,
    coordinates=CoordinateFormat(scale=1000, step=10),
    target=(96, 96),
    vocabulary=1280,
    data=TabletopData(scenes=240, views_per_scene=5, size=(96, 96), turns_per_family=2, families=LESSONS),
    stages=small_stages(
        pretraining=400, connector=20, generator=100, everything=180, batch_size=16, rate=1.5e-3, warmup=30
    ),
    seed=0,
    precision="float32",
)
