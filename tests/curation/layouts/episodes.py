"""A LeRobot 3.0 folder: five episodes of three tasks with sub-tasks, depth and success."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gemvlm.curation.sources.episodes import Episodes
from gemvlm.data.episodes import ArrayData, CameraInfo, Episode, SubTask, write_lerobot
from gemvlm.depth_map import DepthMap

TASKS = ("put the cup in the drawer", "wipe the table", "stack the blocks")
STEPS = ("reach", "grasp", "lift", "place")
FRONT = "observation.images.front"


def made(number: int, pictures) -> Episode:
    length, noun = 48 + 4 * number, TASKS[number % 3].split()[-1]
    image = pictures.pixels(number)
    images = np.stack([np.roll(image, t, axis=1) for t in range(length)])
    depth = DepthMap.from_values(np.linspace(0.3, 3.0, 48 * 64).reshape(48, 64))
    edges = np.linspace(0, length, 5).astype(int)
    parts = tuple(SubTask(f"{s} the {noun}", int(a), int(b)) for s, a, b in zip(STEPS, edges, edges[1:], strict=False))
    signals = {"state": np.zeros((length, 2), np.float32), "action": np.ones((length, 2), np.float32)}
    return Episode(
        f"e{number}",
        TASKS[number % 3],
        length,
        10.0,
        {FRONT: CameraInfo(48, 64, True)},
        ArrayData(10.0, {FRONT: images}, {FRONT: [depth] * length}, signals),
        parts,
        ("x", "y"),
        ("dx", "dy"),
        success=number != 3,
        licence="apache-2.0",
    )


def write(folder: Path, pictures) -> Episodes:
    write_lerobot(folder / "kitchen", [made(number, pictures) for number in range(5)])
    return Episodes(folder / "kitchen", frames=4)
