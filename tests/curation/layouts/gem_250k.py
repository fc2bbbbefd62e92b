"""`zzzrw/GEM-250K`: one JSONL, pictures in folders, `depth/` beside them by path or by basename, a video."""

from __future__ import annotations

import json
from pathlib import Path

from gemvlm.curation.sources.gem_250k import Gem250K


def talk(*said: str) -> list[dict[str, str]]:
    return [{"from": "gpt" if index % 2 else "human", "value": text} for index, text in enumerate(said)]


def write(folder: Path, pictures) -> Gem250K:
    lines = [
        {"image": "images/desk.png", "conversations": talk("<image>\nWhat is on the desk?", "A red mug (123, 456).")},
        {"image": ["images/a/0001.png"], "conversations": talk("<image>How far?", "1.5 m", "And the wall?", "3 m")},
        {"id": 7, "image": "images/b/0001.png", "conversations": talk("<image>Is it open?", "Yes")},
        {"image": ["images/desk.png", "images/wide.jpg"], "conversations": talk("<image>\n<image>\nSame room?", "No")},
        {
            "video": "videos/pour.mp4",
            "conversations": talk("<video>\nWhat happens?", "Wasser läuft."),
            "num_tokens": 12,
        },
        {"image": "images/wide.jpg", "conversations": talk("<image>Which? (A) left (B) right", "B")},
    ]
    for index, name in enumerate(("desk.png", "a/0001.png", "b/0001.png", "wide.jpg")):
        size = (48, 80) if name == "wide.jpg" else (48, 64)
        pictures.picture(folder / "images" / name, index, size)
        by_path = name.startswith(("a/", "b/"))
        place = f"images/{name}" if by_path else Path(name).with_suffix(".png").name
        pictures.depth(folder / "depth" / place, index, size)
    pictures.video(folder / "videos/pour.mp4", 5)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "GEM-250K.jsonl").write_text(text)
    return Gem250K(folder, require_depth=True)
