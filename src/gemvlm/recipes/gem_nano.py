"""gem_nano: the shipped model, 10 million parameters, images of 96 x 96 pixels, trained on the CPU of a laptop.

    gemvlm train gem_nano --out out/nano          # resumes where it stopped

Every number is ours: the paper has no model of this size.
"""

from __future__ import annotations

from gemvlm.data.conversation import CoordinateFormat
from gemvlm.depth_map import Encoding
from gemvlm.model.config import GemConfig
from gemvlm.recipes.recipe import Recipe, TabletopData
from gemvlm.recipes.small import IMAGES_8, LESSONS, small_backbone, small_generator, small_stages

GEM_NANO = Recipe(
    name="gem_nano",
    model=GemConfig(
        backbone=small_backbone(
            vocabulary=1280, width=192, layers=6, vision_width=192, vision_layers=6, deepstack=[1, 3], positions=144
        ),
        generator=small_generator(channels=32, heads=5, layers=5),
        latents={"kind": "patch", "patch": 8, "luma": 24, "chroma": 4, "gain": 2.0},
        encoding=Encoding("log", 0.35, 4.5),
        shift=1.0,
        condition_dropout=0.1,
    ),
    image=IMAGES_8,
    coordinates=CoordinateFormat(scale=1000, step=10),
    target=(96, 96),
    vocabulary=1280,
    data=TabletopData(scenes=1984, views_per_scene=8, size=(96, 96), turns_per_family=2, families=LESSONS),
    stages=small_stages(
        pretraining=1600, connector=40, generator=120, everything=4500, batch_size=16, rate=2.0e-3, warmup=60
    ),
    seed=0,
    precision="bfloat16",
)
