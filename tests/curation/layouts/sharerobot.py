"""`BAAI/ShareRobot`: a planning, an affordance and a trajectory file."""

from __future__ import annotations

import json
from pathlib import Path

from gemvlm.curation.sources.sharerobot import ShareRobot

META = {"original_dataset": "bridge", "original_width": 640, "original_height": 480}


def write(folder: Path, pictures) -> ShareRobot:
    for index in range(10):
        pictures.picture(folder / f"rtx/episode_1570/{index}.png", index)
    pictures.picture(folder / "bridge/2486.png", 3)
    planning = [
        {
            "id": "rtx/episode_1570",
            "task": "Future_Prediction_Task",
            "selected_step": 3,
            "conversations": [
                {"from": "human", "value": "<image 0-9> After <move the banana>, what's the most probable next event?"},
                {"from": "gpt", "value": "<place the banana into the mug>"},
            ],
            "image": ["rtx/episode_1570"],
        }
    ]
    box = {"x": 352.87425387858815, "y": 186.47871614766484, "width": 19.296008229513156, "height": 14.472006172134865}
    affordance = [{"id": "bridge/2486.png", "meta_data": META, "instruction": "place the fork", "affordance": box}]
    points = [[265.45454545454544, 120.0], [275.1515151515152, 162.42424242424244], [280.0, 213.33333333333331]]
    trajectory = [{"id": "bridge/2486.png", "meta_data": META, "instruction": "reach for the carrot", "points": points}]
    for name, records in {"planning": planning, "affordance": affordance, "trajectory": trajectory}.items():
        (folder / f"{name}.json").write_text(json.dumps(records, indent=4))
    return ShareRobot(folder)
