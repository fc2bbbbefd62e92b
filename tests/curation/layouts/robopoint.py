"""`wentao-yuan/robopoint-data`: points, LVIS boxes as (x, y, width, height), ordinary text, text without a picture."""

from __future__ import annotations

import json
from pathlib import Path

from gemvlm.curation.sources.robopoint import RoboPoint

POINTS = (
    "<image>\nPinpoint several points left of the red rectangle. Your answer should be formatted as a list of tuples, "
    "i.e. [(x1, y1), (x2, y2), ...]. The coordinates should be between 0 and 1, indicating the normalized pixel "
    "locations of the points in the image."
)


def record(name: str, question: str, answer: str, image: str | None = "region_ref/0.png") -> dict[str, object]:
    talk = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, **({} if image is None else {"image": image}), "conversations": talk}


def write(folder: Path, pictures) -> RoboPoint:
    pictures.picture(folder / "images/region_ref/0.png", 1)
    pictures.picture(folder / "images/coco/1.jpg", 2)
    records = [
        record("region_ref/0_left", POINTS, "[(0.461, 0.527), (0.498, 0.521)]"),
        record("lvis/1", "<image>\nFind all cups.", "[(0.6, 0.5, 0.2, 0.1)]", "coco/1.jpg"),
        record("lvis/2", "<image>\nFind all plates.", "[(0.7, 0.1, 0.2, 0.6), (0.8, 0.5, 0.1, 0.2)]", "coco/1.jpg"),
        record("vqa/3", "<image>\nHow many?", "There are two of them (2, 3).", "coco/1.jpg"),
        record("text/4", "Say hello.", "Hello.", None),
    ]
    (folder / "robopoint_1432k.json").write_text(json.dumps(records))
    return RoboPoint(folder)
